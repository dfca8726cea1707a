"""Labelled clips as batches of pictures: decoded once, kept while there is room.

In:  examples of a task and the front end of an encoder.
Out: standardised pictures, and their sounding columns; a longer clip is cropped.

A clip that is heard whole is kept as its picture, a longer one as its waveform, of which every
epoch takes another piece.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio import ranks
from sslaudio.data.buckets import by_length
from sslaudio.features.front_end import FrontEnd
from sslaudio.tasks.base import Example, Task, classes_of

Pictures = tuple[Float[Tensor, "clips bins frames"], Int[Tensor, " clips"]]
"""Standardised pictures, and the columns of each that are sound."""
AT_ONCE = 64
"""Clips whose pictures are made together."""
LEAST = 2
"""Clips that a process needs of a batch: one alone cannot be standardised."""
SAMPLES_AT_ONCE = 1 << 21
"""Samples, with padding, that the front end is given together: two minutes at 16 kHz."""


class Bank:
    """The clips of a task as an encoder hears them.

    Args:
        front_end: makes the pictures, on its own device; they are kept in the CPU's memory.
        crop_samples: length of the piece that training takes of a longer clip.
        megabytes: room for clips; those beyond it are decoded again each time.
        workers: threads that decode.
    """

    def __init__(
        self, front_end: FrontEnd, crop_samples: int, megabytes: float, workers: int = 2
    ) -> None:
        self.front_end, self.crop_samples = front_end, crop_samples
        self.room = round(megabytes * 1e6)
        self.workers = workers
        self.waveforms: dict[str, Tensor] = {}
        self.pictures: dict[str, Tensor] = {}

    def heard(self, examples: Sequence[Example]) -> list[Float[Tensor, " samples"]]:
        """The clips' waveforms, whole."""
        absent = [example for example in examples if example.key not in self.waveforms]
        rate = self.front_end.sample_rate
        with ThreadPoolExecutor(self.workers) as pool:
            decoded = list(pool.map(lambda one: torch.from_numpy(one.waveform(rate)), absent))
        found = {one.key: waveform for one, waveform in zip(absent, decoded, strict=True)}
        for key, waveform in found.items():
            self._keep(self.waveforms, key, waveform)
        return [found[one.key] if one.key in found else self.waveforms[one.key] for one in examples]

    def pictures_of(
        self, examples: Sequence[Example], places: Float[np.ndarray, "clips"] | None = None
    ) -> list[Float[Tensor, "bins frames"]]:
        """A picture of each clip, of its own width.

        Args:
            examples: clips; one may come twice.
            places: where to crop longer clips, from 0, the beginning, to 1; unset: nowhere.
        """
        absent = [row for row, one in enumerate(examples) if one.key not in self.pictures]
        made: dict[int, Tensor] = {}
        for first in range(0, len(absent), AT_ONCE):
            rows = absent[first : first + AT_ONCE]
            waveforms = self.heard([examples[row] for row in rows])
            cut = waveforms
            if places is not None:
                cut = [self.cropped(w, places[row]) for w, row in zip(waveforms, rows, strict=True)]
            for row, waveform, picture in zip(rows, waveforms, self.shown(cut), strict=True):
                made[row] = picture
                if len(waveform) <= self.crop_samples:
                    self._forget(examples[row].key)
                    self._keep(self.pictures, examples[row].key, picture)
        return [
            made[row] if row in made else self.pictures[one.key] for row, one in enumerate(examples)
        ]

    def cropped(self, waveform: Float[Tensor, " samples"], place: float) -> Tensor:
        """A piece of a waveform, or all of a short one; ``place`` 0 is its beginning, 1 its end."""
        start = int(place * (max(0, len(waveform) - self.crop_samples) + 0.999999))
        return waveform[start : start + self.crop_samples]

    def shown(
        self, waveforms: Sequence[Float[Tensor, " samples"]]
    ) -> list[Float[Tensor, "bins frames"]]:
        """Pictures of waveforms, each of its own width, in the CPU's memory."""
        device = self.front_end.window.device
        shown = [torch.empty(0)] * len(waveforms)
        for rows in by_length([len(waveform) for waveform in waveforms], SAMPLES_AT_ONCE):
            lengths = torch.tensor([len(waveforms[row]) for row in rows])
            batch = nn.utils.rnn.pad_sequence([waveforms[row] for row in rows], batch_first=True)
            with torch.no_grad():
                pictures, frames = self.front_end(batch.to(device), lengths.to(device))
            for row, picture, width in zip(rows, pictures.cpu(), frames.tolist(), strict=True):
                shown[row] = picture[:, :width].clone()
        return shown

    def _keep(self, held: dict[str, Tensor], key: str, values: Tensor) -> None:
        size = values.numel() * values.element_size()
        if size <= self.room and key not in held:
            held[key] = values
            self.room -= size

    def _forget(self, key: str) -> None:
        if (waveform := self.waveforms.pop(key, None)) is not None:
            self.room += waveform.numel() * waveform.element_size()


