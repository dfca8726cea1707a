"""timm's MViTv2 as MAST: the same function on squares, stem and tables by hand on the rest."""

import pytest
import timm
import torch
from timm.models.mvitv2 import checkpoint_filter_fn

from sslaudio.backbones import mast
from sslaudio.backbones.pretrained import mvit
from sslaudio.backbones.pretrained import timm as sources
from sslaudio.backbones.pretrained.base import Asked, Pretrained
from sslaudio.features.front_end import Config as Features


def peer(name: str = "mvitv2_tiny", **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **settings).eval()
    for key, weight in model.named_parameters():
        if "rel_pos" in key or "bias" in key:
            torch.nn.init.normal_(weight, std=0.2)
    return model


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    return peer()


def built(made: Pretrained, bins: int) -> mast.MAST:
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in made.backbone.items()
        if key != "name"
    }
    backbone = mast.build(mast.Config(**fields), bins, made.clip_frames)
    backbone.load_state_dict(backbone.fitted(made.weights))
    return backbone.eval()


@pytest.mark.parametrize("side", [224, 160])
@torch.inference_mode()
def test_a_grey_square_is_encoded_as_timm_encodes_it(tiny, side):
    theirs = tiny
    if side != 224:  # timm resizes its tables itself where a picture's size is set
        theirs = timm.create_model("mvitv2_tiny", img_size=side).eval()
        theirs.load_state_dict(checkpoint_filter_fn(tiny.state_dict(), theirs))
    made = mvit.convert(tiny.state_dict(), Asked(bins=side, frames=side), "it")
    backbone = built(made, side)
    picture = torch.randn(2, side, side)

    expected = theirs.forward_features(picture[:, None].expand(-1, 3, -1, -1))

    ours = backbone(picture).patches
    assert torch.allclose(ours, expected, atol=1e-4)
    assert torch.allclose(ours.mean(1), theirs.forward_head(expected, True), atol=1e-4)


def test_the_settings_are_of_the_size_found(tiny):
    made = sources.convert(tiny.state_dict(), Asked(), "it")

    assert made.backbone == {
        "name": "mast", "size": "tiny", "expand": "attention", "mlp_ratio": 4.0, "pooling": ["mean"]
    }  # fmt: skip
    assert made.clip_frames == 1024 and made.head is None
    assert Features(**made.features).pad == "masked"
    assert not any(name.startswith("head") for name in made.weights)
    assert torch.equal(made.weights["norm.bias"], tiny.norm.bias)
    assert not made.weights["mask_token"].any()


def test_tables_are_resized_axis_by_axis_as_torch_interpolates(tiny):
    made = mvit.convert(tiny.state_dict(), Asked(frames=512), "it").weights

    theirs = tiny.stages[0].blocks[0].attn
    for axis, size in (("h", 32), ("w", 128)):  # of the stem's grid
        table = getattr(theirs, f"rel_pos_{axis}").detach().T[None]
        expected = torch.nn.functional.interpolate(table, size=2 * size - 1, mode="linear")
        ours = made[f"blocks.0.attn.rel_pos_{axis}.table"]
        assert torch.allclose(ours, expected[0].T, atol=1e-5)


def test_the_released_stem_answers_to_a_stretched_patch_as_timms_to_the_patch(tiny):
    asked = Asked({"stem_patch": [16, 16], "stem_stride": [10, 10]}, frames=512)

    made = mvit.convert(tiny.state_dict(), asked, "it")

    kernel = made.weights["stem.weight"]
    grey = tiny.patch_embed.proj.weight.detach().sum(1, keepdim=True)
    patches = torch.randn(5, 1, 7, 7)
    stretched = torch.nn.functional.interpolate(patches, size=(16, 16), mode="bilinear")
    answers = torch.nn.functional.conv2d(patches, grey)
    assert torch.allclose(torch.nn.functional.conv2d(stretched, kernel), answers, atol=1e-4)
    assert built(made, 128).grid(512, 1) == (12, 50)


@pytest.mark.parametrize("size", [(16, 16), (7, 7), (5, 4), (3, 20)])
def test_a_flat_patch_gets_the_same_answer_from_a_stem_of_any_size(size):
    kernel = torch.randn(8, 1, 7, 7)

    resized = mvit.resized_kernel(kernel, size)

    assert torch.allclose(resized.sum((2, 3)), kernel.sum((2, 3)), atol=1e-4)
    if size == (7, 7):
        assert torch.allclose(resized, kernel, atol=1e-6)


def test_resizing_by_hand():
    kernel = torch.tensor([[1.0, 3.0]])[None, None]

    # Two values stretched over four are a, 0.75a + 0.25b, 0.25a + 0.75b, b; of all kernels that
    # answer to these as a + 3b, the smallest.
    wide = mvit.resized_kernel(kernel, (1, 4)).flatten()
    stretch = torch.tensor([[1, 0.75, 0.25, 0], [0, 0.25, 0.75, 1]])
    assert torch.allclose(stretch @ wide, torch.tensor([1.0, 3.0]), atol=1e-5)
    smallest = stretch.T @ torch.linalg.solve(stretch @ stretch.T, torch.tensor([1.0, 3.0]))
    assert torch.allclose(wide, smallest, atol=1e-5)
    assert mvit.resized_kernel(kernel, (1, 1)).item() == pytest.approx(4)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mvitv2_large", r"first dim of 144, 2 heads, 2/6/36/4 blocks; .* give mvitv2_tiny"),
        ("mvitv2_small_cls", r"1/2/11/2 blocks and a cls token; .* without cls"),
    ],
)
def test_another_model_is_refused(name, said):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()

    with pytest.raises(ValueError, match=said):
        mvit.convert(state, Asked(), "it")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("norm.weight"), r"no timm checkpoint: looked for 'norm.weight'"),
        (
            lambda state: state.pop("stages.1.blocks.0.attn.proj.bias"),
            r"lacks 'blocks.1.attn.proj.bias', which MAST needs",
        ),
        (
            lambda state: state.update(pos_embed=torch.zeros(1)),
            r"has 'pos_embed', which MAST has not",
        ),
    ],
)
def test_weights_that_are_not_whole_are_refused(tiny, change, said):
    state = dict(tiny.state_dict())
    change(state)

    with pytest.raises(ValueError, match=said):
        mvit.convert(state, Asked(), "it")
