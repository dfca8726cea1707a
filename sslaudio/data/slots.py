"""Shared memory through which workers hand parts over, the same pages again and again.

A tensor that a worker of torch's ``DataLoader`` sends gets shared memory of its own, whose pages
the kernel clears and maps once for each process, and a file descriptor that travels through a
socket: for a batch of sound that takes longer than decoding a third of it. Here each worker has a
few slots that stay, and the pipe carries the rest of the part's pickle alone.
"""

import itertools
import math
import pickle
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np
import torch

_HEAD = 8
"""Bytes before a slot's arrays: the number of the part that it holds, plus one."""
_ALIGNED = 64


@dataclass(frozen=True)
class Packed:
    """A part on its way."""

    worker: int
    turn: int
    """Which of the worker's parts it is."""
    pickled: bytes
    sizes: list[int]
    """Bytes of the arrays that lie in the slot, one after the other."""


class Slots:
    """``ahead + 2`` slots for each worker, used in turn.

    A worker that is never more than ``ahead`` parts before the process that unpacks them cannot
    come to the slot that is being read; the slot's head proves it.
    """

    def __init__(self, workers: int, ahead: int, part_bytes: int) -> None:
        """Take the memory; it goes with the last process that has it.

        Args:
            workers: processes that pack.
            ahead: parts that each may have packed before the next is unpacked.
            part_bytes: room for a part's arrays.

        Raises:
            ValueError: there is not so much shared memory.
        """
        self.shape = workers, ahead + 2, -(-(_HEAD + part_bytes) // _ALIGNED) * _ALIGNED
        try:
            self._memory = RawArray("B", math.prod(self.shape))
        except (OSError, OverflowError, MemoryError) as error:
            raise ValueError(
                f"{workers} workers need {math.prod(self.shape) / 2**30:.1f} GiB of shared memory "
                f"({error}); set data.workers, data.batch or data.clip_seconds lower"
            ) from error

    def pack(self, worker: int, turn: int, part: Any) -> Packed:
        """Put a part's arrays into the next slot of a worker; ``turn`` counts its parts from 0."""
        slot = self._slot(worker, turn)
        slot[:_HEAD].view(np.int64)[0] = turn + 1
        sizes: list[int] = []
        used = _HEAD

        def stays(buffer: pickle.PickleBuffer) -> bool:
            """Whether an array goes along with the pickle, since there is no room for it."""
            nonlocal used
            raw = np.frombuffer(buffer.raw(), np.uint8)
            if used + len(raw) > len(slot):
                return True
            slot[used : used + len(raw)] = raw
            used += len(raw)
            sizes.append(len(raw))
            return False

        file = BytesIO()
        _Pickler(file, protocol=5, buffer_callback=stays).dump(part)
        return Packed(worker, turn, file.getvalue(), sizes)

    def unpack(self, packed: Packed) -> Any:
        """The part, in memory of its own."""
        slot = self._slot(packed.worker, packed.turn)
        ends = _HEAD + np.cumsum([0, *packed.sizes])
        arrays = [slot[start:end].copy() for start, end in itertools.pairwise(ends)]
        if slot[:_HEAD].view(np.int64)[0] != packed.turn + 1:
            raise RuntimeError(
                f"worker {packed.worker} wrote over part {packed.turn} before it was read"
            )
        return pickle.loads(packed.pickled, buffers=arrays)

    def _slot(self, worker: int, turn: int) -> np.ndarray:
        slots = np.frombuffer(self._memory, np.uint8).reshape(self.shape)
        return slots[worker, turn % self.shape[1]]


class _Pickler(pickle.Pickler):
    """Tensors go as the arrays that they are."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented
