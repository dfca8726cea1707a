"""How much of the sound was heard: corrupt clips as they come, and every epoch at its end.

In:  the tallies of all processes' streams.
Out: scalars, ``corrupt.jsonl`` in the RUN, a line where an epoch was not whole.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sslaudio import ranks
from sslaudio.data.index import KINDS
from sslaudio.data.stream import Stream
from sslaudio.training.report import CORRUPT, Report, say


@dataclass
class Coverage:
    """Follows a stream on all processes; every method is called on all of them together."""

    stream: Stream
    report: Report
    epoch: int
    """The one that is being heard."""
    device: torch.device
    """What the processes exchange counts on."""
    listed: int = field(init=False)
    """Corrupt clips that were written down, by this run and those that it goes on with."""
    _ended: dict[str, float] = field(default_factory=dict)
    """Scalars of the last epoch that ended."""

    def __post_init__(self) -> None:
        self.listed = sum(self._summed(self.stream.tally.counts()))

    def scalars(self, step: int) -> dict[str, float]:
        """For a line of metrics; clips that were corrupt since the last one are written down.

        Corrupt clips so far, of every kind that there was; and where an epoch ended, what was read
        of every corpus, what was expected and what was corrupt.
        """
        kinds = self._summed(self.stream.tally.counts())
        total = sum(kinds)
        if total != self.listed:
            for told in ranks.all_values(self.stream.tally.take()):
                for one in told:
                    self.report.note(CORRUPT, step, one)
            self.listed = total
        found = dict(zip(KINDS, kinds, strict=True))
        counted = {f"data/corrupt_{kind}": count for kind, count in found.items() if count}
        ended, self._ended = self._ended, {}
        return {"data/corrupt": total, **counted, **ended}

    def follow(self, step: int, position: int) -> None:
        """Tell of every epoch that ended before ``position``."""
        while self.epoch < self.stream.epoch(position):
            self._tell(step, self.epoch)
            self.epoch += 1
            self.stream.tally.forget_before(self.epoch)

    def state(self) -> dict[str, Any]:
        """The tallies of all processes in one, for a checkpoint."""
        own = self.stream.tally.state(self.epoch)
        counts = np.array(own["counts"])
        summed = np.array(self._summed(counts.ravel().tolist())).reshape(counts.shape)
        return {**own, "kinds": self._summed(own["kinds"]), "counts": summed.tolist()}

    def _tell(self, step: int, epoch: int) -> None:
        own = self.stream.tally.epoch(epoch)
        heard, corrupt = np.array(self._summed(own.ravel().tolist())).reshape(own.shape).tolist()
        expected = self.stream.expected() or heard
        rows = list(zip(self.stream.names, heard, expected, corrupt, strict=True))
        for name, read, whole, left_out in rows:
            self._ended |= {
                f"data/{name}_read": read,
                f"data/{name}_expected": whole,
                f"data/{name}_corrupt": left_out,
            }
        if epoch == 0 or any(read != whole for _, read, whole, _ in rows):
            told = ", ".join(
                f"{name} {read} of {whole} clips" + (f", {bad} corrupt" if bad else "")
                for name, read, whole, bad in rows
            )
            say(f"epoch {epoch} ended at step {step}: {told}")

    def _summed(self, counts: list[int]) -> list[int]:
        return ranks.summed(torch.tensor(counts, device=self.device)).tolist()
