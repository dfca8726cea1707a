"""AST's and SSAST's ``.pth``, built by hand in their published layout."""

import pytest
import torch

from sslaudio import config as configs
from sslaudio.backbones import ast
from sslaudio.backbones.pretrained import gong
from sslaudio.backbones.pretrained.base import Asked, Pretrained
from sslaudio.objectives import masked_patch

DIM, DEPTH = 64, 2
AUDIOSET = (-4.2677393, 2 * 4.5689974)


def vit(places: int, patch: tuple[int, int]) -> dict[str, torch.Tensor]:
    """A DataParallel's AST but for what follows the vision transformer; random."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM),
        "dist_token": (1, 1, DIM),
        "pos_embed": (1, 2 + places, DIM),
        "patch_embed.proj.weight": (DIM, 1, *patch),
        "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
        "head.weight": (1000, DIM),
        "head.bias": (1000,),
        "head_dist.weight": (1000, DIM),
        "head_dist.bias": (1000,),
    }
    for block in range(DEPTH):
        for name, size in {
            "norm1": (DIM,), "attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM),
            "norm2": (DIM,), "mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM),
        }.items():  # fmt: skip
            shapes[f"blocks.{block}.{name}.weight"] = size
            shapes[f"blocks.{block}.{name}.bias"] = size[:1]
    generator = torch.Generator().manual_seed(0)
    return {
        f"module.v.{name}": 0.3 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def head(classes: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "0.weight": (DIM,),
        "0.bias": (DIM,),
        "1.weight": (classes, DIM),
        "1.bias": (classes,),
    }
    return {
        f"module.mlp_head.{name}": torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def ssast(places: int, patch: tuple[int, int], frames: int = 1024) -> dict[str, torch.Tensor]:
    made = vit(places, patch)
    generator = torch.Generator().manual_seed(2)
    for layer in ("cpredlayer", "gpredlayer"):
        for name, shape in (("0", (DIM, DIM)), ("2", (256, DIM))):
            made[f"module.{layer}.{name}.weight"] = torch.randn(shape, generator=generator)
            made[f"module.{layer}.{name}.bias"] = torch.randn(shape[:1], generator=generator)
    made["module.mask_embed"] = torch.randn((1, 1, DIM), generator=generator)
    for name, size in (("f", 128), ("t", frames)):
        number = torch.nn.Parameter(torch.tensor(size), requires_grad=False)
        made[f"module.p_input_{name}dim"] = number
    return made


def built(made: Pretrained) -> ast.AST:
    config = configs.plugin("backbones", made.backbone, "backbone").config
    backbone = ast.build(config, made.features["mel_bins"], made.clip_frames)
    backbone.load_state_dict(made.weights)
    return backbone.eval()


@pytest.mark.parametrize(
    ("places", "stride", "frames", "mean"),
    [  # grids by hand: floor((128 - 16) / s) + 1 by floor((T - 16) / s) + 1
        (12 * 101, 10, 1024, -4.2677393),
        (12 * 50, 10, 512, -6.6268077),
        (12 * 12, 10, 128, -6.845978),
        (10 * 85, 12, 1024, -4.2677393),
        (9 * 73, 14, 1024, -4.2677393),
        (8 * 64, 16, 1024, -4.2677393),
    ],
)
def test_stride_length_and_statistics_follow_from_the_positions(places, stride, frames, mean):
    made = gong.ast(vit(places, (16, 16)), Asked(), "it")

    assert made.backbone["stride"] == [stride, stride]
    assert made.features["legacy_frames"] == made.clip_frames == frames
    assert made.features["mean"] == mean and made.features["pad"] == "legacy"
    assert any(f"stride {stride} {stride}, pictures of {frames} frames" in n for n in made.notes)
    built(made)


def test_the_classes_tell_the_statistics_before_the_length_does():
    made = gong.ast(vit(144, (16, 16)) | head(527), Asked(), "it")

    assert (made.features["mean"], made.features["std"]) == AUDIOSET
    assert any("AudioSet's, for 527 classes" in note for note in made.notes)


def test_every_tensor_of_ast_has_its_place_and_the_head_its_own_norm():
    state = vit(144, (16, 16)) | head(35)

    made = gong.ast(state, Asked(), "it")

    for name in made.weights:
        if name.startswith(("blocks.", "norm.", "patch_embed.")):
            assert torch.equal(made.weights[name], state[f"module.v.{name}"])
    positions = state["module.v.pos_embed"]
    assert torch.equal(made.weights["prefix"][:, 1:], state["module.v.dist_token"])
    assert torch.equal(made.weights["prefix_positions"], positions[:, :2])
    assert torch.equal(made.weights["positions.table"], positions[0, 2:].reshape(12, 12, DIM))
    assert made.head is not None and made.head.norm_eps == 1e-5
    assert torch.equal(made.head.weights["norm.weight"], state["module.mlp_head.0.weight"])
    assert torch.equal(made.head.weights["bias"], state["module.mlp_head.1.bias"])
    assert made.backbone["norm_eps"] == 1e-6 and made.backbone["pooling"] == ["cls"]
    assert "ImageNet's unused heads are left out" in made.notes


def test_names_without_the_prefix_of_a_parallel_model_serve_too():
    state = vit(144, (16, 16))
    bare = {name.removeprefix("module."): value for name, value in state.items()}

    one, other = (gong.ast(each, Asked(), "it").weights for each in (state, bare))

    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_size_that_was_never_published_is_told_by_flags():
    state = vit(12 * 5, (16, 16))

    with pytest.raises(ValueError, match=r"60 positions.*--backbone.stride .*legacy_frames N"):
        gong.ast(state, Asked(), "it")
    made = gong.ast(state, Asked({"stride": [10, 10]}, {"legacy_frames": 60}), "it")

    assert made.clip_frames == 60 and built(made).positions.grid == (12, 5)


@pytest.mark.parametrize(("patch", "grid"), [((16, 16), (8, 64)), ((128, 2), (1, 512))])
def test_ssast_comes_with_mask_token_and_heads(patch, grid):
    state = ssast(512, patch)

    made = gong.ssast(state, Asked(), "it")
    backbone = built(made)

    assert backbone.positions.grid == grid and backbone.stride == patch
    assert torch.equal(made.weights["mask_token"], state["module.mask_embed"])
    assert (made.features["mean"], made.features["std"]) == AUDIOSET
    assert made.backbone["pooling"] == ["mean"]
    settings = {key: value for key, value in made.objective.items() if key != "name"}
    objective = masked_patch.build(masked_patch.Config(**settings), backbone)
    missing, unknown = objective.load_state_dict(made.objective_weights, strict=False)
    assert not unknown and all(name.startswith("backbone.") for name in missing)
    tokens = torch.randn(3, DIM, generator=torch.Generator().manual_seed(4))
    for ours, theirs in ((objective.tell, "cpredlayer"), (objective.rebuild, "gpredlayer")):
        first, second = (
            (state[f"module.{theirs}.{n}.weight"], state[f"module.{theirs}.{n}.bias"]) for n in "02"
        )
        hidden = torch.relu(torch.nn.functional.linear(tokens, *first))
        assert torch.allclose(ours(tokens), torch.nn.functional.linear(hidden, *second), atol=1e-4)


def test_a_fine_tuned_ssast_by_frames_is_pooled_by_mean():
    made = gong.ast(vit(1023, (128, 2)) | head(50), Asked(), "it")

    assert made.backbone["stride"] == [128, 1] and made.clip_frames == 1024
    assert made.backbone["pooling"] == ["mean"] and built(made).positions.grid == (1, 1023)


@pytest.mark.parametrize(
    ("read", "state", "said"),
    [
        (gong.ast, ssast(512, (16, 16)), "import it with --from ssast"),
        (gong.ssast, vit(144, (16, 16)) | head(35), "import it with --from ast"),
        (gong.ast, {"blocks.0.norm1.weight": torch.zeros(1)}, "looked for 'v.cls_token'"),
        (
            gong.ast,
            {"cls_token": torch.zeros(1), "patch_embed.proj.weight": torch.zeros(1)},
            "it looks like --from timm",
        ),
    ],
)
def test_a_wrong_source_is_told_by_its_names(read, state, said):
    with pytest.raises(ValueError, match=said):
        read(state, Asked(), "it")


def test_a_width_of_no_published_size_wants_its_heads():
    state = {name: value[..., :24] for name, value in vit(144, (16, 16)).items()}
    state["module.v.patch_embed.proj.weight"] = torch.zeros(24, 1, 16, 16)

    with pytest.raises(ValueError, match=r"24 wide.*--backbone.heads"):
        gong.ast(state, Asked(), "it")
