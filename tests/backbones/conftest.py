"""MAST a second time: one clip, one window, one head, one query at a time, and no masks.

Written from the papers' words (MViTv2, arXiv:2112.01526, sections 3 and 4; SS-MAST,
arXiv:2211.01515, section 2) on the weights' names alone; it shares no code with the package.
"""

from collections.abc import Collection
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sslaudio.backbones.base import Grid, Kept

Weights = dict[str, Tensor]
Pair = tuple[int, int]


@pytest.fixture(scope="session")
def slow_mast():
    """The function below, for tests of several files."""
    return encode


def encode(
    backbone: torch.nn.Module,
    picture: Tensor,
    kept_rows: Collection[int] | None = None,
    kept_columns: Collection[int] | None = None,
    depth: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokens [rows, columns, dim] of one clip of its own length, and where they were dropped.

    ``kept_rows`` and ``kept_columns`` are units of the last grid; unset: all.
    """
    weights = dict(backbone.named_parameters())
    step, pad, patch = backbone.stem_stride, backbone.padding, backbone.stem_patch
    unit, kept = 8, (kept_rows, kept_columns)
    short = max(0, patch[1] - 2 * pad[1] - picture.shape[1])
    picture = functional.pad(picture, (0, short))
    grid = [
        (n + 2 * p - w) // s + 1 for n, p, w, s in zip(picture.shape, pad, patch, step, strict=True)
    ]
    last = [-(-n // unit) - 1 for n in grid]
    pixels = [
        [min(place // (unit * s), end) for place in range(n)]
        for n, s, end in zip(picture.shape, step, last, strict=True)
    ]
    gone = tuple(absent(units, chosen) for units, chosen in zip(pixels, kept, strict=True))
    tokens = sums(picture[:, :, None], weights["stem.weight"], step, pad, gone)
    tokens = tokens + weights["stem.bias"]
    count = len(backbone.blocks) if depth is None else depth
    for number in range(count):
        block = {
            name.removeprefix(f"blocks.{number}."): value
            for name, value in weights.items()
            if name.startswith(f"blocks.{number}.")
        }
        attention = backbone.blocks[number].attn
        strides = attention.query_stride, attention.key_stride
        tokens, unit = one_block(block, tokens, strides, attention.heads, unit, kept)
    if depth is None:
        tokens = normed(tokens, weights, "norm")
    return tokens, either(lost(tokens.shape[:2], unit, kept))


def absent(units: list[int], chosen: Collection[int] | None) -> Tensor:
    """Which places along an axis belong to a unit that was not kept."""
    return torch.tensor([chosen is not None and unit not in chosen for unit in units])


def lost(grid: Pair, unit: int, kept: tuple) -> tuple[Tensor, Tensor]:
    """Which rows, and which columns, of a grid of so large units were dropped."""
    row, column = (
        absent([place // unit for place in range(size)], chosen)
        for size, chosen in zip(grid, kept, strict=True)
    )
    return row, column


def either(gone: tuple[Tensor, Tensor]) -> Tensor:
    """Places that were dropped with their row or with their column."""
    return gone[0][:, None] | gone[1]


def sums(
    values: Tensor, weight: Tensor, stride: Pair, pad: Pair, gone: tuple[Tensor, Tensor]
) -> Tensor:
    """A convolution window by window.

    Beyond the border there are zeros. A row or column that was dropped is missing, from border to
    border, and the sum of the other taps is scaled up.
    """
    high, wide = weight.shape[2:]
    beyond = (pad[1], pad[1], pad[0], pad[0])
    values = values.permute(2, 0, 1).masked_fill(either(gone), 0.0)
    values = functional.pad(values, beyond)
    row_gone, column_gone = (
        functional.pad(axis, (n, n)) for axis, n in zip(gone, pad, strict=True)
    )
    missing = either((row_gone, column_gone)).float()
    rows, columns = (
        (size - window) // step + 1
        for size, window, step in zip(missing.shape, (high, wide), stride, strict=True)
    )
    out = torch.zeros(rows, columns, len(weight))
    for row, column in product(range(rows), range(columns)):
        top, left = row * stride[0], column * stride[1]
        window = values[:, top : top + high, left : left + wide]
        taps = high * wide - missing[top : top + high, left : left + wide].sum()
        if taps > 0:
            out[row, column] = (window * weight[:, 0]).sum(dim=(1, 2)) * high * wide / taps
    return out


def highest(tokens: Tensor, stride: int, gone: Tensor) -> Tensor:
    """The largest of 3 by 3 tokens around every ``stride``-th, of those that are there."""
    rows, columns = (-(-size // stride) for size in tokens.shape[:2])
    out = torch.zeros(rows, columns, tokens.shape[2])
    for row, column in product(range(rows), range(columns)):
        near = [
            tokens[r, c]
            for r in range(row * stride - 1, row * stride + 2)
            for c in range(column * stride - 1, column * stride + 2)
            if 0 <= r < tokens.shape[0] and 0 <= c < tokens.shape[1] and not gone[r, c]
        ]
        if near:
            out[row, column] = torch.stack(near).amax(dim=0)
    return out


def normed(tokens: Tensor, weights: Weights, name: str) -> Tensor:
    """Layer norm."""
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    deviation = (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(tokens: Tensor, weights: Weights, name: str) -> Tensor:
    """Matrix and bias."""
    return tokens @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def one_block(
    weights: Weights, tokens: Tensor, strides: Pair, heads: int, unit: int, kept: tuple
) -> tuple[Tensor, int]:
    """Attention and MLP; also the unit of the tokens that come out."""
    gone = lost(tokens.shape[:2], unit, kept)
    first = normed(tokens, weights, "norm1")
    past = tokens
    if "shortcut_proj_attn.weight" in weights:
        past = linear(first, weights, "shortcut_proj_attn")
    if strides[0] > 1:
        past = highest(past, strides[0], either(gone))
    tokens = past + attend(weights, first, strides, heads, unit, kept)
    second = normed(tokens, weights, "norm2")
    past = tokens
    if "shortcut_proj_mlp.weight" in weights:
        past = linear(second, weights, "shortcut_proj_mlp")
    wide = functional.gelu(linear(second, weights, "mlp.fc1"))
    return past + linear(wide, weights, "mlp.fc2"), unit // strides[0]


def attend(
    weights: Weights, tokens: Tensor, strides: Pair, heads: int, unit: int, kept: tuple
) -> Tensor:
    """Every head and every query by itself, over the keys that are there."""
    grid = tuple(tokens.shape[:2])
    gone = lost(grid, unit, kept)
    parts = linear(tokens, weights, "attn.qkv").chunk(3, dim=2)
    mixed = []
    for head in range(heads):
        query, key, value = (
            normed(
                sums(
                    part.chunk(heads, dim=2)[head],
                    weights[f"attn.pool_{name}.weight"],
                    (stride, stride),
                    (1, 1),
                    gone,
                ),
                weights,
                f"attn.norm_{name}",
            )
            for part, name, stride in zip(parts, "qkv", (*strides, strides[1]), strict=True)
        )
        unseen = either(lost(key.shape[:2], max(1, unit // strides[1]), kept)).flatten()
        found = torch.zeros_like(query)
        for row, column in product(*map(range, query.shape[:2])):
            asked = query[row, column]
            scores = key @ asked / len(asked) ** 0.5
            for axis, place in enumerate((row, column)):
                table = weights[f"attn.rel_pos_{'hw'[axis]}.table"]
                near = torch.stack(
                    [
                        relative(table, place, other, strides, grid[axis])
                        for other in range(key.shape[axis])
                    ]
                )
                scores = scores + (near @ asked).unsqueeze(1 - axis)
            share = scores.flatten().masked_fill(unseen, -torch.inf).softmax(dim=0)
            found[row, column] = share @ value.flatten(0, 1)
        mixed.append(found + query)
    return linear(torch.cat(mixed, dim=2), weights, "attn.proj")


def relative(table: Tensor, query: int, key: int, strides: Pair, size: int) -> Tensor:
    """The table's vector for a query and a key, pooled from an axis of ``size`` tokens.

    Both are centred on the token ``stride`` times their place. Distance 0 is as far before the
    middle of the table as a key is wider than a query. A table that is too short is stretched.
    """
    finer = min(strides)
    wide = strides[1] // finer
    queries, keys = (-(-size // stride) for stride in strides)
    needed = max(queries * strides[0] // finer if strides[0] == finer else 0, keys * wide)
    reach = (len(table) + 1) // 2
    distance = (query * strides[0] - key * strides[1]) / finer
    if needed > reach:
        distance *= (reach - wide) / (needed - wide)
    place = min(max(reach - wide + distance, 0.0), len(table) - 1.0)
    low = int(place)
    high = min(low + 1, len(table) - 1)
    return table[low] * (1 - (place - low)) + table[high] * (place - low)


@pytest.fixture(scope="session")
def kept_units():
    """The function below, for tests of several files."""
    return keep_units


def keep_units(grid: Grid, rows: list[list[int]], columns: list[list[int]]) -> Kept:
    """The units that every clip keeps, filled up with others that are not to be seen."""
    most = max(map(len, columns))
    index, sound = [], []
    for down, across in zip(rows, columns, strict=True):
        others = [column for column in range(grid.columns) if column not in across]
        filled = sorted([*across, *others[: most - len(across)]])
        index.append([row * grid.columns + column for row in down for column in filled])
        sound.append([column in across for column in filled] * len(down))
    share = 1 - sum(map(sum, sound)) / (len(rows) * grid.rows * grid.columns)
    return Kept(torch.tensor(index), torch.tensor(sound), len(rows[0]), torch.tensor(share))
