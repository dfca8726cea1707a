"""Transformer blocks that know which tokens are padding."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sslaudio.backbones.attention import attend, weights
from sslaudio.backbones.linear import Linear
from sslaudio.backbones.prompts import Prompts


class Attention(nn.Module):
    """Multi-head self-attention."""

    key_stride = 1
    """Every token is a key."""
    maps: list[Tensor] | None = None
    """Where the weights of each call go; set by :mod:`sslaudio.backbones.inspect` for a while."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.prompts: Prompts | None = None

    def forward(
        self,
        tokens: Float[Tensor, "clips tokens dim"],
        attended: Bool[Tensor, "clips tokens"] | None = None,
    ) -> Float[Tensor, "clips tokens dim"]:
        """Mix tokens; those not ``attended`` are seen by none."""
        clips, count, dim = tokens.shape
        query, key, value = self._project(tokens)
        if self.maps is not None:
            self.maps.append(weights(query, key, attended))
        mixed = attend(query, key, value, attended)
        if self.prompts is not None:
            _, key, value = self._project(self.prompts.tokens)
            mixed = mixed + self.prompts(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(clips, count, dim))

    def _project(
        self, tokens: Float[Tensor, "clips tokens dim"]
    ) -> Float[Tensor, "3 clips heads tokens width"]:
        """Queries, keys and values."""
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        return qkv.permute(2, 0, 3, 1, 4)


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden: int, dim_out: int | None = None) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim_out or dim)

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim_out"]:
        """Each token by itself."""
        return again(
            lambda hidden: self.fc2(nn.functional.gelu(hidden)),
            self.fc1(tokens),
            draws=not isinstance(self.fc2, Linear),
        )


LARGE = 1 << 19
"""Numbers of a tensor worth the half millisecond that doing things again costs."""

Made = TypeVar("Made")
"""What some work gives."""


def again(work: Callable[..., Made], *tensors: Tensor, draws: bool = False) -> Made:
    """``work(*tensors)``, whose cheap steps are done again going back instead of being kept.

    A matrix product at its end is not done again. What is small is kept. A compiled graph decides
    for itself. Work that may draw, as a dropout does, draws the same again.
    """
    kept = tensors[0].numel() < LARGE or torch.compiler.is_compiling()
    if kept or not torch.is_grad_enabled():
        return work(*tensors)
    return cast(Made, checkpoint(work, *tensors, use_reentrant=False, preserve_rng_state=draws))


def run(block: nn.Module, checkpointing: bool, *given: Any) -> Tensor:
    """``block(*given)``; with ``checkpointing``, all of it is done again going back."""
    if checkpointing and block.training and torch.is_grad_enabled():
        return cast(Tensor, checkpoint(block, *given, use_reentrant=False))
    return cast(Tensor, block(*given))


class DropPath(nn.Module):
    """Leaves a block out for a random share of the clips, in training only.

    Source: Huang et al. 2016 (arXiv:1603.09382); what is kept is scaled up to keep the mean.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, tokens: Float[Tensor, "clips *tokens"]) -> Float[Tensor, "clips *tokens"]:
        """Zero or scale each clip's tokens."""
        if not self.training or self.ratio == 0:
            return tokens
        ones = (1,) * (tokens.dim() - 1)
        kept = torch.rand(len(tokens), *ones, device=tokens.device) >= self.ratio
        return tokens * kept / (1 - self.ratio)


class Block(nn.Module):
    """Pre-norm transformer block, parameters named as timm's ViT names them."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        drop_path: float,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.after_attn: nn.Module = nn.Identity()
        self.after_mlp: nn.Module = nn.Identity()

    def forward(
        self,
        tokens: Float[Tensor, "clips tokens dim"],
        attended: Bool[Tensor, "clips tokens"] | None = None,
    ) -> Float[Tensor, "clips tokens dim"]:
        """Attention, then MLP, each added to its input."""
        mixed = self.after_attn(self.attn(self.norm1(tokens), attended))
        tokens = tokens + self.drop_path(mixed)
        return tokens + self.drop_path(self.after_mlp(self.mlp(self.norm2(tokens))))


def check_blocks(depth: int, pooled_block: int | None, mlp_ratio: float, drop_path: float) -> None:
    """Refuse settings that no row of ``depth`` blocks can have.

    Raises:
        ValueError: names the key.
    """
    if not 0 <= drop_path < 1:
        raise ValueError(f"backbone.drop_path is {drop_path:g}; it is at least 0, under 1")
    if mlp_ratio <= 0:
        raise ValueError(f"backbone.mlp_ratio is {mlp_ratio:g}; it is above 0 (usual: 4)")
    if pooled_block is not None and not 1 <= pooled_block <= depth:
        raise ValueError(f"backbone.pooled_block is {pooled_block}; 1 to {depth} are there")


def initialise(module: nn.Module) -> None:
    """ViT's start: truncated normal of deviation 0.02 for linear weights, zero biases.

    The patch embedding starts as MAE's (arXiv:2111.06377, appendix A.1), Xavier uniform over the
    patch's values, so that tokens start at the scale of the pictures.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        elif isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight.flatten(1))
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
