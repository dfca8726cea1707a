"""What a run tells while it goes: ``metrics.jsonl``, TensorBoard, a picture, one line or bar.

Scalars are named ``room/quantity``. Only the main process reports; the others hold a
:class:`Report` that says nothing.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from sslaudio.training.board import Board
from sslaudio.training.storage import Growing, replacing, write_text

SKIPPED = "skipped.jsonl"
"""Of a run: its skipped steps, and the clips in them."""
LOG = logging.getLogger("sslaudio")


def say(text: str) -> None:
    """One line to the person at the terminal, on standard error."""
    LOG.info(text)


def is_first_process() -> bool:
    """Whether this is the only process, or the one of several that reports."""
    return os.environ.get("RANK", "0") == "0"


def speak() -> None:
    """Send the project's lines to standard error, on the first of several processes only."""
    LOG.handlers.clear()
    LOG.propagate = False
    LOG.setLevel(logging.INFO if is_first_process() else logging.CRITICAL)
    LOG.addHandler(_Lines())


class _Lines(logging.Handler):
    """Writes to standard error as it is at the time: a bar that runs puts lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(record.getMessage() + "\n")


class Report:
    """Writes a run's scalars and pictures, and shows how far it is."""

    def __init__(self, run: Path, steps: int, start: int, aloud: bool, unit: str = "step") -> None:
        self.steps = steps
        self.unit = unit
        self.aloud = aloud
        if not aloud:
            return
        run.mkdir(parents=True, exist_ok=True)
        self.console = Console(stderr=True)
        self.path = run / "metrics.jsonl"
        for path in (self.path, run / SKIPPED):
            _forget_after(path, start if start else -1)  # step 0 is taken again as well
        self.file = Growing(self.path)
        self.board = Board(run, purge_step=start + 1 if start else 0)
        self.progress = Progress(
            TextColumn(unit + " {task.completed}/{task.total}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("", total=steps, completed=start)
        self.progress.start()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars, named ``room/quantity``, of a step, to the disk."""
        if not self.aloud:
            return
        self.file.write(json.dumps({"step": step, **scalars}).encode() + b"\n")
        for name, value in scalars.items():
            self.board.add_scalar(name, value, step)
        self.file.flush()

    def flush(self) -> None:
        """Have the system write all that was told to the disk, before a checkpoint of its step."""
        if self.aloud:
            self.board.flush()

    def skip(self, step: int, told: Mapping[str, Any]) -> None:
        """Write down a step that was skipped."""
        if self.aloud:
            file = Growing(self.path.with_name(SKIPPED))
            file.write(json.dumps({"step": step, **told}).encode() + b"\n")
            file.flush()
            file.close()

    def show(self, step: int, line: str, left_seconds: float) -> None:
        """Move the bar, or write a plain line where there is no terminal."""
        if not self.aloud:
            return
        self.progress.update(self.task, completed=step, description=line)
        if not self.console.is_terminal:
            minutes, seconds = divmod(round(left_seconds), 60)
            say(f"{self.unit} {step}/{self.steps}  {line}  {minutes}:{seconds:02d} left")

    def pictures(self, step: int, pictures: Mapping[str, Float[Tensor, "n bins frames"]]) -> None:
        """Write log-mel pictures, low mel bins at the bottom, one scale for all."""
        if self.aloud:
            for name, stack in pictures.items():
                self.board.add_images(f"pictures/{name}", coloured(stack), step)

    def text(self, name: str, text: str) -> None:
        """Write a text, shown as code."""
        if self.aloud:
            self.board.add_text(name, "\n".join("    " + line for line in text.splitlines()), 0)

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """Steps and values of every scalar written so far, before a resume too."""
        return history(self.path) if self.aloud else {}

    def draw(self) -> None:
        """Write the run's ``curve.png``: loss and probe over steps."""
        if self.aloud:
            draw(self.history(), self.path.with_name("curve.png"))

    def close(self) -> None:
        """Flush everything."""
        if self.aloud:
            self.progress.stop()
            self.file.close()
            self.board.close()


def history(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every scalar in a ``metrics.jsonl``."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        scalars = json.loads(line)
        step = scalars.pop("step")
        for name, value in scalars.items():
            found.setdefault(name, []).append((step, value))
    return found


def draw(scalars: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> None:
    """Draw the loss, and beside it on a second axis the probe and its chance, into a PNG.

    Args:
        scalars: as :func:`history` gives them; what is not there is not drawn.
        path: the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    left = figure.add_subplot(xlabel="step", ylabel="loss")
    drawn = []
    if "objective/loss" in scalars:
        steps, values = zip(*scalars["objective/loss"], strict=True)
        drawn += left.plot(steps, values, color="tab:blue", label="loss")
    if "probe/knn" in scalars:
        right = left.twinx()
        right.set_ylabel("accuracy of kNN on validation clips, %")
        for name, style, label in (("knn", "o-", "kNN"), ("chance", ":", "chance")):
            steps, values = zip(*scalars[f"probe/{name}"], strict=True)
            shares = [100 * value for value in values]
            drawn += right.plot(steps, shares, style, color="tab:orange", label=label)
        right.set_ylim(bottom=0)
    if drawn:
        figure.legend(handles=drawn, loc="outside upper center", ncols=len(drawn))
        with replacing(path) as draft:
            figure.savefig(draft, format="png")


def coloured(stack: Float[Tensor, "n bins frames"]) -> Any:
    """Standardised log-mels as RGB in [0, 1], [n, 3, bins, frames], from -2.5 to 2.5."""
    from matplotlib import colormaps

    values = (stack.detach().float().cpu().numpy()[:, ::-1] + 2.5) / 5
    return np.moveaxis(colormaps["magma"](values.clip(0, 1))[..., :3], 3, 1)


def _forget_after(path: Path, step: int) -> None:
    """Drop lines of steps that a resumed run will take again, and a torn last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    write_text(path, "".join(line + "\n" for line in kept))
