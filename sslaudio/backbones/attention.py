"""One attention for all backbones: softmax(q·k / √width + bias) v, with keys that may be masked.

A bias is one number for a query and each row of the keys' grid, and one for each column. It rides
along as extra columns, in the query beside its width, in the key as marks of its row and column;
no matrix of biases is made.

It goes through ``scaled_dot_product_attention``, but for what measures faster on CPUs
(benchmarks/backbones.py): in bfloat16, where torch's fused kernel reaches a third of the rate of
plain matrix products, and in float32 with a bias, the products are written out, a few megabytes of
weights at a time, so that they stay in the cache. There a bias over a long axis is added to them in
place, which is cheaper than columns for it.
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

    rows: Float[Tensor, "*batch queries rows"]
    columns: Float[Tensor, "*batch queries columns"]


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
    query: Float[Tensor, "*batch queries width"],
    key: Float[Tensor, "*batch keys width"],
    bias: Bias,
    rows: bool,
    columns: bool,
) -> tuple[Float[Tensor, "*batch queries wider"], Float[Tensor, "*batch keys wider"]]:
    """Query and key whose product has the bias of ``rows`` and of ``columns`` in it."""
    high, wide = bias.rows.shape[-1], bias.columns.shape[-1]
    queries, keys = [query], [key]
    if rows:
        marks = torch.eye(high, dtype=key.dtype, device=key.device).repeat_interleave(wide, 0)
        queries.append(bias.rows)
        keys.append(marks.expand(*key.shape[:-2], -1, -1))
    if columns:
        marks = torch.eye(wide, dtype=key.dtype, device=key.device).repeat(high, 1)
        queries.append(bias.columns)
        keys.append(marks.expand(*key.shape[:-2], -1, -1))
    return torch.cat(queries, dim=-1), torch.cat(keys, dim=-1)


def _written(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended: Tensor | None,
    bias: Bias | None,
    fold: int,
) -> Tensor:
    rows, columns = (None, None) if bias is None else bias
    mixed: Tensor = _Written.apply(query, key, value, attended, rows, columns, fold)
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
        rows: Tensor | None,
        columns: Tensor | None,
        fold: int,
    ) -> Tensor:
        clips, heads, queries, _ = query.shape
        size = clips * heads * queries * key.shape[2] * query.element_size()
        keep = any(ctx.needs_input_grad) and size <= KEPT
        mixed = _like(query, value.shape[3])
        kept = []
        for piece in _pieces(query, key):
            part = _Piece.cut(piece, query, key, attended, rows, columns, fold)
            found = part.weights()
            mixed[piece] = (found @ _flat(value[piece])).view_as(mixed[piece])
            if keep:
                kept.append(found)
        ctx.save_for_backward(query, key, value, attended, rows, columns, *kept)
        ctx.fold = fold
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, attended, rows, columns, *kept = ctx.saved_tensors
        given = {"query": query, "key": key, "rows": rows, "columns": columns}
        back = {
            name: _like(part, part.shape[3]) for name, part in given.items() if part is not None
        }
        of_value = _like(value, value.shape[3])
        for number, piece in enumerate(_pieces(query, key)):
            part = _Piece.cut(piece, query, key, attended, rows, columns, ctx.fold)
            found = kept[number] if kept else part.weights()
            ahead = _flat(gradients[0][piece])
            of_value[piece] = (found.transpose(1, 2) @ ahead).view_as(of_value[piece])
            slope = ahead @ _flat(value[piece]).transpose(1, 2)
            slope = torch._softmax_backward_data(slope, found, -1, found.dtype)
            for name, gradient in part.back(slope).items():
                back[name][piece] = gradient.view_as(back[name][piece])
        found_back = (back.get(name) for name in ("rows", "columns"))
        return back["query"], back["key"], of_value, None, *found_back, None


class _Piece(NamedTuple):
    """Some clips and heads, one after the other along the first axis."""

    query: Float[Tensor, "several queries wider"]
    key: Float[Tensor, "several keys wider"]
    attended: Bool[Tensor, "several 1 keys"] | None
    rows: Float[Tensor, "several queries rows"] | None
    """What is added; a bias that is folded in is not here."""
    columns: Float[Tensor, "several queries columns"] | None
    width: int
    """Of the query itself."""
    folded_rows: int
    folded_columns: int
    scale: float

    @classmethod
    def cut(
        cls,
        piece: tuple[Any, ...],
        query: Tensor,
        key: Tensor,
        attended: Tensor | None,
        rows: Tensor | None,
        columns: Tensor | None,
        fold: int,
    ) -> "_Piece":
        heads = query[piece].shape[-3]
        if attended is not None:
            attended = attended[piece[0]]
            if len(piece) == 2:
                attended = attended[None, None]
            else:
                attended = attended.repeat_interleave(heads, dim=0)[:, None]
        width, scale = query.shape[3], query.shape[3] ** -0.5
        query, key = _flat(query[piece]), _flat(key[piece])
        high = wide = 0
        if rows is not None and columns is not None:
            rows, columns = _flat(rows[piece]), _flat(columns[piece])
            high, wide = (part.shape[2] if part.shape[2] <= fold else 0 for part in (rows, columns))
            if high or wide:
                query, key = folded(query * scale, key, Bias(rows, columns), bool(high), bool(wide))
            rows, columns = None if high else rows, None if wide else columns
        return cls(query, key, attended, rows, columns, width, high, wide, scale)

    @property
    def _factor(self) -> float:
        return 1.0 if self.folded_rows or self.folded_columns else self.scale

    def weights(self) -> Float[Tensor, "several queries keys"]:
        scores = _product(self.query, self.key.transpose(1, 2), self._factor)
        if self.rows is not None:
            scores.unflatten(2, (self.rows.shape[2], -1)).add_(self.rows[..., None])
        if self.columns is not None:
            scores.unflatten(2, (-1, self.columns.shape[2])).add_(self.columns[:, :, None])
        if self.attended is not None:
            scores.masked_fill_(~self.attended, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, dim=2, out=scores)

    def back(self, slope: Float[Tensor, "several queries keys"]) -> dict[str, Tensor]:
        """Gradients of the piece's parts from those of its scores."""
        found = {}
        if self.rows is not None:
            found["rows"] = slope.unflatten(2, (self.rows.shape[2], -1)).sum(3)
        if self.columns is not None:
            found["columns"] = slope.unflatten(2, (-1, self.columns.shape[2])).sum(2)
        of_query = _product(slope, self.key, self._factor)
        widths = [self.width, self.folded_rows, self.folded_columns]
        of_query, of_rows, of_columns = of_query.split(widths, dim=2)
        if self._factor != self.scale:
            of_query = of_query * self.scale
        if self.folded_rows:
            found["rows"] = of_rows
        if self.folded_columns:
            found["columns"] = of_columns
        own = self.query[..., : self.width]
        of_key = _product(slope.transpose(1, 2), own, self._factor)
        return {**found, "query": of_query, "key": of_key}


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
