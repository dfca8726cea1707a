"""One axis of a pooled grid: how many tokens, whose they are, and what lies beside what.

Pooling works on dense grids. Where whole units of an axis were dropped, those that stay are laid
side by side, and this is where it is known which of them were neighbours in the picture: only those
may see one another's edge. The edge of a dropped neighbour is missing, and what was summed without
it is scaled up by the taps that are there; beyond the picture's own border there is zero padding,
as for a whole picture.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """Tokens along one axis at one level of pooling."""

    whole: int
    """Tokens that there are with nothing dropped."""
    count: Int[Tensor, " clips"] | None = None
    """Tokens of each clip's own length; unset: ``whole``."""
    unit: int = 1
    """Tokens of a unit."""
    units: Int[Tensor, "clips kept"] | None = None
    """Which units were kept, rising; unset: all."""
    seen: Bool[Tensor, "clips kept"] | None = None
    """Which of ``units`` are to be seen; others fill up."""

    @property
    def size(self) -> int:
        """Tokens that are worked on."""
        return self.whole if self.units is None else self.units.shape[1] * self.unit

    def pooled(self, stride: int) -> "Axis":
        """The axis after pooling by ``stride``, kernels centred on every ``stride``-th token."""
        if stride == 1:
            return self
        count = None if self.count is None else -(-self.count // stride)
        return replace(
            self, whole=-(-self.whole // stride), count=count, unit=max(1, self.unit // stride)
        )

    def before(self, stride: int) -> "Axis":
        """The axis that this one was made from at ``stride``, as long as this one needs it."""
        count = None if self.count is None else self.count * stride
        return replace(self, whole=self.whole * stride, count=count, unit=self.unit * stride)

    def places(self, device: torch.device) -> Int[Tensor, "clips_or_1 size"]:
        """Each token's place on the whole axis."""
        if self.units is None:
            return torch.arange(self.whole, device=device)[None]
        within = torch.arange(self.unit, device=device)
        return (self.units[:, :, None] * self.unit + within).flatten(1)

    def sound(self, device: torch.device) -> Bool[Tensor, "clips size"] | None:
        """Where a token is the clip's own and was kept; unset: everywhere."""
        if self.count is None and self.units is None:
            return None
        ends = self.whole if self.count is None else self.count[:, None]
        sound = self.places(device) < ends
        if self.seen is not None:
            sound = sound & self.seen.repeat_interleave(self.unit, dim=1)
        return sound

    def joined(self) -> Bool[Tensor, "clips seams"]:
        """Whether a kept unit and the next kept one are neighbours in the picture."""
        assert self.units is not None and self.seen is not None
        side_by_side = self.units[:, 1:] == self.units[:, :-1] + 1
        return side_by_side & self.seen[:, 1:] & self.seen[:, :-1]

    def missing(self) -> tuple[Bool[Tensor, "clips kept"], Bool[Tensor, "clips kept"]]:
        """Whether a unit's left neighbour, and its right one, was dropped."""
        assert self.units is not None
        own = torch.full_like(self.units[:, 0], self.whole) if self.count is None else self.count
        last = -(-own // self.unit) - 1
        joined = self.joined()
        border = torch.zeros_like(self.units[:, :1], dtype=torch.bool)
        left = ~torch.cat([border, joined], dim=1) & (self.units > 0)
        right = ~torch.cat([joined, border], dim=1) & (self.units < last[:, None])
        return left, right

    def scale(self, kernel: int, stride: int, padding: int) -> Float[Tensor, "clips pooled"]:
        """What sums of ``kernel`` taps are multiplied by where dropped neighbours are missing.

        Args:
            kernel: taps.
            stride: tokens from one sum to the next.
            padding: taps before the first token of the axis.
        """
        left, right = self.missing()
        start = torch.arange(self.unit // stride, device=left.device) * stride - padding
        before = (-start).clamp(min=0)
        after = (start + kernel - self.unit).clamp(min=0)
        missing = left[:, :, None] * before + right[:, :, None] * after
        return (kernel / (kernel - missing)).flatten(1)


def reach(kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """How far a kernel reaches beyond the first and the last token of a unit."""
    return padding, max(0, kernel - padding - stride)


def edged(
    tokens: Float[Tensor, "clips before size *after"],
    axis: Axis,
    edges: tuple[int, int],
    fill: float = 0.0,
) -> Float[Tensor, "clips before kept edged *after"]:
    """Cut the third axis into its units, each with the edges of its neighbours beside it.

    Where the neighbour was dropped, or the picture ends, the edge is ``fill``.
    """
    left, right = edges
    cut = tokens.unflatten(2, (-1, axis.unit))
    joined = axis.joined()
    joined = joined.reshape(len(joined), 1, joined.shape[1], *(1,) * (cut.dim() - 3))
    parts = [cut]
    if left:
        edge = cut[:, :, :-1, axis.unit - left :].where(joined, fill)
        parts.insert(0, torch.cat([torch.full_like(cut[:, :, :1, :left], fill), edge], dim=2))
    if right:
        edge = cut[:, :, 1:, :right].where(joined, fill)
        parts.append(torch.cat([edge, torch.full_like(cut[:, :, :1, :right], fill)], dim=2))
    return torch.cat(parts, dim=3) if len(parts) > 1 else cut
