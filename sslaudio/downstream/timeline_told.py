"""Time lines in print and in files: a table of the top classes, JSON, CSV, a picture a file.

In:  the time lines of files, and the panel that heard them.
Out: text to read; files with every class and every window.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from sslaudio.data.keys import keys_of
from sslaudio.data.pieces import cut_out, samples_of
from sslaudio.downstream.timeline import Panel, Predicted, Timeline
from sslaudio.features.front_end import FrontEnd
from sslaudio.training.storage import replacing, write_json, write_text

DRAWN_CLASSES = 12
"""Rows of a heat map."""
DRAWN_COLUMNS = 1_500
"""Of a spectrogram; of a longer file so many stretches are averaged."""
BLOCK_FRAMES = 1 << 13
"""Frames of a spectrogram that are made together."""


def table(panel: Panel, files: Sequence[Timeline], top: int, threshold: float) -> str:
    """A line a file, or a line a window of a long file and then one for their mean.

    Args:
        panel: that heard them.
        files: what it heard.
        top: classes to tell, the likeliest first.
        threshold: where a clip may have several classes, those above it have a ``*``.
    """
    lines = []
    for file in files:
        for (start, end), shares in zip(file.spans, file.shares, strict=True):
            best = _best(panel, shares, top, threshold)
            lines.append([str(file.path), f"{start:.2f}", f"{end:.2f}", *best])
        if file.is_long:
            lines.append([str(file.path), "mean", "", *_best(panel, file.whole, top, threshold)])
    told = (len(lines[0]) - 3) // 2 if lines else 0
    head = ["file", "start", "end"]
    if panel.kind == "number":
        head.append("number")
    else:
        head += [word for place in range(told) for word in (f"class {place + 1}", "share")]
    widths = [max(len(line[place]) for line in (head, *lines)) for place in range(len(head))]
    rules = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, rules, *lines)
    )


def write_everything(
    path: Path, panel: Panel, predicted: Predicted, checkpoints: Sequence[Path]
) -> None:
    """All classes of all windows, as JSON."""
    content: dict[str, Any] = {
        "checkpoints": list(map(str, checkpoints)),
        "kind": panel.kind,
        "classes": list(panel.columns),
        "window_seconds": panel.window_seconds,
        "hop_seconds": panel.hop_seconds,
        "files": [_plain(file) for file in predicted.files],
        "not_read": [{"file": name, "reason": reason} for name, reason in predicted.failures],
    }
    write_json(path, content)


def write_csv(path: Path, panel: Panel, files: Sequence[Timeline]) -> None:
    """All classes as CSV: a row a file, and before it one a window where there are several."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "part", "start", "end", *panel.columns])
    for file in files:
        if file.is_long:
            for (start, end), shares in zip(file.spans, file.shares, strict=True):
                writer.writerow([file.path, "window", start, end, *shares])
        writer.writerow([file.path, "file", 0.0, file.seconds, *file.whole])
    write_text(path, text.getvalue())


def draw_all(folder: Path, panel: Panel, files: Sequence[Timeline]) -> list[Path]:
    """A picture of every long file, named after it; gives their paths."""
    long = [file for file in files if file.is_long]
    names = keys_of([file.path.name for file in long])
    if len(set(names)) < len(names):  # of one name in several folders
        names = keys_of([file.path.as_posix() for file in long])
    pictures = []
    for file, name in zip(long, names, strict=True):
        pictures.append(folder / f"{name}.png")
        draw(pictures[-1], panel, file)
    return pictures


def draw(path: Path, panel: Panel, file: Timeline) -> None:
    """The log-mel picture of a file, and under it the shares of its top classes over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), dpi=110, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    shown = spectrogram(file.path, panel.members[0].encoder.front_end)
    extent = (0.0, file.seconds, 0.0, float(len(shown)))
    above.imshow(shown, aspect="auto", origin="lower", extent=extent, cmap="magma", vmin=-2, vmax=2)
    above.set(title=file.path.name, ylabel="bin")
    edges = _edges(file)
    if panel.kind == "number":
        below.stairs(file.shares[:, 0], edges, baseline=None)
        below.set_ylabel("number")
    else:
        rows = np.argsort(-file.shares.max(axis=0), kind="stable")[:DRAWN_CLASSES][::-1]
        heat = below.pcolormesh(
            edges, np.arange(len(rows) + 1), file.shares[:, rows].T, vmin=0, vmax=1, cmap="viridis"
        )
        names = [panel.columns[row] for row in rows]
        below.set_yticks(np.arange(len(rows)) + 0.5, [_short(name) for name in names])
        figure.colorbar(heat, ax=below, label="share")
    below.set(xlabel="seconds", xlim=(0, file.seconds))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        figure.savefig(draft, format="png")


def spectrogram(path: Path, front_end: FrontEnd) -> Float[np.ndarray, "bins columns"]:
    """A file's standardised picture, read in pieces, its frames averaged where they are many."""
    config = replace(front_end.config, pad="masked", legacy_frames=None)
    whole = FrontEnd(config, front_end.mean, front_end.std)
    samples = samples_of(path, config.sample_rate)
    frames = config.frames(samples)
    together = max(1, -(-frames // DRAWN_COLUMNS))
    step = max(1, BLOCK_FRAMES // together) * together
    stretches = [
        config.stretch(first, min(first + step, frames)) for first in range(0, frames, step)
    ]
    spans = [(start, min(end, samples)) for start, end, _ in stretches]
    # Laid out beforehand: many small pieces among the large ones would keep freed memory apart.
    shown = np.empty((config.bins, -(-frames // together)), np.float32)
    for number, waveform in enumerate(cut_out(path, config.sample_rate, spans)):
        wide = min(step, frames - number * step)
        before = stretches[number][2]
        lengths = torch.tensor([len(waveform)])
        picture = whole(torch.from_numpy(waveform)[None], lengths)[0][0, :, before : before + wide]
        for column, part in enumerate(picture.split(together, dim=1), number * step // together):
            shown[:, column] = part.mean(dim=1).numpy()
    return shown


def _edges(file: Timeline) -> Float[np.ndarray, " edges"]:
    """Where one window's share gives way to the next one's: halfway between their middles."""
    middles = file.spans.mean(axis=1)
    return np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, [file.seconds]])


def _best(
    panel: Panel, shares: Float[np.ndarray, " classes"], top: int, threshold: float
) -> list[str]:
    """Cells of the top classes and their shares."""
    if panel.kind == "number":
        return [f"{shares[0]:.4g}"]
    cells = []
    for place in np.argsort(-shares, kind="stable")[:top]:
        marked = "*" if panel.kind == "multi" and shares[place] > threshold else ""
        cells += [panel.columns[place], f"{shares[place]:.3f}{marked}"]
    return cells


def _plain(file: Timeline) -> dict[str, Any]:
    windows = [
        {"start": start, "end": end, "shares": shares.tolist()}
        for (start, end), shares in zip(file.spans.tolist(), file.shares, strict=True)
    ]
    return {
        "file": str(file.path),
        "seconds": file.seconds,
        "shares": file.whole.tolist(),
        "windows": windows,
    }


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"
