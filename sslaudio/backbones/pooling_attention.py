"""Multi-head pooling attention and the block around it, on grids that may have lost units.

Tokens are ``[clips, rows, columns, dim]`` with ``dim`` innermost throughout: pooling is then a
depth-wise convolution over memory as it lies, without a copy. Parameter names are timm's.

Source: Li et al. 2022 (MViTv2, arXiv:2112.01526), sections 3 and 4; Ghosh et al. 2022 (SS-MAST,
arXiv:2211.01515), section 2.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sslaudio.backbones.attention import Bias, attend, weights
from sslaudio.backbones.axis import Axis, edged, reach
from sslaudio.backbones.blocks import DropPath, Mlp, again
from sslaudio.backbones.linear import Linear, linear
from sslaudio.backbones.prompts import Prompts
from sslaudio.backbones.relative import RelativeTable

KERNEL = 3
"""Of every pooling: overlapping, padded by one."""


@dataclass(frozen=True)
class Lattice:
    """The two axes of a grid."""

    rows: Axis
    columns: Axis

    def pooled(self, stride: int) -> "Lattice":
        """The grid after pooling both axes by ``stride``."""
        if stride == 1:
            return self
        return Lattice(self.rows.pooled(stride), self.columns.pooled(stride))

    def sound(self, device: torch.device) -> Bool[Tensor, "clips rows columns"] | None:
        """Where a token is to be seen; unset: everywhere."""
        rows, columns = self.rows.sound(device), self.columns.sound(device)
        if columns is None:
            assert rows is None
            return None
        if rows is None:
            rows = columns.new_ones(1, self.rows.size)
        return rows[:, :, None] & columns[:, None]


class Shape(NamedTuple):
    """What a block is built for."""

    dim: int
    """Of the tokens that come in."""
    dim_out: int
    """Of the tokens that go out."""
    heads: int
    query_stride: int
    key_stride: int
    grid: tuple[int, int]
    """Rows and columns that come in, which the tables are laid out for."""
    expand: str
    """Where dim grows: ``attention`` or ``mlp``."""

    @property
    def attention_dim(self) -> int:
        """Width of the attention."""
        return self.dim_out if self.expand == "attention" else self.dim


class PoolingAttention(nn.Module):
    """Attention among pooled queries, keys and values; the pooled query is added to what it finds.

    Queries are pooled by ``query_stride``, keys and values by ``key_stride``, each by a 3 by 3
    depth-wise convolution that the heads share, and normed.
    """

    maps: list[Tensor] | None = None
    """Where the weights of each call go; set by :mod:`sslaudio.backbones.inspect` for a while."""

    def __init__(self, shape: Shape, norm_eps: float = 1e-6) -> None:
        super().__init__()
        dim, self.heads = shape.attention_dim, shape.heads
        self.width = width = dim // shape.heads
        self.query_stride, self.key_stride = shape.query_stride, shape.key_stride
        self.qkv = Linear(shape.dim, 3 * dim)
        self.proj = Linear(dim, dim)
        for part in "qkv":
            pool = nn.Conv2d(width, width, KERNEL, groups=width, bias=False)
            setattr(self, f"pool_{part}", pool)
            setattr(self, f"norm_{part}", nn.LayerNorm(width, eps=norm_eps))
        strides = (self.query_stride, self.key_stride)
        self.rel_pos_h = RelativeTable(shape.grid[0], *strides, width)
        self.rel_pos_w = RelativeTable(shape.grid[1], *strides, width)
        self.prompts: Prompts | None = None

    def forward(
        self, tokens: Float[Tensor, "clips rows columns dim"], lattice: Lattice
    ) -> Float[Tensor, "clips rows2 columns2 dim2"]:
        """Mix tokens; what is not sound is seen by none."""
        queries, keys = lattice.pooled(self.query_stride), lattice.pooled(self.key_stride)
        sound = lattice.sound(tokens.device)
        alike = self.query_stride == self.key_stride
        query, key, value = (
            part
            for parts, projected in self._project(tokens, ("qkv",) if alike else ("q", "kv"))
            for part in self._pool(parts, projected, lattice, sound)
        )
        mixed = self._attend(query, key, value, lattice, queries, keys)
        return self.proj((mixed + query).flatten(3))

    def _project(
        self, tokens: Float[Tensor, "clips rows columns dim"], groups: Sequence[str]
    ) -> Iterator[tuple[str, Float[Tensor, "clips rows columns parts"]]]:
        """Queries, keys and values by groups, each laid out by itself.

        A map that is wrapped is asked for all of them: what it adds, its weight does not tell.
        """
        dim = self.width * self.heads
        whole = None if isinstance(self.qkv, Linear) else self.qkv(tokens)
        for parts in groups:
            first, size = "qkv".index(parts) * dim, len(parts) * dim
            if whole is not None:
                yield parts, whole.narrow(3, first, size)
            else:
                weight, bias = (
                    part.narrow(0, first, size) for part in (self.qkv.weight, self.qkv.bias)
                )
                yield parts, linear(tokens, weight, bias)

    def _pool(
        self,
        parts: str,
        projected: Float[Tensor, "clips rows columns dim"],
        lattice: Lattice,
        sound: Bool[Tensor, "clips rows columns"] | None,
    ) -> list[Float[Tensor, "clips rows2 columns2 heads width"]]:
        """Pool and norm those of queries, keys and values that share a stride."""
        if sound is not None:
            projected = projected * sound[..., None]
        kernels = torch.stack([getattr(self, f"pool_{part}").weight for part in parts])
        kernels = kernels[:, None].expand(-1, self.heads, *kernels.shape[1:]).flatten(0, 2)
        stride = self.query_stride if parts[0] == "q" else self.key_stride

        def pool(projected: Tensor, kernels: Tensor) -> list[Tensor]:
            pooled = convolved(projected, kernels, lattice, stride)
            pooled = pooled.unflatten(3, (len(parts), self.heads, -1))
            return [
                plain_norm(part, getattr(self, f"norm_{name}"))
                for name, part in zip(parts, pooled.unbind(3), strict=True)
            ]

        return again(pool, projected, kernels)

    def _attend(
        self,
        query: Float[Tensor, "clips rows columns heads width"],
        key: Float[Tensor, "clips rows2 columns2 heads width"],
        value: Float[Tensor, "clips rows2 columns2 heads width"],
        lattice: Lattice,
        queries: Lattice,
        keys: Lattice,
    ) -> Float[Tensor, "clips rows columns heads width"]:
        device = query.device

        def biases(query: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
            rows, columns = rows.to(query.dtype), columns.to(query.dtype)
            by_row = torch.einsum("brchw,brkw->bhrck", query, rows)
            by_column = torch.einsum("brchw,bckw->bhrck", query, columns)
            return by_row.flatten(2, 3), by_column.flatten(2, 3)

        by_row = self.rel_pos_h(queries.rows, keys.rows, lattice.rows.whole, device)
        by_column = self.rel_pos_w(queries.columns, keys.columns, lattice.columns.whole, device)
        bias = Bias(*again(biases, query, by_row, by_column))
        sound = keys.sound(device)
        sound = None if sound is None else sound.expand(len(query), -1, -1).flatten(1)
        query, key, value = (part.flatten(1, 2).transpose(1, 2) for part in (query, key, value))
        if self.maps is not None:
            self.maps.append(weights(query, key, sound, bias))
        mixed = attend(query, key, value, sound, bias)
        if self.prompts is not None:
            mixed = mixed + self.prompts(query, *self._prompted(self.prompts.tokens))
        return mixed.transpose(1, 2).unflatten(1, (queries.rows.size, -1))

    def _prompted(
        self, prompts: Float[Tensor, "1 prompts dim"]
    ) -> tuple[Float[Tensor, "1 heads prompts width"], Float[Tensor, "1 heads prompts width"]]:
        """Keys and values of tokens that have no place, normed as all are."""
        _, *parts = self.qkv(prompts).unflatten(2, (3, self.heads, -1)).unbind(2)
        key, value = (
            plain_norm(part, getattr(self, f"norm_{name}")).transpose(1, 2)
            for name, part in zip("kv", parts, strict=True)
        )
        return key, value


def plain_norm(tokens: Float[Tensor, "*batch width"], norm: nn.LayerNorm) -> Tensor:
    """Layer norm in the tokens' own precision; its sums are in float32 all the same."""
    with torch.autocast(tokens.device.type, enabled=False):
        return nn.functional.layer_norm(
            tokens,
            norm.normalized_shape,
            norm.weight.to(tokens.dtype),
            norm.bias.to(tokens.dtype),
            norm.eps,
        )


