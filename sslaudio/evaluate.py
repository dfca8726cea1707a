"""Tell how good checkpoints are: tasks by protocols, in one table, wired top to bottom.

    sslaudio evaluate --checkpoint RUN --suite quick --protocols knn,linear --root DIR --out DIR2
    accelerate launch --multi_gpu --num_processes 8 sslaudio/evaluate.py …     the same, faster

``--out`` holds ``results.json`` (a record a fold and seed), the table as ``table.md``, ``.csv``,
``.json`` and ``.png``, every cell with its predictions in ``cells/``, and the embeddings. A run
that was killed goes on where it stopped when it is started again.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: the folder above, not this one, holds the package
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import time
from collections.abc import Sequence
from itertools import chain

from sslaudio import config as configs
from sslaudio import evaluation, plugins, ranks, suite
from sslaudio import recipe as recipes
from sslaudio.downstream import pictures, results, table
from sslaudio.downstream.predictions import Predictions
from sslaudio.evaluation import Done, Plan
from sslaudio.tasks import sources
from sslaudio.training import runs
from sslaudio.training.launch import join
from sslaudio.training.report import is_first_process, say, speak


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that are no leaves of the recipe."""
    parser.epilog = (
        "Every leaf of a fine-tuning recipe is a flag too, for all cells: --training.epochs 10, "
        "--task.split lape_legacy (the tasks that have it). A variant of a task is written "
        "NAME:leaf=value, such as speechcommands:version=v2-10."
    )
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[], metavar="RUN")
    parser.add_argument(
        "--random",
        nargs="?",
        const="beside",
        choices=("beside", "alone"),
        help="random weights of each checkpoint's architecture, beside it or alone",
    )
    parser.add_argument("--suite", default="quick", help=f"{', '.join(suite.SUITES)}, NAME[,NAME…]")
    parser.add_argument("--protocols", default="knn,linear", help="adapters, parted by commas")
    parser.add_argument("--seeds", type=int, default=1, help="of what hangs on one")
    parser.add_argument("--labels", default="all", help="labelled clips a class: 1,5,20,all")
    parser.add_argument("--root", type=Path, help="folder that holds the corpora ($SSLAUDIO_DATA)")
    parser.add_argument("--config", help="recipe: a YAML file, or a name from configs/finetune")
    parser.add_argument("--jobs", type=int, default=1, help="tasks and checkpoints side by side")
    parser.add_argument(
        "--bootstrap", choices=("speaker", "recording", "clip"), help="resample test by these"
    )
    parser.add_argument(
        "--confusion", action="store_true", help="confusion and per-class scores as pictures"
    )
    parser.add_argument("--out", type=Path, help="folder of the evaluation (runs/evaluation-TIME)")


