"""The order of the clips: a pure function from a position to a clip, with no list of clips.

In:  how many clips each shard of each folder gives, a weight a folder, a seed.
Out: for positions 0, 1, 2, … (clips since training began) the folder, the shard and which of
     its chosen clips.

Nothing here is state, so the state of training's stream is one integer, any position is reached
at once, and ranks and loader workers cannot change the order. Shards are permuted anew each
epoch, then the clips of a window of neighbouring shards are permuted among themselves: random
enough to train on, read nearly in sequence. Several folders are interleaved evenly. Where the
clips' recordings are told, two of one do not meet in a batch (:mod:`sslaudio.data.apart`).

Why not webdataset's shuffles: they repeat the shard order every epoch and keep each worker on
the same shards.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from sslaudio.data.apart import deal, swap_repeated

WINDOW_SHARDS = 16
"""Least shards whose clips are permuted together; a small corpus lies within one window."""

_ROUNDS = 6
_WINDOWS_HELD = 8
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def key_of(*parts: int) -> int:
    """Mix whole numbers into one 64-bit key; another order or value gives another key."""
    state = 0
    for part in parts:
        state = _mix_int((state ^ (part & _MASK)) + _GOLDEN & _MASK)
    return state


def uniform(counters: Int64[np.ndarray, "draws"], key: int) -> Float64[np.ndarray, "draws"]:
    """A number in [0, 1) for each counter: the same counter and key always give the same."""
    mixed = _mix(counters.astype(np.uint64) * np.uint64(_GOLDEN) ^ np.uint64(key))
    mixed = _mix(mixed + np.uint64(_GOLDEN))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(
    values: Int64[np.ndarray, "values"], size: int, key: int
) -> Int64[np.ndarray, "values"]:
    """Where a keyed permutation of ``range(size)`` sends each of ``values``.

    A Feistel network over the next power of four, walked along its cycle until it falls below
    ``size``: a bijection for any ``size``, in constant memory.

    Source: Black and Rogaway 2002 ("Ciphers with Arbitrary Finite Domains"), cycle walking.
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    walked = _feistel(values.astype(np.uint64), half, key)
    outside = walked >= size
    while outside.any():
        walked[outside] = _feistel(walked[outside], half, key)
        outside = walked >= size
    return walked.astype(np.int64)


@dataclass(frozen=True)
class Places:
    """Where the clips of some positions lie, one entry a position."""

    source: Int64[np.ndarray, "positions"]
    """Which folder, in the order given."""
    shard: Int64[np.ndarray, "positions"]
    """Which shard of that folder."""
    nth: Int64[np.ndarray, "positions"]
    """Which of the shard's chosen clips, 0 the first."""


Recordings = Callable[[int, int], UInt64[np.ndarray, "clips"]]
"""Given folder and shard: a number for the recording of each chosen clip; 0 is not known."""


@dataclass(frozen=True)
class _Window:
    """Clips that are permuted together, in the order that they are heard in."""

    clips: Int64[np.ndarray, "clips"]
    """Which clip of the window comes at each of its places."""
    recordings: UInt64[np.ndarray, "clips"]
    """Of the clips, in the same order."""
    batches: Int64[np.ndarray, "clips"]
    """Number of the batch that each falls into."""


