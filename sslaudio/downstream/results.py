"""``results.json``: one record a fold and seed.

In:  scores of finished fits.
Out: a JSON list; :mod:`sslaudio.downstream.table` makes tables of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
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
    chosen: str = ""
    """What validation chose: an epoch, a strength, a number of neighbours."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Every figure on test: of several classes AUC and d_prime too, of a number the MAE."""
    missing: int = 0
    """Clips that the corpus lists and that are not there."""
    variant: str = ""
    """The task's settings that are not its defaults."""
    shape: str | None = None
    """Of random weights, the run whose architecture they have; None: the recipe's."""
    labels: int | None = None
    """Training and validation clips a class, where they were limited; None: all."""


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
    chosen: str = "",
    figures: Mapping[str, float] | None = None,
    variant: str = "",
    notes: tuple[str, ...] | None = None,
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
        notes=task.notes if notes is None else notes,
        chosen=chosen,
        figures=dict(figures or {}),
        missing=task.missing,
        variant=variant,
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


def told(record: Record) -> str:
    """A record's scores in a few words."""
    others = [f"{name} {value:.3f}" for name, value in list(record.figures.items())[1:]]
    figures = [f"{record.metric} {100 * record.test:.1f} %", *others]
    chosen = f", {record.chosen}" if record.chosen else ""
    return f"validation {100 * record.validation:.1f} %, test {', '.join(figures)}{chosen}"


def _record(path: Path, place: int, row: Any) -> Record:
    known = {field.name: field for field in fields(Record)}
    needed = {name for name, one in known.items() if _is_needed(one)}
    given = set(row) if isinstance(row, dict) else set()
    wrong = [f"lacks {name}" for name in sorted(needed - given)]
    wrong += [f"has an unknown {name}" for name in sorted(given - set(known))]
    if wrong:
        raise ValueError(
            f"{path}: record {place} {', '.join(wrong)}; give a results.json that finetune or "
            f"evaluate of this version wrote"
        )
    return Record(**{**row, "notes": tuple(row.get("notes", ()))})


def _is_needed(one: Field) -> bool:
    return one.default is MISSING and one.default_factory is MISSING
