"""Which clips of which folders take part: by split, without the excluded ones.

In:  the folders with their weights, the wanted split, the files of rules to exclude.
Out: how many of each shard's clips take part, and which member the n-th of them is.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt64

from sslaudio.data.exclude import excluded_members, read_rules
from sslaudio.data.index import Index
from sslaudio.data.layout import SPLIT_CODES, recordings_marked, splits_marked
from sslaudio.data.places import is_remote
from sslaudio.data.range_cache import RangeCache

Split = Literal["train", "validation", "test", "noise", "all"]
"""``train`` is also every clip without a split (ESC-50 has folds only); ``all`` is everything."""


_SHARDS_HELD = 64
"""Four windows' worth: what is heard now, what is heard next, and room for chance."""


def splits_of(split: Split) -> tuple[str, ...]:
    """The clips' ``split`` values that a wanted split stands for; "" is none."""
    return {"all": SPLIT_CODES, "train": ("", "train")}.get(split, (split,))


@dataclass
class Selection:
    """The clips of one folder that take part."""

    index: Index
    splits: tuple[str, ...]
    """Wanted values of ``split``."""
    excluded: dict[int, np.ndarray]
    """Members to leave out, by shard."""
    _members: OrderedDict[int, np.ndarray] = field(default_factory=OrderedDict, repr=False)

    def counts(self) -> Int64[np.ndarray, "shards"]:
        """Clips of each shard that take part; opens only shards that have excluded clips."""
        counts = self.index.split_counts(self.splits)
        for shard in self.excluded:
            counts[shard] = len(self.members(shard))
        return counts

    def members(self, shard: int) -> np.ndarray:
        """Members of a shard that take part, in the tar's order."""
        if shard not in self._members:
            splits = splits_marked(self.index.offsets(shard))
            taken = np.isin(splits, [SPLIT_CODES.index(split) for split in self.splits])
            self._check(shard, int(taken.sum()))
            taken[self.excluded.get(shard, np.empty(0, np.int64))] = False
            self._members[shard] = np.flatnonzero(taken).astype(np.uint32)
            if len(self._members) > _SHARDS_HELD:
                self._members.popitem(last=False)
        self._members.move_to_end(shard)
        return self._members[shard]

    def _check(self, shard: int, found: int) -> None:
        told = self.index.shards[shard].splits
        if found != sum(told.get(split, 0) for split in self.splits):
            raise ValueError(
                f"{self.index.place}/{self.index.shards[shard].offsets_name} does not fit the "
                f"index: {found} clips are of split {', '.join(self.splits)}; run `sslaudio shards "
                f"verify {self.index.place}`"
            )

    def recordings(self, shard: int) -> UInt64[np.ndarray, "clips"]:
        """A number for the recording of each clip of a shard that takes part; 0 is not known."""
        return recordings_marked(self.index.offsets(shard))[self.members(shard)]

    def seconds(self) -> float:
        """Sound that takes part."""
        totals = self.index.totals.splits
        seconds = sum(totals[split].seconds for split in self.splits if split in totals)
        codes = [SPLIT_CODES.index(split) for split in self.splits]
        for shard, members in self.excluded.items():
            rows = self.index.offsets(shard)[members]
            lost = rows["samples"][np.isin(splits_marked(rows), codes)]
            seconds -= int(lost.sum()) / self.index.sample_rate
        return seconds


def open_selections(
    shards: tuple[str, ...],
    *,
    split: Split,
    exclude: tuple[str, ...],
    sample_rate: int,
    cache: RangeCache | None = None,
) -> tuple[list[Selection], tuple[float, ...]]:
    """Open the folders of ``data.shards``.

    Args:
        shards: ``DIR`` or ``DIR=weight``; DIR may be an address.
        split: which clips take part.
        exclude: files of rules, see :mod:`sslaudio.data.exclude`.
        sample_rate: Hz that the shards must have.
        cache: keeps what is read from addresses.

    Returns:
        What takes part of each folder, and each folder's weight.
    """
    folders, weights = _folders(shards)
    indexes = [Index.open(folder, cache) for folder in folders]
    for index in indexes:
        _check_rate(index, sample_rate)
    rules = read_rules(exclude)
    excluded = excluded_members(rules, indexes) if rules else [{} for _ in indexes]
    selections = [
        Selection(index, splits_of(split), left_out)
        for index, left_out in zip(indexes, excluded, strict=True)
    ]
    for selection in selections:
        _check_some(selection, split)
    return selections, weights


def _folders(shards: tuple[str, ...]) -> tuple[list[str], tuple[float, ...]]:
    """Folders and weights of ``data.shards``."""
    if not shards:
        raise ValueError(
            "data.shards names no folder; give one made by `sslaudio shards build` or "
            "`sslaudio shards synth`"
        )
    pairs = [_folder_and_weight(text) for text in shards]
    folders = [folder for folder, _ in pairs]
    names = [folder if is_remote(folder) else str(Path(folder)) for folder in folders]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(
            f"data.shards names {twice.pop()} twice; name it once, as DIR=2 to hear it twice"
        )
    return folders, tuple(weight for _, weight in pairs)


def _folder_and_weight(text: str) -> tuple[str, float]:
    folder, equals, tail = text.rpartition("=")
    if not equals or Path(text).is_dir():
        return text, 1.0
    try:
        weight = float(tail)
    except ValueError:
        raise ValueError(
            f"data.shards has {text!r}: {tail!r} is no number; write DIR or DIR=weight"
        ) from None
    if not 0 < weight < math.inf:
        raise ValueError(f"data.shards has {text!r}: a weight is above 0; leave the folder out")
    return folder, weight


def _check_rate(index: Index, sample_rate: int) -> None:
    if index.sample_rate != sample_rate:
        raise ValueError(
            f"{index.place} has shards at {index.sample_rate} Hz, but the front end wants "
            f"{sample_rate} Hz; build them again with --sample-rate {sample_rate}, or set "
            f"features.sample_rate to {index.sample_rate}"
        )


def _check_some(selection: Selection, split: Split) -> None:
    if not selection.counts().sum():
        there = ", ".join(name or "none" for name in selection.index.split_names)
        raise ValueError(
            f"{selection.index.place} has no clip of data.split {split!r} that data.exclude "
            f"leaves in; its clips are of split: {there}"
        )
