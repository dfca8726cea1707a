"""``sslaudio predict``: what a fine-tuned run hears in files, and when in long ones.

    sslaudio predict --checkpoint RUN2 [RUN3 …] FILE|FOLDER…

A line a file on standard output, with its top classes and their shares. A file more than half as
long again as the clips that the run was fine-tuned on is told window by window, and then the mean
of its windows; ``--window`` and ``--hop`` set others. Of several runs the shares are averaged.
Files that cannot be read are listed, the rest is told, and the exit status is 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from sslaudio.data import progress
from sslaudio.data.processes import cores
from sslaudio.downstream import timeline, timeline_told
from sslaudio.downstream.embed import audio_files
from sslaudio.downstream.timeline import Panel
from sslaudio.models import load_classifier
from sslaudio.training import runs
from sslaudio.training.report import say, speak

TOP = 3
THRESHOLD = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        nargs="+",
        metavar="RUN",
        help="fine-tuned run, or several of the same classes, whose shares are averaged",
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files or folders")
    parser.add_argument("--top", type=int, metavar="N", help=f"classes to tell ({TOP})")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SHARE",
        help=f"mark classes above it, where a clip may have several ({THRESHOLD})",
    )
    parser.add_argument(
        "--window", type=float, metavar="SECONDS", help="of a long file (the run's own clips)"
    )
    parser.add_argument(
        "--hop", type=float, metavar="SECONDS", help="from window to window (half a window)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all classes and windows")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all classes and windows")
    parser.add_argument(
        "--plot", type=Path, metavar="FOLDER", help="draw spectrogram and shares of long files"
    )


def main(arguments: argparse.Namespace) -> int:
    """Load, hear, tell."""
    speak()
    checkpoints, paths = _parted(arguments.checkpoint, arguments.paths)
    _check(arguments)
    torch.set_num_threads(cores())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    members = [load_classifier(run).to(device) for run in checkpoints]
    panel = Panel(members, list(map(str, checkpoints)), arguments.window, arguments.hop)
    _check_kind(arguments, panel)
    predicted = timeline.predict(panel, audio_files(paths), progress=progress.shown)
    top = TOP if arguments.top is None else arguments.top
    threshold = THRESHOLD if arguments.threshold is None else arguments.threshold
    if predicted.files:
        sys.stdout.write(timeline_told.table(panel, predicted.files, top, threshold) + "\n")
    if arguments.json:
        timeline_told.write_everything(arguments.json, panel, predicted, checkpoints)
    if arguments.csv:
        timeline_told.write_csv(arguments.csv, panel, predicted.files)
    if arguments.plot:
        drawn = timeline_told.draw_all(arguments.plot, panel, predicted.files)
        none = f"no file is longer than a window of {panel.window_seconds:g} s"
        say(f"drawn: {', '.join(map(str, drawn)) or none}")
    for path, reason in predicted.failures:
        say(f"cannot read {path}: {reason}")
    if predicted.failures:
        failed, read = len(predicted.failures), len(predicted.files)
        say(f"{failed} of {failed + read} not read")
    return 1 if predicted.failures else 0


def _parted(words: Sequence[Path], paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Runs and sounds: behind ``--checkpoint`` there may be both, the runs first.

    Raises:
        ValueError: there is no sound.
    """
    others = [place for place, word in enumerate(words) if place and not runs.is_run(word)]
    first = len(words) if paths or not others else others[0]
    sounds = [*words[first:], *paths]
    if not sounds:
        raise ValueError("no sound; name audio files, or folders of them, behind the run")
    return list(words[:first]), sounds


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be told or written, before any work.

    Raises:
        ValueError: names the flag.
    """
    for name in ("json", "csv"):
        out = getattr(arguments, name)
        if out and (out.is_dir() or not out.parent.is_dir()):
            raise ValueError(f"cannot write --{name} {out}; name a file in an existing folder")
    if arguments.plot and arguments.plot.exists() and not arguments.plot.is_dir():
        raise ValueError(f"cannot draw into --plot {arguments.plot}; it is a file, name a folder")
    if arguments.top is not None and arguments.top < 1:
        raise ValueError(f"--top is {arguments.top}; give 1 or more")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ValueError(f"--threshold is {arguments.threshold:g}; a share is from 0 to 1")


def _check_kind(arguments: argparse.Namespace, panel: Panel) -> None:
    """Refuse flags that mean nothing for what the runs tell.

    Raises:
        ValueError: names the flag.
    """
    told, run = timeline.KINDS[panel.kind], arguments.checkpoint[0]
    if arguments.threshold is not None and panel.kind != "multi":
        raise ValueError(
            f"--threshold marks classes where a clip may have several, but {run} tells {told}; "
            f"leave it out"
        )
    if arguments.top is not None and panel.kind == "number":
        raise ValueError(f"--top chooses among classes, but {run} tells {told}; leave it out")