def padded(
    pictures: Sequence[Float[Tensor, "bins frames"]], device: torch.device | None = None
) -> Pictures:
    """A batch of pictures; behind each its columns are 0, the mean.

    Args:
        pictures: all on one device.
        device: where the batch is to be; unset: there.
    """
    frames = torch.tensor([picture.shape[1] for picture in pictures])
    batch = pictures[0].new_zeros(len(pictures), pictures[0].shape[0], int(frames.max()))
    for row, picture in zip(batch, pictures, strict=True):
        row[:, : picture.shape[1]] = picture
    batch = batch.to(device or batch.device)
    return batch, frames.to(batch.device)


def batches(
    examples: Sequence[Example], batch: int, seed: int, epoch: int, balanced: bool
) -> Iterator[list[Example]]:
    """The clips of an epoch, in an order of its own; too few for a last batch join the rest.

    Args:
        examples: training clips.
        batch: clips at a time.
        seed: of the run.
        epoch: from 1.
        balanced: draw as many clips as there are, with replacement, each by the sum of the
            inverse counts of its classes, as AST does (egs/audioset/gen_weight_file.py); else
            every clip comes once.
    """
    generator = np.random.default_rng((seed, epoch))
    if balanced:
        chances = rarity(examples)
        order = generator.choice(len(examples), len(examples), p=chances / chances.sum())
    else:
        order = generator.permutation(len(examples))
    for rows in np.split(order, cuts(len(order), batch)):
        yield [examples[row] for row in rows]


def cuts(clips: int, batch: int) -> list[int]:
    """Where the batches of an epoch begin, but for the first."""
    places = list(range(batch, clips, batch))
    if places and clips - places[-1] < LEAST * ranks.count():
        places.pop()
    return places


def rarity(examples: Sequence[Example]) -> Float[np.ndarray, "clips"]:
    """Sum over each clip's classes of one over the clips that have them; a clip of none: 0."""
    counts: dict[int, int] = {}
    for example in examples:
        for target in classes_of(example.target):
            counts[target] = counts.get(target, 0) + 1
    return np.array(
        [sum(1 / counts[target] for target in classes_of(one.target)) for one in examples]
    )


def check_batch(task: Task, count: int, batch: int, fold: str) -> None:
    """Refuse a batch that is larger than the training part, or too small to be shared.

    Raises:
        ValueError: names the key and what would do.
    """
    if batch > count:
        raise ValueError(
            f"training.batch is {batch}, but fold {fold} of {task.name} has {count} training "
            f"clips; set training.batch to at most that"
        )
    if batch < LEAST * ranks.count():
        raise ValueError(
            f"training.batch is {batch} over {ranks.count()} processes, each of which needs "
            f"{LEAST} clips of it; set training.batch to {LEAST * ranks.count()} or more"
        )
