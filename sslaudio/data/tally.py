"""What was read, and what could not be: counted by corpus, epoch and kind, within a budget.

In:  the clips of each micro-batch, in the order of training.
Out: counts for the log, and an error once too much is corrupt.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64

from sslaudio.data.index import KINDS, CorruptError

SHARE_FROM_CLIPS = 1000
"""Clips that must have been read before a share of them says something."""
LISTED = 1000
"""Corrupt clips that wait to be written down, at most."""


@dataclass(frozen=True)
class Corrupt:
    """A clip that stood in the order and was left out."""

    shard: str
    key: str
    kind: str
    """One of :data:`sslaudio.data.index.KINDS`."""
    reason: str

    @classmethod
    def of(cls, error: CorruptError) -> "Corrupt":
        """What an error tells of a clip."""
        return cls(error.shard, error.key, error.kind, error.reason)


@dataclass
class Tally:
    """Counts of one process, from the start of training or from where it was resumed."""

    sources: int
    """Folders of ``data.shards``."""
    share: float
    """Of the clips that may be corrupt."""
    in_a_row: int
    """Corrupt clips in a row that are too many."""
    kinds: Counter[str] = field(default_factory=Counter)
    listed: deque[Corrupt] = field(default_factory=lambda: deque(maxlen=LISTED))
    """Those that nobody has taken yet."""
    _epochs: dict[int, Int64[np.ndarray, "outcomes sources"]] = field(default_factory=dict)
    _read: int = 0
    _row: int = 0

    def add(
        self,
        epochs: Int64[np.ndarray, "clips"],
        sources: Int64[np.ndarray, "clips"],
        corrupt: Sequence["Corrupt | None"],
    ) -> None:
        """Count the clips of a micro-batch.

        Raises:
            ValueError: more of them than the budget allows were corrupt, over all that were read
                or in a row.
        """
        for epoch, source, one in zip(epochs.tolist(), sources.tolist(), corrupt, strict=True):
            counts = self._epochs.setdefault(epoch, np.zeros((2, self.sources), np.int64))
            counts[0 if one is None else 1, source] += 1
            self._read += 1
            self._row = 0 if one is None else self._row + 1
            if one is not None:
                self.kinds[one.kind] += 1
                self.listed.append(one)
                self._check(one)

    def epoch(self, epoch: int) -> Int64[np.ndarray, "outcomes sources"]:
        """Clips of an epoch that were heard, and that were corrupt, by folder."""
        return self._epochs.get(epoch, np.zeros((2, self.sources), np.int64))

    def forget_before(self, epoch: int) -> None:
        """Drop the counts of epochs that have been told."""
        for told in [one for one in self._epochs if one < epoch]:
            del self._epochs[told]

    def counts(self) -> list[int]:
        """Corrupt clips of each kind of :data:`sslaudio.data.index.KINDS`."""
        return [self.kinds[kind] for kind in KINDS]

    def take(self) -> list[dict[str, str]]:
        """Corrupt clips that were not taken before, to be written down."""
        taken = [asdict(one) for one in self.listed]
        self.listed.clear()
        return taken

    def state(self, epoch: int) -> dict[str, Any]:
        """What a resumed run must know to tell of the epoch that it goes on with."""
        return {"kinds": self.counts(), "epoch": epoch, "counts": self.epoch(epoch).tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave, summed over all processes; one of them does."""
        self.kinds = Counter(dict(zip(KINDS, state["kinds"], strict=True)))
        self._epochs = {state["epoch"]: np.array(state["counts"], np.int64)}

    def _check(self, last: Corrupt) -> None:
        total = sum(self.kinds.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        where = f"the last is {last.key} of {last.shard} ({last.reason})"
        cure = "run `sslaudio shards verify` on its folder and build it again"
        if self._row >= self.in_a_row:
            raise ValueError(
                f"{self._row} clips in a row are corrupt, as many as data.corrupt_in_a_row allows; "
                f"{where}; {cure}"
            )
        if self._read >= SHARE_FROM_CLIPS and total > self.share * self._read:
            raise ValueError(
                f"{total} of {self._read} clips are corrupt ({kinds}), more than "
                f"data.corrupt_share {self.share:g} allows; {where}; {cure}, or raise "
                f"data.corrupt_share"
            )
