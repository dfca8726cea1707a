"""MAST: a multiscale Vision Transformer over log-mel pictures, with multi-head pooling attention.

Four stages; each doubles the width of a token and quarters their number. Positions are relative
only. Dropped patches are those of the last grid: a token there stands for as many rows and columns
of the picture as all strides together. Hidden ones may be finer.

Source: Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), section 2, which builds on MViTv2 (Li et al.
2022, arXiv:2112.01526). The paper's model has stages of 1, 2, 11 and 2 blocks (``small`` here); its
released code takes 2, 3, 16 and 3 (``base``), a stem of 16 by 16 at stride 10, no final norm, and
cannot run on more than 575 frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.backbones.axis import Axis, reach
from sslaudio.backbones.base import Grid, Hidden, Kept, Tokens, check_height, lengths
from sslaudio.backbones.blocks import check_blocks, initialise, run
from sslaudio.backbones.patches import Count, at_least
from sslaudio.backbones.pooling import check
from sslaudio.backbones.pooling_attention import Lattice, PoolingBlock, Shape
from sslaudio.backbones.relative import RelativeTable


class Size(NamedTuple):
    """How large a MAST is."""

    dim: int
    """Of the first stage; each stage has twice that of the one before, and twice its heads."""
    heads: int
    depths: tuple[int, ...]


SIZES = {
    "micro": Size(32, 1, (1, 1, 2, 1)),
    "tiny": Size(96, 1, (1, 2, 5, 2)),
    "small": Size(96, 1, (1, 2, 11, 2)),
    "base": Size(96, 1, (2, 3, 16, 3)),
}
"""MViTv2's sizes, and one that two processor cores can train."""


