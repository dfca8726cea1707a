"""AST: a Vision Transformer over the patches of a log-mel picture.

Source: Gong et al. 2021 (arXiv:2104.01778), section 2; masked tokens as in SSAST (Gong et al.
2022, arXiv:2110.09784), section 2.3. Block and parameter names are timm's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sslaudio.backbones.base import Grid, Hidden, Kept, Tokens, at, lengths, sounding, to_mask
from sslaudio.backbones.blocks import Block, check_blocks, initialise, run
from sslaudio.backbones.patches import Cutter, PatchEmbed
from sslaudio.backbones.pooling import check
from sslaudio.backbones.positions import LearnedPositions, Rule, fit


class Shape(NamedTuple):
    """How large a transformer is."""

    dim: int
    heads: int
    depth: int


SIZES = {
    "micro": Shape(128, 4, 5),
    "tiny": Shape(192, 3, 12),
    "small": Shape(384, 6, 12),
    "base": Shape(768, 12, 12),
}
"""AST's sizes, and one that two processor cores can train."""


@dataclass(frozen=True)
class Config:
    """How large the transformer is and how it cuts its picture."""

    size: Literal["micro", "tiny", "small", "base"] = "micro"
    """Dim, heads and depth: micro 128/4/5, tiny 192/3/12, small 384/6/12, base 768/12/12."""
    dim: int | None = None
    """Width of a token; unset: the size's."""
    heads: int | None = None
    """Attention heads; unset: the size's."""
    depth: int | None = None
    """Blocks; unset: the size's."""
    patch: tuple[int, int] = (16, 16)
    """(bins, frames) of one patch; AST and SSAST: 16 16, SSAST by frames: 128 2."""
    stride: tuple[int, int] | None = None
    """(bins, frames) from one patch to the next; unset: the patch, no overlap. AST: 10 10."""
    whole_patches: bool = False
    """Whether bins and frames behind the last whole patch are left out, as AST's weights know it;
    else frames are padded to one more patch, and bins left over are refused."""
    prefix_tokens: int = 2
    """Learned tokens before the patches: AST's cls and distillation tokens; 0 for none."""
    prefix_positions: bool = False
    """Whether positions of their own are added to those tokens, as in AST's weights."""
    mlp_ratio: float = 4.0
    """Width of a block's MLP over dim."""
    qkv_bias: bool = True
    """Whether queries, keys and values have a bias."""
    norm_eps: float = 1e-6
    """Added to the variance in layer norms; Hugging Face's AST: 1e-12."""
    positions: Rule = "resized"
    """How positions serve another grid: sslaudio/backbones/positions.py."""
    pooling: tuple[str, ...] = ("mean", "max", "slices2")
    """What a clip's embedding is made of; parts: sslaudio/backbones/pooling.py. AST: cls."""
    pooled_block: int | None = None
    """Block whose output is pooled, from 1; unset: the last, after its norm."""
    drop_path: float = 0.0
    """Share of clips that skip the last block in training; earlier blocks less, linearly."""
    gradient_checkpointing: bool = False
    """Whether blocks are computed again in the backward pass instead of kept: less memory for a
    third more work."""

    def __post_init__(self) -> None:
        check(self.pooling)
        for key in ("dim", "heads", "depth"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"backbone.{key} is {value}; it is at least 1")
        shape = self.shape
        if shape.dim % shape.heads:
            raise ValueError(
                f"backbone.dim is {shape.dim}, which {shape.heads} heads cannot share; set "
                f"backbone.heads to a divisor of it"
            )
        check_blocks(shape.depth, self.pooled_block, self.mlp_ratio, self.drop_path)
        if self.prefix_tokens < 0:
            raise ValueError(f"backbone.prefix_tokens is {self.prefix_tokens}; 0 is the fewest")
        if "cls" in self.pooling and not self.prefix_tokens:
            raise ValueError(
                "backbone.pooling has the part cls, but backbone.prefix_tokens is 0; set it to 1 "
                "or 2, or pool by mean"
            )

    @property
    def shape(self) -> Shape:
        """Dim, heads and depth: the size's, but for what is set."""
        size = SIZES[self.size]
        return Shape(self.dim or size.dim, self.heads or size.heads, self.depth or size.depth)


