"""What the processes of one run tell one another; alone, a process answers itself."""

from typing import TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed

Given = TypeVar("Given")
"""Anything."""


def several() -> bool:
    """Whether this process is one of several."""
    return distributed.is_available() and distributed.is_initialized() and count() > 1


def count() -> int:
    """Processes of the run."""
    there = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if there else 1


def rank() -> int:
    """This process, from 0."""
    there = distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if there else 0


def from_first(value: Given) -> Given:
    """The first process's ``value``, on all of them; it goes through Python's own format."""
    if not several():
        return value
    shared = [value]
    distributed.broadcast_object_list(shared)
    return shared[0]


def all_values(value: Given) -> list[Given]:
    """Every process's ``value``, the first one's first; through Python's own format."""
    if not several():
        return [value]
    shared: list[Given] = [value] * count()
    distributed.all_gather_object(shared, value)
    return shared


@torch.no_grad()
def gathered(rows: Shaped[Tensor, "rows *rest"]) -> Shaped[Tensor, "all_rows *rest"]:
    """The rows of all processes, those of the first one first; all have as many. No gradient."""
    if not several():
        return rows
    parts = [torch.empty_like(rows) for _ in range(count())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def most(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The largest of all processes' ``values``, each by itself."""
    if several():
        values = values.clone()
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(context, values):  # type: ignore[no-untyped-def]
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient):  # type: ignore[no-untyped-def]
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def summed(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum of all processes' ``values``; gradients are those of the sum of all their losses."""
    return _Summed.apply(values) if several() else values
