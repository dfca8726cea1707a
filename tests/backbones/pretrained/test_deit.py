"""Every tensor of a timm DeiT or ViT against the rule, positions by torch's own interpolation."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from sslaudio import config as configs
from sslaudio.backbones import ast
from sslaudio.backbones.pretrained import timm as ours
from sslaudio.backbones.pretrained.base import Asked, Pretrained


def filled(name: str, **settings) -> dict[str, torch.Tensor]:
    model = timm.create_model(name, pretrained=False, **settings)
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.randn(value.shape, generator=generator)
        for key, value in model.state_dict().items()
    }


DEIT = "deit_tiny_distilled_patch16_224"


@pytest.fixture(scope="module")
def small() -> dict[str, torch.Tensor]:
    return filled(DEIT)


@pytest.fixture(scope="module")
def large() -> dict[str, torch.Tensor]:
    """As the base of 384 pixels, narrower: 24 by 24 positions."""
    return filled(DEIT, img_size=384, depth=2)


def configured(made: Pretrained) -> ast.Config:
    return configs.plugin("backbones", made.backbone, "backbone").config


def stretched(square: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """[side, side, dim] to [rows, columns, dim], as AST's code calls it."""
    image = square.permute(2, 0, 1)[None]
    made = torch.nn.functional.interpolate(image, size=(rows, columns), mode="bilinear")
    return made[0].permute(1, 2, 0)


def test_every_tensor_comes_by_the_rule(small):
    made = ours.convert(small, Asked(), "it").weights

    assert torch.equal(made["patch_embed.proj.weight"][:, 0], sum(
        small["patch_embed.proj.weight"][:, colour] for colour in range(3)
    ))  # fmt: skip
    same = [key for key in small if key.startswith(("blocks.", "norm."))]
    assert len(same) == 12 * 12 + 2
    for key in [*same, "patch_embed.proj.bias"]:
        assert torch.equal(made[key], small[key])
    assert torch.equal(made["prefix"][0, 0], small["cls_token"][0, 0])
    assert torch.equal(made["prefix"][0, 1], small["dist_token"][0, 0])
    assert torch.equal(made["prefix_positions"], small["pos_embed"][:, :2])
    # 14 rows are cut to the 12 in the middle, 14 columns stretched to 101.
    square = small["pos_embed"][0, 2:].reshape(14, 14, 192)
    expected = stretched(square, 14, 101)[1:13]
    assert torch.allclose(made["positions.table"], expected, atol=1e-5)
    assert set(made) == {*same, "patch_embed.proj.weight", "patch_embed.proj.bias", "prefix",
                         "prefix_positions", "positions.table", "mask_token"}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "grid"),
    [
        (Asked(), (12, 101)),
        (Asked(frames=128), (12, 12)),
        (Asked(frames=512), (12, 50)),
        (Asked({"stride": [16, 16]}), (8, 64)),
        (Asked({"stride": None}), (8, 64)),
        (Asked({"stride": [14, 12]}, bins=64), (4, 85)),
    ],
)
def test_positions_of_384_pixels_are_cut_in_the_middle_or_stretched(large, asked, grid):
    made = ours.convert(large, asked, "it")

    table = large["pos_embed"][0, 2:].reshape(24, 24, 192)
    for axis, count in enumerate(grid):
        if count <= 24:  # the published code: int(24 / 2) - int(count / 2)
            table = table.narrow(axis, 12 - count // 2, count)
        else:
            size = (count, table.shape[1]) if axis == 0 else (table.shape[0], count)
            table = stretched(table, *size)
    assert made.weights["positions.table"].shape[:2] == grid
    assert torch.allclose(made.weights["positions.table"], table, atol=1e-5)


def test_resized_positions_shrink_and_stretch_each_axis_over_all(large):
    made = ours.convert(large, Asked({"positions": "resized"}), "it")

    square = large["pos_embed"][0, 2:].reshape(24, 24, 192)
    expected = stretched(square, 12, 101)
    assert torch.allclose(made.weights["positions.table"], expected, atol=1e-5)
    assert made.backbone["positions"] == "resized"


def test_the_settings_are_asts(small):
    made = ours.convert(small, Asked(), "it")

    config = configured(made)
    assert config.shape == (192, 3, 12) and config.size == "tiny"
    assert config.stride == (10, 10) and config.norm_eps == 1e-6
    assert made.features["mean"] == -4.2677393 and made.features["std"] == 2 * 4.5689974
    assert made.features["pad"] == "masked" and made.clip_frames == 1024
    built = ast.build(config, 128, 1024)
    assert {key: value.shape for key, value in built.state_dict().items()} == {
        key: value.shape for key, value in made.weights.items()
    }


def test_what_the_vision_model_computes_of_a_grey_picture_the_audio_model_computes(small):
    """Its own square of 224 bins and frames, no stretching: the same tokens."""
    model = timm.create_model(DEIT, pretrained=False).eval()
    calm = {key: 0.1 * value for key, value in small.items()}
    model.load_state_dict(calm)
    made = ours.convert(calm, Asked({"stride": [16, 16]}, bins=224, frames=224), "it")
    encoder = ast.build(configured(made), 224, 224).eval()
    encoder.load_state_dict(made.weights)
    picture = torch.randn(1, 224, 224, generator=torch.Generator().manual_seed(2))

    with torch.no_grad():
        theirs = model.forward_features(picture[:, None].expand(-1, 3, -1, -1))
        tokens = encoder(picture)

    assert torch.allclose(tokens.prefix, theirs[:, :2], atol=1e-4)
    assert torch.allclose(tokens.patches, theirs[:, 2:], atol=1e-4)


def test_a_plain_vit_has_one_token():
    state = filled("vit_tiny_patch16_224", depth=2)

    made = ours.convert(state, Asked(), "it")

    assert made.backbone["prefix_tokens"] == 1
    assert torch.equal(made.weights["prefix"], state["cls_token"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks.0.ls1.gamma": torch.zeros(1)}, "has 'blocks.0.ls1.gamma'"),
        ({"pos_embed": torch.zeros(1, 150, 192)}, "150 positions for 2 tokens"),
    ],
)
def test_another_model_is_refused(small, change, said):
    with pytest.raises(ValueError, match=said):
        ours.convert({**small, **change}, Asked(), "it")


def test_a_file_a_folder_and_the_published_wrapping_are_read_alike(small, tmp_path):
    state = {key: value for key, value in small.items() if "blocks." not in key}
    torch.save({"model": state}, tmp_path / "deit.pth")
    (tmp_path / "folder").mkdir()
    save_file(state, tmp_path / "folder" / "model.safetensors")

    for source in ("deit.pth", "folder"):
        read = ours.read(str(tmp_path / source)).state
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)


def test_a_name_that_timm_does_not_have_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean deit_base_distilled_patch16_384"):
        ours.read("deit_base_destilled_patch16_384")
