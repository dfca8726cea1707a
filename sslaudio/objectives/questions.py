"""What is asked of a backbone about the patches it does not see.

In:  a view, and how many patches of which shape are hidden.
Out: :class:`Question`: the mask, the tokens that answer, and what they should say.

A flat patch looks like any other flat patch, and a padded one is no sound: neither is a target nor
a candidate.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sslaudio.backbones.base import Backbone, Grid, Hidden, Kept, at, sounding
from sslaudio.objectives.base import View
from sslaudio.objectives.masks import Area

Patch = tuple[int, int]


class Cells:
    """The patches that are hidden and predicted: a backbone's own, or each cut into finer ones."""

    def __init__(self, backbone: Backbone, patch: Patch | None) -> None:
        self.backbone = backbone
        self.patch = patch or backbone.patch
        check(backbone, self.patch)
        self.finer = (backbone.patch[0] // self.patch[0], backbone.patch[1] // self.patch[1])

    @property
    def values(self) -> int:
        """Values of the picture in one."""
        return self.patch[0] * self.patch[1]

    @property
    def per_token(self) -> int:
        """How many a token stands for."""
        return self.finer[0] * self.finer[1]

    @property
    def rows(self) -> int:
        """Rows of them that hold any of a picture."""
        return min(self.grid(1).rows, -(-self.backbone.bins // self.patch[0]))

    def grid(self, frames: int) -> Grid:
        """Their grid on a picture ``frames`` wide."""
        rows, columns = self.backbone.grid(frames)
        return Grid(rows * self.finer[0], columns * self.finer[1])

    def area(self, view: View) -> Area:
        """Where those lie that hold any sound."""
        grid = self.grid(view.pictures.shape[2])
        columns = self.backbone.columns(view.frames) * self.finer[1]
        if self.per_token > 1:
            columns = torch.minimum(columns, -(-view.frames // self.patch[1])).clamp(min=1)
        return Area(grid, self.rows, columns, _in(grid, self.rows, columns))

    def whole(self, view: View) -> Bool[Tensor, "clips cells"]:
        """Which hold no padding."""
        grid = self.grid(view.pictures.shape[2])
        columns = self.backbone.whole_columns(view.frames)
        if self.per_token > 1:
            columns = (view.frames // self.patch[1]).clamp(max=grid.columns)
        return _in(grid, min(grid.rows, self.backbone.bins // self.patch[0]), columns)

    def cut(
        self, pictures: Float[Tensor, "clips bins frames"]
    ) -> Float[Tensor, "clips tokens cells values"]:
        """Cut pictures, token by token."""
        return rearrange(
            self.backbone.patchify(pictures),
            "clips tokens (rows high columns wide) -> clips tokens (rows columns) (high wide)",
            rows=self.finer[0],
            columns=self.finer[1],
            high=self.patch[0],
        )

    def by_token(
        self, laid: Bool[Tensor, "clips cells"], grid: Grid
    ) -> Bool[Tensor, "clips tokens cells_of_it"]:
        """What is laid out on their grid, token by token."""
        return rearrange(
            laid,
            "clips (rows r columns c) -> clips (rows columns) (r c)",
            r=self.finer[0],
            c=self.finer[1],
            rows=grid.rows // self.finer[0],
        )

    def spread(
        self, tokens: Bool[Tensor, "clips tokens"], grid: Grid
    ) -> Bool[Tensor, "clips cells"]:
        """What is so for a token, for each of its cells."""
        laid = tokens.unflatten(1, (grid.rows // self.finer[0], -1))
        laid = laid.repeat_interleave(self.finer[0], 1).repeat_interleave(self.finer[1], 2)
        return laid.flatten(1)

    def given(self, hidden: Bool[Tensor, "clips cells"], grid: Grid) -> Hidden:
        """The mask as a backbone takes it."""
        return hidden if self.per_token == 1 else hidden.unflatten(1, tuple(grid))

    def picture(
        self, cells: Float[Tensor, "clips tokens cells values"], grid: Grid
    ) -> Float[Tensor, "clips bins frames"]:
        """Put cut pictures together again, padding included."""
        return rearrange(
            cells,
            "clips (rows columns) (r c) (high wide) -> clips (rows r high) (columns c wide)",
            rows=grid.rows // self.finer[0],
            r=self.finer[0],
            high=self.patch[0],
        )


@dataclass
class Question:
    """What is asked of the model for a micro-batch."""

    grid: Grid
    """Of the cells."""
    hidden: Bool[Tensor, "clips cells"]
    """Cells that the backbone does not see."""
    stays: Bool[Tensor, "clips cells"]
    """Cells with sound that were not dropped before, hidden or not."""
    index: Int[Tensor, "clips answering"]
    """Tokens that have hidden cells, filled up with others to the largest count."""
    asked: Bool[Tensor, "clips asked"]
    """Which cells of these tokens are hidden, wholly sound and not flat."""
    targets: Float[Tensor, "clips asked values"]
    """Those cells of the picture, as they are."""
    kept: Kept | None
    """Patches that go through the backbone; unset: all."""
    dropped_share: Float[Tensor, ""] | None
    """Share of all patches that left without being asked for."""


def lay_out(
    cells: Cells, view: View, hidden: Bool[Tensor, "clips cells"], flat_std: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay out what is asked for; cells of less deviation than ``flat_std`` are not.

    Returns:
        ``index``, ``asked`` and ``targets`` of :class:`Question`.
    """
    grid = cells.grid(view.pictures.shape[2])
    # The last column of a clip may be part padding: hidden like any other, but not asked for.
    wanted = cells.by_token(hidden & cells.whole(view), grid)
    answering = wanted.any(dim=2)
    most = max(1, int(answering.sum(dim=1).max()))
    index = answering.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    patches = cells.cut(view.pictures)
    targets = at(patches.flatten(2), index).unflatten(2, (cells.per_token, -1)).flatten(1, 2)
    asked = at(wanted, index).flatten(1)
    if flat_std is not None:
        asked = asked & (targets.std(dim=2, correction=0) >= flat_std)
    return index, asked, targets


def check(backbone: Backbone, patch: Patch) -> None:
    """Refuse patches that a backbone cannot hide or that no picture holds.

    Raises:
        ValueError: says which would fit.
    """
    own = backbone.patch
    if any(step < size for step, size in zip(backbone.stride, own, strict=True)):
        raise ValueError(
            f"backbone.stride is {backbone.stride} and backbone.patch {own}: what "
            f"is hidden in a patch would be seen in its neighbours; set backbone.stride to "
            f"none here, and as you like when fine-tuning"
        )
    if patch != own and not backbone.hides_parts:
        raise ValueError(
            f"objective.patch is {patch}, but {type(backbone).__name__} hides whole patches of "
            f"{own}; leave objective.patch unset and set backbone.patch"
        )
    if min(patch) < 1 or any(size % part for size, part in zip(own, patch, strict=True)):
        near = [nearest(size, part) for size, part in zip(own, patch, strict=True)]
        fitting = " or ".join(
            dict.fromkeys(f"{high} {wide}" for high, wide in zip(*near, strict=True))
        )
        raise ValueError(
            f"objective.patch is {patch}, which does not divide the {own} bins and frames that a "
            f"token of {type(backbone).__name__} stands for; set it to {fitting}, or change "
            f"backbone.stem_stride or backbone.last_stride"
        )
    if patch[0] > backbone.bins:
        raise ValueError(
            f"a patch of {patch[0]} bins is higher than the picture: set objective.patch to at "
            f"most {backbone.bins} bins (backbones that hide whole patches: backbone.patch), or "
            f"raise features.mel_bins"
        )


def nearest(size: int, part: int) -> tuple[int, int]:
    """The divisors of ``size`` next to ``part``, from below and from above."""
    divisors = [number for number in range(1, size + 1) if size % number == 0]
    below = max((number for number in divisors if number <= part), default=1)
    return below, min((number for number in divisors if number >= part), default=size)


def _in(grid: Grid, rows: int, columns: Int[Tensor, " clips"]) -> Bool[Tensor, "clips cells"]:
    inside = sounding(grid, columns)
    return inside & (torch.arange(inside.shape[1], device=inside.device) < rows * grid.columns)
