"""What fills in the patches that the encoder never saw, and is thrown away after pretraining.

In:  the encoder's tokens of the patches that stayed, and which were hidden.
Out: a token for every place of the grid, for the heads to read.

Source: He et al. 2022 (MAE, arXiv:2111.06377), section 3; on log-mels Huang et al. 2022
(Audio-MAE, arXiv:2207.06405). Theirs has 8 blocks (16 there); few are enough for what is sought
here, an encoder.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sslaudio.backbones.base import Tokens, to_mask
from sslaudio.backbones.blocks import Block, initialise
from sslaudio.backbones.linear import Linear
from sslaudio.backbones.positions import sines

HEAD_DIM = 32
"""Width of an attention head, MAE's."""


class Decoder(nn.Module):
    """A narrow transformer over the whole grid; only what stayed or was hidden is attended."""

    def __init__(self, dim_in: int, dim: int, depth: int) -> None:
        super().__init__()
        self.dim = dim
        self.embed = Linear(dim_in, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, dim // HEAD_DIM, 4.0, 0.0) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        initialise(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(
        self,
        tokens: Tokens,
        hidden: Bool[Tensor, "clips patches"],
        frames: Int[Tensor, " clips"] | None,
    ) -> Float[Tensor, "clips patches dim"]:
        """Tokens of the whole grid; a place tells the same sines in a clip of any length."""
        narrow = self.embed(tokens.patches)
        laid, stayed = replace(tokens, patches=narrow, prefix=narrow[:, :0]).laid()
        mask_token = self.mask_token.to(laid.dtype)
        filled = torch.where(hidden[..., None], mask_token, laid.flatten(1, 2))
        filled = filled + sines(tokens.grid, self.dim).flatten(0, 1).to(filled.device)
        attended = to_mask(frames, stayed.flatten(1) | hidden)
        for block in self.blocks:
            filled = block(filled, attended)
        normed: Tensor = self.norm(filled)
        return normed
