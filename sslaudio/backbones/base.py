"""What every backbone gives: tokens on a grid, with what is sound and what is padding.

A backbone plug-in offers a frozen ``Config`` and ``build(config, bins, frames)``, which gives a
module that fits :class:`Backbone`. ``bins`` is the picture's height; ``frames`` the width that its
positions are laid out for (a training clip's), not a limit.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor


class Grid(NamedTuple):
    """How many patches a picture is cut into."""

    rows: int
    """Patches from the lowest mel band to the highest."""
    columns: int
    """Patches from the first frame to the last."""


@dataclass
class Tokens:
    """Encoder output. Patches run row by row: the lowest band's first, early to late."""

    patches: Float[Tensor, "clips patches dim"]
    """One token a patch."""
    grid: Grid
    """``grid.rows * grid.columns`` is ``patches``."""
    sound: Bool[Tensor, "clips patches"]
    """False where a patch lies wholly in a clip's padding."""


@runtime_checkable
class Backbone(Protocol):
    """Log-mel pictures in, :class:`Tokens` out."""

    dim: int
    bins: int
    patch: tuple[int, int]
    stride: tuple[int, int]

    def grid(self, frames: int) -> Grid:
        """Grid of a picture ``frames`` wide."""
        ...

    def patchify(
        self, pictures: Float[Tensor, "clips bins frames"]
    ) -> Float[Tensor, "clips patches values"]:
        """Cut pictures into the patches that the tokens stand for."""
        ...

    def columns(self, frames: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold sound, for clips of so many frames."""
        ...

    def whole_columns(self, frames: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold no padding, for clips of so many frames."""
        ...

    def __call__(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        hidden: Bool[Tensor, "clips patches"] | None = None,
        depth: int | None = None,
    ) -> Tokens:
        """Encode; ``hidden`` patches are replaced by a learned token.

        ``depth`` runs so many blocks only and gives their plain output; unset runs all of them
        and the last norm.
        """
        ...
