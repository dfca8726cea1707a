"""Waveforms to one embedding a clip: front end, backbone and pooling as one module.

In:  mono float32 waveforms at ``sample_rate``, and their lengths.
Out: float32 embeddings, the same for a clip alone and in any batch.

A clip much longer than the backbone's training clips is cut into equal windows of about their
length; its tokens are pooled over all windows together. So attention and positions meet what they
were trained on, at a cost that grows with the length only.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.backbones.base import Grid
from sslaudio.backbones.pooling import check, pool, pooled_dim
from sslaudio.features.logmel import FrontEnd


@dataclass(frozen=True)
class Window:
    """Columns ``first`` to ``last`` (left out) of a clip's grid."""

    clip: int
    first: int
    last: int


class Encoder(nn.Module):
    """What ``embed``, ``finetune`` and ``sslaudio.load`` use of a run."""

    backbone: Any
    """A module that is a ``Backbone`` as well, which Python's types cannot say."""

    def __init__(
        self,
        front_end: FrontEnd,
        backbone: nn.Module,
        pooling: tuple[str, ...],
        pooled_block: int | None,
        window_frames: int,
    ) -> None:
        super().__init__()
        check(pooling)
        self.front_end = front_end
        self.backbone = backbone
        self.pooling = pooling
        self.pooled_block = pooled_block
        self.window_columns = self.backbone.grid(window_frames).columns
        rows = self.backbone.grid(window_frames).rows
        self.dim = pooled_dim(pooling, rows, self.backbone.dim)

    @property
    def sample_rate(self) -> int:
        """Hz that the waveforms must have."""
        return self.front_end.sample_rate

    def forward(
        self,
        waveforms: Float[Tensor, "clips samples"],
        lengths: Int[Tensor, " clips"] | None = None,
        sample_rate: int | None = None,
    ) -> Float[Tensor, "clips dim"]:
        """Embed clips.

        Args:
            waveforms: samples in [-1, 1], padded on the right with anything.
            lengths: samples of each clip that are sound; unset: all.
            sample_rate: of the waveforms; checked where given.

        Raises:
            ValueError: ``sample_rate`` is not the front end's.
        """
        if sample_rate is not None and sample_rate != self.sample_rate:
            raise ValueError(
                f"these waveforms have {sample_rate} Hz and the model wants {self.sample_rate}; "
                f"resample them, for instance with soxr.resample"
            )
        if lengths is None:
            lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        with torch.no_grad():
            pictures, frames = self.front_end(waveforms, lengths)
        return self.embed(pictures, frames)

    def embed(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
    ) -> Float[Tensor, "clips dim"]:
        """Embed standardised log-mel pictures, padded columns 0."""
        columns = self.backbone.columns(frames)
        windows = cut(columns, self.window_columns)
        if len(windows) == len(frames):
            tokens, grid = self._tokens(pictures, frames)
        else:
            tokens, grid = self._windowed(pictures, frames, windows, int(columns.max()))
        return pool(tokens, grid, columns, self.pooling)

    def _tokens(
        self, pictures: Float[Tensor, "clips bins frames"], frames: Int[Tensor, " clips"]
    ) -> tuple[Float[Tensor, "clips patches dim"], Grid]:
        if self.pooled_block is None:
            encoded = self.backbone(pictures, frames)
            return encoded.patches, encoded.grid
        encoded = self.backbone(pictures, frames, hidden_states=True)
        state = encoded.hidden_states[self.pooled_block - 1]
        return state[:, state.shape[1] - encoded.patches.shape[1] :], encoded.grid

    def _windowed(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        windows: list[Window],
        width: int,
    ) -> tuple[Float[Tensor, "clips patches dim"], Grid]:
        patch, stride = self.backbone.patch[1], self.backbone.stride[1]
        own = torch.tensor([window.clip for window in windows], device=frames.device)
        first = torch.tensor([window.first for window in windows], device=frames.device) * stride
        last = torch.tensor([window.last - 1 for window in windows], device=frames.device) * stride
        last = last + patch
        longest = int((last - first).max())
        place = first[:, None] + torch.arange(longest, device=frames.device)
        count = torch.minimum(last, frames[own]) - first
        padded = nn.functional.pad(pictures, (0, max(0, int(place.max()) + 1 - pictures.shape[2])))
        cut_out = padded[own].gather(2, place[:, None].expand(-1, pictures.shape[1], -1))
        inside = torch.arange(longest, device=frames.device) < count[:, None]
        tokens, grid = self._tokens(cut_out.masked_fill(~inside[:, None], 0.0), count)
        laid = tokens.unflatten(1, tuple(grid))
        whole = laid.new_zeros(len(frames), grid.rows, width, laid.shape[3])
        for index, window in enumerate(windows):
            size = window.last - window.first
            whole[window.clip, :, window.first : window.last] = laid[index, :, :size]
        return whole.flatten(1, 2), Grid(grid.rows, width)


def cut(columns: Int[Tensor, " clips"], window: int) -> list[Window]:
    """Cut clips into equal windows of about ``window`` columns, at most half as many again."""
    windows = []
    for clip, count in enumerate(columns.tolist()):
        pieces = max(1, round(count / window))
        edges = [piece * count // pieces for piece in range(pieces + 1)]
        windows += [Window(clip, first, last) for first, last in pairwise(edges)]
    return windows
