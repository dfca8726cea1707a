"""Random resized crop: a part of the picture, or a little more than it, fills the whole picture.

Source: Niizumi et al. 2021 (BYOL-A, arXiv:2103.06695), section 3.2 and augmentations.py: the clip
lies in the middle of a canvas of zeros (the mean) that is longer than the clip; a box of random
height, width and place is cut from the canvas and brought to the clip's size by bicubic
interpolation with aligned corners. Theirs, clip by clip; here the batch at once, and the canvas is
never made: a box's two axes are resampled one after the other, each value a weighted sum of four,
where what lies outside the clip has weight 0. The canvas follows the clip's own length, not the
padded width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.augments.base import Augment, Draws

SHARPNESS = -0.75
"""Of the cubic kernel; torch's F.interpolate has this one."""
TAPS = torch.tensor([-1, 0, 1, 2])
"""Places that a value is made of, from the one at or below it."""
CUBIC = torch.tensor(
    [
        [0.0, 1.0, 0.0, 0.0],
        [SHARPNESS, 0.0, -SHARPNESS, 0.0],
        [-2 * SHARPNESS, -(SHARPNESS + 3), 2 * SHARPNESS + 3, SHARPNESS],
        [SHARPNESS, SHARPNESS + 2, -(SHARPNESS + 2), -SHARPNESS],
    ]
)
"""Weights of the four taps: coefficients of t^0 to t^3, t being the way to the next place."""


@dataclass(frozen=True)
class Config:
    """How large the box may be, and the canvas that it is cut from."""

    bins_range: tuple[float, float] = (0.6, 1.5)
    """Height of the box, as a share of the picture's; uniform, then cut to the canvas."""
    frames_range: tuple[float, float] = (0.6, 1.5)
    """Width of the box, as a share of the clip's own length; uniform, then cut to the canvas."""
    canvas: tuple[float, float] = (1.0, 1.5)
    """Height and length of the canvas, as shares of the clip's; at least 1."""

    def __post_init__(self) -> None:
        for key in ("bins_range", "frames_range"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise ValueError(
                    f"augments.resize_crop.{key} is {low:g} to {high:g}; the least comes first and "
                    f"is above 0 (the paper: 0.6 to 1.5)"
                )
        if min(self.canvas) < 1:
            raise ValueError(
                f"augments.resize_crop.canvas is {self.canvas[0]:g} by {self.canvas[1]:g} of the "
                f"clip; it holds the clip: at least 1 by 1 (the paper: 1 by 1.5)"
            )


class Span(NamedTuple):
    """A box along one axis, for each clip."""

    first: Int[Tensor, " clips"]
    """Where it begins, counted from the clip's own begin; below 0 in the canvas's margin."""
    size: Int[Tensor, " clips"]
    """Places in it, at least 1."""


def build(config: Config) -> Augment:
    """The augment; each clip draws its own box."""

    def resize_crop(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        numbers = draws.uniform(4)
        bins = torch.full_like(frames, pictures.shape[1])
        rows = span(bins, config.bins_range, config.canvas[0], numbers[:, 0], numbers[:, 2])
        columns = span(frames, config.frames_range, config.canvas[1], numbers[:, 1], numbers[:, 3])
        return cropped(pictures, frames, rows, columns)

    return resize_crop


def span(
    own: Int[Tensor, " clips"],
    ratios: tuple[float, float],
    canvas: float,
    size_draw: Float[Tensor, " clips"],
    first_draw: Float[Tensor, " clips"],
) -> Span:
    """A box of ``ratios`` of the clip's ``own`` size, anywhere in its canvas."""
    room = (own * canvas).long()
    low, high = ratios
    size = ((low + (high - low) * size_draw) * own).long().clamp(min=1).minimum(room.clamp(min=1))
    first = (first_draw * (room - size + 1)).long() - (room - own) // 2
    return Span(first, size)


def cropped(
    pictures: Float[Tensor, "clips bins frames"],
    frames: Int[Tensor, " clips"],
    rows: Span,
    columns: Span,
) -> Float[Tensor, "clips bins frames"]:
    """Each clip's box at the clip's size; ``rows`` and ``columns`` say where it lies."""
    _, bins, width = pictures.shape
    upright = weighted(pictures.transpose(1, 2), *taps(frames, columns, width))
    return weighted(upright.transpose(1, 2), *taps(torch.full_like(frames, bins), rows, bins))


def taps(
    own: Int[Tensor, " clips"], box: Span, places: int
) -> tuple[Int[Tensor, "clips places 4"], Float[Tensor, "clips places 4"]]:
    """Which of a clip's ``own`` rows make up each row of its box brought to its size, and how much.

    Args:
        own: rows of each clip.
        box: where each clip's box lies.
        places: rows to fill; those at and behind ``own`` have weight 0.
    """
    place = torch.arange(places, device=own.device)
    where = place * ((box.size - 1) / (own - 1).clamp(min=1))[:, None]
    low = where.floor()
    way = where - low
    # Taps first, so that the long axis is the inner one.
    constant, linear, square, cube = CUBIC.to(own.device)[:, :, None, None]
    weight = cube.mul(way).add_(square).mul_(way).add_(linear).mul_(way).add_(constant)
    row = low.int() + TAPS.int().to(own.device)[:, None, None]
    row = row.clamp_(min=0).minimum((box.size - 1).int()[:, None]).add_(box.first.int()[:, None])
    last = own.int()[:, None] - 1
    held = row.clamp(min=0).minimum(last.clamp(min=0))
    weight.mul_((row == held) & (place <= last))
    return held.permute(1, 2, 0).contiguous(), weight.permute(1, 2, 0).contiguous()


def weighted(
    values: Float[Tensor, "clips rows columns"],
    row: Int[Tensor, "clips out 4"],
    weight: Float[Tensor, "clips out 4"],
) -> Float[Tensor, "clips out columns"]:
    """Sums of four rows of each clip, weighted: a bag of four embeddings, which torch has fused."""
    clips, rows, columns = values.shape
    first = torch.arange(0, clips * rows, rows, device=row.device, dtype=row.dtype)
    bags = nn.functional.embedding_bag(
        (row + first[:, None, None]).flatten(0, 1),
        values.reshape(-1, columns),
        per_sample_weights=weight.flatten(0, 1).to(values.dtype),
        mode="sum",
    )
    return bags.unflatten(0, (clips, -1))
