"""A name is a file: finds the plug-ins of a room and loads one by its name.

In:  a room (``"backbones"``) and a name (``"ast"``, or ``"my_lab.idea"`` from outside).
Out: the module, which offers a frozen dataclass ``Config`` and a function ``build``.

There is no registry: ``sslaudio/objectives/masked_patch.py`` is the registration of
``masked_patch``. Rooms: see :data:`ROOMS`.
"""

import ast
import difflib
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

ROOMS = {
    "adapters": "sslaudio.adapters",
    "augments": "sslaudio.augments",
    "backbones": "sslaudio.backbones",
    "corpora": "sslaudio.data.corpora",
    "objectives": "sslaudio.objectives",
    "tasks": "sslaudio.tasks",
}
"""Room to the package whose files are its plug-ins."""


@dataclass(frozen=True)
class Plugin:
    """A chosen plug-in: its room, its name and its validated ``Config``."""

    room: str
    name: str
    config: Any

    def build(self, *parts: Any, **named_parts: Any) -> Any:
        """Call the file's ``build(config, ...)``."""
        return load(self.room, self.name).build(self.config, *parts, **named_parts)


def plugin_field(room: str, name: str) -> Any:
    """A dataclass field that holds a plug-in of ``room``, ``name`` unless said otherwise."""
    return field(
        metadata={"room": room},
        default_factory=lambda: Plugin(room, name, load(room, name).Config()),
    )


def names(room: str) -> list[str]:
    """Names of the plug-ins of ``room``, sorted: files that define ``Config`` and ``build``."""
    return sorted(file.stem for file in _place(room).glob("*.py") if _is_plugin(file))


def load(room: str, name: str) -> ModuleType:
    """Import the plug-in ``name`` of ``room``.

    Args:
        room: one of :data:`ROOMS`.
        name: a file of the room without ``.py``, or a dotted module path from outside.

    Raises:
        ValueError: there is no such plug-in, or it lacks ``Config`` or ``build``; the
            message names the nearest one, all there are, and how to add one.
    """
    if name.isidentifier() and _is_plugin(_place(room) / f"{name}.py"):
        return importlib.import_module(f"{ROOMS[room]}.{name}")
    known = names(room)
    if "." not in name or not all(part.isidentifier() for part in name.split(".")):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"there is no {name!r} in {room}: {hint}there is {', '.join(known)}. "
            f"To add one, write a file with Config and build into sslaudio/{_folder(room)}, or "
            f"give the dotted path of a module of yours, such as my_lab.idea"
        )
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"cannot import {name!r} for {room}: {error}; give the path of a module on PYTHONPATH, "
            f"or one of {', '.join(known)}"
        ) from error
    missing = [part for part in ("Config", "build") if not hasattr(module, part)]
    if missing:
        raise ValueError(
            f"{name} is no plug-in of {room}: it lacks {' and '.join(missing)}; see "
            f"sslaudio/{_folder(room)}/{known[0]}.py for an example"
        )
    return module


def _folder(room: str) -> str:
    return "/".join(ROOMS[room].split(".")[1:])


def _place(room: str) -> Path:
    return Path(__file__).parent.joinpath(*ROOMS[room].split(".")[1:])


def _is_plugin(file: Path) -> bool:
    if not file.is_file():
        return False
    defined = {
        node.name
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    return {"Config", "build"} <= defined
