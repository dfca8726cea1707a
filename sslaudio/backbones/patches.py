"""Pictures to patches, and patches to the first tokens."""

from dataclasses import dataclass
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from sslaudio.backbones.base import Grid, check_height
from sslaudio.backbones.linear import linear

Count = TypeVar("Count", int, Tensor)
"""Frames or patches: of one picture, or of every clip of a batch."""


def at_least(count: Count, least: int) -> Count:
    """``count``, raised to ``least``."""
    return max(count, least) if isinstance(count, int) else count.clamp(min=least)


@dataclass(frozen=True)
class Cutter:
    """How pictures of one height are cut: knows patch, stride and height, nothing learned.

    The pad rule: pictures are padded with 0 (the mean) on the right to whole patches, and a
    picture narrower than one patch to one. Where patches overlap, or ``whole_only``, frames after
    the last whole patch are left out, as AST does.
    """

    patch: tuple[int, int]
    """(bins, frames) of one patch."""
    stride: tuple[int, int]
    """(bins, frames) from one patch to the next."""
    bins: int
    """Height of the pictures."""
    whole_only: bool = False
    """Whether bins and frames that fill no patch are left out, rather than refused and padded."""

    def __post_init__(self) -> None:
        if min(self.patch) < 1 or min(self.stride) < 1:
            raise ValueError(
                f"backbone.patch is {self.patch} and backbone.stride {self.stride}; "
                f"all must be at least 1"
            )
        if self.patch[0] > self.bins:
            raise ValueError(
                f"a patch of {self.patch[0]} bins is higher than the picture: set backbone.patch "
                f"to at most {self.bins} bins, or raise features.mel_bins (kind mfcc: "
                f"features.coefficients)"
            )
        left = (self.bins - self.patch[0]) % self.stride[0]
        if left and self.stride[0] >= self.patch[0] and not self.whole_only:
            raise ValueError(
                f"cannot cut {self.bins} bins into patches of {self.patch[0]}: {left} left over. "
                f"Change backbone.patch, or have {self.bins - left} bins: set features.mel_bins "
                f"(kind mfcc: features.coefficients, kind spectrogram: features.f_max_hz)"
            )

    @property
    def rows(self) -> int:
        """Patches from the lowest mel band to the highest."""
        return (self.bins - self.patch[0]) // self.stride[0] + 1

    def columns(self, frames: Count) -> Count:
        """Patches in time for clips of so many frames; at least one."""
        if self.stride[1] >= self.patch[1] and not self.whole_only:
            return at_least(-(-frames // self.stride[1]), 1)
        return at_least(self.whole(frames), 1)

    def whole(self, frames: Count) -> Count:
        """Patches in time that hold no padding, for clips of so many frames."""
        return at_least((frames - self.patch[1]) // self.stride[1] + 1, 0)

    def grid(self, frames: int) -> Grid:
        """Grid of a picture ``frames`` wide."""
        return Grid(self.rows, self.columns(frames))

    def __call__(
        self, pictures: Float[Tensor, "clips bins frames"]
    ) -> Float[Tensor, "clips patches values"]:
        """Cut pictures into patches, row by row: the lowest band's first, early to late.

        ``values`` is ``patch[0] * patch[1]``, bin-major within a patch, as a convolution's weight.
        """
        clips, _, frames = pictures.shape
        check_height(pictures, self.bins)
        width = self.patch[1] + (self.grid(frames).columns - 1) * self.stride[1]
        if width > frames:
            pictures = nn.functional.pad(pictures, (0, width - frames))
        cut = pictures.unfold(1, self.patch[0], self.stride[0])
        cut = cut.unfold(2, self.patch[1], self.stride[1])
        return cut.reshape(clips, -1, self.patch[0] * self.patch[1])


class PatchEmbed(nn.Module):
    """One linear map of each patch's values; the weight is a convolution's, as weights have it."""

    def __init__(self, cutter: Cutter, dim: int) -> None:
        super().__init__()
        self.cutter = cutter
        self.proj = nn.Conv2d(1, dim, cutter.patch, cutter.stride)

    def forward(
        self, patches: Float[Tensor, "clips patches values"]
    ) -> Float[Tensor, "clips patches dim"]:
        """Embed patches as the cutter cuts them, all or some."""
        return linear(patches, self.proj.weight.flatten(1), self.proj.bias)
