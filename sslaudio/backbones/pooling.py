"""Tokens of a clip to one embedding, without parameters, padding left out.

A pooling is a list of parts, laid one after the other in the embedding:

``cls``                      mean of the learned tokens before the patches (AST: cls and dist)
``mean``, ``max``, ``std``   over all of a clip's tokens
``slices2`` ... ``slices9``  means over so many equal stretches of the clip's time: keeps order
``row_mean``, ``row_max``    over time, each mel row of the grid by itself: keeps pitch height

Word and event order is lost by a mean over time; the log-mel statistics that an encoder has to
beat keep it by four slices, so ours may.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sslaudio.backbones.base import Tokens

PARTS = ("cls", "mean", "max", "std", *(f"slices{n}" for n in range(2, 10)), "row_mean", "row_max")
"""What a pooling may be made of."""


def check(parts: tuple[str, ...], key: str = "backbone.pooling") -> None:
    """Refuse an empty pooling or an unknown part; ``key`` is where it was set.

    Raises:
        ValueError: names the part and those there are.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"{key} has no part {part!r}; there is {', '.join(PARTS)}")
    if not parts:
        raise ValueError(f"{key} is empty; choose from {', '.join(PARTS)}")


def pooled_dim(parts: tuple[str, ...], rows: int, dim: int) -> int:
    """Length of the embedding of a backbone with ``rows`` patch rows and ``dim``."""
    each = {"row_mean": rows, "row_max": rows}
    slices = {f"slices{n}": n for n in range(2, 10)}
    return dim * sum({**each, **slices}.get(part, 1) for part in parts)


def pool(
    tokens: Tokens, columns: Int[Tensor, " clips"], parts: tuple[str, ...]
) -> Float[Tensor, "clips pooled"]:
    """Pool each clip's tokens; those of padding and those that were dropped do not count.

    Args:
        tokens: as a backbone gives them.
        columns: columns of each clip that are sound; at least 1.
        parts: from :data:`PARTS`.
    """
    laid, seen = tokens.laid()
    laid, seen = laid.float(), seen[..., None]
    prefix = tokens.prefix.float()
    return torch.cat([_part(part, laid, seen, columns, prefix) for part in parts], dim=1)


def _part(
    part: str,
    laid: Float[Tensor, "clips rows columns dim"],
    seen: Bool[Tensor, "clips rows columns 1"],
    columns: Int[Tensor, " clips"],
    prefix: Float[Tensor, "clips prefix dim"],
) -> Float[Tensor, "clips pooled"]:
    if part == "cls":
        return prefix.mean(dim=1)
    if part == "max":
        return laid.masked_fill(~seen, -torch.inf).amax(dim=(1, 2))
    if part == "row_max":
        least = torch.finfo(laid.dtype).min
        highest = laid.masked_fill(~seen, least).amax(dim=2)
        return highest.masked_fill(~seen.any(dim=2), 0.0).flatten(1)
    if part == "row_mean":
        return masked_mean(laid, seen, (2,)).flatten(1)
    if part == "mean":
        return masked_mean(laid, seen, (1, 2))
    if part == "std":
        mean = masked_mean(laid, seen, (1, 2))[:, None, None]
        return masked_mean((laid - mean).square(), seen, (1, 2)).clamp(min=1e-12).sqrt()
    count = int(part.removeprefix("slices"))
    weights = slice_weights(columns, laid.shape[2], count)
    there = seen.any(dim=1).transpose(1, 2)  # a dropped column counts in no slice
    weights = weights * there / (weights * there).sum(dim=2, keepdim=True).clamp(min=1e-12)
    return (weights @ masked_mean(laid, seen, (1,))).flatten(1)


def masked_mean(
    values: Float[Tensor, "clips rows columns dim"],
    seen: Bool[Tensor, "clips rows columns 1"],
    axes: tuple[int, ...],
) -> Float[Tensor, "clips ..."]:
    """Mean over what is seen; 0 where nothing is."""
    total = torch.where(seen, values, 0.0).sum(dim=axes)
    return total / seen.sum(dim=axes).clamp(min=1)


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
