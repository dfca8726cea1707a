"""What every backbone gives: tokens on a grid, with what is sound and what is padding.

A backbone plug-in offers a frozen ``Config`` and ``build(config, bins, frames)``, which gives a
module that fits :class:`Backbone`. ``bins`` is the picture's height; ``frames`` the width that its
positions are laid out for (a training clip's), not a limit. ``Config`` has ``pooling`` and
``pooled_block``, which :mod:`sslaudio.backbones.encoder` reads.

*Hidden* patches are replaced by something learned and keep their place; *dropped* ones leave, and
the work with them. Which ones may leave, the backbone says (``drop_shapes``) and
:mod:`sslaudio.backbones.drop` draws. A backbone that hides on the picture can hide parts of what a
token stands for (``hides_parts``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


class Grid(NamedTuple):
    """How many patches a picture is cut into."""

    rows: int
    """Patches from the lowest mel band to the highest."""
    columns: int
    """Patches from the first frame to the last."""


Hidden = Bool[Tensor, "clips patches"] | Bool[Tensor, "clips rows columns"]
"""Which patches of the last grid are hidden; laid out, which of a grid that may be finer."""


@dataclass
class Kept:
    """Which patches of each clip go through the backbone; the others are dropped."""

    index: Int[Tensor, "clips kept"]
    """Places on the grid, rising. A clip that keeps fewer than others is filled up with places that
    are not to be seen."""
    sound: Bool[Tensor, "clips kept"]
    """False where ``index`` was filled up."""
    rows: int
    """Where whole columns or rows are dropped, ``index`` runs over so many rows of kept columns."""
    share: Float[Tensor, ""]
    """Share of the batch's sounding patches that leave, after rounding."""


@dataclass
class Tokens:
    """Encoder output. Patches run row by row: the lowest band's first, early to late."""

    patches: Float[Tensor, "clips patches dim"]
    """One token a patch, or a kept patch."""
    grid: Grid
    """``grid.rows * grid.columns`` is ``patches`` where none was dropped."""
    sound: Bool[Tensor, "clips patches"]
    """False where a patch lies wholly in a clip's padding."""
    prefix: Float[Tensor, "clips prefix dim"]
    """Learned tokens of the whole clip, such as cls; none in some backbones."""
    index: Int[Tensor, "clips patches"] | None = None
    """Place on the grid of each kept patch; unset: every patch is there, in order."""

    def laid(
        self,
    ) -> tuple[Float[Tensor, "clips rows columns dim"], Bool[Tensor, "clips rows columns"]]:
        """Tokens laid out on the grid, and where there is one that is sound."""
        shape = tuple(self.grid)
        if self.index is None:
            return self.patches.unflatten(1, shape), self.sound.unflatten(1, shape)
        clips, _, dim = self.patches.shape
        places = self.grid.rows * self.grid.columns
        whole = self.patches.new_zeros(clips, places + 1, dim)
        seen = self.sound.new_zeros(clips, places + 1)
        index = self.index.where(self.sound, places)  # what is not to be seen goes to waste
        whole = whole.scatter(1, index[..., None].expand_as(self.patches), self.patches)
        seen = seen.scatter(1, index, self.sound)
        return whole[:, :places].unflatten(1, shape), seen[:, :places].unflatten(1, shape)


@runtime_checkable
class Backbone(Protocol):
    """Log-mel pictures in, :class:`Tokens` out."""

    dim: int
    """Width of the last block's tokens."""
    bins: int
    """Height of the pictures."""
    patch: tuple[int, int]
    """(bins, frames) of the picture that a token stands for."""
    stride: tuple[int, int]
    """(bins, frames) from one token to the next."""
    first: tuple[float, float]
    """(bins, frames) from the picture's first value to the middle of what the first token sees
    before attention; the same after every block."""
    field: tuple[int, int]
    """(bins, frames) of the picture that a token sees before attention, the same after every block;
    ``first`` is the middle of the first one's."""
    hides_parts: bool
    """Whether patches finer than ``patch`` can be hidden."""
    drop_shapes: tuple[str, ...]
    """Which of :data:`sslaudio.backbones.drop.SHAPES` may be dropped, the usual one first."""

    def grid(self, frames: int, depth: int | None = None) -> Grid:
        """Grid of a picture ``frames`` wide, after ``depth`` blocks (unset: all)."""
        ...

    def width(self, depth: int | None = None) -> int:
        """Dim of the tokens after ``depth`` blocks."""
        ...

    def finer(self, depth: int | None = None) -> int:
        """Tokens after ``depth`` blocks in one of the last block's, along each axis."""
        ...

    def patchify(
        self, pictures: Float[Tensor, "clips bins frames"]
    ) -> Float[Tensor, "clips patches values"]:
        """Cut pictures into the patches that the tokens stand for."""
        ...

    def columns(
        self, frames: Int[Tensor, " clips"], depth: int | None = None
    ) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold sound, for clips of so many frames."""
        ...

    def spanned(self, columns: int) -> int:
        """Frames that so many columns of the last grid see, at every depth."""
        ...

    def whole_columns(self, frames: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold no padding, for clips of so many frames."""
        ...

    def fitted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``weights`` with the positions of another grid resized to this one."""
        ...

    def __call__(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"] | None = None,
        hidden: Hidden | None = None,
        kept: Kept | None = None,
        depth: int | None = None,
    ) -> Tokens:
        """Encode pictures.

        Args:
            pictures: standardised log-mels, padded columns 0.
            frames: columns of each picture that are sound; unset: all, and no mask is made.
            hidden: patches to replace by something learned before they are seen. Laid out as rows
                and columns that are whole multiples of the grid's, they are finer patches: each
                token's, cut evenly. A token of which parts are hidden sees the others.
            kept: the patches that stay; unset: all.
            depth: run so many blocks only and give their plain output; unset: all, and the last
                norm.
        """
        ...


def at(
    patches: Shaped[Tensor, "clips patches values"], index: Int[Tensor, "clips chosen"]
) -> Shaped[Tensor, "clips chosen values"]:
    """Each clip's patches at its own places."""
    return patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))


def lengths(
    frames: Int[Tensor, " clips"] | None, pictures: Float[Tensor, "clips bins frames"]
) -> Int[Tensor, " clips"]:
    """Columns of each picture that are sound; unset: all."""
    if frames is not None:
        return frames
    return torch.full((len(pictures),), pictures.shape[2], device=pictures.device)


def sounding(grid: Grid, columns: Int[Tensor, " clips"]) -> Bool[Tensor, "clips patches"]:
    """Which patches of a grid lie in the first ``columns`` of each clip."""
    place = torch.arange(grid.columns, device=columns.device).repeat(grid.rows)
    return place < columns[:, None]


def check_height(pictures: Float[Tensor, "clips bins frames"], bins: int) -> None:
    """Refuse pictures that a backbone was not built for.

    Raises:
        ValueError: they have other than ``bins`` rows.
    """
    if pictures.shape[1] != bins:
        raise ValueError(
            f"a picture of {pictures.shape[1]} bins came to a backbone built for {bins}; "
            f"features.kind and features.mel_bins must be what the weights were trained with"
        )


def to_mask(
    frames: Int[Tensor, " clips"] | None, sound: Bool[Tensor, "clips ..."]
) -> Bool[Tensor, "clips ..."] | None:
    """``sound``, or nothing where there is nothing to mask.

    Inside a compiled graph the values are not looked at: leave ``frames`` unset there for clips
    that are sound all over.
    """
    if frames is None or (not torch.compiler.is_compiling() and bool(sound.all())):
        return None
    return sound
