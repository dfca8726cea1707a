"""A corpus, read by its importer: its clips, and what else there is to tell of it.

In:  an importer (a file of ``data/corpora``), configured, and the corpus's root.
Out: the clips, what is to be kept beside their shards, what was warned of.

An importer whose choice is to be kept offers ``beside(config, root) -> dict[str, str]`` as well:
file names and their text.
"""

import dataclasses
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from sslaudio.data.corpora.base import Clip, LeftOutWarning


@dataclass(frozen=True)
class Listing:
    """What an importer tells besides the clips."""

    options: dict[str, Any] = field(default_factory=dict)
    """Its options that are not the default ones."""
    beside: dict[str, str] = field(default_factory=dict)
    """Files to be kept beside the shards: name to text."""
    left_out: int = 0
    """Sound files that are nobody's clip."""
    warnings: tuple[str, ...] = ()
    """In the order they came."""


def read(importer: ModuleType, config: Any, root: Path) -> tuple[list[Clip], Listing]:
    """The clips of the corpus in ``root``, and what there is to tell of them.

    Raises:
        ValueError: ``root`` is not that corpus, or is damaged.
    """
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        clips = [_written(clip) for clip in importer.build(config, root)]
    said = [warning.message for warning in heard]
    beside = getattr(importer, "beside", None)
    return clips, Listing(
        options={
            option.name: value
            for option in dataclasses.fields(config)
            if (value := getattr(config, option.name)) != option.default
        },
        beside=beside(config, root) if beside else {},
        left_out=sum(one.files for one in said if isinstance(one, LeftOutWarning)),
        warnings=tuple(_printable(str(one)) for one in said),
    )


def _written(clip: Clip) -> Clip:
    """The clip, told in text: its file's name may be no UTF-8, and so what is taken from it."""
    if clip.source == _printable(clip.source):
        return clip
    told: dict[str, Any] = {
        field.name: _printable(value)
        for field in dataclasses.fields(clip)
        if isinstance(value := getattr(clip, field.name), str)
    }
    return dataclasses.replace(clip, **told)


def _printable(words: str) -> str:
    """Words that may name a file whose name is no UTF-8."""
    return words.encode("utf-8", "backslashreplace").decode()