def convolved(
    tokens: Float[Tensor, "clips rows columns dim"],
    weight: Float[Tensor, "dim 1 high wide"],
    lattice: Lattice,
    stride: int,
) -> Float[Tensor, "clips rows2 columns2 dim"]:
    """Depth-wise convolution, padded by one, that does not see across a seam."""
    return _over_units(
        tokens,
        lattice,
        stride,
        lambda laid, padding: depthwise(laid, weight, stride, padding),
        0.0,
    )


def depthwise(
    pictures: Float[Tensor, "several dim rows columns"],
    weight: Float[Tensor, "dim 1 high wide"],
    stride: int,
    padding: tuple[int, int],
) -> Float[Tensor, "several dim rows2 columns2"]:
    """Depth-wise convolution; on CPUs a strided one goes back in float32.

    Its backward pass in bfloat16 takes twenty times as long there (benchmarks/backbones.py).
    """
    weight = weight.to(pictures.dtype)
    slow = pictures.device.type == "cpu" and pictures.dtype == torch.bfloat16 and stride > 1
    if slow and not torch.compiler.is_compiling():
        pooled: Tensor = _BackInFloat32.apply(pictures, weight, stride, padding)
        return pooled
    return nn.functional.conv2d(pictures, weight, None, stride, padding, groups=len(weight))


