"""MAST against timm's MViTv2 on squares, and against the slow one (conftest.py) on all else."""

import re

import pytest
import timm
import torch
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg

from sslaudio.backbones import attention, mast
from sslaudio.backbones.base import Grid

STEMS = {"7/4": ((7, 7), (4, 4)), "16/10": ((16, 16), (10, 10)), "16/16": ((16, 16), (16, 16))}


def model(bins: int = 128, frames: int = 96, stem: str = "7/4", **settings) -> mast.MAST:
    torch.manual_seed(0)
    patch, stride = STEMS[stem]
    config = mast.Config(stem_patch=patch, stem_stride=stride, **settings)
    backbone = mast.build(config, bins, frames).eval()
    for name, weight in backbone.named_parameters():  # a fresh start is too tame for mistakes
        norm = "norm" in name and name.endswith("weight")
        torch.nn.init.normal_(weight, mean=float(norm), std=0.1)
    return backbone


def pictures(bins: int, *lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    mel = torch.randn(len(lengths), bins, max(lengths), generator=torch.Generator().manual_seed(1))
    frames = torch.tensor(lengths)
    return mel.masked_fill(torch.arange(max(lengths)) >= frames[:, None, None], 0.0), frames


def from_timm(peer: MultiScaleVit) -> dict[str, torch.Tensor]:
    """timm's weights by our names."""
    firsts = [sum(peer.depths[:stage]) for stage in range(4)]
    weights = {}
    for theirs, value in peer.state_dict().items():
        ours = theirs.replace("patch_embed.proj", "stem")
        ours = re.sub(
            r"stages\.(\d)\.blocks\.(\d+)",
            lambda found: f"blocks.{firsts[int(found[1])] + int(found[2])}",
            ours,
        )
        ours = re.sub(r"(rel_pos_.)$", r"\1.table", ours)
        weights[ours] = value.sum(1, keepdim=True) if ours == "stem.weight" else value
    return {name: value for name, value in weights.items() if not name.startswith("head.")}


def worst_difference(peer: MultiScaleVit, ours: mast.MAST, side: int) -> float:
    """Of any stage's output, and of the last norm's."""
    torch.manual_seed(1)
    for name, weight in peer.named_parameters():
        if "rel_pos" in name or "bias" in name:
            torch.nn.init.normal_(weight, std=0.2)
    left = ours.load_state_dict(from_timm(peer.eval()), strict=False)
    assert left.missing_keys == ["mask_token"] and not left.unexpected_keys
    outputs = []
    for block in ours.blocks:
        block.register_forward_hook(lambda _, __, output: outputs.append(output))
    picture = torch.randn(1, side, side)

    with torch.inference_mode():
        tokens = ours.eval()(picture)
        last, stages = peer.forward_intermediates(picture[:, None].expand(-1, 3, -1, -1))

    ends = [outputs[sum(peer.depths[: stage + 1]) - 1] for stage in range(4)]
    differences = [
        (mine.permute(0, 3, 1, 2) - theirs).abs().max().item()
        for mine, theirs in zip(ends, stages, strict=True)
    ]
    return max(*differences, (tokens.patches - last).abs().max().item())


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_every_stage_is_timms(size):
    peer = timm.create_model(f"mvitv2_{size}")
    ours = mast.build(mast.Config(size=size), 224, 224)

    assert worst_difference(peer, ours, 224) < 1e-4


@pytest.mark.parametrize("expand", ["attention", "mlp"])
def test_dim_grows_where_timm_has_it(expand):
    depths = mast.SIZES["micro"].depths
    settings = MultiScaleVitCfg(depths=depths, embed_dim=32, expand_attn=expand == "attention")
    peer = MultiScaleVit(settings, img_size=96)
    ours = mast.build(mast.Config(expand=expand), 96, 96)

    assert worst_difference(peer, ours, 96) < 1e-4


@pytest.mark.parametrize(
    ("bins", "frames", "lengths", "settings"),
    [
        (52, 96, (90, 33, 8), {}),  # odd grids, shorter than the tables
        (52, 30, (130, 61), {}),  # longer than the tables, so that these are stretched
        (64, 40, (75, 40), {"expand": "mlp", "stem": "16/10"}),
        (90, 40, (171,), {"expand": "mlp"}),
        (90, 200, (171, 29), {"stem": "16/10"}),
        (128, 30, (171, 29, 1), {"stem": "16/10"}),
        (64, 100, (300, 129), {"stem": "16/16", "key_stride": 1}),
        (64, 100, (100, 40), {"key_stride": 8}),
        (64, 20, (100, 40), {"key_stride": 2, "stem_padding": (2, 0)}),
    ],
)
@torch.inference_mode()
def test_any_grid_and_length_is_the_slow_ones(slow_mast, bins, frames, lengths, settings):
    backbone = model(bins, frames, **settings)
    mel, count = pictures(bins, *lengths)

    for depth in (1, None):
        laid, _ = backbone(mel, count, depth=depth).laid()

        for clip, length in enumerate(lengths):
            alone, _ = slow_mast(backbone, mel[clip, :, :length], depth=depth)
            assert torch.allclose(laid[clip, :, : alone.shape[1]], alone, atol=1e-4)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("at_once", [1, 3_000, 1 << 20])
def test_gradients_are_the_slow_ones(slow_mast, kept_units, monkeypatch, at_once, dropped):
    # Bytes of attention weights in a piece: of one head, of some clips, of all and kept.
    monkeypatch.setattr(attention, "AT_ONCE", at_once)
    monkeypatch.setattr(attention, "KEPT", at_once)
    backbone = model(52, 30)
    lengths, rows, columns = (70, 41), [[0], [1]], [[0, 2], [0, 1]]
    mel, frames = pictures(52, *lengths)
    kept = kept_units(backbone.grid(70), rows, columns) if dropped else None
    names, weights = zip(*backbone.named_parameters(), strict=True)

    laid, seen = backbone(mel, frames, kept=kept).laid()
    ours = torch.autograd.grad(laid[seen].sin().sum(), weights, allow_unused=True)

    wholes = [
        slow_mast(backbone, mel[clip, :, :length], *(rows[clip], columns[clip]) if dropped else ())
        for clip, length in enumerate(lengths)
    ]
    total = torch.stack([whole[~gone].sin().sum() for whole, gone in wholes]).sum()
    theirs = torch.autograd.grad(total, weights, allow_unused=True)
    for name, mine, slow in zip(names, ours, theirs, strict=True):
        if name != "mask_token":
            assert torch.allclose(mine, slow, atol=1e-4, rtol=1e-3), name


@pytest.mark.parametrize(
    ("stem", "bins", "frames", "depth", "grid"),
    [  # by hand: stem floor((n + 2p - k) / s) + 1, then ceil halves
        ("7/4", 128, 512, 1, (32, 128)),
        ("7/4", 128, 998, None, (4, 32)),  # 32 x 250, 16 x 125, 8 x 63, 4 x 32
        (
            "16/10",
            128,
            512,
            2,
            (6, 25),
        ),  # the released code's trace: 12 x 50, 6 x 25, 3 x 13, 2 x 7
        ("16/10", 128, 512, None, (2, 7)),
        ("16/10", 128, 1024, None, (2, 13)),
        ("16/16", 128, 96, None, (1, 1)),
        ("7/4", 64, 1, None, (2, 1)),
        ("16/10", 64, 1, None, (1, 1)),
    ],
)
def test_grids_are_mvits(stem, bins, frames, depth, grid):
    backbone = model(bins, 96, stem)

    assert backbone.grid(frames, depth) == Grid(*grid)
    assert backbone(torch.zeros(1, bins, frames), depth=depth).grid == Grid(*grid)


@pytest.mark.parametrize("seconds", [0.1, 0.5, 30.0])
@torch.inference_mode()
def test_one_model_serves_a_tenth_of_a_second_to_half_a_minute(seconds):
    frames = max(1, round((seconds - 0.025) / 0.01) + 1)
    backbone = model(64, 96, "16/10" if seconds > 1 else "7/4")

    tokens = backbone(torch.randn(1, 64, frames))

    assert tokens.sound.all() and torch.isfinite(tokens.patches).all()
    assert tokens.grid == backbone.grid(frames)


def test_every_weight_learns_while_patches_are_hidden_and_dropped(kept_units):
    backbone = model().train()
    mel, frames = pictures(128, 98, 70)
    grid = backbone.grid(98)
    hidden = torch.zeros(2, *grid, dtype=torch.bool)
    hidden[:, 1, 2] = True
    kept = kept_units(grid, [[0, 1, 3], [1, 2, 3]], [[0, 2, 3], [0, 2]])

    backbone(mel, frames, hidden.flatten(1), kept).patches.square().sum().backward()

    for name, weight in backbone.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        # A constant added to all keys changes no softmax.
        assert weight.grad.abs().max() > 0 or name.endswith("norm_k.bias"), name


def test_blocks_that_are_computed_again_give_the_same_gradients(kept_units):
    mel, frames = pictures(128, 98, 70)
    gradients = []
    for again in (False, True):
        backbone = model(gradient_checkpointing=again).train()
        kept = kept_units(backbone.grid(98), [[0, 2], [1, 2]], [[0, 1, 3], [0, 2]])
        backbone(mel, frames, kept=kept).patches.sin().sum().backward()
        gradients.append([w.grad for w in backbone.parameters() if w.grad is not None])

    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(*gradients, strict=True))


