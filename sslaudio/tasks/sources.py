"""Where a task's clips come from: a corpus in its published layout, or shards built from it.

In:  the name of a corpus and a folder.
Out: the clips that are there, and how many the corpus lists besides.

A folder is known by what is in it, never by its name: every file of ``data/corpora`` says with
``recognises(root)`` whether a folder is that corpus, at the cost of a glance.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sslaudio import plugins
from sslaudio.data.corpora.base import Clip
from sslaudio.data.index import Index
from sslaudio.data.layout import INDEX_NAME
from sslaudio.plugins import Plugin
from sslaudio.tasks.base import Task


class AbsentError(ValueError):
    """A corpus is nowhere that was looked."""


@dataclass(frozen=True)
class Source:
    """The clips of a corpus that are there."""

    clips: tuple[Clip, ...]
    """In the importer's order, or in that of the shards."""
    missing: int
    """Clips that the corpus lists and that are not there; of shards, files that were rejected."""

    def notes(self) -> tuple[str, ...]:
        """A word on what is missing, for a task's notes."""
        listed = len(self.clips) + self.missing
        return (f"{len(self.clips)} of {listed} listed clips",) if self.missing else ()


def root_of(task: Plugin, given: Path | None) -> Path:
    """What ``--root`` means to a task: where its corpus lies, or the very thing it reads.

    Args:
        task: the plug-in, configured; its ``CORPUS`` is None where it reads anyone's own. One
            that not every copy of the corpus serves offers ``prefers(config, folder) -> bool``.
        given: as given with ``--root``.

    Raises:
        ValueError: there is no such place; it says where it was looked for.
    """
    module = plugins.load("tasks", task.name)
    if module.CORPUS is not None:
        prefers = getattr(module, "prefers", None)
        return locate(module.CORPUS, given, partial(prefers, task.config) if prefers else None)
    if given is None:
        raise AbsentError(f"task {task.name} reads sound of your own; say where it is with --root")
    return given


def task_of(task: Plugin, given: Path | None, say: Callable[[str], object]) -> Task:
    """Build a task from what ``--root`` leads to, its warnings said.

    Args:
        task: the plug-in, configured.
        given: as given with ``--root``.
        say: tells a person.
    """
    root = root_of(task, given)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            built: Task = task.build(root)
        finally:
            for warning in warned:
                say(f"warning: {warning.message}")
    return built


def locate(corpus: str, root: Path | None, fits: Callable[[Path], bool] | None = None) -> Path:
    """The folder of a corpus: ``root`` itself, or a folder in it; unset, ``$SSLAUDIO_DATA``.

    Args:
        corpus: name of a file of ``data/corpora``.
        root: as given with ``--root``.
        fits: of several, the first that fits is taken, or else the first.

    Raises:
        ValueError: it is in none of the places, which are named.
    """
    where = root or os.environ.get("SSLAUDIO_DATA")
    if not where:
        raise AbsentError(
            f"where is the corpus {corpus}? give --root DIR, or set $SSLAUDIO_DATA to the folder "
            f"that holds {corpus}/"
        )
    top = Path(where)
    told = "--root" if root else "$SSLAUDIO_DATA"
    if not top.is_dir():
        raise AbsentError(f"{told} {top} is no folder; set --root to one that holds {corpus}")
    found = (place for place in _places(corpus, top) if is_there(corpus, place))
    first = next(found, None)
    if first is None:
        raise AbsentError(
            f"{corpus} is neither in {top} nor in a folder of it: looked for "
            f"{plugins.load('corpora', corpus).LAYOUT}, or shards that `sslaudio shards build "
            f"--corpus {corpus}` made; set --root to the folder that holds it"
        )
    return next(filter(fits, chain([first], found)), first) if fits else first


def is_there(corpus: str, folder: Path) -> bool:
    """Whether a folder is the corpus, as published or in shards."""
    if (folder / INDEX_NAME).is_file():
        return _corpus_of_shards(folder) == corpus
    return bool(plugins.load("corpora", corpus).recognises(folder))


def read(corpus: str, folder: Path, options: Any = None) -> Source:
    """The clips of a corpus in ``folder``, which :func:`locate` found.

    Args:
        corpus: name of a file of ``data/corpora``.
        folder: the corpus as published, or its shards.
        options: its importer's ``Config``, where it is not the default one. Shards were built
            with one already.

    Raises:
        ValueError: the folder is not that corpus.
    """
    if (folder / INDEX_NAME).is_file():
        return _from_shards(corpus, folder)
    module = plugins.load("corpora", corpus)
    clips = module.build(options or module.Config(), folder)
    there = tuple(clip for clip in clips if clip.path.is_file())
    if not there:
        raise ValueError(
            f"{folder} lists {len(clips)} clips of {corpus}, and none of them is there: the first "
            f"is {clips[0].source if clips else 'none'}; set --root to the folder that holds them"
        )
    return Source(there, len(clips) - len(there))


def _places(corpus: str, top: Path) -> Iterator[Path]:
    """Where a corpus may be: the folder, one of its name in it, any other in it."""
    yield top
    yield top / corpus
    yield from sorted(place for place in top.iterdir() if place.is_dir())


def _corpus_of_shards(folder: Path) -> str | None:
    try:
        told = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    corpus = told.get("corpus") if isinstance(told, dict) else None
    return corpus if isinstance(corpus, str) else None


def _from_shards(corpus: str, folder: Path) -> Source:
    shards = Index.open(folder)
    if shards.corpus != corpus:
        raise ValueError(
            f"{folder} holds shards of the corpus {shards.corpus}, not of {corpus}; set --root to "
            f"those, or read these with --task shards"
        )
    clips = tuple(
        Clip(
            path=sample.shard,
            source=str(sample.fields.get("source", sample.key)),
            label=sample.fields.get("label"),
            labels=tuple(sample.fields.get("labels", ())),
            split=sample.fields.get("split"),
            fold=sample.fields.get("fold"),
            recording=sample.fields.get("recording"),
            speaker=sample.fields.get("speaker"),
            licence=sample.fields.get("licence"),
            subsets=tuple(sample.fields.get("subsets", ())),
            byte_range=sample.byte_range,
            part=str(sample.fields.get("start", "")),
        )
        for sample in shards.examples()
    )
    return Source(clips, shards.totals.rejected)
