"""Many cells of one evaluation: task x checkpoint x protocol x labels x seed x fold.

In:  a :class:`Plan`.
Out: every cell in a file of its own, so that an evaluation goes on after a kill; its records and
     predictions.

Cells of one task and checkpoint make a :class:`Group`: they share the task's clips and the
embeddings, and groups run side by side.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import current_process, get_context
from pathlib import Path
from typing import Any, Literal

import torch

from sslaudio import adaptation, ranks
from sslaudio import config as configs
from sslaudio import recipe as recipes
from sslaudio.data.processes import cores
from sslaudio.downstream import predictions, results
from sslaudio.downstream.cache import Cache, clip_name
from sslaudio.downstream.few import limited
from sslaudio.downstream.predictions import Predictions
from sslaudio.downstream.results import Record
from sslaudio.suite import Entry
from sslaudio.tasks import sources
from sslaudio.tasks.base import Fold, Published, Task
from sslaudio.training import storage
from sslaudio.training.report import is_first_process, say, speak


@dataclass(frozen=True)
class Plan:
    """What is to be evaluated."""

    checkpoints: tuple[Path, ...]
    """RUNs."""
    random: Literal["beside", "alone"] | None
    """Whether random weights of their architectures are evaluated too, or alone."""
    protocols: tuple[str, ...]
    """Adapters."""
    seeds: int
    """How many, from ``training.seed`` on."""
    labels: tuple[int | None, ...]
    """Labelled clips a class; None: all."""
    root: Path | None
    """Where the corpora are."""
    out: Path
    """Where cells, embeddings and tables go."""
    given: dict[str, Any]
    """Keys of a fine-tuning recipe, for all cells."""
    words: tuple[str, ...]
    """Flags on top."""


@dataclass(frozen=True)
class Group:
    """A task with one start of weights."""

    entry: Entry
    checkpoint: Path | None
    """Whose architecture; None: the recipe's."""
    random: bool
    """Whether its weights are random ones."""

    @property
    def name(self) -> str:
        """For people."""
        start = "random weights" if self.random or self.checkpoint is None else self.checkpoint
        return f"{self.entry.words} from {start}"


@dataclass(frozen=True)
class Done:
    """A finished cell."""

    record: Record
    said: Path
    """Its predictions."""
    classes: tuple[str, ...]
    published: tuple[Published, ...]


@dataclass(frozen=True)
class Failed:
    """A cell, or a whole group, that went wrong."""

    what: str
    """Which, and why."""


def groups(plan: Plan, entries: Sequence[Entry]) -> list[Group]:
    """What runs side by side."""
    different = {run.resolve(): run for run in reversed(plan.checkpoints)}
    chosen = [run for run in plan.checkpoints if different[run.resolve()] is run]
    starts: list[tuple[Path | None, bool]] = []
    if plan.random != "alone":
        starts += [(run, False) for run in chosen]
    if plan.random or not starts:
        starts += [(run, True) for run in chosen or (None,)]
    return [Group(entry, *start) for entry in entries for start in starts]


CAUGHT = (ValueError, OSError, RuntimeError)
"""What a cell may fail of without stopping the others; a GPU's lack of memory among them."""


def check(plan: Plan, group: Group) -> None:
    """Refuse settings that do not go with a checkpoint, before any work.

    Raises:
        ValueError: names the key.
    """
    for protocol in plan.protocols:
        _start(plan, group, protocol)


def unheeded(plan: Plan, group: Group) -> list[str]:
    """Flags that mean nothing to any of the protocols."""
    by_protocol = [
        adaptation.unheeded(_start(plan, group, protocol)[0], plan.words)
        for protocol in plan.protocols
    ]
    return [flag for flag in by_protocol[0] if all(flag in idle for idle in by_protocol)]


def run_all(plan: Plan, chosen: Sequence[Group], jobs: int) -> tuple[list[Done], list[str]]:
    """Run every group; gives the finished cells and what went wrong.

    What fails does not stop the others.
    """
    found = sorted(_made(plan, chosen, jobs), key=lambda made: made[0])
    cells = [one for _, made in found for one in made]
    done = [one for one in cells if isinstance(one, Done)]
    return done, [one.what for one in cells if isinstance(one, Failed)]


def _made(
    plan: Plan, chosen: Sequence[Group], jobs: int
) -> Iterator[tuple[int, list[Done | Failed]]]:
    if jobs == 1 or len(chosen) == 1:
        for place, group in enumerate(chosen):
            yield place, list(run(plan, group))
        return
    threads = max(1, cores() // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        waiting = {
            pool.submit(_job, plan, group, threads): place for place, group in enumerate(chosen)
        }
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _job(plan: Plan, group: Group, threads: int) -> list[Done | Failed]:
    """A group in a process of its own, with its share of the cores and one of the GPUs."""
    speak()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(current_process()._identity[0] % torch.cuda.device_count())
    return list(run(plan, group))


def run(plan: Plan, group: Group) -> Iterator[Done | Failed]:
    """Every cell of a group; those that are there are read, those that fail are told."""
    try:
        task = sources.task_of(group.entry.task, plan.root, say)
    except ValueError as error:
        yield _failed(group.name, error)
        return
    work_out = partial(adaptation.embedded_aloud, f"embedding {group.name}")
    cache = Cache(plan.out / "embeddings", work_out, is_first_process())
    for protocol in plan.protocols:
        recipe, start = _start(plan, group, protocol)
        for labels in plan.labels:
            for seed in _seeds(plan, group, recipe, labels):
                for fold in task.folds:
                    named = f"{group.name}, {protocol}, fold {fold.name}, seed {seed}"
                    try:
                        few = limited(task, fold, labels, seed)
                        own = _recipe(recipe, seed, few, labels)
                        batch = recipe.training.batch
                        yield _cell(plan, group, task, few, own, start, labels, cache, batch)
                    except CAUGHT as error:
                        # Of several processes, only what all of them raise alike may be survived.
                        if ranks.several() and not isinstance(error, ValueError):
                            raise
                        yield _failed(named, error)


