"""Scores as pictures: who is taken for whom, every class's score, the curve of few labels.

In:  predictions, rows of the table.
Out: PNG files, and the per-class scores as CSV.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from sslaudio.downstream.metrics import areas_under_curve, average_precisions, confusion, recalls
from sslaudio.downstream.predictions import Predictions
from sslaudio.downstream.table import Row
from sslaudio.training.storage import replacing, write_text

NAMED = 40
"""Up to so many classes their names stand at the axes."""


def confusion_picture(path: Path, parts: Sequence[Predictions], classes: Sequence[str]) -> None:
    """True classes in rows, predicted in columns, in % of each true class, over folds and seeds."""
    counts = sum(
        confusion(part.targets, part.scores.argmax(axis=1), len(classes)) for part in parts
    )
    assert isinstance(counts, np.ndarray)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 3 + min(9.0, 0.3 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= NAMED:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
        axes.set_yticks(range(len(classes)), classes, fontsize=7)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                colour = "white" if share > 60 else "black"
                axes.text(
                    column, row, f"{share:.0f}", ha="center", va="center", fontsize=6, color=colour
                )
    _save(figure, path)


def class_scores(
    parts: Sequence[Predictions], classes: Sequence[str]
) -> dict[str, Float[np.ndarray, "classes"]]:
    """Every class's recall; or, where clips have several, its average precision and its AUC."""
    if parts[0].targets.ndim == 1:
        counts = [confusion(p.targets, p.scores.argmax(axis=1), len(classes)) for p in parts]
        return {"recall": recalls(np.sum(counts, axis=0))}
    figures = {"average precision": average_precisions, "AUC": areas_under_curve}
    return {
        name: _means([figure(part.targets, part.scores) for part in parts])
        for name, figure in figures.items()
    }


def class_picture(path: Path, parts: Sequence[Predictions], classes: Sequence[str]) -> None:
    """A bar a class, best first, and the same beside it as CSV."""
    scores = class_scores(parts, classes)
    name, values = next(iter(scores.items()))
    order = np.argsort(-np.nan_to_num(values, nan=-1))
    figure = Figure(figsize=(8, max(2.0, 0.18 * len(classes))), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(order)), 100 * np.nan_to_num(values[order]))
    axes.set_yticks(range(len(order)), [classes[place] for place in order], fontsize=6)
    axes.invert_yaxis()
    axes.set(xlabel=f"{name}, %", xlim=(0, 100))
    _save(figure, path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *scores])
    for place in order:
        cells = (float(column[place]) for column in scores.values())
        writer.writerow([classes[place], *("" if np.isnan(cell) else cell for cell in cells)])
    write_text(path.with_suffix(".csv"), text.getvalue())


def labels_picture(path: Path, table: Sequence[Row]) -> None:
    """Score against labelled clips a class; all of them stand at the right edge."""
    tasks = list(dict.fromkeys(row.shown_on for row in table))
    figure = Figure(figsize=(7, 3.2 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), 1, squeeze=False)[:, 0]
    steps = sorted({row.labels for row in table if row.labels is not None})
    ticks = [*map(str, steps), "all"]
    for panel, task in zip(panels, tasks, strict=True):
        own = [row for row in table if row.shown_on == task and not row.theirs]
        for line in dict.fromkeys((row.protocol, row.checkpoint) for row in own):
            rows = [row for row in own if (row.protocol, row.checkpoint) == line]
            places = [len(steps) if r.labels is None else steps.index(r.labels) for r in rows]
            points = sorted(zip(places, rows, strict=True), key=lambda point: point[0])
            panel.errorbar(
                [place for place, _ in points],
                [100 * row.test for _, row in points],
                yerr=[100 * (row.interval or 0) for _, row in points],
                marker="o", capsize=3, label=", ".join(line),
            )  # fmt: skip
        panel.set_xticks(range(len(ticks)), ticks)
        panel.set(xlabel="labelled clips a class", ylabel=f"{own[0].metric}, %")
        panel.set_title(f"{task[0]}: {task[1]}", fontsize=8, loc="left")
        panel.legend(fontsize=7)
        panel.grid(alpha=0.3)
    _save(figure, path)


def _means(columns: Sequence[Float[np.ndarray, "classes"]]) -> Float[np.ndarray, "classes"]:
    """Mean over folds of what is known; NaN where it is nowhere."""
    values = np.array(columns)
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    count = known.sum(axis=0)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("wb") as file:
        figure.savefig(file, format="png", dpi=110)
