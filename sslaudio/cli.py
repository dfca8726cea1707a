"""``sslaudio VERB``: finds the verb's entry, and turns bad input into one line and exit 2.

Each entry module has ``add_arguments(parser)`` and ``main(arguments, flags)``, where ``flags`` are
the words that are leaves of a recipe. ``SSLAUDIO_TRACEBACK=1`` shows where an error came from.
"""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

VERBS = {
    "pretrain": ("sslaudio.pretrain", "pretrain a backbone on shards of unlabelled sound"),
    "finetune": ("sslaudio.finetune", "adapt and score a checkpoint on a labelled task"),
    "embed": ("sslaudio.embed", "write one embedding a clip to a .npz file"),
    "shards": ("sslaudio.shards", "build, verify and describe shards; make synthetic ones"),
    "stats": ("sslaudio.stats", "measure mean and deviation of the log-mels of shards"),
    "list": ("sslaudio.catalog", "list the plug-ins of a room: sslaudio list backbones"),
    "show": ("sslaudio.catalog", "show a plug-in's settings: sslaudio show objective masked_patch"),
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


def run_entry(verb: str, words: Sequence[str]) -> int:
    """Run one verb; bad input gives one line on standard error and 2."""
    try:
        entry = importlib.import_module(VERBS[verb][0])
        parser = OneLineParser(
            prog=f"sslaudio {verb}", description=VERBS[verb][1], allow_abbrev=False
        )
        parser.set_defaults(verb=verb)
        entry.add_arguments(parser)
        arguments, rest = parser.parse_known_args(list(words))
        return int(entry.main(arguments, rest))
    except (ValueError, OSError) as error:
        if os.environ.get("SSLAUDIO_TRACEBACK"):
            raise
        sys.stderr.write(f"sslaudio: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("sslaudio: stopped\n")
        return 130


def _overview() -> str:
    lines = ["usage: sslaudio VERB …; sslaudio VERB --help tells more", ""]
    return "\n".join(lines + [f"  {verb:10s}{text}" for verb, (_, text) in VERBS.items()]) + "\n"
