"""Resized crops against a canvas and torch's own interpolation, a clip at a time."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from sslaudio.augments import resize_crop
from sslaudio.augments.resize_crop import Config, Span, cropped, span

FRAMES = torch.tensor([60, 47, 60, 12, 33, 5, 2, 1])


def clip_by_clip(mel, frames, top, left, height, width, canvas=(1.0, 1.5)):
    """Cut from a canvas of zeros, resized; tops and lefts count in the canvas."""
    out = torch.zeros_like(mel)
    for clip, own in enumerate(frames.tolist()):
        bins = mel.shape[1]
        blank = torch.zeros(int(canvas[0] * bins), int(canvas[1] * own))
        row, column = (blank.shape[0] - bins) // 2, (blank.shape[1] - own) // 2
        blank[row : row + bins, column : column + own] = mel[clip, :, :own]
        t, f, h, w = (int(side[clip]) for side in (top, left, height, width))
        box = blank[t : t + h, f : f + w]
        assert box.shape == (h, w)
        out[clip, :, :own] = functional.interpolate(
            box[None, None], (bins, own), mode="bicubic", align_corners=True
        )[0, 0]
    return out


@pytest.mark.parametrize("canvas", [(1.0, 1.5), (1.3, 2.0), (1.0, 1.0)])
def test_a_batch_is_what_a_loop_over_canvases_gives(draws, canvas):
    config = Config(canvas=canvas)
    for seed in range(10):
        mel = torch.randn(8, 32, 60, generator=torch.Generator().manual_seed(seed))
        mel = mel.masked_fill(torch.arange(60) >= FRAMES[:, None, None], 0.0)
        numbers = draws(8, seed=seed).uniform(4)
        bins = torch.full((8,), 32)
        rows = span(bins, config.bins_range, canvas[0], numbers[:, 0], numbers[:, 2])
        columns = span(FRAMES, config.frames_range, canvas[1], numbers[:, 1], numbers[:, 3])

        changed = resize_crop.build(config)(mel, FRAMES, draws(8, seed=seed))

        top = rows.first + ((bins * canvas[0]).long() - bins) // 2
        left = columns.first + ((FRAMES * canvas[1]).long() - FRAMES) // 2
        expected = clip_by_clip(mel, FRAMES, top, left, rows.size, columns.size, canvas)
        torch.testing.assert_close(changed, expected, atol=1e-4, rtol=0)


def test_the_whole_clip_as_its_box_comes_back_as_it_is(pictures):
    mel, frames = pictures(3), torch.tensor([40, 20, 1])
    mel = mel.masked_fill(torch.arange(40) >= frames[:, None, None], 0.0)

    same = cropped(
        mel, frames, Span(frames * 0, torch.full((3,), 16)), Span(frames * 0, frames.clone())
    )

    torch.testing.assert_close(same, mel)


def test_a_box_of_a_third_shows_that_third_corner_to_corner():
    mel = (100.0 * torch.arange(7)[:, None] + torch.arange(7)).expand(1, 7, 7)

    # Rows 2 to 4 and columns 3 to 5, three of seven, brought to seven: steps of a third.
    shown = cropped(
        mel,
        torch.tensor([7]),
        Span(torch.tensor([2]), torch.tensor([3])),
        Span(torch.tensor([3]), torch.tensor([3])),
    )[0]

    assert shown[0, 0].item() == pytest.approx(203)
    assert shown[6, 6].item() == pytest.approx(405)
    assert shown[3, 3].item() == pytest.approx(304)


def test_what_lies_in_the_margin_is_the_mean():
    mel = torch.ones(1, 16, 40)

    # 20 frames of margin, then 20 of the clip.
    shown = cropped(
        mel,
        torch.tensor([40]),
        Span(torch.tensor([0]), torch.tensor([16])),
        Span(torch.tensor([-20]), torch.tensor([40])),
    )

    assert not shown[:, :, :20].any()
    assert torch.allclose(shown[:, :, 20:], torch.ones(1, 16, 20))


def loop_boxes(bins: int, frames: int, count: int) -> np.ndarray:
    """Top, first frame, height and width as the paper's code draws them."""
    random = np.random.default_rng(1)
    length = int(1.5 * frames)
    boxes = []
    for _ in range(count):
        height = int(np.clip(int(random.uniform(0.6, 1.5) * bins), 1, bins))
        width = int(np.clip(int(random.uniform(0.6, 1.5) * frames), 1, length))
        top, left = (
            random.integers(0, room + 1) if room else 0 for room in (bins - height, length - width)
        )
        boxes.append((top, left, height, width))
    return np.array(boxes).T


def test_boxes_are_drawn_as_the_papers_loop_draws_them():
    count, bins, frames = 20_000, 64, 98
    numbers = torch.rand(count, 4, generator=torch.Generator().manual_seed(0))
    rows = span(torch.full((count,), bins), (0.6, 1.5), 1.0, numbers[:, 0], numbers[:, 2])
    columns = span(torch.full((count,), frames), (0.6, 1.5), 1.5, numbers[:, 1], numbers[:, 3])

    ours = (rows.first, columns.first + 24, rows.size, columns.size)

    for mine, its in zip(ours, loop_boxes(bins, frames, count), strict=True):
        places = np.union1d(mine.numpy(), its)
        below = [
            np.searchsorted(np.sort(one), places, "right") / count for one in (mine.numpy(), its)
        ]
        # Kolmogorov and Smirnov: equal distributions differ by more once in a thousand times.
        assert np.abs(below[0] - below[1]).max() < np.sqrt(-np.log(0.001 / 2) / count)
    # Measured on the paper's code: 0.91 of the height, 1.05 of the length, 56 % of full height.
    assert rows.size.float().mean() / bins == pytest.approx(0.91, abs=0.01)
    assert columns.size.float().mean() / frames == pytest.approx(1.05, abs=0.01)
    assert (rows.size == bins).float().mean() == pytest.approx(0.56, abs=0.02)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"bins_range": (1.5, 0.6)}, r"augments\.resize_crop\.bins_range is 1\.5 to 0\.6"),
        ({"frames_range": (0.0, 1.0)}, r"augments\.resize_crop\.frames_range is 0 to 1"),
        ({"canvas": (1.0, 0.5)}, r"augments\.resize_crop\.canvas is 1 by 0\.5"),
    ],
)
def test_a_wrong_setting_is_told(wrong, told):
    with pytest.raises(ValueError, match=told):
        Config(**wrong)
