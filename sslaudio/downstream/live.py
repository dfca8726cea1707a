"""A probe beside pretraining: how well the encoder tells labelled clips apart, every so many steps.

In:  the encoder that is being trained, and a labelled set.
Out: ``probe/knn`` and ``probe/chance`` beside the loss, a line to the person at the terminal, and
     the run's ``curve.png``.

The probe looks and never touches: no gradient, no draw from torch's generators, so that a run has
the same bits with it and without. It learns from training clips and asks of validation clips only;
test clips are never read, as one tunes by what it shows.
"""

import hashlib
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream import knn
from sslaudio.downstream.embed import decode_examples, embed_waveforms
from sslaudio.downstream.metrics import accuracy
from sslaudio.downstream.probe import part_of
from sslaudio.plugins import Plugin, plugin_field
from sslaudio.tasks.base import Example, Task
from sslaudio.training.report import Report, say


@dataclass(frozen=True)
class Config:
    """The k-nearest-neighbour probe of a pretraining run.

    Called ``knn``, not ``probe``: that is the line that fine-tuning fits (``downstream/probe.py``).
    """

    every: int = 0
    """Steps between probes, besides those before the first step and after the last; 0: none."""
    task: Plugin = plugin_field("tasks", "shards")
    """What tells clips, classes and parts; of several folds the first that ``knn.task.folds``
    leaves."""
    root: Path | None = None
    """The labelled set, as the task reads it: a folder of shards, or a corpus as published."""
    clips: int = 500
    """Most training clips, and most validation clips; as many of each class as there can be."""
    neighbours: int = 20
    """Training clips that vote."""

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"knn.every is {self.every}; it is at least 0, which is never")
        if min(self.clips, self.neighbours) < 1:
            raise ValueError(
                f"knn.clips is {self.clips} and knn.neighbours {self.neighbours}; both are at "
                f"least 1 (500 and 20 are usual)"
            )
        if self.every and self.root is None:
            raise ValueError(
                f"knn.every is {self.every}, but there is no labelled set to probe with; name its "
                f"folder with knn.root, or set knn.every to 0"
            )


class Probe:
    """A watcher: called with the step, the objective and the report.

    Args:
        config: its ``every`` is above 0.
        encoder: around the very backbone that is being trained.
        steps: of the whole run.
        first: what the weights are before the first step, in a word.
        aloud: whether this process probes; of several, one does.
    """

    def __init__(
        self, config: Config, encoder: Encoder, steps: int, first: str, aloud: bool
    ) -> None:
        self.config, self.encoder, self.steps, self.first = config, encoder, steps, first
        self.aloud = aloud
        if not aloud:
            return
        task = _task(config)
        fold = task.folds[0]
        self.task = task
        self.names = task.classes
        self.classes = len(task.classes)
        self.train, self.validation = (
            balanced(part, config.clips) for part in (fold.train, fold.validation)
        )
        if len(self.train) < config.neighbours:
            raise ValueError(
                f"knn.neighbours is {config.neighbours}, but the probe has {len(self.train)} "
                f"training clips; set it to {len(self.train)} or fewer"
            )
        counts = Counter(example.one_class for example in self.validation)
        self.chance = max(counts.values()) / len(self.validation)
        self.waveforms = decode_examples((*self.train, *self.validation), encoder.sample_rate)
        say(
            f"probe: kNN of {len(self.validation)} validation clips among {len(self.train)} "
            f"training clips of {task.name} in {config.root}, fold {fold.name}, {self.classes} "
            f"classes, every {config.every} steps"
        )

    def __call__(self, step: int, objective: nn.Module, report: Report) -> None:
        """Probe where it is time to."""
        if not self.aloud or (step % self.config.every and step != self.steps):
            return
        began = time.perf_counter()
        score = self.score()
        seconds = time.perf_counter() - began
        report.log(
            step, {"probe/knn": score, "probe/chance": self.chance, "probe/seconds": seconds}
        )
        own = [self.names[example.one_class] for example in self.validation]
        columns = {"class": own, "clip": [example.key for example in self.validation]}
        report.embeddings(step, "probe", self.embeddings, columns)
        report.draw()
        # Read back, as a resumed run has to: its step 0 was long ago.
        first = dict(report.history()["probe/knn"]).get(0)
        beside = "" if first is None or not step else f"{self.first} {first:.1%}, "
        name = f"step {step}" if step else f"step 0, {self.first}"
        say(f"probe: kNN {score:.1%} at {name} ({beside}chance {self.chance:.1%}; {seconds:.1f} s)")

    def score(self) -> float:
        """Share of the validation clips that their neighbours name rightly."""
        device = next(self.encoder.backbone.parameters()).device
        self.encoder.front_end.to(device)
        embeddings = embed_waveforms(self.encoder, self.waveforms)
        count = len(self.train)
        self.embeddings = embeddings[count:]
        train = part_of(self.task, embeddings[:count], self.train)
        temperature = knn.Config.temperature
        head = knn.NeighbourHead.of(train, self.classes, self.config.neighbours, temperature)
        predictions = knn.told(head, self.embeddings).argmax(axis=1)
        return accuracy(self.task.targets(self.validation), predictions)


def balanced(examples: Sequence[Example], most: int) -> tuple[Example, ...]:
    """At most so many, as many of each class as there can be; the keys alone decide which.

    Returns:
        The chosen, in the order given.
    """
    ranked = sorted(examples, key=lambda example: hashlib.sha256(example.key.encode()).digest())
    taken: Counter[int] = Counter()
    places = {}
    for rank, example in enumerate(ranked):
        places[example.key] = (taken[example.one_class], rank)
        taken[example.one_class] += 1
    chosen = set(sorted(places, key=places.__getitem__)[:most])
    return tuple(example for example in examples if example.key in chosen)


def _task(config: Config) -> Task:
    """The labelled set, its complaints under the key that cures them."""
    assert config.root is not None, "checked with the recipe"
    if not config.root.is_dir():
        raise ValueError(f"knn.root {config.root} is no folder; name that of the labelled set")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            task: Task = config.task.build(config.root)
        except ValueError as error:
            raise ValueError(f"knn.task {config.task.name} in knn.root: {error}") from error
    if task.kind != "single":
        raise ValueError(
            f"knn.task {config.task.name} has not one class a clip ({task.kind}); probe with a "
            f"task that has, such as esc50, or leave knn.every 0"
        )
    for warning in warned:
        say(f"warning: {warning.message}")
    return task
