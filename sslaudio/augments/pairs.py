"""Whom a clip is mixed with, and how two log-mel pictures add up.

Partners are the neighbours in the batch (:func:`neighbours`) or come from a :class:`Bank` of past
clips. Either way the mixing is :func:`mixed`: log((1 - a) exp(s x) + a exp(s z)) / s.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sslaudio import ranks
from sslaudio.augments.base import Draws, sounding

UNKNOWN = 0
"""Recording number of a clip that is of no recording; it is like no other."""


def neighbours(draws: Draws, name: str) -> Int[Tensor, " clips"]:
    """Index of each clip's partner in its micro-batch, on the draws' device.

    Neighbours pair up: 0 and 1, 2 and 3, so that a pair stays together however the batch is cut. An
    odd last clip takes the first, and a clip alone is its own partner.

    Raises:
        ValueError: the batch is cut into parts of odd size; ``name`` is the augment's.
    """
    if draws.batch > draws.clips and draws.clips % 2:
        raise ValueError(
            f"{name} pairs neighbours, and each process and accumulated part has {draws.clips} "
            f"clips; set data.batch so that the parts are even, or leave {name} out"
        )
    index = torch.arange(draws.clips, device=draws.device)
    partner = index ^ 1
    return torch.where(partner == draws.clips, 0, partner)


def strangers(partner: Int[Tensor, " clips"], draws: Draws) -> Bool[Tensor, " clips"]:
    """Which clips have a partner that is of another recording, and not themselves."""
    other = partner != torch.arange(len(partner), device=partner.device)
    if draws.recordings is None:
        return other
    return other & (draws.recordings != draws.recordings[partner])


def mixed(
    pictures: Float[Tensor, "clips bins frames"],
    others: Float[Tensor, "pictures bins frames"],
    partner: Int[Tensor, " clips"],
    share: Float[Tensor, "clips 1 frames"],
    scale: float = 1.0,
) -> Float[Tensor, "clips bins frames"]:
    """log((1 - share) exp(scale x) + share exp(scale z)) / scale, z being ``others[partner]``.

    A share of 0 leaves x to the bit. Written as x + log(1 + share (exp(z - x) - 1)), one power and
    one logarithm; the power is of 2, which torch works out four times as fast on a CPU.
    """

    gap = others[partner].to(pictures.dtype).sub_(pictures)
    # 2^126 is within what float32 holds; nothing standardised comes near.
    ratio = gap.mul_(scale / math.log(2)).clamp_(max=126.0).exp2_()
    change = ratio.mul_(share).add_(1 - share).log_()
    if scale != 1:
        change.div_(scale)
    return change.add_(pictures)


class Bank(nn.Module):
    """Past clips' pictures, first in, first out; the same on all ranks.

    Nothing enters it but in :meth:`after_step`: what one step sees does not depend on how its batch
    is cut, and a step can be worked through again. The buffers are what the checkpoint keeps:
    2048 clips of 128 bins and 98 frames are 51 MB, of 998 frames 523 MB.
    """

    pictures: Tensor
    """``"entries bins frames"`` in float16, allocated at first use, widened for wider clips."""
    frames: Tensor
    """Columns of sound of each entry; 0 where there is none yet."""
    recordings: Tensor
    """Number of the recording each entry is from."""
    place: Tensor
    """Entry that is written next."""

    def __init__(self, clips: int) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(clips, 0, 0, dtype=torch.float16))
        self.register_buffer("frames", torch.zeros(clips, dtype=torch.long))
        self.register_buffer("recordings", torch.full((clips,), UNKNOWN))
        self.register_buffer("place", torch.tensor(0))
        self._aside: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def put_aside(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> None:
        """Keep a micro-batch for the end of the step: once, however often the step shows it."""
        if self.frames.device != pictures.device:
            self.to(pictures.device)
        if draws.start not in self._aside:
            recordings = torch.full_like(frames, UNKNOWN, dtype=torch.long)
            if draws.recordings is not None:
                recordings = draws.recordings
            self._aside[draws.start] = (pictures.half(), frames.long(), recordings)

    def chosen(
        self, numbers: Float[Tensor, " clips"], recordings: Int[Tensor, " clips"] | None
    ) -> tuple[Int[Tensor, " clips"], Int[Tensor, " clips"]]:
        """An entry for each clip, uniform over those that are of another recording.

        Args:
            numbers: in [0, 1), one a clip.
            recordings: the clips' own; unset where each is of its own.

        Returns:
            Entries, and how many columns of each are sound: 0 where no entry is left.
        """
        allowed = (self.frames > 0).expand(len(numbers), -1)
        if recordings is not None:
            allowed = allowed & (self.recordings != recordings[:, None])
        counted = allowed.cumsum(dim=1, dtype=torch.int32)
        count = counted[:, -1:]
        nth = (numbers[:, None] * count).int().minimum(count - 1)
        entry = torch.searchsorted(counted, nth + 1)[:, 0]
        return entry, torch.where(count[:, 0] > 0, self.frames[entry], 0)

    def fitted(self, bins: int, width: int) -> Float[Tensor, "entries bins width"]:
        """The pictures, cut or widened with zeros to ``width``; an empty bank's are all zeros."""
        if self.pictures.shape[1] == 0:
            return self.pictures.new_zeros(1, 1, 1).expand(len(self.frames), bins, width)
        return _padded(self.pictures, width)

    @torch.no_grad()
    def after_step(self) -> None:
        """Write what was put aside, of all ranks, in the order of the batch."""
        parts = [part for _, part in sorted(self._aside.items())]
        self._aside.clear()
        if not parts:
            return
        width = max(pictures.shape[2] for pictures, _, _ in parts)
        if ranks.several():
            widths = torch.tensor([width], device=self.frames.device)
            width = int(ranks.gathered(widths).max())
        self._widen(parts[0][0].shape[1], width)
        pictures, frames, recordings = zip(*parts, strict=True)
        padded = [_padded(picture, self.pictures.shape[2]) for picture in pictures]
        size = len(self.frames)
        clips = sum(map(len, frames)) * ranks.count()
        places = (self.place + torch.arange(clips, device=self.place.device)) % size
        buffers = (self.pictures, self.frames, self.recordings)
        for buffer, rows in zip(buffers, (padded, frames, recordings), strict=True):
            buffer.index_copy_(0, places[-size:], _whole(rows)[-size:])
        self.place.add_(clips).remainder_(size)

    def skip_step(self) -> None:
        """Forget what was put aside."""
        self._aside.clear()

    def _widen(self, bins: int, width: int) -> None:
        clips, known, was = self.pictures.shape
        if known == 0:
            self.pictures = self.pictures.new_zeros(clips, bins, width)
        elif width > was:
            self.pictures = _padded(self.pictures, width)


def _padded(pictures: Tensor, width: int) -> Tensor:
    """Zeros behind the pictures to ``width``, or the columns up to there."""
    missing = width - pictures.shape[2]
    return nn.functional.pad(pictures, (0, missing)) if missing else pictures


def _whole(parts: Sequence[Tensor]) -> Tensor:
    """The batch's rows from each rank's parts: a part's ranks one after the other."""
    everyone = ranks.gathered(torch.cat(tuple(parts)))
    grid = everyone.unflatten(0, (ranks.count(), len(parts), -1))
    return grid.transpose(0, 1).flatten(0, 2)


def both_sound(
    frames: Int[Tensor, " clips"], others: Int[Tensor, " clips"], width: int
) -> Bool[Tensor, "clips 1 frames"]:
    """Where the columns of a clip and of its partner are sound."""
    return sounding(torch.minimum(frames, others), width)