def test_drop_path_leaves_clips_out_in_training_only():
    backbone = model(drop_path=0.9)
    mel, frames = pictures(128, 96, 96)

    assert torch.equal(backbone(mel, frames).patches, backbone(mel, frames).patches)
    backbone.train()
    assert not torch.equal(backbone(mel, frames).patches, backbone(mel, frames).patches)


@pytest.mark.parametrize(("there", "here", "length"), [(96, 400, 400), (400, 96, 90)])
def test_weights_fitted_to_another_grid_do_there_what_they_did(there, here, length):
    before, after = model(64, there), model(64, here)
    mel, frames = pictures(64, length)

    after.load_state_dict(after.fitted(before.state_dict()))

    assert torch.allclose(before(mel, frames).patches, after(mel, frames).patches, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"drop_path": 1.0}, r"drop_path is 1; it is at least 0, under 1"),
        ({"pooling": ("cls",)}, r"pooling has the part cls, which MAST has not; pool by mean"),
        ({"pooling": ("median",)}, r"no part 'median'; there is cls, mean"),
        ({"stem_patch": (0, 7)}, r"stem_patch is \(0, 7\); both are at least 1"),
        ({"stem_stride": (4, -1)}, r"stem_stride is \(4, -1\); both are at least 1"),
        ({"stem_padding": (7, 0)}, r"stem_padding is \(7, 0\); .* less than .*stem_patch \(7, 7\)"),
        ({"stem_stride": (4, 8)}, r"lies between two patches .* set the stride to at most"),
        ({"stem_patch": (40, 7)}, r"stem_patch is \(40, 7\) .* more than 8 strides .* lower"),
        ({"key_stride": 3}, r"key_stride is 3; it is 1, 2, 4 or 8"),
        ({"pooled_block": 6}, r"pooled_block is 6; 1 to 5 are there"),
        ({"pooled_block": 0}, r"pooled_block is 0; 1 to 5 are there"),
    ],
)
def test_settings_that_do_not_fit_say_what_to_change(settings, said):
    with pytest.raises(ValueError, match=said):
        mast.Config(**settings)