@dataclass(frozen=True)
class Plan:
    """The endless order of the clips of one or more folders."""

    counts: tuple[Int64[np.ndarray, "shards"], ...]
    """Chosen clips in each shard, one array a folder."""
    weights: tuple[float, ...]
    """How often a clip of a folder is drawn, relative to a clip of a folder of weight 1."""
    seed: int
    """Of the order."""
    window_shards: int = WINDOW_SHARDS
    """Shards permuted together: so many, or up to twice as many, that all windows be alike."""
    batch: int = 1
    """Positions that are heard together: ``[0, batch)``, ``[batch, 2 * batch)``, …"""
    recordings: "Recordings | None" = None
    """Tells the recordings of a shard's chosen clips; None: every clip is its own."""
    _shard_orders: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _windows: "OrderedDict[tuple[int, int, int], _Window]" = field(
        default_factory=OrderedDict, compare=False, repr=False
    )

    @property
    def clips(self) -> int:
        """Chosen clips in all folders."""
        return sum(int(counts.sum()) for counts in self.counts)

    @property
    def draws(self) -> list[int]:
        """Clips that an epoch takes from each folder: its clips times its weight, at least one."""
        pairs = zip(self.counts, self.weights, strict=True)
        return [max(1, round(int(counts.sum()) * weight)) for counts, weight in pairs]

    @property
    def epoch_clips(self) -> int:
        """Positions in an epoch: with every weight 1, every clip once."""
        return sum(self.draws)

    def epoch(self, position: int) -> int:
        """The epoch a position belongs to, 0 the first."""
        return position // self.epoch_clips

    def locate(self, positions: Int64[np.ndarray, "positions"]) -> Places:
        """Find the clips at ``positions``.

        Each folder is covered evenly: every clip of it once before any comes again, whatever
        its weight.
        """
        source, turn = self._interleave(positions)
        shard, nth = np.empty_like(positions), np.empty_like(positions)
        for which in np.unique(source):
            mine = source == which
            shard[mine], nth[mine] = self._locate_in(int(which), turn[mine])
        return Places(source, shard, nth)

    def some(self, source: int, share: float) -> tuple[int, int]:
        """Shard and number of the clip that lies at ``share``, 0 to 1, of all of a folder's."""
        ends = np.cumsum(self.counts[source])
        number = int(share * ends[-1])
        shard = int(np.searchsorted(ends, number, "right"))
        return shard, number - int(ends[shard] - self.counts[source][shard])

    def _interleave(
        self, positions: Int64[np.ndarray, "positions"]
    ) -> tuple[Int64[np.ndarray, "positions"], Int64[np.ndarray, "positions"]]:
        """Folder of each position, and how many of that folder's clips came before it.

        The first folder takes its share of the epoch's positions as evenly as whole numbers
        allow (Bresenham's line); the next takes its share of what is left, and so on.
        """
        draws = self.draws
        epoch, left = np.divmod(positions, sum(draws))
        source, turn = np.full_like(positions, -1), np.zeros_like(positions)
        total = sum(draws)
        for which, share in enumerate(draws):
            before, after = left * share // total, (left + 1) * share // total
            mine = (source < 0) & (after > before)
            source[mine] = which
            turn[mine] = epoch[mine] * share + before[mine]
            left, total = left - before, total - share
            if not total:
                break
        return source, turn

    def _locate_in(
        self, source: int, turns: Int64[np.ndarray, "turns"]
    ) -> tuple[Int64[np.ndarray, "turns"], Int64[np.ndarray, "turns"]]:
        """Shard and member of the ``turns``-th clips of one folder, counted over all epochs."""
        epochs, places = np.divmod(turns, int(self.counts[source].sum()))
        shard, nth = np.empty_like(turns), np.empty_like(turns)
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            shard[mine], nth[mine] = self._locate_in_epoch(source, int(epoch), places[mine])
        return shard, nth

    def _locate_in_epoch(
        self, source: int, epoch: int, places: Int64[np.ndarray, "places"]
    ) -> tuple[Int64[np.ndarray, "places"], Int64[np.ndarray, "places"]]:
        order, starts = self._shard_order(source, epoch)
        slots = np.searchsorted(starts, places, "right") - 1
        windows = np.searchsorted(self._edges(source), slots, "right") - 1
        shuffled = np.empty_like(places)
        for window in np.unique(windows):
            mine = windows == window
            first, end = self._span(source, epoch, int(window))
            if self.recordings is None:
                key = self._window_key(source, epoch, int(window))
                shuffled[mine] = first + permute(places[mine] - first, end - first, key)
            else:
                clips = self._parted(source, epoch, int(window)).clips
                shuffled[mine] = first + clips[places[mine] - first]
        slots = np.searchsorted(starts, shuffled, "right") - 1
        return order[slots], shuffled - starts[slots]

    def _span(self, source: int, epoch: int, window: int) -> tuple[int, int]:
        """At which clip of the epoch a window begins, and at which the next one does."""
        _, starts = self._shard_order(source, epoch)
        first, end = self._edges(source)[window : window + 2]
        return int(starts[first]), int(starts[end])

    def _edges(self, source: int) -> Int64[np.ndarray, "edges"]:
        """Which of an epoch's shards each window begins with, and how many there are."""
        shards = len(self.counts[source])
        windows = max(1, shards // self.window_shards)
        return np.arange(windows + 1) * shards // windows

    def _window_key(self, source: int, epoch: int, window: int) -> int:
        return key_of(self.seed, epoch, source, 2, window)

    def _parted(self, source: int, epoch: int, window: int) -> _Window:
        """A window without repeated recordings, also in the batch it shares with the one before."""
        name = source, epoch, window
        if name not in self._windows:
            dealt, before = self._dealt(*name), self._before(*name)
            if before is not None:
                shared = before.recordings[before.batches == dealt.batches[0]]
                order = swap_repeated(dealt.recordings, dealt.batches, shared)
                clips, recordings = dealt.clips[order], dealt.recordings[order]
                dealt = _Window(clips, recordings, dealt.batches)
            self._windows[name] = dealt
            if len(self._windows) > _WINDOWS_HELD:
                self._windows.popitem(last=False)
        self._windows.move_to_end(name)
        return self._windows[name]

    def _dealt(self, source: int, epoch: int, window: int) -> _Window:
        assert self.recordings is not None, "asked for where they are told"
        order, _ = self._shard_order(source, epoch)
        shards = order[slice(*self._edges(source)[window : window + 2])]
        told = np.concatenate([self.recordings(source, shard) for shard in shards.tolist()])
        first, end = self._span(source, epoch, window)
        turns = np.arange(first, end) + epoch * int(self.counts[source].sum())
        batches = self._positions(source, turns) // self.batch
        key = self._window_key(source, epoch, window)
        clips = deal(_shuffled_by_recording(told, key), batches)
        return _Window(clips, told[clips], batches)

    def _before(self, source: int, epoch: int, window: int) -> _Window | None:
        """The window that was heard before, as far as its last batch goes; None at the start."""
        while True:
            window -= 1
            if window < 0:
                epoch -= 1
                window = len(self._edges(source)) - 2
            if epoch < 0:
                return None
            first, end = self._span(source, epoch, window)
            if end > first:  # swaps leave its last batch as it was dealt
                held = self._windows.get((source, epoch, window))
                return held or self._dealt(source, epoch, window)

    def _positions(
        self, source: int, turns: Int64[np.ndarray, "turns"]
    ) -> Int64[np.ndarray, "turns"]:
        """The positions of a folder's ``turns``-th clips: :meth:`_interleave` backwards."""
        draws = self.draws
        epoch, left = np.divmod(turns, draws[source])
        rest = sum(draws[source:])
        left = -(-(left + 1) * rest // draws[source]) - 1
        for share in reversed(draws[:source]):
            left = left * (rest + share) // rest
            rest += share
        return epoch * sum(draws) + left

    def _shard_order(self, source: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards in the order of this epoch, and at which clip of the epoch each starts."""
        if (source, epoch) not in self._shard_orders:
            if len(self._shard_orders) > 2 * len(self.counts):
                self._shard_orders.clear()
            shards = len(self.counts[source])
            order = permute(np.arange(shards), shards, key_of(self.seed, epoch, source, 1))
            starts = np.concatenate([[0], np.cumsum(self.counts[source][order])])
            self._shard_orders[source, epoch] = order, starts
        return self._shard_orders[source, epoch]


def _shuffled_by_recording(
    recordings: UInt64[np.ndarray, "clips"], key: int
) -> Int64[np.ndarray, "clips"]:
    """Clips in random order, those of one recording behind one another."""
    own = np.arange(len(recordings), dtype=np.uint64)
    unknown = recordings == 0
    names = np.where(unknown, own, recordings | (np.uint64(1) << np.uint64(63)))
    among = _mix(own ^ np.uint64(key_of(key, 1)))
    return np.lexsort((among, _mix(names ^ np.uint64(key)))).astype(np.int64)


def _feistel(
    values: UInt64[np.ndarray, "values"], half: int, key: int
) -> UInt64[np.ndarray, "values"]:
    """A keyed bijection of ``range(4 ** half)``."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for number in range(_ROUNDS):
        round_key = np.uint64(key_of(key, number))
        left, right = right, left ^ (_mix(right ^ round_key) & mask)
    return (left << bits) | right


def _mix(values: UInt64[np.ndarray, "values"]) -> UInt64[np.ndarray, "values"]:
    """splitmix64's finaliser (Steele et al. 2014): every bit in sways every bit out."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _mix_int(value: int) -> int:
    """:func:`_mix` for one Python integer."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)
