"""``results.json``: one record a fold and seed; its mean and spread; its table.

In:  scores of finished fits.
Out: a JSON list, and a table of task x protocol x checkpoint for people.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sslaudio.tasks.base import Fold, Task
from sslaudio.training.storage import write_text


@dataclass(frozen=True)
class Record:
    """The score of one protocol on one fold from one seed."""

    task: str
    """Plug-in of the task."""
    protocol: str
    """How the checkpoint was adapted: ``full``, ``linear``, ..."""
    metric: str
    """What the scores are; shares from 0 to 1, higher is better."""
    split_rule: str
    """The task's variant and where its parts come from."""
    fold: str
    """Name of the fold."""
    seed: int
    """Of the run that made the record."""
    validation: float
    """Score on the validation part, which chose epoch or strength."""
    test: float
    """Score on the test part, which chose nothing."""
    clips: Mapping[str, int]
    """Clips in train, validation and test."""
    checkpoint: str | None
    """The weights it started from; None for random ones."""
    trainable: int
    """Weights that were fitted, the head's among them."""
    seconds: float
    """Wall-clock time of embedding and fitting."""
    notes: tuple[str, ...] = ()
    """What to know when comparing: absent folds or words, transductive pretraining."""


@dataclass(frozen=True)
class Summary:
    """Mean and spread of the records of one task, protocol and checkpoint."""

    task: str
    """Plug-in of the task."""
    split_rule: str
    """The task's variant and where its parts come from."""
    protocol: str
    """How the checkpoint was adapted."""
    checkpoint: str | None
    """The weights it started from; None for random ones."""
    metric: str
    """What the scores are."""
    folds: int
    """Different folds among the records."""
    seeds: int
    """Different seeds among the records."""
    validation: float
    """Mean over folds and seeds."""
    test: float
    """Mean over folds and seeds."""
    test_deviation: float
    """Sample deviation over folds and seeds; NaN for a single record."""


def record(
    task: Task,
    fold: Fold,
    *,
    protocol: str,
    seed: int,
    validation: float,
    test: float,
    checkpoint: Path | None,
    trainable: int,
    seconds: float,
) -> Record:
    """What ``protocol`` scored on ``fold``; the task tells the rest. See :class:`Record`."""
    return Record(
        task=task.name,
        protocol=protocol,
        metric=task.metric,
        split_rule=task.split_rule,
        fold=fold.name,
        seed=seed,
        validation=validation,
        test=test,
        clips=fold.clips(),
        checkpoint=str(checkpoint) if checkpoint else None,
        trainable=trainable,
        seconds=round(seconds, 1),
        notes=task.notes,
    )


def write(path: Path, records: Sequence[Record]) -> None:
    """Replace ``path`` by the JSON list of ``records`` in one step: never half a file."""
    text = json.dumps([asdict(record) for record in records], indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def read(path: Path) -> list[Record]:
    """Read the records that :func:`write` wrote; refuse what is none."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"cannot read results from {path}: {error}; give a results.json that finetune or "
            f"evaluate wrote"
        ) from error
    if not isinstance(rows, list):
        raise ValueError(
            f"{path} holds no list of records, but a {type(rows).__name__}; give a results.json "
            f"that finetune or evaluate wrote"
        )
    return [_record(path, place, row) for place, row in enumerate(rows)]


def summary(records: Sequence[Record]) -> list[Summary]:
    """Mean and deviation over folds and seeds, one a task, split rule, protocol and checkpoint.

    Groups come in the order in which they first appear.
    """
    groups: dict[tuple[str | None, ...], list[Record]] = {}
    for record in records:
        key = (record.task, record.split_rule, record.protocol, record.checkpoint, record.metric)
        groups.setdefault(key, []).append(record)
    return [
        Summary(
            task=group[0].task,
            split_rule=group[0].split_rule,
            protocol=group[0].protocol,
            checkpoint=group[0].checkpoint,
            metric=group[0].metric,
            folds=len({record.fold for record in group}),
            seeds=len({record.seed for record in group}),
            validation=statistics.fmean(record.validation for record in group),
            test=statistics.fmean(record.test for record in group),
            test_deviation=_deviation([record.test for record in group]),
        )
        for group in groups.values()
    ]


def table(records: Sequence[Record]) -> str:
    """The :func:`summary` as a Markdown table that reads well as plain text too, scores in %."""
    head = ["task", "split", "protocol", "checkpoint", "folds", "seeds", "validation", "test"]
    rows = [
        [
            row.task,
            row.split_rule,
            row.protocol,
            row.checkpoint or "random",
            str(row.folds),
            str(row.seeds),
            f"{100 * row.validation:.1f}",
            _spread(row.test, row.test_deviation),
        ]
        for row in summary(records)
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _spread(mean: float, deviation: float) -> str:
    return f"{100 * mean:.1f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.1f}")


def _record(path: Path, place: int, row: Any) -> Record:
    names = {field.name for field in fields(Record)}
    given = set(row) if isinstance(row, dict) else set()
    if given != names:
        wrong = [f"lacks {name}" for name in sorted(names - given)]
        wrong += [f"has an unknown {name}" for name in sorted(given - names)]
        raise ValueError(
            f"{path}: record {place} {', '.join(wrong)}; give a results.json that finetune or "
            f"evaluate of this version wrote"
        )
    return Record(**{**row, "notes": tuple(row["notes"])})
