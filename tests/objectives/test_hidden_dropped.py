"""Hidden patches that leave the backbone, and the decoder that fills them in."""

import pytest
import torch

from sslaudio.augments.base import Draws
from sslaudio.backbones import ast, mast
from sslaudio.backbones.drop import staying
from sslaudio.objectives import masked_patch
from sslaudio.objectives.base import View
from sslaudio.objectives.masks import SHAPES

LENGTHS = (160, 100, 40)
FINE = mast.Config(last_stride=1)
ALL = [
    *((ast, ast.Config(), shape) for shape in SHAPES),
    (ast, ast.Config(patch=(128, 2)), "uniform"),
    (mast, FINE, "columns"),
    (mast, FINE, "rows"),
]


def draws(clips: int, seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), 0, clips, clips)


def view(*lengths: int) -> View:
    mel = torch.randn(len(lengths), 128, max(lengths), generator=torch.Generator().manual_seed(1))
    for row, length in enumerate(lengths):
        mel[row, :, length:] = 0
    return View(mel, torch.tensor(lengths))


def objective(module, config, **settings) -> masked_patch.MaskedPatch:
    torch.manual_seed(0)
    backbone = module.build(config, 128, 160)
    return masked_patch.build(masked_patch.Config(hide="drop", **settings), backbone).eval()


@pytest.mark.parametrize(("module", "config", "shape"), ALL)
def test_the_backbone_works_on_the_rest_alone(monkeypatch, module, config, shape):
    model = objective(module, config, mask_shape=shape, mask_share=0.75)
    given = {}
    forward = model.backbone.forward
    monkeypatch.setattr(
        model.backbone, "forward", lambda *a, **k: (given.update(k), forward(*a, **k))[1]
    )
    seen = view(*LENGTHS)
    question = model.ask(seen, draws(3))

    parts = model([seen], draws(3))

    kept = given["kept"]
    stays = torch.zeros_like(question.hidden).scatter(1, kept.index, kept.sound)
    assert "hidden" not in given
    assert torch.equal(stays, model.cells.area(seen).free & ~question.hidden)
    assert kept.index.shape[1] == (~question.hidden & question.stays).sum(1).max()
    assert parts["hidden_share"] == pytest.approx(0.75, abs=0.1)
    assert kept.share == pytest.approx(parts["hidden_share"].item(), abs=1e-6)


@pytest.mark.parametrize(("module", "config", "shape"), ALL)
def test_what_was_hidden_reaches_the_answers_of_no_patch(module, config, shape):
    model = objective(module, config, mask_shape=shape, mask_share=0.6)
    seen = view(*LENGTHS)
    question = model.ask(seen, draws(3))
    high, wide = model.backbone.patch
    covered = question.hidden.unflatten(1, tuple(question.grid))
    covered = covered.repeat_interleave(high, 1).repeat_interleave(wide, 2)[:, :, :160]
    changed = View(torch.where(covered, 5.0, seen.pictures), seen.frames)

    before, after = (model._encode(one, question).on_grid for one in (seen, changed))

    asked = model.cells.area(seen).free
    assert torch.allclose(before[asked], after[asked], atol=1e-5)


@pytest.mark.parametrize(("module", "config", "shape"), ALL)
def test_a_clip_is_filled_in_alone_as_in_any_batch(module, config, shape):
    model = objective(module, config, mask_shape=shape, mask_share=0.5)
    seen = view(*LENGTHS)

    question = model.ask(seen, draws(3))
    together = model._encode(seen, question).on_grid.unflatten(1, tuple(question.grid))

    for row, length in enumerate(LENGTHS):
        alone = View(seen.pictures[row : row + 1, :, :length], seen.frames[row : row + 1])
        own = model.backbone.grid(length)
        hidden = question.hidden.unflatten(1, tuple(question.grid))[row : row + 1, :, : own.columns]
        stays = ~hidden.flatten(1)
        kept = staying(stays, own, model.drop_shape, stays.sum(1))
        tokens = model.backbone(alone.pictures, alone.frames, kept=kept)
        filled = model.decoder(tokens, hidden.flatten(1), alone.frames)
        ours = together[row, :, : own.columns].flatten(0, 1)
        assert torch.allclose(ours, filled[0], atol=1e-4)


def test_every_weight_gets_a_gradient_as_ddp_wants_it():
    for module, config, shape in ALL:
        model = objective(module, config, mask_shape=shape)

        model([view(*LENGTHS)], draws(3))["loss"].backward()

        for name, weight in model.named_parameters():
            assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        assert not model.backbone.mask_token.grad.any()


def test_clips_of_which_nothing_would_be_left_keep_all_and_are_asked_nothing():
    model = objective(mast, FINE, mask_shape="columns")
    frames = objective(ast, ast.Config(patch=(128, 16), prefix_tokens=0))

    for one in (model, frames):
        question = one.ask(view(160, 5), draws(2))
        parts = one([view(160, 5)], draws(2))

        assert question.hidden[0].any() and not question.hidden[1].any()
        assert not question.asked[1].any()
        assert torch.isfinite(parts["loss"])


@pytest.mark.parametrize(("module", "shape"), [(ast, "uniform"), (mast, "columns")])
def test_both_ways_of_dropping_go_together(module, shape):
    config = FINE if module is mast else ast.Config()
    model = objective(module, config, mask_shape=shape, mask_share=0.5, drop_share=0.4)
    seen = view(*LENGTHS)

    parts, question = model([seen], draws(3)), model.ask(seen, draws(3))

    assert parts["dropped_share"] == pytest.approx(0.4, abs=0.1)
    assert parts["hidden_share"] == pytest.approx(0.5, abs=0.15)
    own = model.cells.area(seen).free
    left = (question.stays & ~question.hidden).sum() / own.sum()
    assert question.kept.share.item() == pytest.approx(1 - left.item(), abs=1e-6)
    parts["loss"].backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


@pytest.mark.parametrize(
    ("config", "settings", "cure"),
    [
        (FINE, {}, "set mask_shape to columns or rows, or hide to replace"),
        (FINE, {"mask_shape": "clusters"}, "cannot drop patches one by one"),
        (mast.Config(), {"mask_shape": "columns", "patch": (16, 16)}, "leave objective.patch out"),
    ],
)
def test_what_mast_cannot_drop_is_refused(config, settings, cure):
    with pytest.raises(ValueError, match=cure):
        objective(mast, config, **settings)


def test_the_decoder_is_as_small_as_asked_for():
    usual = objective(ast, ast.Config(size="tiny")).decoder
    chosen = objective(ast, ast.Config(), decoder_dim=96, decoder_depth=2)

    assert (usual.dim, len(usual.blocks)) == (96, 1)  # half of 192
    assert (chosen.decoder.dim, len(chosen.decoder.blocks)) == (96, 2)
    assert chosen.tell.fc1.in_features == 96


def test_it_learns_to_find_patches_that_follow_from_their_place():
    model = objective(ast, ast.Config()).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    texture = torch.randn(1, 128, 96, generator=torch.Generator().manual_seed(3))
    for step in range(40):
        noise = 0.5 * torch.randn(8, 128, 96, generator=torch.Generator().manual_seed(step))
        parts = model([View(texture + noise, torch.full((8,), 96))], draws(8, step))
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()

    assert parts["chance"] == pytest.approx(1 / 30)
    assert parts["accuracy"] > 0.3
