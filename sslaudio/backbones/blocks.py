"""Transformer blocks that know which tokens are padding."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention through ``scaled_dot_product_attention``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        tokens: Float[Tensor, "clips tokens dim"],
        attended: Bool[Tensor, "clips 1 1 tokens"] | None = None,
    ) -> Float[Tensor, "clips tokens dim"]:
        """Mix tokens; those not ``attended`` are seen by none."""
        clips, count, dim = tokens.shape
        qkv = self.qkv(tokens).view(clips, count, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attended)
        return self.proj(mixed.transpose(1, 2).reshape(clips, count, dim))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(
        self, tokens: Float[Tensor, "clips tokens dim"]
    ) -> Float[Tensor, "clips tokens dim"]:
        """Each token by itself."""
        return self.fc2(nn.functional.gelu(self.fc1(tokens)))


class DropPath(nn.Module):
    """Leaves a block out for a random share of the clips, in training only.

    Source: Huang et al. 2016 (arXiv:1603.09382); what is kept is scaled up to keep the mean.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(
        self, tokens: Float[Tensor, "clips tokens dim"]
    ) -> Float[Tensor, "clips tokens dim"]:
        """Zero or scale each clip's tokens."""
        if not self.training or self.ratio == 0:
            return tokens
        kept = torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.ratio
        return tokens * kept / (1 - self.ratio)


class Block(nn.Module):
    """Pre-norm transformer block, parameters named as timm's ViT names them."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Float[Tensor, "clips tokens dim"],
        attended: Bool[Tensor, "clips 1 1 tokens"] | None = None,
    ) -> Float[Tensor, "clips tokens dim"]:
        """Attention, then MLP, each added to its input."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), attended))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


def initialise(module: nn.Module) -> None:
    """ViT's start: truncated normal of deviation 0.02 for linear weights, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