def main(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Run every cell, write the table, print it."""
    speak()
    join()
    plan, entries = _plan(arguments, flags)
    jobs = _jobs(arguments.jobs)
    first = next(iter(plan.checkpoints), None)
    for flag in evaluation.unheeded(plan, evaluation.Group(entries[0], first, random=False)):
        say(f"warning: {flag} means nothing to {', '.join(plan.protocols)}")
    runs.check_out(plan.out)
    if any((plan.out / name).exists() for name in ("recipe.yaml", runs.CONFIG)):
        raise ValueError(f"--out {plan.out} holds a run; give a folder for the evaluation alone")
    there = _present(entries, plan.root)
    with runs.held_by_first(plan.out):
        if is_first_process():
            evaluation.write_plan(plan, entries)
        done, wrong = evaluation.run_all(plan, evaluation.groups(plan, there), jobs)
        if done and is_first_process():
            _write(plan.out, done, arguments.bootstrap, arguments.confusion)
    if not done:
        raise ValueError(f"nothing was evaluated: {wrong[0]}")
    say(f"done: {plan.out}")
    return 1 if wrong else 0


def _plan(arguments: argparse.Namespace, flags: Sequence[str]) -> tuple[Plan, list[suite.Entry]]:
    """What is asked for, every name in it checked before any work.

    Raises:
        ValueError: an unknown checkpoint, task, protocol or leaf.
    """
    for run in arguments.checkpoint:
        runs.read_config(run)
    protocols = tuple(dict.fromkeys(word for word in arguments.protocols.split(",") if word))
    for protocol in protocols:
        plugins.load("adapters", protocol)
    if not protocols or arguments.seeds < 1:
        raise ValueError(
            f"--protocols is {arguments.protocols!r} and --seeds {arguments.seeds}; give one of "
            f"{', '.join(plugins.names('adapters'))} and one seed at least"
        )
    path = recipes.find(arguments.config, "finetune") if arguments.config else None
    given = configs.read_yaml(path) if path else {}
    given.pop("task", None)
    leaves, words = _task_leaves(flags)
    entries = suite.entries(arguments.suite, leaves)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    plan = Plan(
        checkpoints=tuple(arguments.checkpoint),
        random=arguments.random,
        protocols=protocols,
        seeds=arguments.seeds,
        labels=_labels(arguments.labels),
        root=arguments.root,
        out=arguments.out or Path("runs") / f"evaluation-{stamp}",
        given=given,
        words=words,
    )
    for run in plan.checkpoints or (None,):
        for entry in entries:
            evaluation.check(plan, evaluation.Group(entry, run, random=False))
    return plan, entries


def _task_leaves(flags: Sequence[str]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """What ``--task.`` flags are given, and all others.

    Raises:
        ValueError: ``--task`` itself is there.
    """
    leaves: dict[str, list[str]] = {}
    words: list[str] = []
    for key, values in configs.grouped(flags).items():
        room, _, leaf = key.partition(".")
        if key == "task":
            raise ValueError(f"--task names no task here; write --suite {','.join(values)}")
        if room == "task":
            leaves[leaf] = values
        else:
            words += [f"--{key}", *values]
    return leaves, tuple(words)


def _labels(text: str) -> tuple[int | None, ...]:
    """``1,5,20,all``.

    Raises:
        ValueError: a word is neither.
    """
    words = [word for word in text.split(",") if word]
    if not words or not all(word == "all" or (word.isdecimal() and int(word)) for word in words):
        raise ValueError(f"--labels is {text!r}; give clips a class, such as 1,5,20,all")
    return tuple(dict.fromkeys(None if word == "all" else int(word) for word in words))


def _jobs(asked: int) -> int:
    if asked < 1:
        raise ValueError(f"--jobs is {asked}; it is at least 1")
    if asked > 1 and ranks.several():
        raise ValueError(
            f"--jobs is {asked} under a launcher of {ranks.count()} processes, which share every "
            f"task already; leave --jobs out"
        )
    return asked


def _present(entries: Sequence[suite.Entry], root: Path | None) -> list[suite.Entry]:
    """The tasks whose corpus is there; a line for each that is skipped.

    Raises:
        ValueError: none is.
    """
    there = []
    for entry in entries:
        try:
            sources.root_of(entry.task, root)
        except sources.AbsentError as error:
            say(f"skipped {entry.words}: {error}")
            absent = error
        else:
            there.append(entry)
    if not there:
        raise ValueError(f"no corpus of {suite.told(entries)} is there; {absent}")
    return there


def _write(out: Path, done: Sequence[Done], bootstrap: str | None, confusion: bool) -> None:
    """Results, table and pictures."""
    records = [one.record for one in done]
    results.write(out / "results.json", records)
    rows = []
    for row in table.rows(records):
        cells = [one for one in done if table.key_of(one.record) == row.key]
        said = evaluation.said_by(cells)
        rows.append(_resampled(row, said, bootstrap))
        every = list(chain.from_iterable(said))
        if confusion and every[0].targets.dtype.kind != "f":
            name = "-".join([row.task, row.protocol, Path(row.checkpoint).name])
            place = out / "classes" / f"{len(rows):02d}-{name}.png"
            pictures.class_picture(place, every, cells[0].classes)
            if every[0].targets.ndim == 1:
                crowd = place.with_name(f"{place.stem}-confusion.png")
                pictures.confusion_picture(crowd, every, cells[0].classes)
    published = {(one.record.task, one.record.split_rule): one.published for one in done}
    shown = table.with_published(rows, published)
    table.write(out, shown)
    if len({row.labels for row in rows}) > 1:
        pictures.labels_picture(out / "labels.png", rows)
    sys.stdout.write(table.markdown(shown) + "\n")


def _resampled(row: table.Row, said: Sequence[Sequence[Predictions]], by: str | None) -> table.Row:
    """A row with its bootstrap, where its corpus tells the units."""
    if by is None:
        return row
    parts = list(chain.from_iterable(said))
    units = {group for part in parts for group in part.groups(by)}
    if by != "clip" and units == {key for part in parts for key in part.keys}:
        say(f"warning: {row.task} does not tell the {by} of any clip: no bootstrap for it")
        return row
    return table.with_bootstrap(row, said, by)


if __name__ == "__main__":
    from sslaudio.cli import run_entry

    sys.exit(run_entry("evaluate", sys.argv[1:]))
