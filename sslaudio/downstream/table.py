"""Records to one table: task, protocol, checkpoint; means, intervals, others' scores beside.

In:  records of finished fits, and scores that others published.
Out: rows, and these as Markdown, CSV, JSON and a picture.

An interval is Student's t at 95 % over seeds, or over folds where there is one seed: how far the
mean would move with other seeds or folds. The sampling of test clips is not in it; the bootstrap
(:func:`resampled`) tells that.
"""

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sslaudio.downstream.metrics import weighed
from sslaudio.downstream.predictions import Predictions
from sslaudio.downstream.results import Record
from sslaudio.tasks.base import LEGACY, Published
from sslaudio.training.storage import replacing, write_text

LEVEL = 0.95
"""Of intervals."""
DRAWS = 2_000
"""Resamples of a bootstrap."""
Key = tuple[str, str, str, str, str, int | None]
"""Task, split rule, variant, protocol, checkpoint, labels a class."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    task: str
    split: str
    """Variant and where its parts come from; LAPE's departures begin with ``lape_legacy``."""
    protocol: str
    checkpoint: str
    """The weights it started from, or ``random``, and whose architecture these have; of others'
    scores, the system's name."""
    metric: str
    test: float
    """Mean over folds and seeds, 0 to 1."""
    interval: float | None = None
    """Half of the 95 % interval; None for a single figure."""
    deviation: float | None = None
    """Sample deviation over the same."""
    over: str = ""
    """What the interval is over: ``4 folds``, ``3 seeds``."""
    validation: float | None = None
    """Likewise a mean."""
    bootstrap: tuple[float, float] | None = None
    """95 % interval of the score over resampled test speakers or recordings."""
    labels: int | None = None
    """Labelled clips a class; None: all."""
    figures: Mapping[str, float] | None = None
    """Means of every figure."""
    clips: Mapping[str, int] | None = None
    """Clips in train, validation and test, of the first fold."""
    missing: int | None = None
    """Clips that the corpus lists and that are not there."""
    trainable: int | None = None
    """Weights that were fitted."""
    seconds: float | None = None
    """Of all folds and seeds together."""
    variant: str = ""
    """The task's settings that are not its defaults."""
    theirs: bool = False
    """Whether others published it."""
    source: str = ""
    """Where."""
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What tells rows of ours apart."""
        return (
            self.task, self.split, self.variant, self.protocol, self.checkpoint, self.labels,
        )  # fmt: skip

    @property
    def shown_on(self) -> tuple[str, str, str]:
        """The task as rows share it: name, split rule and variant."""
        return (self.task, self.split, self.variant)


def rows(records: Sequence[Record]) -> list[Row]:
    """A row for each task, split rule, protocol, checkpoint and number of labels, as they come."""
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(key_of(record), []).append(record)
    return [_row(group) for group in groups.values()]


def key_of(record: Record) -> Key:
    """The row that a record belongs to."""
    return (
        record.task, record.split_rule, record.variant, record.protocol, started_from(record),
        record.labels,
    )  # fmt: skip


def started_from(record: Record) -> str:
    """The weights that a record started from, for people."""
    if record.checkpoint is not None:
        return record.checkpoint
    return "random" if record.shape is None else f"random, as {record.shape}"


def _row(group: Sequence[Record]) -> Row:
    one = group[0]
    values, over = spread(group)
    return Row(
        task=one.task,
        split=one.split_rule,
        protocol=one.protocol,
        checkpoint=started_from(one),
        variant=one.variant,
        metric=one.metric,
        test=statistics.fmean(record.test for record in group),
        interval=half_interval(values) if over else None,
        deviation=statistics.stdev(values) if over else None,
        over=over,
        validation=statistics.fmean(record.validation for record in group),
        labels=one.labels,
        figures={
            name: statistics.fmean(record.figures[name] for record in group)
            for name in one.figures
            if all(name in record.figures for record in group)
        },
        clips=one.clips,
        missing=one.missing,
        trainable=one.trainable,
        seconds=sum(record.seconds for record in group),
        notes=tuple(dict.fromkeys(note for record in group for note in record.notes)),
    )


def spread(group: Sequence[Record]) -> tuple[list[float], str]:
    """Scores of a row's seeds, or else of its folds; and what they are, if more than one."""
    by_seed: dict[int, list[float]] = {}
    for record in group:
        by_seed.setdefault(record.seed, []).append(record.test)
    if len(by_seed) > 1:
        return [statistics.fmean(scores) for scores in by_seed.values()], f"{len(by_seed)} seeds"
    return [record.test for record in group], f"{len(group)} folds" if len(group) > 1 else ""