class AST(nn.Module):
    """Audio Spectrogram Transformer that respects lengths, hides and drops patches."""

    hides_parts = False
    drop_shapes = ("patches", "columns", "rows", "both")

    def __init__(self, config: Config, bins: int, frames: int) -> None:
        super().__init__()
        shape = config.shape
        self.dim = shape.dim
        self.bins = bins
        self.patch = config.patch
        self.stride = config.stride or config.patch
        self.field = self.patch
        self.first = ((self.patch[0] - 1) / 2, (self.patch[1] - 1) / 2)
        self.checkpointing = config.gradient_checkpointing
        self.cutter = Cutter(self.patch, self.stride, bins, config.whole_patches)
        self.patch_embed = PatchEmbed(self.cutter, shape.dim)
        self.positions = LearnedPositions(self.cutter.grid(frames), shape.dim, config.positions)
        self.prefix = nn.Parameter(torch.empty(1, config.prefix_tokens, shape.dim))
        places = torch.zeros(1, config.prefix_tokens, shape.dim)
        self.prefix_positions = nn.Parameter(places) if config.prefix_positions else None
        self.mask_token = nn.Parameter(torch.empty(1, 1, shape.dim))
        drops = torch.linspace(0, config.drop_path, shape.depth).tolist()
        self.blocks = nn.ModuleList(
            Block(shape.dim, shape.heads, config.mlp_ratio, drop, config.qkv_bias, config.norm_eps)
            for drop in drops
        )
        self.norm = nn.LayerNorm(shape.dim, eps=config.norm_eps)
        initialise(self)
        for token in (self.prefix, self.mask_token):
            nn.init.trunc_normal_(token, std=0.02)

    def grid(self, frames: int, depth: int | None = None) -> Grid:
        """Grid of a picture ``frames`` wide; the same after every block."""
        return self.cutter.grid(frames)

    def width(self, depth: int | None = None) -> int:
        """Dim of the tokens; the same after every block."""
        return self.dim

    def finer(self, depth: int | None = None) -> int:
        """Tokens at that depth in one of the last block's, along each axis."""
        return 1

    def columns(
        self, frames: Int[Tensor, " clips"], depth: int | None = None
    ) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold sound, for clips of so many frames."""
        return self.cutter.columns(frames)

    def spanned(self, columns: int) -> int:
        """Frames that so many columns see."""
        return (columns - 1) * self.stride[1] + self.patch[1]

    def whole_columns(self, frames: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold no padding, for clips of so many frames."""
        return self.cutter.whole(frames)

    def patchify(
        self, pictures: Float[Tensor, "clips bins frames"]
    ) -> Float[Tensor, "clips patches values"]:
        """Cut pictures into the patches that the tokens stand for."""
        return self.cutter(pictures)

    def fitted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``weights`` with the positions of another grid resized to this one."""
        name = "positions.table"
        there, here = weights.get(name), self.positions
        if there is None or there.dim() != 3 or there.shape[2] != self.dim:
            return dict(weights)
        return {**weights, name: fit(there, here.grid, here.rule)}

    def forward(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"] | None = None,
        hidden: Hidden | None = None,
        kept: Kept | None = None,
        depth: int | None = None,
    ) -> Tokens:
        """Encode pictures; :class:`sslaudio.backbones.base.Backbone` says what with what.

        Returns:
            Tokens of all patches, or of the kept ones; those of padding are to be left out
            (``sound``).
        """
        grid = self.grid(pictures.shape[2])
        columns = self.columns(lengths(frames, pictures))
        sound = sounding(grid, columns)
        positions = self.positions(columns if frames is not None else None, grid.columns)
        patches = self.cutter(pictures)
        if kept is not None:
            sound = kept.sound
            patches = at(patches, kept.index)
            positions = at(positions.expand(len(patches), -1, -1), kept.index)
        patches = self.patch_embed(patches)
        if hidden is not None:
            hidden = self._whole(hidden, grid)
            asked = hidden if kept is None else hidden.gather(1, kept.index)
            patches = torch.where(asked[..., None], self.mask_token.to(patches.dtype), patches)
        patches = patches + positions
        prefix: Tensor = self.prefix
        if self.prefix_positions is not None:
            prefix = prefix + self.prefix_positions
        tokens = torch.cat([prefix.expand(len(patches), -1, -1), patches], dim=1)
        attended = self._attended(to_mask(frames, sound))
        for block in self.blocks[:depth]:
            tokens = run(block, self.checkpointing, tokens, attended)
        if depth is None:
            tokens = self.norm(tokens)
        count = self.prefix.shape[1]
        index = None if kept is None else kept.index
        return Tokens(tokens[:, count:], grid, sound, tokens[:, :count], index)

    def _whole(self, hidden: Hidden, grid: Grid) -> Bool[Tensor, "clips patches"]:
        if hidden.dim() == 3 and hidden.shape[1:] != tuple(grid):
            raise ValueError(
                f"hidden patches came as {hidden.shape[1]} by {hidden.shape[2]}, but the grid is "
                f"{grid.rows} by {grid.columns}: AST hides whole patches of backbone.patch"
            )
        return hidden.flatten(1)

    def _attended(
        self, sound: Bool[Tensor, "clips patches"] | None
    ) -> Bool[Tensor, "clips tokens"] | None:
        if sound is None:
            return None
        prefix = sound.new_ones(len(sound), self.prefix.shape[1])
        return torch.cat([prefix, sound], dim=1)


def build(config: Config, bins: int, frames: int) -> AST:
    """The backbone for pictures of ``bins`` rows, positions laid out for ``frames`` columns."""
    return AST(config, bins, frames)
