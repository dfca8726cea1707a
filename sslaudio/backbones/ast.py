"""AST: a Vision Transformer over the patches of a log-mel picture.

Source: Gong et al. 2021 (arXiv:2104.01778), section 2; masked tokens as in SSAST (Gong et al.
2022, arXiv:2110.09784), section 2.3. Block and parameter names are timm's.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sslaudio.backbones.base import Grid, Tokens
from sslaudio.backbones.blocks import Block, initialise
from sslaudio.backbones.patches import Cutter, PatchEmbed
from sslaudio.backbones.pooling import check
from sslaudio.backbones.positions import LearnedPositions


class _Size(NamedTuple):
    dim: int
    heads: int
    depth: int


SIZES = {
    "micro": _Size(128, 4, 5),
    "tiny": _Size(192, 3, 12),
    "small": _Size(384, 6, 12),
    "base": _Size(768, 12, 12),
}
"""AST's sizes, and one that two processor cores can train."""


@dataclass(frozen=True)
class Config:
    """How large the transformer is and how it cuts its picture."""

    size: Literal["micro", "tiny", "small", "base"] = "micro"
    """Dim, heads and depth: micro 128/4/5, tiny 192/3/12, small 384/6/12, base 768/12/12."""
    patch: tuple[int, int] = (16, 16)
    """(bins, frames) of one patch; AST and SSAST: 16 16, SSAST by frames: 128 2."""
    stride: tuple[int, int] | None = None
    """(bins, frames) from one patch to the next; unset: the patch, no overlap. AST: 10 10."""
    prefix_tokens: int = 2
    """Learned tokens before the patches: AST's cls and distillation tokens; 0 for none."""
    mlp_ratio: float = 4.0
    """Width of a block's MLP over dim."""
    pooling: tuple[str, ...] = ("mean", "max", "slices2")
    """What a clip's embedding is made of; parts: sslaudio/backbones/pooling.py."""
    pooled_block: int | None = None
    """Block whose output is pooled, from 1; unset: the last, after its norm."""
    drop_path: float = 0.0
    """Share of clips that skip the last block in training; earlier blocks less, linearly."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"backbone.drop_path is {self.drop_path:g}; it is at least 0, under 1")
        check(self.pooling)
        depth = SIZES[self.size].depth
        if self.pooled_block is not None and not 1 <= self.pooled_block <= depth:
            raise ValueError(
                f"backbone.pooled_block is {self.pooled_block}; 1 to {depth} are there"
            )
        if self.prefix_tokens < 0:
            raise ValueError(f"backbone.prefix_tokens is {self.prefix_tokens}; 0 is the fewest")


class AST(nn.Module):
    """Audio Spectrogram Transformer that respects lengths and hides patches."""

    def __init__(self, config: Config, bins: int, frames: int) -> None:
        super().__init__()
        size = SIZES[config.size]
        self.dim = size.dim
        self.bins = bins
        self.patch = config.patch
        self.stride = config.stride or config.patch
        self.cutter = Cutter(self.patch, self.stride, bins)
        self.patch_embed = PatchEmbed(self.cutter, size.dim)
        self.positions = LearnedPositions(self.cutter.grid(frames), size.dim)
        self.prefix = nn.Parameter(torch.empty(1, config.prefix_tokens, size.dim))
        self.mask_token = nn.Parameter(torch.empty(1, 1, size.dim))
        drops = torch.linspace(0, config.drop_path, size.depth).tolist()
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, config.mlp_ratio, drop) for drop in drops
        )
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)
        initialise(self)
        for token in (self.prefix, self.mask_token):
            nn.init.trunc_normal_(token, std=0.02)

    def grid(self, frames: int) -> Grid:
        """Grid of a picture ``frames`` wide."""
        return self.cutter.grid(frames)

    def columns(self, frames: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold sound, for clips of so many frames."""
        return self.cutter.columns(frames)

    def whole_columns(self, frames: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Columns of the grid that hold no padding, for clips of so many frames."""
        return self.cutter.whole(frames)

    def patchify(
        self, pictures: Float[Tensor, "clips bins frames"]
    ) -> Float[Tensor, "clips patches values"]:
        """Cut pictures into the patches that the tokens stand for."""
        return self.cutter(pictures)

    def forward(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        hidden: Bool[Tensor, "clips patches"] | None = None,
        depth: int | None = None,
    ) -> Tokens:
        """Encode pictures.

        Args:
            pictures: standardised log-mels, padded columns 0.
            frames: columns of each picture that are sound.
            hidden: patches to replace by the learned mask token before they are seen.
            depth: blocks to run, their plain output returned; unset: all, and the last norm.

        Returns:
            Tokens of all patches; those of padding are to be left out (``sound``).
        """
        grid = self.grid(pictures.shape[2])
        columns = self.columns(frames)
        patches = self.patch_embed(pictures)
        if hidden is not None:
            patches = torch.where(hidden[..., None], self.mask_token.to(patches.dtype), patches)
        patches = patches + self.positions(columns, grid.columns)
        place = torch.arange(grid.columns, device=frames.device).repeat(grid.rows)
        sound = place < columns[:, None]
        tokens = torch.cat([self.prefix.expand(len(patches), -1, -1), patches], dim=1)
        attended = self._attended(sound)
        for block in self.blocks[:depth]:
            tokens = block(tokens, attended)
        if depth is None:
            tokens = self.norm(tokens)
        return Tokens(tokens[:, self.prefix.shape[1] :], grid, sound)

    def _attended(
        self, sound: Bool[Tensor, "clips patches"]
    ) -> Bool[Tensor, "clips 1 1 tokens"] | None:
        if sound.all():
            return None
        prefix = sound.new_ones(len(sound), self.prefix.shape[1])
        return torch.cat([prefix, sound], dim=1)[:, None, None]


def build(config: Config, bins: int, frames: int) -> AST:
    """The backbone for pictures of ``bins`` rows, positions laid out for ``frames`` columns."""
    return AST(config, bins, frames)