def half_interval(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of the mean of two values or more."""
    from scipy.stats import t

    count = len(values)
    quantile = float(t.ppf((1 + LEVEL) / 2, count - 1))
    return quantile * statistics.stdev(values) / math.sqrt(count)


def resampled(
    seeds: Sequence[Sequence[Predictions]], by: str, draws: int = DRAWS
) -> tuple[float, float]:
    """95 % interval of a score over test sets drawn anew, whole speakers or recordings at a time.

    The test clips of all folds are one set: what a fold leaves out whole, such as a speaker, is a
    unit of it. Of several seeds the score is the mean, each on the same draws.

    Args:
        seeds: predictions of every fold, a list of them a seed.
        by: ``speaker``, ``recording`` or ``clip``; a clip without one is a unit of its own.
        draws: resamples, from a fixed seed.

    Source: Efron & Tibshirani 1993, chapter 13, the percentile interval.
    """
    random = np.random.default_rng(0)
    groups = [[group for part in parts for group in part.groups(by)] for parts in seeds]
    names = np.unique(np.concatenate(groups))
    units = [np.searchsorted(names, own) for own in groups]
    figures = [
        weighed(
            np.concatenate([part.targets for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )
        for parts in seeds
    ]
    found = np.empty(draws)
    for draw in range(draws):
        drawn = random.integers(0, len(names), len(names))
        times = np.bincount(drawn, minlength=len(names))
        found[draw] = np.mean([figure(times[u]) for figure, u in zip(figures, units, strict=True)])
    found = found[~np.isnan(found)]  # by chance no clip of any class
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def with_published(
    ours: Sequence[Row], published: Mapping[tuple[str, str], Sequence[Published]]
) -> list[Row]:
    """Others' scores behind each task's rows, where protocol and variant are the same.

    Args:
        ours: rows.
        published: by task and split rule.
    """
    out: list[Row] = []
    for task, split, variant in dict.fromkeys(row.shown_on for row in ours):
        mine = [row for row in ours if row.shown_on == (task, split, variant)]
        protocols = {row.protocol for row in mine}
        out += mine
        out += [
            Row(task, split, one.protocol, one.system, mine[0].metric, one.score,
                variant=variant, theirs=True, source=one.source)
            for one in published.get((task, split), ())
            if one.protocol in protocols
        ]  # fmt: skip
    return out


def with_bootstrap(row: Row, seeds: Sequence[Sequence[Predictions]], by: str) -> Row:
    """A row with the interval of :func:`resampled`."""
    return replace(row, bootstrap=resampled(seeds, by))


HEAD = ("task", "split", "protocol", "checkpoint", "labels a class", "test", "95 % interval")
MORE = ("validation", "clips", "missing", "trainable", "seconds")


def markdown(table: Sequence[Row]) -> str:
    """The table for a page and a terminal alike, scores in %; others' are marked as theirs."""
    shown = [column for column in HEAD if column != "labels a class" or _limited(table)]
    resampling = ["bootstrap"] if any(row.bootstrap for row in table) else []
    head = [*shown, *resampling, *MORE]
    lines = [[_cells(row, _needed(row, table))[name] for name in head] for row in table]
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]
    laid = [head, ["-" * width for width in widths], *lines]
    text = "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in laid
    )
    return "\n\n".join([text, *_footnotes(table)])


def _limited(table: Sequence[Row]) -> bool:
    return any(row.labels is not None for row in table)


def _needed(row: Row, table: Sequence[Row]) -> bool:
    """Whether a row's variant is needed to tell its split from another's."""
    return any(
        (one.task, one.split) == (row.task, row.split) and one.variant != row.variant
        for one in table
    )


