"""One attention for all backbones: softmax(q·k / √width + bias) v, with keys that may be masked.

A bias is one number for a query and each row of the keys' grid, and one for each column. It rides
along as extra columns, in the query beside its width, in the key as marks of its row and column;
no matrix of biases is made.

It goes through ``scaled_dot_product_attention`` but on CPUs in bfloat16, where torch's fused kernel
reaches a third of the rate of plain matrix products: there the products are written out, a few
megabytes of weights at a time, so that they stay in the cache (benchmarks/backbones.py).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

AT_ONCE = 4 << 20
"""Bytes of attention weights that are worked on together."""
KEPT = 32 << 20
"""Up to so many bytes of weights are kept for the backward pass; beyond, they are made again."""
FOLDED = 32
"""Up to so many rows or columns ride along in the product; adding them is faster beyond."""


class Bias(NamedTuple):
    """What each query adds to the keys of a row and of a column of their grid."""

    rows: Float[Tensor, "clips heads queries rows"]
    columns: Float[Tensor, "clips heads queries columns"]


def attend(
    query: Float[Tensor, "clips heads queries width"],
    key: Float[Tensor, "clips heads keys width"],
    value: Float[Tensor, "clips heads keys width"],
    attended: Bool[Tensor, "clips keys"] | None = None,
    bias: Bias | None = None,
) -> Float[Tensor, "clips heads queries width"]:
    """Mix values; keys that are not ``attended`` are seen by none."""
    scale = query.shape[3] ** -0.5
    written = query.device.type == "cpu" and not torch.compiler.is_compiling()
    if written and query.dtype == torch.bfloat16:
        return _written(query, key, value, attended, bias, FOLDED)
    if written and bias is not None:
        return _written(query, key, value, attended, bias, 0)
    mask = None if attended is None else attended[:, None, None]
    if bias is None:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
    width = value.shape[3]
    query, key = folded(query * scale, key, bias, rows=True, columns=True)
    value = torch.nn.functional.pad(value, (0, query.shape[3] - width))
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=1.0)
    return mixed[..., :width]


def weights(
    query: Float[Tensor, "clips heads queries width"],
    key: Float[Tensor, "clips heads keys width"],
    attended: Bool[Tensor, "clips keys"] | None = None,
    bias: Bias | None = None,
) -> Float[Tensor, "clips heads queries keys"]:
    """How much each query takes of each key, for those who look: rows that sum to 1, float32."""
    scores = query.float() @ key.float().transpose(2, 3) * query.shape[3] ** -0.5
    if bias is not None:
        by_row, by_column = bias.rows.float()[..., None], bias.columns.float()[..., None, :]
        scores = scores + (by_row + by_column).flatten(3)
    if attended is not None:
        scores = scores.masked_fill(~attended[:, None, None], -torch.inf)
    return scores.softmax(dim=3)


def folded(
    query: Float[Tensor, "clips heads queries width"],
    key: Float[Tensor, "clips heads keys width"],
    bias: Bias,
    rows: bool,
    columns: bool,
) -> tuple[
    Float[Tensor, "clips heads queries wider"],
    Float[Tensor, "clips heads keys wider"],
]:
    """Query and key whose product has the bias of ``rows`` and of ``columns`` in it."""
    high, wide = bias.rows.shape[3], bias.columns.shape[3]
    queries, keys = [query], [key]
    if rows:
        marks = torch.eye(high, dtype=key.dtype, device=key.device).repeat_interleave(wide, 0)
        queries.append(bias.rows)
        keys.append(marks.expand(*key.shape[:2], -1, -1))
    if columns:
        marks = torch.eye(wide, dtype=key.dtype, device=key.device).repeat(high, 1)
        queries.append(bias.columns)
        keys.append(marks.expand(*key.shape[:2], -1, -1))
    return torch.cat(queries, dim=3), torch.cat(keys, dim=3)


def _written(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended: Tensor | None,
    bias: Bias | None,
    fold: int,
) -> Tensor:
    scale = query.shape[3] ** -0.5
    by_row = by_column = None
    if bias is not None:
        rows, columns = (part.shape[3] <= fold for part in bias)
        if rows or columns:
            query, key = folded(query * scale, key, bias, rows, columns)
            scale = 1.0
        by_row = None if rows else bias.rows
        by_column = None if columns else bias.columns
    mixed: Tensor = _Written.apply(query, key, value, attended, by_row, by_column, scale)
    return mixed


class _Written(torch.autograd.Function):
    """Attention piece by piece; each piece's weights are kept, or made again going back."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attended: Tensor | None,
        by_row: Tensor | None,
        by_column: Tensor | None,
        scale: float,
    ) -> Tensor:
        ctx.scale = scale
        clips, heads, queries, _ = query.shape
        size = clips * heads * queries * key.shape[2] * query.element_size()
        keep = any(ctx.needs_input_grad) and size <= KEPT
        mixed = _like(query, value.shape[3])
        kept = []
        for piece in _pieces(query, key):
            found = _weights(query, key, attended, by_row, by_column, scale, piece)
            mixed[piece] = (found @ _flat(value[piece])).view_as(mixed[piece])
            if keep:
                kept.append(found)
        ctx.save_for_backward(query, key, value, attended, by_row, by_column, *kept)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        query, key, value, attended, by_row, by_column, *kept = ctx.saved_tensors
        scale = ctx.scale
        of_query, of_key, of_value = (_like(part, part.shape[3]) for part in (query, key, value))
        of_row = None if by_row is None else torch.empty_like(by_row)
        of_column = None if by_column is None else torch.empty_like(by_column)
        for number, piece in enumerate(_pieces(query, key)):
            if kept:
                found = kept[number]
            else:
                found = _weights(query, key, attended, by_row, by_column, scale, piece)
            ahead = _flat(gradient[piece])
            of_value[piece] = (found.transpose(1, 2) @ ahead).view(of_value[piece].shape)
            slope = ahead @ _flat(value[piece]).transpose(1, 2)
            slope = torch._softmax_backward_data(slope, found, -1, found.dtype)
            if of_row is not None and by_row is not None:
                laid = slope.unflatten(2, (by_row.shape[3], -1))
                of_row[piece] = laid.sum(3).view(of_row[piece].shape)
            if of_column is not None and by_column is not None:
                laid = slope.unflatten(2, (-1, by_column.shape[3]))
                of_column[piece] = laid.sum(2).view(of_column[piece].shape)
            of_query[piece] = _product(slope, _flat(key[piece]), scale).view(of_query[piece].shape)
            of_key[piece] = _product(slope.transpose(1, 2), _flat(query[piece]), scale).view(
                of_key[piece].shape
            )
        return of_query, of_key, of_value, None, of_row, of_column, None