@dataclass(frozen=True)
class Config:
    """How large the stages are and how the picture comes in."""

    size: Literal["micro", "tiny", "small", "base"] = "micro"
    """First dim and blocks of the stages: micro 32 1/1/2/1, tiny 96 1/2/5/2, small 96 1/2/11/2 (the
    paper's), base 96 2/3/16/3 (the released code's)."""
    stem_patch: tuple[int, int] = (7, 7)
    """(bins, frames) that the first convolution sees; released code: 16 16."""
    stem_stride: tuple[int, int] = (4, 4)
    """(bins, frames) from one to the next; released code: 10 10."""
    stem_padding: tuple[int, int] | None = None
    """(bins, frames) of zeros around the picture; unset: half of an odd patch, none of an even."""
    key_stride: int = 4
    """Pooling of keys and values in the first stage; halved from stage to stage, to 1."""
    last_stride: int = 2
    """Query stride of the last stage, 2 in MViTv2; 1 leaves its grid as fine as the one before, as
    MaskFeat does for masked modelling (Wei et al. 2022, arXiv:2112.09133)."""
    expand: Literal["attention", "mlp"] = "attention"
    """Where dim doubles: in the first attention of a stage, as MViTv2's weights have it, or in the
    last MLP of the stage before, as the paper says."""
    mlp_ratio: float = 4.0
    """Width of a block's MLP over dim."""
    pooling: tuple[str, ...] = ("mean", "max", "slices2")
    """What a clip's embedding is made of; parts: sslaudio/backbones/pooling.py. SS-MAST: mean."""
    pooled_block: int | None = None
    """Block whose output is pooled, from 1; unset: the last, after its norm."""
    drop_path: float = 0.0
    """Share of clips that skip the last block in training; earlier blocks less, linearly."""
    gradient_checkpointing: bool = False
    """Whether blocks are computed again in the backward pass instead of kept: less memory for a
    third more work."""

    def __post_init__(self) -> None:
        check(self.pooling)
        if "cls" in self.pooling:
            raise ValueError("backbone.pooling has the part cls, which MAST has not; pool by mean")
        for key in ("stem_patch", "stem_stride"):
            if min(getattr(self, key)) < 1:
                raise ValueError(f"backbone.{key} is {getattr(self, key)}; both are at least 1")
        if self.last_stride not in (1, 2):
            raise ValueError(f"backbone.last_stride is {self.last_stride}; it is 2, or 1")
        for wide, step, pad in zip(self.stem_patch, self.stem_stride, self.padding, strict=True):
            if not 0 <= pad < wide:
                raise ValueError(
                    f"backbone.stem_padding is {self.padding}; it is at least 0 and less than "
                    f"backbone.stem_patch {self.stem_patch}"
                )
            if step > wide:
                raise ValueError(
                    f"backbone.stem_stride is {self.stem_stride} and backbone.stem_patch "
                    f"{self.stem_patch}: what lies between two patches would never be seen; set "
                    f"the stride to at most the patch"
                )
            total = 2 ** (len(SIZES[self.size].depths) - 2) * self.last_stride
            if wide > total * step:
                raise ValueError(
                    f"backbone.stem_patch is {self.stem_patch} and backbone.stem_stride "
                    f"{self.stem_stride}: a patch of more than {total} strides sees more than a "
                    f"last token stands for; lower the patch or raise the stride"
                )
        if self.key_stride not in (1, 2, 4, 8):
            raise ValueError(f"backbone.key_stride is {self.key_stride}; it is 1, 2, 4 or 8")
        depth = sum(SIZES[self.size].depths)
        check_blocks(depth, self.pooled_block, self.mlp_ratio, self.drop_path)

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros around the picture."""
        if self.stem_padding is not None:
            return self.stem_padding
        bins, frames = (wide // 2 if wide % 2 else 0 for wide in self.stem_patch)
        return bins, frames


class MAST(nn.Module):
    """Multiscale Audio Spectrogram Transformer that respects lengths, hides and drops patches."""

    hides_parts = True
    drop_shapes = ("columns", "rows", "both")

    def __init__(self, config: Config, bins: int, frames: int) -> None:
        super().__init__()
        size = SIZES[config.size]
        self.bins = bins
        self.checkpointing = config.gradient_checkpointing
        self.padding = config.padding
        self.stem_patch, self.stem_stride = config.stem_patch, config.stem_stride
        self.field = self.stem_patch
        high, wide = self.stem_patch  # poolings are centred: their first token is the stem's
        self.first = ((high - 1) / 2 - self.padding[0], (wide - 1) / 2 - self.padding[1])
        if bins + 2 * self.padding[0] < self.stem_patch[0]:
            raise ValueError(
                f"a patch of {self.stem_patch[0]} bins is higher than the picture: set "
                f"backbone.stem_patch to at most {bins} bins, or raise features.mel_bins"
            )
        self.stem = nn.Conv2d(1, size.dim, self.stem_patch, self.stem_stride, self.padding)
        shapes = block_shapes(config, (self._rows(bins), self._columns(frames)))
        drops = torch.linspace(0, config.drop_path, len(shapes)).tolist()
        self.blocks = nn.ModuleList(
            PoolingBlock(shape, config.mlp_ratio, drop)
            for shape, drop in zip(shapes, drops, strict=True)
        )
        self.dim = shapes[-1].dim_out
        self.norm = nn.LayerNorm(self.dim, eps=1e-6)
        total = self.finer(0)
        bin_step, frame_step = self.stem_stride
        self.patch = self.stride = (total * bin_step, total * frame_step)
        self.mask_token = nn.Parameter(torch.empty(1, *self.patch))
        initialise(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def _rows(self, bins: int) -> int:
        return (bins + 2 * self.padding[0] - self.stem_patch[0]) // self.stem_stride[0] + 1

    def _columns(self, frames: Count) -> Count:
        """Columns of the stem's grid."""
        beyond = frames + 2 * self.padding[1] - self.stem_patch[1]
        return at_least(beyond // self.stem_stride[1] + 1, 1)

    def finer(self, depth: int | None = None) -> int:
        """Tokens at that depth in one of the last block's, along each axis."""
        later = [] if depth is None else list(self.blocks)[depth:]
        return prod([cast(PoolingBlock, block).stride for block in later])

    def _coarser(self, depth: int | None) -> int:
        """Tokens of the stem's grid in one at that depth, along each axis."""
        return self.finer(0) // self.finer(depth)

    def grid(self, frames: int, depth: int | None = None) -> Grid:
        """Grid of a picture ``frames`` wide, after ``depth`` blocks."""
        step = self._coarser(depth)
        return Grid(-(-self._rows(self.bins) // step), -(-self._columns(frames) // step))

    def width(self, depth: int | None = None) -> int:
        """Dim of the tokens after ``depth`` blocks."""
        return cast(PoolingBlock, self.blocks[(depth or len(self.blocks)) - 1]).dim_out

    def columns(
        self, frames: Int[Tensor, " clips"], depth: int | None = None
    ) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold sound, for clips of so many frames."""
        return -(-self._columns(frames) // self._coarser(depth))

    def spanned(self, columns: int) -> int:
        """Frames that so many columns of the last grid see, all of the stem's columns in them."""
        last = (columns * self.finer(0) - 1) * self.stem_stride[1]
        return max(columns * self.stride[1], last + self.stem_patch[1] - 2 * self.padding[1])

    def whole_columns(self, frames: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold no padding, for clips of so many frames."""
        return frames // self.stride[1]

    def patchify(
        self, pictures: Float[Tensor, "clips bins frames"]
    ) -> Float[Tensor, "clips patches values"]:
        """Cut pictures into the patches that the last tokens stand for, the rest of one padded."""
        grid = self.grid(pictures.shape[2])
        high, wide = grid.rows * self.patch[0], grid.columns * self.patch[1]
        pictures = nn.functional.pad(
            pictures, (0, wide - pictures.shape[2], 0, high - pictures.shape[1])
        )
        cut = pictures.unflatten(2, (-1, self.patch[1])).unflatten(1, (-1, self.patch[0]))
        return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def fitted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``weights`` with the tables of another grid resized to this one."""
        tables = {
            f"{name}.table": module
            for name, module in self.named_modules()
            if isinstance(module, RelativeTable)
        }
        return {
            name: tables[name].fitted(value) if name in tables else value
            for name, value in weights.items()
        }

    def forward(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"] | None = None,
        hidden: Hidden | None = None,
        kept: Kept | None = None,
        depth: int | None = None,
    ) -> Tokens:
        """Encode pictures; :class:`sslaudio.backbones.base.Backbone` says what with what.

        Hidden patches are replaced on the picture, before the overlapping stem can see them.

        Returns:
            Tokens of all patches of the last grid (of block ``depth``'s, if set), or of the kept
            ones; those of padding are to be left out (``sound``).
        """
        check_height(pictures, self.bins)
        if hidden is not None:
            pictures = self._hide(pictures, frames, hidden)
        lattice = self._lattice(pictures, frames, kept)
        tokens = self._stem(pictures, lattice)
        for block in self.blocks[:depth]:
            tokens = run(block, self.checkpointing, tokens, lattice)
            lattice = lattice.pooled(cast(PoolingBlock, block).stride)
        if depth is None:
            tokens = self.norm(tokens)
        return self._tokens(tokens, lattice)

    def _lattice(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"] | None,
        kept: Kept | None,
    ) -> Lattice:
        """The stem's grid."""
        rows, columns = self._rows(self.bins), self._columns(pictures.shape[2])
        unit = self.finer(0)
        count = None
        if frames is not None:
            count = self._columns(frames)
            if not torch.compiler.is_compiling() and bool((count == columns).all()):
                count = None
        if kept is None:
            return Lattice(Axis(rows, unit=unit), Axis(columns, count, unit))
        last = -(-columns // unit)
        index = kept.index.unflatten(1, (kept.rows, -1))
        seen = kept.sound.unflatten(1, (kept.rows, -1))
        across = Axis(columns, count, unit, index[:, 0] % last, seen[:, 0])
        if kept.rows == -(-rows // unit):
            return Lattice(Axis(rows, unit=unit), across)
        down = index[:, :, 0] // last
        return Lattice(Axis(rows, None, unit, down, torch.ones_like(seen[:, :, 0])), across)

    def _stem(
        self, pictures: Float[Tensor, "clips bins frames"], lattice: Lattice
    ) -> Float[Tensor, "clips rows columns dim"]:
        """The first tokens; where units were dropped, from the pictures of those that stay."""
        rows, columns = lattice.rows, lattice.columns
        if columns.units is None:
            short = self.stem_patch[1] - 2 * self.padding[1] - pictures.shape[2]
            if short > 0:
                pictures = nn.functional.pad(pictures, (0, short))
            return self.stem(pictures[:, None]).permute(0, 2, 3, 1).contiguous()
        high, rest = (1, self.padding[0]) if rows.units is None else (rows.units.shape[1], 0)
        kernels = list(zip(self.stem_patch, self.stem_stride, self.padding, strict=True))
        columns, rows = columns.before(self.stem_stride[1]), rows.before(self.stem_stride[0])
        cut = picture_units(pictures, columns, *kernels[1])
        cut = nn.functional.pad(cut, (0, 0, 0, 0, rest, rest)).permute(0, 2, 3, 1)
        wide = cut.shape[1]
        if rows.units is None:
            cut = cut[:, :, :, None]
        else:
            cut = picture_units(cut.flatten(1, 2), rows, *kernels[0]).unflatten(1, (wide, -1))
        laid = cut.permute(0, 3, 1, 4, 2).flatten(0, 2)[:, None]
        tokens = nn.functional.conv2d(laid, self.stem.weight, None, self.stem_stride)
        tokens = tokens.unflatten(0, (len(pictures), high, wide)).permute(0, 1, 4, 2, 5, 3)
        tokens = tokens.flatten(3, 4).flatten(1, 2)
        tokens = tokens * columns.scale(*kernels[1])[:, None, :, None]
        if rows.units is not None:
            tokens = tokens * rows.scale(*kernels[0])[:, :, None, None]
        return tokens + self.stem.bias

    def _hide(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"] | None,
        hidden: Hidden,
    ) -> Float[Tensor, "clips bins frames"]:
        """Put the learned patch wherever one, or a part of it, is hidden; padding stays 0."""
        grid = self.grid(pictures.shape[2])
        laid = hidden if hidden.dim() == 3 else hidden.unflatten(1, tuple(grid))
        finer = [there // own for there, own in zip(laid.shape[1:], grid, strict=True)]
        high, wide = (size // max(1, parts) for size, parts in zip(self.patch, finer, strict=True))
        cut = (high * laid.shape[1], wide * laid.shape[2])
        if cut != (grid.rows * self.patch[0], grid.columns * self.patch[1]):
            raise ValueError(
                f"hidden patches came as {laid.shape[1]} by {laid.shape[2]}, which does not cut "
                f"{grid.rows} by {grid.columns} tokens of {self.patch} bins and frames evenly"
            )
        clips, bins, width = pictures.shape
        device = hidden.device
        row = torch.arange(bins, device=device) // high
        where = laid.index_select(1, row.clamp(max=laid.shape[1] - 1))
        # A clip's last column sees up to the clip's end, which may lie beyond its own patch.
        frame = torch.arange(width, device=device)
        last = self.columns(lengths(frames, pictures))[:, None] * finer[1] - 1
        column = torch.minimum(frame // wide, last)
        where = where.gather(2, column[:, None].expand(clips, bins, width))
        if frames is not None:
            where = where & (frame < frames[:, None])[:, None]
        tile = self.mask_token.repeat(1, grid.rows + 1, grid.columns + 1)[:, :bins, :width]
        return torch.where(where, tile.to(pictures.dtype), pictures)

    def _tokens(self, tokens: Float[Tensor, "clips rows columns dim"], lattice: Lattice) -> Tokens:
        device, clips = tokens.device, len(tokens)
        rows, columns = lattice.rows, lattice.columns
        sound = lattice.sound(device)
        if sound is None:
            sound = torch.ones(tokens.shape[:3], dtype=torch.bool, device=device)
        index = None
        if columns.units is not None:
            index = (
                rows.places(device)[:, :, None] * columns.whole + columns.places(device)[:, None]
            )
            index = index.expand(clips, -1, -1).flatten(1)
        return Tokens(
            tokens.flatten(1, 2),
            Grid(rows.whole, columns.whole),
            sound.expand(clips, -1, -1).flatten(1),
            tokens.new_zeros(clips, 0, tokens.shape[3]),
            index,
        )


def picture_units(
    pictures: Float[Tensor, "clips other size"], axis: Axis, patch: int, stride: int, padding: int
) -> Float[Tensor, "clips other kept edged"]:
    """The kept units of the pictures' last axis, with what the stem sees of their neighbours.

    What it would see of a dropped neighbour is 0.
    """
    assert axis.units is not None
    left, right = reach(patch, stride, padding)
    wide = left + axis.unit + right
    end = -(-axis.whole // axis.unit) * axis.unit + right
    padded = nn.functional.pad(pictures, (left, max(0, end - pictures.shape[2])))
    within = torch.arange(wide, device=pictures.device)
    place = (axis.units[:, :, None] * axis.unit + within).flatten(1)
    cut = padded.gather(2, place[:, None].expand(-1, pictures.shape[1], -1))
    gone_left, gone_right = axis.missing()
    gone = (gone_left[:, :, None] & (within < left)) | (
        gone_right[:, :, None] & (within >= wide - right)
    )
    return cut.unflatten(2, (-1, wide)).masked_fill(gone[:, None], 0.0)


def block_shapes(config: Config, grid: tuple[int, int]) -> list[Shape]:
    """What each block is built for, from the stem's grid on."""
    size = SIZES[config.size]
    dims = [size.dim * 2**stage for stage in range(len(size.depths))]
    shapes: list[Shape] = []
    key_stride, came = config.key_stride, size.dim
    for stage, depth in enumerate(size.depths):
        for number in range(depth):
            first, last = number == 0, number == depth - 1
            step = config.last_stride if stage == len(size.depths) - 1 else 2
            stride = step if first and stage else 1
            key_stride = max(1, key_stride // stride)
            out = dims[stage]
            if config.expand == "mlp" and last:
                out = dims[min(stage + 1, len(dims) - 1)]
            heads = size.heads * 2**stage
            shapes.append(Shape(came, out, heads, stride, key_stride, grid, config.expand))
            grid = (-(-grid[0] // stride), -(-grid[1] // stride))
            came = out
    return shapes


def build(config: Config, bins: int, frames: int) -> MAST:
    """The backbone for pictures of ``bins`` rows, tables laid out for ``frames`` columns."""
    return MAST(config, bins, frames)
