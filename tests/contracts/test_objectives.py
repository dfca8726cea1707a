"""Every objective plug-in keeps the room's promises (sslaudio/objectives/base.py)."""

from dataclasses import is_dataclass

import pytest
import torch

from sslaudio import plugins
from sslaudio.augments.base import Draws
from sslaudio.objectives.base import Objective, View, compares
from sslaudio.training.cache import Cached

CLIPS, BINS, WIDTH = 8, 32, 96
FRAMES = torch.tensor([96, 80, 96, 33, 64, 96, 50, 96])


def draws(start: int = 0, clips: int = CLIPS, seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), start, clips, CLIPS)


def views(objective: Objective, clips: slice = slice(None)) -> list[View]:
    """As many views as it wants, each its clip and some noise of its own."""
    shared = torch.randn(CLIPS, BINS, WIDTH, generator=torch.Generator().manual_seed(1))
    seen = []
    for view in range(objective.views):
        own = torch.randn(CLIPS, BINS, WIDTH, generator=torch.Generator().manual_seed(2 + view))
        mel = (0.9 * shared + 0.4 * own).masked_fill(
            torch.arange(WIDTH) >= FRAMES[:, None, None], 0.0
        )
        seen.append(View(mel[clips], FRAMES[clips]))
    return seen


@pytest.fixture(params=plugins.names("objectives"))
def objective(request) -> Objective:
    module, ast = plugins.load("objectives", request.param), plugins.load("backbones", "ast")
    assert is_dataclass(module.Config)
    torch.manual_seed(0)
    return module.build(module.Config(), ast.build(ast.Config(size="micro"), BINS, WIDTH))


def test_it_is_an_objective(objective):
    assert isinstance(objective, Objective)
    assert isinstance(objective, torch.nn.Module)
    assert objective.views >= 1


def test_it_gives_a_finite_loss_and_scalars(objective):
    parts = objective(views(objective), draws())

    assert "loss" in parts
    assert {part.shape for part in parts.values()} == {torch.Size([])}
    assert all(torch.isfinite(part) for part in parts.values())
    assert not any(part.requires_grad for name, part in parts.items() if name != "loss")


def test_gradients_reach_the_backbone_and_stay_finite(objective):
    objective(views(objective), draws())["loss"].backward()

    trained = [weight for weight in objective.parameters() if weight.requires_grad]
    assert all(torch.isfinite(w.grad).all() for w in trained if w.grad is not None)
    own = [weight for weight in objective.backbone.parameters() if weight.requires_grad]
    reached = [weight for weight in own if weight.grad is not None and weight.grad.any()]
    assert len(reached) > 0.9 * len(own)


@pytest.mark.parametrize("size", [2, 4])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(objective, size):
    whole = objective(views(objective), draws())["loss"]
    starts = range(0, CLIPS, size)

    def part(start: int) -> tuple[list[View], Draws]:
        return views(objective, slice(start, start + size)), draws(start, size)

    if compares(objective):  # its clips are compared with each other: the parts are, together
        loss = Cached(objective)([lambda start=start: part(start) for start in starts])["loss"]
    else:
        loss = torch.stack([objective(*part(start))["loss"] for start in starts]).mean()

    assert whole.item() == pytest.approx(loss.item(), rel=1e-4)


def test_the_same_draws_give_the_same_loss(objective):
    one, two = (objective(views(objective), draws())["loss"].item() for _ in range(2))

    assert one == two


def test_a_step_lowers_the_loss_and_the_objective_goes_on(objective):
    trained = [weight for weight in objective.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    losses = []
    for step in range(8):
        loss = objective(views(objective), draws())["loss"]
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        objective.after_step(step, 8)

    assert losses[-1] < losses[0]


def test_pictures_for_the_log_are_pictures(objective):
    shown = objective.pictures(views(objective), draws())

    assert shown
    for name, picture in shown.items():
        assert picture.ndim == 3
        hidden = picture.isnan() if name.endswith("seen") else torch.zeros_like(picture).bool()
        assert torch.isfinite(picture[~hidden]).all()
        assert not picture.requires_grad


def test_silence_breaks_nothing(objective):
    silent = [View(torch.full_like(view.pictures, -2.0), view.frames) for view in views(objective)]

    loss = objective(silent, draws())["loss"]
    loss.backward()

    assert torch.isfinite(loss)
    assert all(torch.isfinite(w.grad).all() for w in objective.parameters() if w.grad is not None)
