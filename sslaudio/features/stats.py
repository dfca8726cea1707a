"""Mean and deviation of the pictures of a corpus, over the frames that are sound.

In:  batches of waveforms with lengths, and a front end without statistics.
Out: :class:`Statistics`, which a run keeps beside its weights.

Peers measure them over augmented and padded batches, so that theirs depend on mixup and on clip
length (AST's get_norm_stats.py); ours hold for the sound alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.data import progress
from sslaudio.data.stream import Config as Data
from sslaudio.data.streams import stream_for
from sslaudio.features.front_end import Config, FrontEnd


@dataclass(frozen=True)
class Statistics:
    """What standardises a picture."""

    mean: float
    """Mean over bins and frames."""
    std: float
    """Deviation over bins and frames."""
    clips: int
    """Clips that were heard."""
    frames: int
    """Frames that were heard; padding is not counted."""


def plain(features: Config) -> FrontEnd:
    """The front end without statistics and without legacy padding: what is to be measured."""
    return FrontEnd(replace(features, mean=None, std=None, pad="masked", legacy_frames=None))


def measure(
    batches: Iterable[tuple[Float[Tensor, "clips samples"], Int[Tensor, " clips"]]],
    front_end: FrontEnd,
) -> Statistics:
    """Mean and deviation over all bins of all unpadded frames, summed in float64.

    Args:
        batches: waveforms and their lengths in samples.
        front_end: one without statistics and padding, as :func:`plain` gives it.

    Raises:
        ValueError: no clip came, or all sound is alike (deviation 0).
    """
    total = squares = 0.0
    clips = frames = 0
    for waveforms, lengths in batches:
        mel, columns = front_end(waveforms, lengths)
        seen = torch.arange(mel.shape[2]) < columns.cpu()[:, None]
        values = mel.cpu().double().transpose(1, 2)[seen]
        total += values.sum().item()
        squares += values.square().sum().item()
        clips += len(lengths)
        frames += len(values)
    count = frames * front_end.config.bins
    if not count:
        raise ValueError("no clip to measure statistics on; data.shards must hold training clips")
    mean = total / count
    std = max(0.0, squares / count - mean**2) ** 0.5
    if std < 1e-3:
        raise ValueError(
            f"the pictures of all {clips} clips are alike (deviation {std:.2g}): is it silence? "
            f"Set features.mean and features.std to go on all the same"
        )
    return Statistics(mean, std, clips, frames)


def of_shards(data: Data, features: Config, most: int | None = None) -> Statistics:
    """Mean and deviation over the whole clips that ``data`` selects, each counted once.

    Args:
        data: shards, split and what to leave out.
        features: the front end; its own mean and std are not used.
        most: clips to measure at most, spread evenly over all; None for all.
    """
    front_end = plain(features)
    any_size = data if data.procedural else replace(data, batch=1)  # a share is of a batch
    clips = stream_for(data)(any_size, sample_rate=features.sample_rate, seed=0)
    with progress.shown("statistics of the pictures", clips.whole_count(most)) as advance:

        def batches() -> Iterable[tuple[Tensor, Tensor]]:
            for clip in clips.whole_clips(most):
                yield clip[None], torch.tensor([len(clip)])
                advance(1)

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # on busy cores, threads that share one clip wait for each other
        try:
            return measure(batches(), front_end)
        finally:
            torch.set_num_threads(threads)
