"""``sslaudio list ROOM`` and ``sslaudio show ROOM NAME``: what there is and what may be set."""

import argparse
import sys

from sslaudio import plugins
from sslaudio.config import describe

ROOMS = sorted([*plugins.ROOMS, *(room.removesuffix("s") for room in plugins.ROOMS), "corpus"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A room, and for ``show`` a name."""
    parser.add_argument("room", choices=ROOMS, metavar="ROOM", help=", ".join(plugins.ROOMS))
    if parser.get_default("verb") == "show":
        parser.add_argument("name", metavar="NAME", help="a plug-in of the room")


def main(arguments: argparse.Namespace) -> int:
    """Print the list or the settings."""
    room = {"corpus": "corpora"}.get(arguments.room, arguments.room.removesuffix("s") + "s")
    room = arguments.room if arguments.room in plugins.ROOMS else room
    if arguments.verb == "list":
        for name in plugins.names(room):
            sys.stdout.write(f"{name:20s}{_first_line(plugins.load(room, name).__doc__)}\n")
        return 0
    module = plugins.load(room, arguments.name)
    sys.stdout.write(f"{(module.__doc__ or '').strip()}\n\n")
    for field, default, text in describe(module.Config):
        sys.stdout.write(f"  --{room.removesuffix('s')}.{field} {default}\n      {text}\n")
    return 0


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n", 1)[0]