def _failed(what: str, error: Exception) -> Failed:
    say(f"failed: {what}: {error}")
    return Failed(f"{what}: {error}")


def _start(plan: Plan, group: Group, protocol: str) -> tuple[recipes.Finetune, adaptation.Start]:
    given = {**plan.given, "task": configs.plain(group.entry.task)}
    words = ["--adapter", protocol, *plan.words]
    recipe, start = adaptation.recipe_over(group.checkpoint, given, words)
    return recipe, replace(start, run=None) if group.random else start


def _seeds(plan: Plan, group: Group, recipe: recipes.Finetune, labels: int | None) -> range:
    """Of what has a closed form all seeds are one, unless weights or labels are drawn."""
    first = recipe.training.seed
    drawn = group.random or group.checkpoint is None or labels is not None
    fixed = recipe.adapter.build().trains == "nothing" and not drawn
    return range(first, first + (1 if fixed else plan.seeds))


def _recipe(
    recipe: recipes.Finetune, seed: int, fold: Fold, labels: int | None
) -> recipes.Finetune:
    """The recipe with this seed, its batch no larger than the clips there are.

    With few labels nothing is fitted on validation clips: they would be twice as many.
    """
    batch = min(recipe.training.batch, max(2, len(fold.train)))
    made = replace(recipe, training=replace(recipe.training, seed=seed, batch=batch))
    if labels is None:
        return made
    return replace(made, probe=replace(made.probe, refit=False), knn=replace(made.knn, refit=False))


def _cell(
    plan: Plan,
    group: Group,
    task: Task,
    fold: Fold,
    recipe: recipes.Finetune,
    start: adaptation.Start,
    labels: int | None,
    cache: Cache,
    batch: int,
) -> Done:
    name = _name(group, recipe, start, fold, labels)
    shown = name.rpartition("-")[0]
    path, said = plan.out / "cells" / f"{name}.json", plan.out / "cells" / f"{name}.npz"
    record = ranks.from_first(_there(path, said))
    if record is None:
        say(f"{shown} …")
        progress = _progress(shown, recipe)
        outcome = adaptation.adapt(recipe, start, task, fold, path.parent, cache, progress)
        record = _with_notes(outcome.record, recipe, labels, batch)
        if is_first_process():
            predictions.write(said, task, fold, outcome.test_scores)
            results.write(path, [record])
        say(f"{shown}: {results.told(record)}")
    # A cell is known by what it hangs on: another run of the same weights may have left it.
    run = None if group.random or group.checkpoint is None else str(group.checkpoint)
    shape = str(group.checkpoint) if group.random and len(plan.checkpoints) > 1 else None
    record = replace(record, checkpoint=run, shape=shape)
    return Done(record, said, task.classes, task.published)


def _there(path: Path, said: Path) -> Record | None:
    """A finished cell's record; None where it is not there, or not whole."""
    try:
        predictions.read(said)
        return results.read(path)[0]
    except ValueError:
        return None


def _with_notes(
    record: Record,
    recipe: recipes.Finetune,
    labels: int | None,
    batch: int,
) -> Record:
    """A record with what the evaluation knows of it; ``batch`` is the one that was asked for."""
    notes = record.notes
    if recipe.training.batch < batch and recipe.adapter.build().trains != "nothing":
        notes += (f"batches of {recipe.training.batch}: there are no more clips",)
    return replace(record, labels=labels, notes=notes)


def _progress(shown: str, recipe: recipes.Finetune) -> Callable[[int, dict[str, float]], None]:
    """Tells every so many-th epoch."""
    epochs = recipe.training.epochs
    every = max(1, epochs // 5)

    def tell(epoch: int, scalars: dict[str, float]) -> None:
        if epoch % every == 0:
            say(
                f"{shown}: epoch {epoch}/{epochs}  loss {scalars['loss']:.3f}  "
                f"validation {100 * scalars['validation']:.1f}"
            )

    return tell


def _name(
    group: Group,
    recipe: recipes.Finetune,
    start: adaptation.Start,
    fold: Fold,
    labels: int | None,
) -> str:
    """What a cell's files are called: readable, and ending in all that its score hangs on."""
    told = adaptation.identity(recipe, start, fold, clip_name)
    begun = "random" if group.random or not group.checkpoint else group.checkpoint.resolve().name
    words = [group.entry.words, recipe.adapter.name, begun]
    words += [f"{labels}-labels"] if labels else []
    words += [f"fold-{fold.name}", f"seed-{recipe.training.seed}", told[:12]]
    text = "-".join(words)
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)


def said_by(done: Sequence[Done]) -> list[list[Predictions]]:
    """The predictions of cells: a list a seed, in it one a fold."""
    seeds = sorted({one.record.seed for one in done})
    return [
        [predictions.read(one.said) for one in done if one.record.seed == seed] for seed in seeds
    ]


def write_plan(plan: Plan, entries: Sequence[Entry]) -> None:
    """``plan.json``: what was asked for, to be read again."""
    told = {**asdict(plan), "suite": [entry.words for entry in entries]}
    text = json.dumps(told, indent=2, default=str) + "\n"
    storage.write_text(plan.out / "plan.json", text)
