"""``sslaudio VERB``: finds the verb's entry, and turns bad input into one line and exit 2.

``SSLAUDIO_TRACEBACK=1`` shows where an error came from.
"""

import argparse
import difflib
import importlib
import os
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from sslaudio.data.processes import reuse_freed_memory

TURN_SECONDS = 3.0


class Verb(NamedTuple):
    """An entry of the command line."""

    module: str
    """Offers ``add_arguments(parser)`` and ``main(arguments)``."""
    help: str
    """One line."""
    takes_leaves: bool = False
    """Other flags are leaves of a recipe: ``main(arguments, flags)``."""


VERBS = {
    "pretrain": Verb(
        "sslaudio.pretrain", "pretrain a backbone on shards of unlabelled sound", True
    ),
    "finetune": Verb(
        "sslaudio.finetune", "adapt a checkpoint to a labelled task and score it", True
    ),
    "evaluate": Verb(
        "sslaudio.evaluate", "score checkpoints on tasks by protocols, in one table", True
    ),
    "embed": Verb("sslaudio.embed", "write one embedding a clip to a .npz file"),
    "predict": Verb(
        "sslaudio.predict", "tell the top classes of sound files, and of long ones when"
    ),
    "weights": Verb(
        "sslaudio.weights", "import others' weights as a run; export one to Hugging Face", True
    ),
    "shards": Verb("sslaudio.shards", "build, verify and describe shards; make synthetic ones"),
    "stats": Verb("sslaudio.stats", "measure mean and deviation of the pictures of shards", True),
    "runs": Verb("sslaudio.runs", "compare the runs below a folder in a table"),
    "doctor": Verb("sslaudio.doctor", "print the environment, for a report of a bug"),
    "list": Verb("sslaudio.catalog", "list the plug-ins of a room: sslaudio list backbones"),
    "show": Verb("sslaudio.catalog", "show a plug-in's settings: sslaudio show objective NAME"),
}


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line and exit 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        sys.stderr.write(f"sslaudio: {message}; see {self.prog} --help\n")
        sys.exit(2)


def main(words: Sequence[str] | None = None) -> int:
    """The console script."""
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there is {', '.join(VERBS)}"
        sys.stderr.write(f"sslaudio: there is no verb {words[0]!r}{hint}\n")
        return 2
    return run_entry(words[0], words[1:])


def run_entry(name: str, words: Sequence[str]) -> int:
    """Run one verb; bad input gives one line on standard error and 2."""
    verb = VERBS[name]
    reuse_freed_memory()
    try:
        entry = importlib.import_module(verb.module)
        parser = OneLineParser(prog=f"sslaudio {name}", description=verb.help, allow_abbrev=False)
        parser.set_defaults(verb=name)
        entry.add_arguments(parser)
        if not verb.takes_leaves:
            return int(entry.main(parser.parse_args(list(words))))
        return int(entry.main(*parser.parse_known_args(list(words))))
    except BrokenPipeError:  # whoever read our output has had enough
        sys.stderr.close()
        return 0
    except (ValueError, OSError) as error:
        if os.environ.get("SSLAUDIO_TRACEBACK"):
            raise
        _wait_turn()
        sys.stderr.write(f"sslaudio: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        _wait_turn()
        sys.stderr.write("sslaudio: stopped\n")
        return 130


def _wait_turn() -> None:
    """Where several processes find the same fault at their start, let a machine's first say it.

    Its launcher ends the others while they wait.
    """
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if place:
        time.sleep(TURN_SECONDS + place / 2)


def _overview() -> str:
    lines = ["usage: sslaudio VERB …; sslaudio VERB --help tells more", ""]
    return "\n".join(lines + [f"  {name:10s}{verb.help}" for name, verb in VERBS.items()]) + "\n"
