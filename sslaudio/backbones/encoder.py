"""Waveforms to one embedding a clip: front end, backbone and pooling as one module.

In:  mono float32 waveforms at ``sample_rate``, and their lengths.
Out: float32 embeddings, the same for a clip alone and in any batch.

A clip much longer than the backbone's training clips is cut into equal windows of about their
length; its tokens are pooled over all windows together. So attention and positions meet what they
were trained on, at a cost that grows with the length only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.backbones.base import Grid, Kept, Tokens
from sslaudio.backbones.inspect import Inspection, inspect
from sslaudio.backbones.pooling import check, masked_mean, pool, pooled_dim
from sslaudio.data.decode import resample
from sslaudio.features.front_end import FrontEnd

Drop = Callable[[Int[Tensor, " clips"], int], Kept]
"""Draws which patches stay, from the sounding frames of pictures and their width."""
WINDOWS_AT_ONCE = 256
"""Windows that go through the backbone together; a long file takes no more memory for it."""


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
        self.window_frames = window_frames
        self.window_columns = self.backbone.grid(window_frames).columns
        rows = self.backbone.grid(window_frames, pooled_block).rows
        self.dim = pooled_dim(pooling, rows, self.backbone.width(pooled_block))

    @property
    def depth(self) -> int:
        """Blocks that an embedding goes through."""
        return self.pooled_block or len(self.backbone.blocks)

    @property
    def blocks(self) -> list[Any]:
        """Those blocks, the first one first."""
        return list(self.backbone.blocks)[: self.depth]

    def embedding_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Weights that an embedding depends on: not the mask token, nor blocks after the pooled."""
        for name, parameter in self.named_parameters():
            words = name.split(".")
            later = "blocks" in words and int(words[words.index("blocks") + 1]) >= self.depth
            unused_norm = words[1] == "norm" and self.pooled_block is not None
            if not later and not unused_norm and words[1] != "mask_token":
                yield name, parameter

    @property
    def sample_rate(self) -> int:
        """Hz that the waveforms must have."""
        return self.front_end.sample_rate

    def forward(
        self,
        waveforms: Float[Tensor, "clips samples"],
        sample_rate: int | None = None,
        lengths: Int[Tensor, " clips"] | None = None,
    ) -> Float[Tensor, "clips dim"]:
        """Embed clips.

        Args:
            waveforms: samples in [-1, 1], padded on the right with anything.
            sample_rate: of the waveforms, in Hz; another than the model's is resampled. Unset: the
                model's.
            lengths: samples of each clip that are sound; unset: all.
        """
        return self.embed(*self.pictures(waveforms, sample_rate, lengths))

    def inspect(
        self,
        waveforms: Float[Tensor, "clips samples"],
        sample_rate: int | None = None,
        lengths: Int[Tensor, " clips"] | None = None,
    ) -> Inspection:
        """Hidden states and attention maps of every block, and where their tokens lie.

        Each clip goes through the backbone in one piece, also where an embedding would be made of
        windows. Without gradients.

        Args:
            waveforms: as in a call, like ``sample_rate`` and ``lengths``.
        """
        with torch.no_grad():
            pictures, frames = self.pictures(waveforms, sample_rate, lengths)
        return inspect(self.backbone, pictures, frames, self.front_end)

    def pictures(
        self,
        waveforms: Float[Tensor, "clips samples"],
        sample_rate: int | None,
        lengths: Int[Tensor, " clips"] | None,
    ) -> tuple[Float[Tensor, "clips bins frames"], Int[Tensor, " clips"]]:
        """Standardised pictures and their sounding columns."""
        if lengths is None:
            lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        if sample_rate is not None and sample_rate != self.sample_rate:
            waveforms, lengths = resampled(waveforms, lengths, sample_rate, self.sample_rate)
        pictures, frames = self.front_end(waveforms, lengths)
        return pictures, frames

    def embed(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
    ) -> Float[Tensor, "clips dim"]:
        """Embed standardised log-mel pictures, padded columns 0."""
        tokens = self.tokens(pictures, frames)
        return self.pooled(tokens, frames)

    def pooled(self, tokens: Tokens, frames: Int[Tensor, " clips"]) -> Float[Tensor, "clips dim"]:
        """Embeddings from what :meth:`tokens` gave for clips of so many frames."""
        return pool(tokens, self.backbone.columns(frames, self.pooled_block), self.pooling)

    def frames(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
    ) -> Float[Tensor, "clips columns dim"]:
        """One embedding a column of the token grid: the mean of its rows' sounding tokens.

        Args:
            pictures: standardised, padded columns 0.
            frames: columns of each that are sound.

        Returns:
            Of the pooled block, whatever the pooling; 0 in columns of padding. What a column sees,
            :meth:`spans` tells.
        """
        return _by_column(self.tokens(pictures, frames))

    def frames_of_windows(
        self,
        pictures: Float[Tensor, "windows bins frames"],
        frames: Int[Tensor, " windows"],
    ) -> Float[Tensor, "windows columns dim"]:
        """As :meth:`frames`, of pictures that are windows of a clip already, and are not cut."""
        return _by_column(self._through(pictures, frames, None))

    def windows(self, frames: int) -> list[Window]:
        """The windows that a clip of so many frames is cut into."""
        return cut(self.backbone.columns(torch.tensor([frames])), self.window_columns)

    def shown(self, window: Window, frames: int) -> tuple[int, int]:
        """Frames of a clip, which has so many, that a window sees: first, and behind the last."""
        start = window.first * self.backbone.stride[1]
        return start, min(start + self.backbone.spanned(window.last - window.first), frames)

    def spans(self, samples: int) -> Float[Tensor, "columns 2"]:
        """Seconds at which what each column of a clip's grid sees begins and ends.

        Before attention, from the first to the last sample of its frames, inside of the clip. The
        middles are those that :meth:`inspect` tells. A MAST column sees its stem's few frames, and
        what lies between it and the next one by pooling.

        Args:
            samples: of the clip, at the model's rate.
        """
        frames = self.front_end.lengths(torch.tensor([samples]))
        columns = int(self.backbone.columns(frames, self.pooled_block))
        step = self.backbone.stride[1] // self.backbone.finer(self.pooled_block)
        middle = self.backbone.first[1] + step * torch.arange(columns, dtype=torch.float64)
        reach = (self.backbone.field[1] - 1) / 2
        features = self.front_end.config
        starts = (middle - reach) * features.hop_samples - features.margin_samples
        ends = (middle + reach) * features.hop_samples - features.margin_samples
        edges = torch.stack([starts, ends + features.settings.window_samples], dim=1)
        return (edges.clamp(0, samples) / self.sample_rate).float()

    def tokens(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        drop: Drop | None = None,
    ) -> Tokens:
        """Tokens of the pooled block, those of a long clip's windows laid side by side.

        Args:
            pictures: standardised, padded columns 0.
            frames: columns of each that are sound.
            drop: draws the patches that leave; unset: all stay.
        """
        windows = cut(self.backbone.columns(frames), self.window_columns)
        if len(windows) == len(frames):
            return self._through(pictures, frames, drop)
        columns = self.backbone.columns(frames, self.pooled_block)
        return self._windowed(pictures, frames, windows, columns, drop)

    def _through(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        drop: Drop | None,
    ) -> Tokens:
        kept = drop(frames, pictures.shape[2]) if drop else None
        tokens: Tokens = self.backbone(pictures, frames, kept=kept, depth=self.pooled_block)
        return tokens

    def _windowed(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        windows: list[Window],
        columns: Int[Tensor, " clips"],
        drop: Drop | None,
    ) -> Tokens:
        """Tokens of all windows, each put back at its clip's own columns; prefixes averaged."""
        width, finer = int(columns.max()), self.backbone.finer(self.pooled_block)
        total = self.backbone.columns(frames)
        whole, prefix, seen = torch.empty(0), torch.empty(0), torch.empty(0)
        for first in range(0, len(windows), WINDOWS_AT_ONCE):
            part = windows[first : first + WINDOWS_AT_ONCE]
            tokens = self._encode(pictures, frames, part, drop)
            laid, there = tokens.laid()
            if not first:
                whole = laid.new_zeros(len(frames), laid.shape[1], width, laid.shape[3])
                seen = there.new_zeros(whole.shape[:3])
                prefix = laid.new_zeros(len(frames), *tokens.prefix.shape[1:])
            for row, window in enumerate(part):
                start = window.first * finer
                end = min(window.last * finer, int(columns[window.clip]))
                whole[window.clip, :, start:end] = laid[row, :, : end - start]
                seen[window.clip, :, start:end] = there[row, :, : end - start]
                share = (window.last - window.first) / int(total[window.clip])
                prefix[window.clip] += share * tokens.prefix[row]
        grid = Grid(whole.shape[1], width)
        return Tokens(whole.flatten(1, 2), grid, seen.flatten(1, 2), prefix)

    def _encode(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        windows: list[Window],
        drop: Drop | None,
    ) -> Tokens:
        shown = [self.shown(window, int(frames[window.clip])) for window in windows]
        starts, ends = zip(*shown, strict=True)
        longest = max(end - start for start, end in zip(starts, ends, strict=True))
        cut_out = pictures.new_zeros(len(windows), pictures.shape[1], longest)
        for row, (window, start, end) in enumerate(zip(windows, starts, ends, strict=True)):
            cut_out[row, :, : end - start] = pictures[window.clip, :, start:end]
        count = torch.tensor(ends, device=frames.device) - torch.tensor(
            starts, device=frames.device
        )
        return self._through(cut_out, count, drop)


