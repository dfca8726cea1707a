"""Adapt a checkpoint to a labelled task and score it, wired top to bottom.

    sslaudio finetune --task fsdd --root DIR --checkpoint RUN --protocol linear --out RUN2

The protocol is a file of the room ``adapters``. Without ``--checkpoint`` the weights of
``--backbone`` are random. Validation chooses epoch and strength; test is scored once. Every fold
of the task is run and its model kept; the run's own is that of the fold that validates best. A
run that was cut short goes on with the first fold that it lacks.

    sslaudio finetune --task fsdd --root DIR --ensemble RUN2 RUN3 --out RUN4

scores the mean of what several fine-tuned runs say, and trains nothing.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: the folder above, not this one, holds the package
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial

from sslaudio import adaptation, ensemble, models, ranks
from sslaudio import config as configs
from sslaudio import recipe as recipes
from sslaudio.downstream import predictions, results, table
from sslaudio.downstream.cache import clip_name
from sslaudio.tasks import sources
from sslaudio.tasks.base import Fold, Task
from sslaudio.training import runs, storage
from sslaudio.training.launch import join
from sslaudio.training.report import Report, is_first_process, say, speak


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that are no leaves of the recipe."""
    parser.epilog = (
        "--task NAME is required, here or in the recipe. Every leaf of the recipe is a flag: "
        "--task.version v2-10, --training.epochs 20, --probe.refit false. `sslaudio show task "
        "NAME` (training, probe, knn, adapter NAME, backbone NAME) tells what there is."
    )
    parser.add_argument("--config", help="recipe: a YAML file, or a name from configs/finetune")
    parser.add_argument(
        "--root", type=Path, help="the corpus as published, its shards, or a folder that holds it"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="start from its weights")
    parser.add_argument("--protocol", metavar="ADAPTER", help="full (default), linear, lora, …")
    parser.add_argument("--out", type=Path, help="folder of the run (runs/TASK-PROTOCOL-TIME)")
    parser.add_argument(
        "--ensemble", type=Path, nargs="+", metavar="RUN", help="score these runs' mean instead"
    )