class _BackInFloat32(torch.autograd.Function):
    """Depth-wise convolution whose gradients are worked out in float32."""

    @staticmethod
    def forward(
        ctx: Any, pictures: Tensor, weight: Tensor, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(pictures, weight)
        ctx.stride, ctx.padding = stride, padding
        return nn.functional.conv2d(pictures, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pictures, weight = ctx.saved_tensors
        of_pictures, of_weight, _ = torch.ops.aten.convolution_backward(
            gradients[0].float(),
            pictures.float(),
            weight.float(),
            None,
            [ctx.stride] * 2,
            list(ctx.padding),
            [1, 1],
            False,
            [0, 0],
            len(weight),
            [True, True, False],
        )
        return of_pictures.to(pictures.dtype), of_weight.to(weight.dtype), None, None


def highest(
    tokens: Float[Tensor, "clips rows columns dim"], lattice: Lattice, stride: int
) -> Float[Tensor, "clips rows2 columns2 dim"]:
    """Max pooling, 3 by 3 and padded by one, of what is sound.

    What is not is the least finite number: where a window had nothing above minus infinity, its
    place would be one of the border's, which breaks the compiled backward pass.
    """
    sound = lattice.sound(tokens.device)
    least = torch.finfo(tokens.dtype).min
    if sound is not None:
        tokens = tokens.masked_fill(~sound[..., None], least)
    pooled = _over_units(
        tokens,
        lattice,
        stride,
        lambda laid, padding: nn.functional.max_pool2d(laid, KERNEL, stride, padding),
        -torch.inf,
    )
    return pooled if sound is None else pooled.masked_fill(pooled == least, 0.0)


def _over_units(
    tokens: Float[Tensor, "clips rows columns dim"],
    lattice: Lattice,
    stride: int,
    work: Callable[[Tensor, tuple[int, int]], Tensor],
    fill: float,
) -> Float[Tensor, "clips rows2 columns2 dim"]:
    """Do ``work(pictures, padding)`` on the whole grid, or on each unit with its edges."""
    rows, columns = lattice.rows, lattice.columns
    if rows.units is None and columns.units is None:
        return work(tokens.permute(0, 3, 1, 2), (1, 1)).permute(0, 2, 3, 1)
    edges = reach(KERNEL, stride, 1)
    clips, high = len(tokens), 1
    if rows.units is not None:
        tokens = edged(tokens[:, None], rows, edges, fill)[:, 0].flatten(1, 2)
        high = rows.units.shape[1]
    if columns.units is not None:
        tokens = edged(tokens, columns, edges, fill)
    else:
        tokens = tokens[:, :, None]
    tokens = tokens.unflatten(1, (high, -1)).transpose(2, 3)
    wide = tokens.shape[2]
    padding = (int(rows.units is None), int(columns.units is None))
    done = work(tokens.flatten(0, 2).permute(0, 3, 1, 2), padding).permute(0, 2, 3, 1)
    done = done.unflatten(0, (clips, high, wide)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    if fill:
        return done
    if rows.units is not None:
        done = done * rows.scale(KERNEL, stride, 1)[:, :, None, None].to(done.dtype)
    if columns.units is not None:
        done = done * columns.scale(KERNEL, stride, 1)[:, None, :, None].to(done.dtype)
    return done


class PoolingBlock(nn.Module):
    """Pooling attention, then MLP; the first of a stage pools what goes past it too."""

    def __init__(
        self, shape: Shape, mlp_ratio: float, drop_path: float, norm_eps: float = 1e-6
    ) -> None:
        super().__init__()
        dim, dim_out, within = shape.dim, shape.dim_out, shape.attention_dim
        self.stride, self.dim_out = shape.query_stride, dim_out
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = PoolingAttention(shape, norm_eps)
        self.norm2 = nn.LayerNorm(within, eps=norm_eps)
        self.mlp = Mlp(within, round(within * mlp_ratio), dim_out)
        self.shortcut_proj_attn = Linear(dim, within) if within != dim else None
        self.shortcut_proj_mlp = Linear(within, dim_out) if within != dim_out else None
        self.drop_path = DropPath(drop_path)
        self.after_attn: nn.Module = nn.Identity()
        self.after_mlp: nn.Module = nn.Identity()

    def forward(
        self, tokens: Float[Tensor, "clips rows columns dim"], lattice: Lattice
    ) -> Float[Tensor, "clips rows2 columns2 dim2"]:
        """Where dim grows, the way past takes the normed tokens, as MViTv2's code has it."""
        normed = self.norm1(tokens)
        past = tokens if self.shortcut_proj_attn is None else self.shortcut_proj_attn(normed)
        if self.stride > 1:
            past = highest(past, lattice, self.stride)
        tokens = past + self.drop_path(self.after_attn(self.attn(normed, lattice)))
        normed = self.norm2(tokens)
        past = tokens if self.shortcut_proj_mlp is None else self.shortcut_proj_mlp(normed)
        return past + self.drop_path(self.after_mlp(self.mlp(normed)))
