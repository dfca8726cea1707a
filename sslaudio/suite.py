"""Which tasks an evaluation runs: suites, names, variants.

In:  words such as ``quick``, ``esc50`` or ``speechcommands:version=v2-10,fsdd``.
Out: configured tasks, each with the words that set it up.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sslaudio import config as configs
from sslaudio import plugins
from sslaudio.plugins import Plugin

SUITES: dict[str, tuple[str, ...]] = {
    "lape": (
        "speechcommands:version=v1-12",
        "speechcommands:version=v2-12",
        "speechcommands:version=v2-35",
        "voxceleb1",
        "voxforge",
        "iemocap",
        "nsynth",
        "urbansound8k",
    ),
    "quick": (
        "speechcommands:version=v2-10",
        "fsdd:split=leave-one-speaker-out",
        "esc50:subset=esc10",
    ),
}
"""``lape``: the eight of SS-MAST's Table 1 (arXiv:2211.01515). ``quick``: minutes on a CPU."""


@dataclass(frozen=True)
class Entry:
    """One task of a suite."""

    words: str
    """``NAME``, or ``NAME:leaf=value:leaf=value``."""
    task: Plugin
    """The plug-in, configured."""


def entries(suite: str, leaves: Mapping[str, Sequence[str]]) -> list[Entry]:
    """The tasks that ``--suite`` names.

    Args:
        suite: names of suites and tasks, parted by commas.
        leaves: words of ``task.`` leaves for all of them; each task takes those that it has, but
            for what its variant sets.

    Raises:
        ValueError: an unknown name or leaf, or a leaf that no task has.
    """
    words = [word for name in suite.split(",") for word in SUITES.get(name, (name,)) if word]
    if not words:
        raise ValueError(f"--suite is empty; give {', '.join(SUITES)}, or tasks such as esc50,fsdd")
    made = [_entry(word, leaves) for word in dict.fromkeys(words)]
    taken = {name for entry in made for name in _fields(entry.task.name)}
    for name in leaves:
        if name not in taken:
            tasks = ", ".join(entry.task.name for entry in made)
            raise ValueError(f"--task.{name} is set, but none of {tasks} has it; leave it out")
    return made


def _entry(word: str, leaves: Mapping[str, Sequence[str]]) -> Entry:
    name, *settings = word.split(":")
    if name not in plugins.names("tasks") and "." not in name:
        there = ", ".join([*SUITES, *plugins.names("tasks")])
        raise ValueError(
            f"--suite names {name!r}, which is neither suite nor task; there is {there}"
        )
    fields = _fields(name)
    own = {key: values for key, values in leaves.items() if key in fields}
    for leaf in settings:
        key, equals, value = leaf.partition("=")
        if not equals:
            raise ValueError(f"--suite has {word!r}; a variant is written {name}:leaf=value")
        own[key] = value.split("+")
    flags = [text for key, values in own.items() for text in (f"--task.{key}", *values)]
    merged = configs.parse_flags(flags, _Holder, {"task": {"name": name}})
    return Entry(word, configs.plugin("tasks", merged["task"], "task"))


def _fields(task: str) -> set[str]:
    return {field.name for field in dataclasses.fields(plugins.load("tasks", task).Config)}


@dataclass(frozen=True)
class _Holder:
    """What flags of a task are read with."""

    task: Plugin = plugins.plugin_field("tasks", "shards")


def told(chosen: Sequence[Entry]) -> str:
    """The tasks in a line."""
    return ", ".join(entry.words for entry in chosen)
