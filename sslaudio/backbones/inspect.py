"""Looking inside: what every block makes of a clip, and how much its attention takes from where.

In:  pictures and a backbone with ``blocks``, each with an ``attn`` that fills a list ``maps``.
Out: hidden states, attention maps, and the seconds and hertz that each token lies at.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.backbones.base import Grid, Tokens, sounding
from sslaudio.backbones.positions import between
from sslaudio.features.front_end import FrontEnd


@dataclass(frozen=True)
class Places:
    """A grid of tokens on the clip, each at the middle of what it sees before attention."""

    grid: Grid
    seconds: Float[Tensor, " columns"]
    """From the clip's start to each column's middle."""
    hertz: Float[Tensor, " rows"] | None
    """Of each row's middle; none where the picture's rows are no frequencies (mfcc)."""


@dataclass(frozen=True)
class Inside:
    """One block."""

    tokens: Tokens
    """What comes out of it, before the last norm; ``sound`` tells padding."""
    attention: Float[Tensor, "clips heads queries keys"]
    """How much each query takes of each key; rows sum to 1, keys of padding get 0. The first
    queries and keys are the prefix tokens, where there are any."""
    queries: Places
    """Where the tokens and the other queries lie, row by row."""
    keys: Places
    """Where the other keys lie, row by row; fewer than queries where they are pooled."""


@dataclass(frozen=True)
class Inspection:
    """A batch of clips, from picture to last token."""

    pictures: Float[Tensor, "clips bins frames"]
    """Standardised; padded columns 0."""
    frames: Int[Tensor, " clips"]
    """Columns of each picture that are sound."""
    blocks: tuple[Inside, ...]
    """From the first block to the last."""
    tokens: Tokens
    """After the last norm."""


@torch.no_grad()
def inspect(
    backbone: Any,
    pictures: Float[Tensor, "clips bins frames"],
    frames: Int[Tensor, " clips"],
    front_end: FrontEnd,
) -> Inspection:
    """Encode pictures as in evaluation and keep what every block did.

    Args:
        backbone: a module that is a ``Backbone`` as well; left as it was.
        pictures: standardised, padded columns 0.
        frames: columns of each picture that are sound.
        front_end: that the pictures are from; it knows their seconds and hertz.
    """
    with _watched(backbone) as (states, maps):
        last = backbone(pictures, frames)
    width, prefix = pictures.shape[2], last.prefix.shape[1]
    blocks = []
    for number, (state, (attention,)) in enumerate(zip(states, maps, strict=True)):
        grid = backbone.grid(width, number + 1)
        sound = sounding(grid, backbone.columns(frames, number + 1))
        flat = state.flatten(1, -2)
        tokens = Tokens(flat[:, prefix:], grid, sound, flat[:, :prefix])
        stride = backbone.blocks[number].attn.key_stride
        queries = _places(backbone, front_end, width, number + 1)
        keys = _places(backbone, front_end, width, number, stride)
        blocks.append(Inside(tokens, attention, queries, keys))
    return Inspection(pictures, frames, tuple(blocks), last)


@contextmanager
def _watched(backbone: Any) -> Iterator[tuple[list[Tensor], list[list[Tensor]]]]:
    """Every block's output and weights; the backbone is in evaluation for so long."""
    blocks = list(backbone.blocks)
    states: list[Tensor] = []
    maps: list[list[Tensor]] = [[] for _ in blocks]
    training = [(module, module.training) for module in backbone.modules()]
    hooks = []
    try:
        backbone.eval()
        for block, own in zip(blocks, maps, strict=True):
            block.attn.maps = own
            hooks.append(block.register_forward_hook(lambda *call: states.append(call[2])))
        yield states, maps
    finally:
        for hook in hooks:
            hook.remove()
        for block in blocks:
            block.attn.maps = None
        for module, was in training:
            module.training = was


def _places(backbone: Any, front_end: FrontEnd, width: int, depth: int, stride: int = 1) -> Places:
    """Where the tokens after ``depth`` blocks lie, pooled by ``stride``."""
    grid = Grid(*(-(-size // stride) for size in backbone.grid(width, depth)))
    finer = backbone.finer(depth)
    row, column = (
        first + torch.arange(count) * (step // finer * stride)
        for first, count, step in zip(backbone.first, grid, backbone.stride, strict=True)
    )
    start, second = front_end.seconds(2).tolist()
    hertz = None
    if front_end.config.kind != "mfcc":
        of_bins = front_end.hertz()
        hertz = between(of_bins, row[None].clamp(0, len(of_bins) - 1))[0]
    return Places(grid, start + column * (second - start), hertz)
