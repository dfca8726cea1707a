"""``sslaudio list ROOM`` and ``sslaudio show ROOM [NAME]``: what there is and what may be set."""

import argparse
import dataclasses
import sys
import typing

from sslaudio import plugins
from sslaudio import recipe as recipes
from sslaudio.config import describe

SINGULAR = {"corpora": "corpus"}
"""Where a room's name does not just lose its s."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A room, and for ``show`` a name where the room holds plug-ins."""
    rooms = [*plugins.ROOMS, *_plain_rooms()] if _shows(parser) else list(plugins.ROOMS)
    singular = [SINGULAR.get(room, room.removesuffix("s")) for room in plugins.ROOMS]
    parser.add_argument(
        "room", choices=sorted({*rooms, *singular}), metavar="ROOM", help=", ".join(rooms)
    )
    if _shows(parser):
        parser.add_argument("name", nargs="?", metavar="NAME", help="a plug-in of the room")


def main(arguments: argparse.Namespace) -> int:
    """Print the list or the settings."""
    room = next(
        (
            room
            for room in plugins.ROOMS
            if arguments.room in (room, SINGULAR.get(room, room.removesuffix("s")))
        ),
        None,
    )
    if arguments.verb == "list":
        assert room is not None
        for name in plugins.names(room):
            sys.stdout.write(f"{name:20s}{_first_line(plugins.load(room, name).__doc__)}\n")
        return 0
    if room is None:
        for schema, config in _plain_rooms()[arguments.room]:
            sys.stdout.write(f"{schema}\n\n")
            _show(config, f"--{arguments.room}.")
        return 0
    if arguments.name is None:
        raise ValueError(f"name one of {', '.join(plugins.names(room))}")
    module = plugins.load(room, arguments.name)
    sys.stdout.write(f"{(module.__doc__ or '').strip()}\n\n")
    prefixes = {"corpora": "--", "augments": f"--augments.{arguments.name}."}
    _show(module.Config, prefixes.get(room, f"--{room.removesuffix('s')}."), room == "corpora")
    return 0


def _shows(parser: argparse.ArgumentParser) -> bool:
    return bool(parser.get_default("verb") == "show")


def _show(config: type, prefix: str, dashes: bool = False) -> None:
    """Every field as it is set; ``dashes``: by a flag of words, not a key of a recipe."""
    for field, default, text in describe(config):
        name = field.replace("_", "-") if dashes else field
        sys.stdout.write(f"  {prefix}{name} {default}\n      {text}\n")
    sys.stdout.write("\n")


def _plain_rooms() -> dict[str, list[tuple[str, type]]]:
    """Rooms without plug-ins, and their configs in the two kinds of recipe."""
    rooms: dict[str, list[tuple[str, type]]] = {}
    for schema in (recipes.Pretrain, recipes.Finetune):
        hints = typing.get_type_hints(schema)
        for field in dataclasses.fields(schema):
            if not field.metadata.get("room"):
                known = rooms.setdefault(field.name, [])
                if hints[field.name] not in [config for _, config in known]:
                    known.append(
                        (f"{field.name}, of sslaudio {schema.__name__.lower()}", hints[field.name])
                    )
    return rooms


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n", 1)[0]