def _weights(
    query: Tensor,
    key: Tensor,
    attended: Tensor | None,
    by_row: Tensor | None,
    by_column: Tensor | None,
    scale: float,
    piece: tuple[Any, ...],
) -> Float[Tensor, "several queries keys"]:
    scores = _product(_flat(query[piece]), _flat(key[piece]).transpose(1, 2), scale)
    if by_row is not None:
        scores.unflatten(2, (by_row.shape[3], -1)).add_(_flat(by_row[piece])[..., None])
    if by_column is not None:
        scores.unflatten(2, (-1, by_column.shape[3])).add_(_flat(by_column[piece])[:, :, None])
    if attended is not None:
        laid = scores.view(*query[piece].shape[:-1], -1)
        mask = attended[piece[0]]
        mask = mask[:, None, None] if laid.dim() == 4 else mask[None, None]
        laid.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=2, out=scores)


def _product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """``scale`` times the product, in one pass."""
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=scale)


def _pieces(query: Tensor, key: Tensor) -> Iterator[tuple[Any, ...]]:
    """Parts of the first two axes whose weights fit :data:`AT_ONCE`."""
    clips, heads, queries, _ = query.shape
    each = queries * key.shape[2] * query.element_size()
    if each * heads <= AT_ONCE:
        step = AT_ONCE // (each * heads)
        for clip in range(0, clips, step):
            yield (slice(clip, clip + step),)
    else:
        step = max(1, AT_ONCE // each)
        for clip in range(clips):
            for head in range(0, heads, step):
                yield clip, slice(head, head + step)


def _flat(piece: Tensor) -> Tensor:
    """Clips and heads as one axis."""
    return piece.flatten(0, 1) if piece.dim() == 4 else piece


def _like(part: Tensor, width: int) -> Tensor:
    """An empty tensor with tokens outermost in memory but for the clips."""
    clips, heads, tokens, _ = part.shape
    return part.new_empty(clips, tokens, heads, width).transpose(1, 2)
