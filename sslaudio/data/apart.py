"""Clips of one recording kept out of each other's batch.

In:  the clips of a window in some order, what recording each is of, and how the places that they
     are to fill are cut into batches.
Out: which clip comes at which place.

Two crops of one recording in a batch teach a contrastive objective nothing, and would be each
other's false negatives. Where a recording has more clips than the window has batches, some meet.
"""

import numpy as np
from jaxtyping import Int64, UInt64


def deal(
    clips: Int64[np.ndarray, "clips"], batches: Int64[np.ndarray, "clips"]
) -> Int64[np.ndarray, "clips"]:
    """Deal clips to batches one after the other, as cards are dealt to players.

    Args:
        clips: those of one recording are neighbours.
        batches: number of the batch that each place belongs to; it never falls.

    Returns:
        The clip at each place. Neighbours went to different batches, as long as there are enough.
    """
    _, firsts, sizes = np.unique(batches, return_index=True, return_counts=True)
    rounds = np.arange(len(batches)) - np.repeat(firsts, sizes)
    dealt = np.empty_like(clips)
    dealt[np.lexsort((batches, rounds))] = clips
    return dealt


def swap_repeated(
    recordings: UInt64[np.ndarray, "clips"],
    batches: Int64[np.ndarray, "clips"],
    heard: UInt64[np.ndarray, "heard"],
) -> Int64[np.ndarray, "clips"]:
    """Take what a batch has heard already out of its later part.

    Args:
        recordings: of the clip at each place; 0 is not known, and none is like another.
        batches: number of the batch that each place belongs to. The first was begun before.
        heard: recordings of its clips before these.

    Returns:
        The place that each place's clip comes from. A repeated clip of the first batch is swapped
        with one of a batch in the middle; the last batch, which may go on behind, stays as it is.
    """
    order = np.arange(len(batches))
    first = batches == batches[0]
    told = recordings != 0
    repeated = np.flatnonzero(first & told & np.isin(recordings, heard)).tolist()
    if not repeated:
        return order
    taken = [*heard.tolist(), *recordings[first & told].tolist()]
    middle = (batches != batches[0]) & (batches != batches[-1])
    free = np.flatnonzero(middle & ~(told & np.isin(recordings, taken))).tolist()
    names, groups = recordings.tolist(), batches.tolist()
    there = set(zip(groups, names, strict=True))
    places: dict[int, list[int]] = {}
    for place in free:  # the clips of each recording; one that is not known is its own
        places.setdefault(names[place] or -1 - place, []).append(place)
    for place in repeated:
        for name, others in places.items():
            other = next((one for one in others if (groups[one], names[place]) not in there), None)
            if other is not None:
                del places[name]
                there.add((groups[other], names[place]))
                order[[place, other]] = other, place
                break
    return order