def main(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Fine-tune on every fold, write results, print the table."""
    speak()
    join()
    recipe, start = _recipe(arguments, flags)
    _tell_unheeded(recipe, arguments, flags)
    task = sources.task_of(recipe.task, arguments.root, say)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    protocol = "ensemble" if arguments.ensemble else recipe.adapter.name
    out = arguments.out or Path("runs") / f"{task.name}-{protocol}-{stamp}"
    runs.check_out(out)
    if task.notes:
        say(f"{task.name}: {'; '.join(task.notes)}")
    if arguments.ensemble:
        return _ensemble(arguments.ensemble, task, out)
    kept = _kept(out, recipe, start, task)
    _check_free(out, kept)
    _tell_cut(recipe, task)
    records: list[results.Record] = []
    with runs.held_by_first(out):
        if is_first_process():
            storage.write_text(out / "recipe.yaml", configs.to_yaml(recipe))
        for fold in task.folds:
            folder = out / f"fold-{fold.name}" if len(task.folds) > 1 else out
            records.append(_fold(recipe, start, task, fold, folder, kept[fold.name]))
            say(f"{task.name} {fold.name}: {results.told(records[-1])}")
        best = max(records, key=lambda record: record.validation)
        if is_first_process():
            if len(task.folds) > 1:
                models.copy_run(out / f"fold-{best.fold}", out)
            results.write(out / "results.json", records)
    say(table.markdown(table.rows(records)))
    if len(task.folds) > 1:
        say(f"the model in {out} is that of fold {best.fold}; every fold's is below it")
    say(f"done: {out}")
    return 0


def _kept(
    out: Path, recipe: recipes.Finetune, start: adaptation.Start, task: Task
) -> dict[str, Path]:
    """Where the record of each fold goes, named after all that its score hangs on."""
    kept = {}
    for fold in task.folds:
        told = adaptation.identity(recipe, start, fold, clip_name)
        folder = out / f"fold-{fold.name}" if len(task.folds) > 1 else out
        kept[fold.name] = folder / f"record-{told[:12]}.json"
    return kept


def _check_free(out: Path, kept: Mapping[str, Path]) -> None:
    """Refuse a folder that holds results, or another run; one cut short goes on.

    A run of other settings, weights or clips that finished no fold is begun anew.

    Raises:
        ValueError: names the folder.
    """
    begun = out / "recipe.yaml"
    other = runs.is_imported(out) or (out / "checkpoints").exists()
    other |= begun.is_file() and "task" not in configs.read_yaml(begun)
    finished = {*out.glob("record-*.json"), *out.glob("fold-*/record-*.json")}
    if (out / "results.json").is_file() or other or not finished <= set(kept.values()):
        raise ValueError(
            f"--out {out} holds a run already, or one of other settings, weights or clips; give "
            f"another folder"
        )


def _recipe(
    arguments: argparse.Namespace, flags: list[str]
) -> tuple[recipes.Finetune, adaptation.Start]:
    """The effective recipe, and where weights come from."""
    path = recipes.find(arguments.config, "finetune") if arguments.config else None
    given = configs.read_yaml(path) if path else {}
    words = list(flags)
    if arguments.protocol is not None:
        words = ["--adapter", arguments.protocol, *words]
    if "task" not in given and not any(word.split("=")[0] == "--task" for word in words):
        raise ValueError("no task; name one with --task, such as --task speechcommands")
    return adaptation.recipe_over(arguments.checkpoint, given, words)


def _tell_unheeded(
    recipe: recipes.Finetune, arguments: argparse.Namespace, flags: list[str]
) -> None:
    """Warn of flags that mean nothing to the protocol; an ensemble takes none but its task's.

    Raises:
        ValueError: names those given to an ensemble.
    """
    if not arguments.ensemble:
        for flag in adaptation.unheeded(recipe, flags):
            say(f"warning: {flag} means nothing to protocol {recipe.adapter.name}")
        return
    given = [f"--{name}" for name in ("checkpoint", "protocol") if getattr(arguments, name)]
    leaves = (word.partition("=")[0] for word in flags if word.startswith("--"))
    given += [leaf for leaf in leaves if leaf.split(".")[0] != "--task"]
    if given:
        raise ValueError(
            f"--ensemble scores runs as they are and trains nothing; leave out {', '.join(given)}"
        )


def _tell_cut(recipe: recipes.Finetune, task: Task) -> None:
    features = recipe.features
    if features.cuts(round(task.seconds * features.sample_rate)):
        say(
            f"warning: clips of {task.name} last {task.seconds:g} s, and features.legacy_frames "
            f"{features.legacy_frames} hears their beginning alone"
        )


def _fold(
    recipe: recipes.Finetune,
    start: adaptation.Start,
    task: Task,
    fold: Fold,
    out: Path,
    kept: Path,
) -> results.Record:
    """Adapt to a fold and write its model and scores; or read those that are there."""
    there = ranks.from_first(results.read(kept)[0] if kept.is_file() else None)
    if there is not None:
        return there
    epochs = recipe.training.epochs
    report = Report(out, epochs, 0, aloud=is_first_process(), unit="epoch")
    began = time.perf_counter()

    def told(epoch: int, scalars: dict[str, float]) -> None:
        report.log(epoch, {f"finetuning/{name}": value for name, value in scalars.items()})
        text = f"loss {scalars['loss']:.3f}  validation {100 * scalars['validation']:.1f}"
        report.show(epoch, text, (time.perf_counter() - began) / epoch * (epochs - epoch))

    try:
        aloud = partial(adaptation.embedded_aloud, f"embedding fold {fold.name}")
        outcome = adaptation.adapt(recipe, start, task, fold, out, aloud, told)
    finally:
        report.close()
    if is_first_process():
        runs.save_weights(out, outcome.weights, outcome.config)
        predictions.write(out / "predictions.npz", task, fold, outcome.test_scores)
        results.write(kept, [outcome.record])
    return outcome.record


def _ensemble(members: Sequence[Path], task: Task, out: Path) -> int:
    """Score the mean of what fine-tuned runs say, fold by fold."""
    _check_free(out, {})
    records = []
    with runs.held_by_first(out):
        for fold in task.folds:
            record, scores = ensemble.scored(members, task, fold)
            records.append(record)
            folder = out / f"fold-{fold.name}" if len(task.folds) > 1 else out
            if is_first_process():
                predictions.write(folder / "predictions.npz", task, fold, scores)
        if is_first_process():
            results.write(out / "results.json", records)
    say(table.markdown(table.rows(records)))
    say(f"done: {out}")
    return 0


if __name__ == "__main__":
    from sslaudio.cli import run_entry

    sys.exit(run_entry("finetune", sys.argv[1:]))
