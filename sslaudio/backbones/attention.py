"""One attention for all backbones: softmax(q·k / √width + bias) v, with keys that may be masked.

A bias is one number for a query and each row of the keys' grid, and one for each column. It rides
along as extra columns, in the query beside its width, in the key as marks of its row and column;
no matrix of biases is made.

It goes through ``scaled_dot_product_attention``, but for what measures faster on CPUs
(benchmarks/backbones.py): in bfloat16, where torch's fused kernel reaches a third of the rate of
plain matrix products, and in float32 with a bias, the products are written out, a few megabytes of
weights at a time, so that they stay in the cache. There the bias of a large grid is added to them
in place, which is cheaper than columns for it.
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
FOLDED = 48
"""Up to so many rows and columns ride along in the product; adding them is faster beyond."""


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
    if written and (query.dtype == torch.bfloat16 or bias is not None):
        rows, columns = (None, None) if bias is None else bias
        mixed: Tensor = _Written.apply(query, key, value, attended, rows, columns)
        return mixed
    mask = None if attended is None else attended[:, None, None]
    if bias is None:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
    width = value.shape[3]
    query, key = folded(query * scale, key, bias)
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
) -> tuple[Float[Tensor, "*batch queries wider"], Float[Tensor, "*batch keys wider"]]:
    """Query and key whose product has the bias in it."""
    high, wide = bias.rows.shape[-1], bias.columns.shape[-1]
    of_row = torch.eye(high, dtype=key.dtype, device=key.device).repeat_interleave(wide, 0)
    of_column = torch.eye(wide, dtype=key.dtype, device=key.device).repeat(high, 1)
    marks = torch.cat([of_row, of_column], dim=1).expand(*key.shape[:-2], -1, -1)
    return torch.cat([query, bias.rows, bias.columns], dim=-1), torch.cat([key, marks], dim=-1)


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
    ) -> Tensor:
        clips, heads, queries, _ = query.shape
        size = clips * heads * queries * key.shape[2] * query.element_size()
        keep = any(ctx.needs_input_grad) and size <= KEPT
        mixed = _like(query, value.shape[3])
        kept = []
        for piece in _pieces(query, key):
            part = _Piece.cut(piece, query, key, attended, rows, columns)
            found = part.weights()
            mixed[piece] = (found @ _flat(value[piece])).view_as(mixed[piece])
            if keep:
                kept.append(found)
        ctx.save_for_backward(query, key, value, attended, rows, columns, *kept)
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
            part = _Piece.cut(piece, query, key, attended, rows, columns)
            found = kept[number] if kept else part.weights()
            ahead = _flat(gradients[0][piece])
            of_value[piece] = _product(found.transpose(1, 2), ahead, 1.0).view_as(of_value[piece])
            slope = ahead @ _flat(value[piece]).transpose(1, 2)
            slope = torch._softmax_backward_data(slope, found, -1, found.dtype)
            for name, gradient in part.back(slope).items():
                back[name][piece] = gradient.view_as(back[name][piece])
        found_back = (back.get(name) for name in ("rows", "columns"))
        return back["query"], back["key"], of_value, None, *found_back


class _Piece(NamedTuple):
    """Some clips and heads, one after the other along the first axis."""

    query: Float[Tensor, "several queries wider"]
    key: Float[Tensor, "several keys wider"]
    attended: Bool[Tensor, "several 1 keys"] | None
    rows: Float[Tensor, "several queries rows"] | None
    """What is added; a bias that is folded in is not here."""
    columns: Float[Tensor, "several queries columns"] | None
    widths: tuple[int, int, int]
    """Of the query itself, and of the rows and columns that ride along."""
    scale: float
    """Of the query itself."""

    @classmethod
    def cut(
        cls,
        piece: tuple[Any, ...],
        query: Tensor,
        key: Tensor,
        attended: Tensor | None,
        rows: Tensor | None,
        columns: Tensor | None,
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
        if rows is None or columns is None:
            return cls(query, key, attended, None, None, (width, 0, 0), scale)
        rows, columns = _flat(rows[piece]), _flat(columns[piece])
        high, wide = rows.shape[2], columns.shape[2]
        if high + wide > FOLDED or query.dtype != torch.bfloat16:
            return cls(query, key, attended, rows, columns, (width, 0, 0), scale)
        query, key = folded(query * scale, key, Bias(rows, columns))
        return cls(query, key, attended, None, None, (width, high, wide), scale)

    @property
    def _factor(self) -> float:
        return 1.0 if self.widths[1] else self.scale

    def weights(self) -> Float[Tensor, "several queries keys"]:
        scores = _product(self.query, self.key.transpose(1, 2), self._factor)
        if self.rows is not None and self.columns is not None:
            laid = scores.unflatten(2, (self.rows.shape[2], -1))
            laid.add_(self.rows[..., None]).add_(self.columns[:, :, None])
        if self.attended is not None:
            scores.masked_fill_(~self.attended, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, dim=2, out=scores)

    def back(self, slope: Float[Tensor, "several queries keys"]) -> dict[str, Tensor]:
        """Gradients of the piece's parts from those of its scores."""
        found = {}
        if self.rows is not None and self.columns is not None:
            laid = slope.unflatten(2, (self.rows.shape[2], -1))
            found = {"rows": laid.sum(3), "columns": laid.sum(2)}
        of_query, of_rows, of_columns = _product(slope, self.key, self._factor).split(
            list(self.widths), dim=2
        )
        if self.widths[1]:
            found = {"rows": of_rows, "columns": of_columns}
            of_query = of_query * self.scale
        own = self.query[..., : self.widths[0]]
        of_key = _product(slope.transpose(1, 2), own, self._factor)
        return {**found, "query": of_query, "key": of_key}


def _product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """``scale`` times the product, in one pass.

    A plain ``bmm`` of one transposed bfloat16 matrix takes ten times as long on CPUs.
    """
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
