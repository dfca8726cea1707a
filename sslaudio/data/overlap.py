"""Recordings that corpora share: FSD50K, ESC-50 and UrbanSound8K cut the same Freesound uploads,
AudioSet and VoxCeleb the same YouTube videos.

In:  folders of shards.
Out: the recordings of one that another has too, as rules for ``data.exclude``; what a run has
     heard, to be held against the clips that it is tested on.

Two corpora are compared where their importers tell recordings by ids of one kind (``RECORDINGS``);
a corpus of another kind is compared with itself alone. The offsets files suffice to find what is
shared: no tar is read but for the ids.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from sslaudio import plugins
from sslaudio.data.index import Index
from sslaudio.data.layout import SPLIT_CODES, mark_of, recordings_marked, splits_marked
from sslaudio.data.selection import Selection

Marks = UInt64[np.ndarray, "recordings"]
"""Of recordings, as :func:`sslaudio.data.layout.mark_of` gives them; rising, each once."""


@dataclass(frozen=True)
class Shared:
    """What two folders of shards have in common."""

    kind: str
    """Of the ids that recordings are compared by."""
    recordings: list[str]
    """Of the first folder, those that the second has too, sorted."""
    clips: int
    """Of the first folder that are cut from them."""
    others: dict[str, int]
    """Clips of the second folder that are cut from them, by split; "" is none."""


def kind_of(corpus: str) -> str:
    """What a corpus's recordings are ids of: ``freesound``, ``youtube``, or the corpus itself."""
    if corpus not in plugins.names("corpora"):
        return corpus
    return str(getattr(plugins.load("corpora", corpus), "RECORDINGS", corpus))


def shared(one: Index, other: Index, splits: Sequence[str] = SPLIT_CODES) -> Shared:
    """Recordings of ``one`` that ``other`` has too, in clips of ``splits``.

    Raises:
        ValueError: their recordings are ids of different kinds.
    """
    kind, others_kind = kind_of(one.corpus), kind_of(other.corpus)
    if kind != others_kind:
        raise ValueError(
            f"{one.place} holds {one.corpus}, whose recordings are told by {kind}, and "
            f"{other.place} {other.corpus}, whose are told by {others_kind}: nothing can be "
            f"compared; give two corpora of one kind (fsd50k, esc50 and urbansound8k are of "
            f"Freesound, audioset and voxceleb1 of YouTube)"
        )
    codes = [SPLIT_CODES.index(split) for split in splits]
    wanted = _marks(other, codes)
    names: set[str] = set()
    clips = 0
    for shard in range(len(one.shards)):
        for member in np.flatnonzero(np.isin(recordings_marked(one.offsets(shard)), wanted)):
            clip = one.clip(shard, int(member))
            names.add(str(clip.fields.get("recording") or clip.fields.get("source", clip.key)))
            clips += 1
    found = np.array(sorted(mark_of(name) for name in names), np.uint64)
    counts: Counter[str] = Counter()
    for shard in range(len(other.shards)):
        rows = other.offsets(shard)
        cut = np.isin(recordings_marked(rows), found) & np.isin(splits_marked(rows), codes)
        counts.update(SPLIT_CODES[code] for code in splits_marked(rows)[cut].tolist())
    return Shared(kind, sorted(names), clips, dict(counts))


def heard(selections: Iterable[Selection]) -> dict[str, Marks]:
    """Recordings that take part in a run, by kind."""
    found: dict[str, list[np.ndarray]] = {}
    for selection in selections:
        own = found.setdefault(kind_of(selection.index.corpus), [])
        for shard, count in enumerate(selection.counts().tolist()):
            if count:
                own.append(np.unique(selection.recordings(shard)))
    return {kind: np.unique(np.concatenate(marks)) for kind, marks in found.items() if marks}


def heard_among(marks: Mapping[str, Marks], corpus: str, recordings: Iterable[str]) -> int:
    """How many of a corpus's recordings a run has heard."""
    own = marks.get(kind_of(corpus))
    if own is None:
        return 0
    asked = np.array(sorted({mark_of(name) for name in recordings}), np.uint64)
    return int(np.isin(asked, own).sum())


def _marks(index: Index, codes: Sequence[int]) -> Marks:
    found = [np.empty(0, np.uint64)]
    for shard in range(len(index.shards)):
        rows = index.offsets(shard)
        found.append(np.unique(recordings_marked(rows)[np.isin(splits_marked(rows), codes)]))
    return np.unique(np.concatenate(found))
