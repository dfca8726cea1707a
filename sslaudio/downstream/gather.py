"""Rows that several processes worked out, each clip's once, in the order asked for.

In:  keys, and on each process the rows of some of them.
Out: on every process the rows of all, checked against the keys.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np
from jaxtyping import Shaped

from sslaudio import ranks

Item = TypeVar("Item")
"""Anything that is shared out."""
Made = TypeVar("Made")
"""What some work gives."""


def share(items: Sequence[Item]) -> list[Item]:
    """This process's part: every so many-th, so that long and short ones are dealt alike."""
    return list(items[ranks.rank() :: ranks.count()])


def alike(work: Callable[[], Made]) -> Made:
    """Do something on every process; where it fails on one, it fails on all, in the same words.

    Else the others would wait for that one for ever.

    Raises:
        ValueError: as ``work`` does, here or elsewhere.
    """
    made, error = None, None
    try:
        made = work()
    except ValueError as raised:
        error = raised
    words = ranks.all_values(None if error is None else str(error))
    first = next((word for word in words if word is not None), None)
    if first is not None:
        raise error or ValueError(first)
    return cast(Made, made)


def gathered(
    keys: Sequence[str], own_keys: Sequence[str], own: Sequence[Shaped[np.ndarray, "*row"]]
) -> Shaped[np.ndarray, "keys *row"]:
    """The rows of all ``keys`` in their order, whoever worked them out.

    Args:
        keys: every clip of the part, each once.
        own_keys: those that this process worked out; two processes may have the same one.
        own: their rows.

    Raises:
        ValueError: a clip is missing, or there is one too many: the score would be another's.
    """
    if len(own_keys) != len(own):
        raise ValueError(f"{len(own_keys)} keys came with {len(own)} rows")
    told = ranks.all_values((list(own_keys), list(own)))
    rows = {key: row for part in told for key, row in zip(*part, strict=True)}
    missing, more = [key for key in keys if key not in rows], set(rows) - set(keys)
    if missing or more or len(set(keys)) != len(keys):
        wrong = f"{missing[0]} is missing" if missing else f"{next(iter(more), keys[0])} is extra"
        raise ValueError(
            f"{len(rows)} clips were worked out of {len(keys)} ({wrong}); run again, in one "
            f"process if it happens again"
        )
    return np.stack([rows[key] for key in keys])