def test_a_patch_higher_than_the_picture_says_what_to_change():
    with pytest.raises(ValueError, match=r"set backbone.stem_patch to at most 8 bins"):
        model(8, 96, "16/10")


def test_the_tail_that_a_last_column_sees_is_hidden_with_it():
    torch.manual_seed(0)
    model = mast.build(mast.Config(stem_patch=(16, 16), stem_stride=(10, 10)), 128, 90).eval()
    mel = torch.randn(2, 128, 500, generator=torch.Generator().manual_seed(1))
    frames = torch.tensor([90, 500])  # nine stem columns, which see frames 80 to 89 too
    mel[0, :, 90:] = 0
    hidden = torch.zeros(2, *model.grid(500), dtype=torch.bool)
    own = model.grid(90)
    hidden[0, :, : own.columns] = True
    changed = mel.clone()
    changed[0, :, 80:90] += 3

    together = model(mel, frames, hidden.flatten(1))
    alone = model(mel[:1, :, :90], frames[:1], hidden[:1, :, : own.columns].flatten(1))
    moved = model(changed, frames, hidden.flatten(1))

    assert torch.equal(together.patches[0], moved.patches[0])
    ours = together.patches[0].unflatten(0, tuple(together.grid))[:, : own.columns]
    assert torch.allclose(ours.flatten(0, 1), alone.patches[0], atol=1e-4)