def _by_column(tokens: Tokens) -> Float[Tensor, "clips columns dim"]:
    laid, seen = tokens.laid()
    return masked_mean(laid.float(), seen[..., None], (1,))


def resampled(
    waveforms: Float[Tensor, "clips samples"],
    lengths: Int[Tensor, " clips"],
    from_rate: int,
    to_rate: int,
) -> tuple[Float[Tensor, "clips resampled"], Int[Tensor, " clips"]]:
    """Clips at another rate, as files are resampled when they are read."""
    clips = [
        torch.from_numpy(resample(waveform[:length].cpu().numpy(), from_rate, to_rate))
        for waveform, length in zip(waveforms, lengths.tolist(), strict=True)
    ]
    counts = torch.tensor([len(clip) for clip in clips], device=lengths.device)
    return nn.utils.rnn.pad_sequence(clips, batch_first=True).to(waveforms.device), counts


def cut(columns: Int[Tensor, " clips"], window: int) -> list[Window]:
    """Cut clips into equal windows of about ``window`` columns, at most half as many again."""
    windows = []
    for clip, count in enumerate(columns.tolist()):
        pieces = max(1, round(count / window))
        edges = [piece * count // pieces for piece in range(pieces + 1)]
        windows += [Window(clip, first, last) for first, last in pairwise(edges)]
    return windows