def _cells(row: Row, with_variant: bool = False) -> dict[str, str]:
    half = ""
    if row.interval is not None and row.deviation is not None:
        half = f"± {100 * row.interval:.1f} over {row.over} (deviation {100 * row.deviation:.1f})"
    clips = "" if row.clips is None else " / ".join(str(count) for count in row.clips.values())
    low_high = row.bootstrap and f"{100 * row.bootstrap[0]:.1f} to {100 * row.bootstrap[1]:.1f}"
    others = [f"{name} {value:.3f}" for name, value in list((row.figures or {}).items())[1:]]
    return {
        "task": row.task,
        "split": f"{row.split}; {row.variant}" if with_variant else row.split,
        "protocol": row.protocol,
        "checkpoint": f"{row.checkpoint} (theirs)" if row.theirs else row.checkpoint,
        "labels a class": "" if row.theirs else str(row.labels or "all"),
        "test": " ".join([f"{100 * row.test:.1f}", row.metric, *others]),
        "95 % interval": half,
        "bootstrap": low_high or "",
        "validation": "" if row.validation is None else f"{100 * row.validation:.1f}",
        "clips": clips,
        "missing": "" if row.missing is None else str(row.missing),
        "trainable": "" if row.trainable is None else f"{row.trainable:,}",
        "seconds": "" if row.seconds is None else f"{row.seconds:.0f}",
    }


def _footnotes(table: Sequence[Row]) -> list[str]:
    notes = []
    if any(row.interval is not None for row in table):
        notes.append(
            "Intervals are Student's t at 95 % over seeds or folds; the sampling of test clips is "
            "not in them."
        )
    if any(row.split.startswith(LEGACY) for row in table):
        notes.append(
            f"{LEGACY}: LAPE's departures from the published protocol; the epoch is chosen on test."
        )
    sources = dict.fromkeys(f"{row.checkpoint}: {row.source}" for row in table if row.theirs)
    if sources:
        notes.append("Theirs, published elsewhere: " + "; ".join(sources) + ".")
    told = dict.fromkeys(f"{row.task}: {note}" for row in table for note in row.notes)
    return [*notes, *(f"- {note}" for note in told)]


def write(folder: Path, table: Sequence[Row]) -> None:
    """``table.md``, ``table.csv``, ``table.json`` and ``table.png``."""
    write_text(folder / "table.md", markdown(table) + "\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = [asdict(row) for row in table]
    writer.writerow(plain[0])
    for row in plain:
        writer.writerow(
            json.dumps(v) if isinstance(v, dict | tuple | list) else v for v in row.values()
        )
    write_text(folder / "table.csv", text.getvalue())
    write_text(folder / "table.json", json.dumps(plain, indent=2, allow_nan=False) + "\n")
    plot(folder / "table.png", table)


def plot(path: Path, table: Sequence[Row]) -> None:
    """A panel a task: a bar a protocol and checkpoint, with its interval; theirs are hollow."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row.shown_on for row in table))
    heights = [sum(row.shown_on == task for row in table) for task in tasks]
    figure = Figure(figsize=(9, 0.7 * len(tasks) + 0.28 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=heights)[:, 0]
    colours = {
        name: f"C{place}" for place, name in enumerate(dict.fromkeys(r.protocol for r in table))
    }
    for panel, task in zip(panels, tasks, strict=True):
        own = [row for row in table if row.shown_on == task]
        for place, row in enumerate(own):
            colour = colours[row.protocol]
            panel.barh(
                place, 100 * row.test, xerr=None if row.interval is None else 100 * row.interval,
                color="none" if row.theirs else colour, edgecolor=colour, capsize=3,
            )  # fmt: skip
            panel.text(
                1, place, f"{100 * row.test:.1f}", va="center", fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
        labels = [f"{_cells(row)['checkpoint']}, {row.protocol}" + _few(row) for row in own]
        panel.set_yticks(range(len(own)), labels, fontsize=7)
        panel.invert_yaxis()
        panel.set_xlim(0, 100)
        panel.set_title(f"{task[0]}: {task[1]}", fontsize=8, loc="left")
        panel.set_xlabel(f"{own[0].metric}, %", fontsize=7)
    with replacing(path) as draft, draft.open("wb") as file:
        figure.savefig(file, format="png", dpi=110)


def _few(row: Row) -> str:
    return "" if row.labels is None else f", {row.labels} a class"
