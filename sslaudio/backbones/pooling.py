"""Tokens of a clip to one embedding, without parameters, padding left out.

A pooling is a list of parts, laid one after the other in the embedding:

``mean``, ``max``, ``std``   over all of a clip's tokens
``slices2`` ... ``slices9``  means over so many equal stretches of the clip's time: keeps order
``row_mean``, ``row_max``    over time, each mel row of the grid by itself: keeps pitch height

Word and event order is lost by a mean over time; the log-mel statistics that an encoder has to
beat keep it by four slices, so ours may.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sslaudio.backbones.base import Grid

PARTS = ("mean", "max", "std", *(f"slices{n}" for n in range(2, 10)), "row_mean", "row_max")
"""What a pooling may be made of."""


def check(parts: tuple[str, ...]) -> None:
    """Refuse an empty pooling or an unknown part.

    Raises:
        ValueError: names the part and those there are.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"backbone.pooling has no part {part!r}; there is {', '.join(PARTS)}")
    if not parts:
        raise ValueError(f"backbone.pooling is empty; choose from {', '.join(PARTS)}")


def pooled_dim(parts: tuple[str, ...], rows: int, dim: int) -> int:
    """Length of the embedding of a backbone with ``rows`` patch rows and ``dim``."""
    each = {"row_mean": rows, "row_max": rows}
    slices = {f"slices{n}": n for n in range(2, 10)}
    return dim * sum({**each, **slices}.get(part, 1) for part in parts)


def pool(
    tokens: Float[Tensor, "clips patches dim"],
    grid: Grid,
    columns: Int[Tensor, " clips"],
    parts: tuple[str, ...],
) -> Float[Tensor, "clips pooled"]:
    """Pool each clip's tokens.

    Args:
        tokens: patches row by row, as a backbone gives them.
        grid: their rows and columns.
        columns: columns of each clip that are sound; at least 1.
        parts: from :data:`PARTS`.
    """
    laid = rearrange(
        tokens.float(), "clips (rows columns) dim -> clips rows columns dim", rows=grid.rows
    )
    place = torch.arange(grid.columns, device=tokens.device)
    sound = place < columns[:, None]
    pooled = [_part(part, laid, sound, columns) for part in parts]
    return torch.cat(pooled, dim=1)


def _part(
    part: str,
    laid: Float[Tensor, "clips rows columns dim"],
    sound: Bool[Tensor, "clips columns"],
    columns: Int[Tensor, " clips"],
) -> Float[Tensor, "clips pooled"]:
    seen = sound[:, None, :, None]
    if part == "max":
        return laid.masked_fill(~seen, -torch.inf).amax(dim=(1, 2))
    if part == "row_max":
        return laid.masked_fill(~seen, -torch.inf).amax(dim=2).flatten(1)
    by_row = torch.where(seen, laid, 0.0).sum(dim=2) / columns[:, None, None]
    if part == "row_mean":
        return by_row.flatten(1)
    mean = by_row.mean(dim=1)
    if part == "std":
        off = torch.where(seen, laid - mean[:, None, None], 0.0).square().sum(dim=(1, 2))
        return (off / (columns * laid.shape[1])[:, None]).clamp(min=1e-12).sqrt()
    if part == "mean":
        return mean
    count = int(part.removeprefix("slices"))
    weights = slice_weights(columns, sound.shape[1], count)
    return (weights @ laid.mean(dim=1)).flatten(1)


def slice_weights(
    columns: Int[Tensor, " clips"], width: int, count: int
) -> Float[Tensor, "clips slices columns"]:
    """Weights of the means over ``count`` equal stretches of each clip's own columns.

    A column on the border of two stretches counts in both by its share, so that a clip of fewer
    columns than stretches has them all.
    """
    place = torch.arange(width, device=columns.device)
    edges = torch.arange(count + 1, device=columns.device) * columns[:, None] / count
    left = torch.maximum(edges[:, :-1, None], place.float())
    right = torch.minimum(edges[:, 1:, None], place + 1.0)
    overlap = (right - left).clamp(min=0)
    return overlap / overlap.sum(dim=2, keepdim=True)
