"""Every augment plug-in keeps the room's promises (sslaudio/augments/base.py)."""

from dataclasses import is_dataclass

import pytest
import torch

from sslaudio import plugins
from sslaudio.augments.base import Augment, Draws

CLIPS, BINS, WIDTH = 8, 32, 60
FRAMES = torch.tensor([60, 47, 60, 12, 33, 5, 1, 60])


def draws(start: int = 0, clips: int = CLIPS, seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), start, clips, CLIPS)


def random_pictures(width: int = WIDTH) -> torch.Tensor:
    """Standardised noise, 0 behind each clip's end."""
    mel = torch.randn(CLIPS, BINS, WIDTH, generator=torch.Generator().manual_seed(1))
    mel = torch.nn.functional.pad(mel, (0, width - WIDTH))
    return mel.masked_fill(torch.arange(width) >= FRAMES[:, None, None], 0.0)


@pytest.fixture(params=plugins.names("augments"))
def augment(request) -> Augment:
    module = plugins.load("augments", request.param)
    assert is_dataclass(module.Config)
    return module.build(module.Config())


def test_shape_and_type_are_kept_and_the_input_left_alone(augment):
    given = random_pictures()

    changed = augment(given, FRAMES, draws())

    assert isinstance(augment, Augment)
    assert (changed.shape, changed.dtype, changed.device) == (
        given.shape,
        given.dtype,
        given.device,
    )
    assert torch.isfinite(changed).all()
    assert torch.equal(given, random_pictures())


def test_padded_columns_stay_zero(augment):
    for seed in range(20):
        changed = augment(random_pictures(), FRAMES, draws(seed=seed))

        for picture, frames in zip(changed, FRAMES.tolist(), strict=True):
            assert not picture[:, frames:].any()


def test_the_same_draws_give_the_same_pictures_and_others_others(augment):
    one, two, other = (augment(random_pictures(), FRAMES, draws(seed=seed)) for seed in (0, 0, 1))

    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_the_pictures_really_change(augment):
    given = random_pictures()
    changed = [augment(given, FRAMES, draws(seed=seed)) for seed in range(10)]

    moved = torch.stack(changed).sub(given).abs().amax(dim=(2, 3)) > 1e-3
    # Of the clips that have a column or two to work on, nearly every one.
    assert moved[:, FRAMES > 10].float().mean() > 0.8


@pytest.mark.parametrize("size", [2, 4])
def test_pictures_do_not_depend_on_how_the_batch_is_cut(augment, size):
    given = random_pictures()
    whole_draws = draws()
    whole = augment(given, FRAMES, whole_draws)

    for start in range(0, CLIPS, size):
        rows = slice(start, start + size)
        part_draws = draws(start, size)
        part = augment(given[rows], FRAMES[rows], part_draws)

        assert torch.allclose(part, whole[rows], atol=1e-6)
        # What comes next draws from the same place, too.
        assert torch.equal(part_draws.generator.get_state(), whole_draws.generator.get_state())


def test_pictures_do_not_depend_on_the_width_of_the_batch(augment):
    narrow = augment(random_pictures(), FRAMES, draws())

    wide = augment(random_pictures(WIDTH + 13), FRAMES, draws())

    assert torch.allclose(wide[:, :, :WIDTH], narrow, atol=1e-6)
    assert not wide[:, :, WIDTH:].any()


def test_a_clip_alone_comes_through(augment):
    alone = Draws(torch.Generator().manual_seed(0), 0, 1, 1)

    assert torch.isfinite(augment(random_pictures()[:1], FRAMES[:1], alone)).all()
