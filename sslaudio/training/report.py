"""What a run tells while it goes: ``metrics.jsonl``, TensorBoard, trackers, one line or bar.

Scalars are named ``room/quantity``. Only the main process reports; the others hold a
:class:`Report` that says nothing.
"""

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text
from torch import Tensor

from sslaudio.training import projector
from sslaudio.training.board import Board
from sslaudio.training.storage import Growing, replacing, write_text
from sslaudio.training.trackers import Trackers

SKIPPED = "skipped.jsonl"
"""Of a run: its skipped steps, and the clips in them."""
CORRUPT = "corrupt.jsonl"
"""Of a run: clips that were left out, and why."""
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
    warnings.showwarning = _show_warning


class _Lines(logging.Handler):
    """Writes to standard error as it is at the time: a bar that runs puts lines above itself.

    What begins with ``warning:`` is written once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if line.startswith("warning:"):
            if line in self.warned:
                return
            self.warned.add(line)
        sys.stderr.write(line + "\n")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A library's warning as a line of ours, from the first process alone."""
    say(f"warning: {' '.join(str(message).split())} ({Path(filename).name}:{lineno})")


class Report:
    """Writes a run's scalars and pictures, and shows how far it is.

    Args:
        run: the RUN.
        steps: of the whole run.
        start: steps taken before; what was told of later ones is forgotten.
        aloud: whether this process reports; the others' reports do nothing.
        unit: what is counted.
        trackers: told every scalar too.
    """

    def __init__(
        self,
        run: Path,
        steps: int,
        start: int,
        aloud: bool,
        unit: str = "step",
        trackers: Trackers | None = None,
    ) -> None:
        self.steps, self.start, self.unit, self.aloud = steps, start, unit, aloud
        if not aloud:
            return
        run.mkdir(parents=True, exist_ok=True)
        self.run = run
        self.path = run / "metrics.jsonl"
        for path in (self.path, run / SKIPPED, run / CORRUPT):
            _forget_after(path, start if start else -1)  # step 0 is taken again as well
        projector.forget_after(run, start)
        self.file = Growing(self.path)
        self.board = Board(run, purge_step=start + 1 if start else 0)
        self.trackers = trackers
        self.progress = _bar(unit)
        self.task = self.progress.add_task("", total=steps, completed=start, told="", left="")
        self.progress.start()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars, named ``room/quantity``, of a step, to the disk."""
        if not self.aloud:
            return
        self.file.write(json.dumps({"step": step, **scalars}).encode() + b"\n")
        for name, value in scalars.items():
            self.board.add_scalar(name, value, step)
        self.file.flush()
        if self.trackers is not None:
            self.trackers.log(step, scalars)

    def flush(self) -> None:
        """Have the system write all that was told to the disk, before a checkpoint of its step."""
        if self.aloud:
            self.board.flush()

    def note(self, name: str, step: int, told: Mapping[str, Any]) -> None:
        """Write down what came to pass at a step, into the run's :data:`SKIPPED`, say."""
        if self.aloud:
            file = Growing(self.path.with_name(name))
            file.write(json.dumps({"step": step, **told}).encode() + b"\n")
            file.flush()
            file.close()

    def show(self, step: int, line: str, left_seconds: float, beside: str = "") -> None:
        """What to read beside the bar, or a plain line where there is no terminal.

        Args:
            step: taken.
            line: what is always to be seen.
            left_seconds: till the end of the run.
            beside: what a narrow terminal may cut.
        """
        if not self.aloud:
            return
        left = f"{clock(left_seconds)} left"
        self.progress.update(
            self.task, completed=step, description=beside, told=line, left=left, refresh=True
        )
        if self.progress.disable:
            say("  ".join(filter(None, (f"{self.unit} {step}/{self.steps}", line, left, beside))))

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self.aloud:
            self.progress.update(self.task, completed=step)

    def pictures(self, step: int, pictures: Mapping[str, Float[Tensor, "n bins frames"]]) -> None:
        """Write log-mel pictures, low mel bins at the bottom, one scale for all."""
        if self.aloud:
            for name, stack in pictures.items():
                self.board.add_images(f"pictures/{name}", coloured(stack), step)

    def histograms(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Write how values, named ``room/quantity``, are distributed."""
        if self.aloud:
            for name, some in values.items():
                self.board.add_histogram(name, some.detach().float().cpu(), step)

    def embeddings(
        self,
        step: int,
        name: str,
        embeddings: Float[np.ndarray, "clips dim"],
        columns: Mapping[str, Sequence[str]],
        pictures: Float[Tensor, "clips bins frames"] | None = None,
    ) -> None:
        """Write embeddings for TensorBoard's projector; see :func:`projector.write`."""
        if self.aloud:
            small = None if pictures is None else coloured(projector.small(pictures), edge=0)
            projector.write(self.run, name, step, embeddings, columns, small)

    def text(self, name: str, text: str) -> None:
        """Write a text, shown as code; a run that is resumed writes its own."""
        if self.aloud:
            code = "\n".join("    " + line for line in text.splitlines())
            self.board.add_text(name, code, self.start)

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
            if self.trackers is not None:
                self.trackers.close()


class _Cut(ProgressColumn):
    """A text that gives way where the terminal is narrow."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


def _bar(unit: str) -> Progress:
    """Step, bar, what is told, time left; nothing where there is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn(unit + " {task.completed}/{task.total}"),
        BarColumn(bar_width=8 if console.width < 100 else 20),
        TextColumn("{task.fields[told]}"),
        TextColumn("{task.fields[left]}"),
        _Cut(table_column=Column(overflow="ellipsis")),
        console=console,
        disable=not console.is_terminal,
    )


def clock(seconds: float) -> str:
    """Hours, if any, minutes and seconds: ``1:02:05``, ``2:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def history(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every scalar in a ``metrics.jsonl``."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, scalars in lines(path):
        for name, value in scalars.items():
            found.setdefault(name, []).append((step, value))
    return found


def lines(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and scalars of every whole line; a run that was killed may have torn its last."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            scalars = json.loads(line)
            step = scalars.pop("step")
        except (json.JSONDecodeError, KeyError, AttributeError, TypeError):
            continue
        if isinstance(step, int) and all(isinstance(v, int | float) for v in scalars.values()):
            yield step, scalars


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


def coloured(stack: Float[Tensor, "n bins frames"], edge: int = 2) -> Any:
    """Standardised log-mels as RGB in [0, 1], [n, 3, bins, frames + edge], from -2.5 to 2.5.

    Where there is no number, and in ``edge`` columns at the end, they are grey.
    """
    from matplotlib import colormaps

    values = (stack.detach().float().cpu().numpy()[:, ::-1] + 2.5) / 5
    values = np.pad(values, ((0, 0), (0, 0), (0, edge)), constant_values=np.nan)
    painted = colormaps["magma"].with_extremes(bad=(0.6, 0.6, 0.6))(values.clip(0, 1))
    return np.moveaxis(painted[..., :3], 3, 1)


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
