"""Every protocol on three small tasks, from pretrained and from random weights: docs/results.md.

    python benchmarks/downstream.py --data DIR [--only WORD] [--minutes 150] [--table]

DIR holds Speech Commands, FSDD and ESC-10 in their published layouts. A cell is one `sslaudio`
command; finished, it is a line of ``docs/results/downstream.jsonl`` with command, commit and
records, and is not run again. Weights and evaluations lie in ``runs/downstream`` and are remade by
their commands. ``--table`` writes the table of docs/results.md and its picture from those lines.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINES = ROOT / "docs" / "results" / "downstream.jsonl"
PAGE = ROOT / "docs" / "results.md"
RUNS = Path("runs/downstream")
SHARDS = Path("shards")
CORPORA = ("speech_commands", "fsdd", "esc50")
TASKS = {
    "words": "speechcommands:version=v2-10",
    "digits": "fsdd:split=leave-one-speaker-out:folds=jackson",
    "sounds": "esc50:subset=esc10",
}
PROTOCOLS = ("linear", "knn", "attentive", "full", "lora", "bottleneck", "bitfit", "prompt")
SEEDS = (0, 1, 2)
STARTS = ("pretrained", "random")
RECIPE = "configs/finetune/real_micro.yaml"


@dataclass(frozen=True)
class Cell:
    """One command."""

    name: str
    command: list[str]
    out: Path
    start: str = ""
    """Whose records count: of the run, or of the random weights beside it."""


def cells(data: Path) -> Iterator[Cell]:
    """Every cell, in the order in which they are worth having."""
    yield _pretrain(0)
    for start in STARTS:
        for protocol in PROTOCOLS:
            for task in TASKS:
                yield _evaluate(data, start, protocol, task, SEEDS[:1])
    for seed in SEEDS[1:]:
        yield _pretrain(seed)
    for start in STARTS:
        for task in TASKS:
            yield _evaluate(data, start, "linear", task, SEEDS)


def _pretrain(seed: int) -> Cell:
    out = RUNS / f"real-{seed}"
    command = [
        "sslaudio", "pretrain", "--config", "configs/pretrain/real_micro.yaml",
        "--training.seed", str(seed), "--out", str(out), "--resume", "auto",
    ]  # fmt: skip
    return Cell(f"pretrain {seed}", command, out)


def _evaluate(data: Path, start: str, protocol: str, task: str, seeds: Sequence[int]) -> Cell:
    """Random weights are drawn in the shape of the pretrained ones."""
    few = len(seeds) == 1
    name = f"{start} {protocol} {task}" + ("" if few else f" of {len(seeds)} seeds")
    out = RUNS / f"cells-{start}"  # apart, so that both may run at once
    every = [str(RUNS / f"real-{seed}") for seed in (seeds if start == "pretrained" else seeds[:1])]
    command = [
        "sslaudio", "evaluate", "--checkpoint", *every, "--suite", TASKS[task], "--protocols",
        protocol, "--root", str(data), "--out", str(out), "--config", RECIPE,
    ]  # fmt: skip
    if start == "random":
        command += ["--random", "alone", "--seeds", str(len(seeds))]
    return Cell(name, command, out, start)


def finished() -> dict[str, dict[str, Any]]:
    """Cell name to its line."""
    if not LINES.is_file():
        return {}
    return {line["cell"]: line for line in map(json.loads, LINES.read_text().splitlines())}


def run_all(data: Path, only: str, minutes: float) -> int:
    """Run what is not finished; stop starting cells after ``minutes``."""
    began = time.monotonic()
    for corpus in CORPORA:
        root = ["--root", str(_folder(data, corpus)), "--out", str(SHARDS / corpus)]
        _call(["sslaudio", "shards", "build", "--corpus", corpus, *root])
    for cell in cells(data):
        there = cell.start or (ROOT / cell.out / "config.json").is_file()
        if only not in cell.name or (cell.name in finished() and there):
            continue
        if time.monotonic() - began > 60 * minutes:
            print("out of time; run again to go on")
            return 0
        print(f"== {cell.name}", flush=True)
        started, commit = time.perf_counter(), _commit()
        if _call(cell.command):
            return 1
        if cell.name not in finished():
            _write(cell, commit, time.perf_counter() - started, data)
    return 0


def _folder(data: Path, corpus: str) -> Path:
    from sslaudio.tasks import sources

    return sources.locate(corpus, data)


def _call(command: Sequence[str]) -> int:
    """Run with this environment's own programs."""
    program = Path(sys.executable).parent / command[0]
    return subprocess.run([str(program), *command[1:]], cwd=ROOT, check=False).returncode


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


def _write(cell: Cell, commit: str, seconds: float, data: Path) -> None:
    line: dict[str, Any] = {
        "cell": cell.name,
        "command": " ".join(cell.command).replace(str(data), "DATA"),
        "commit": commit,
        "seconds": round(seconds, 1),
    }
    if cell.start:
        records = json.loads((ROOT / cell.out / "results.json").read_text())
        line["records"] = [
            record
            for record in records
            if (record["checkpoint"] is None) == (cell.start == "random")
        ]
    else:
        last = (ROOT / cell.out / "metrics.jsonl").read_text().splitlines()[-1:]
        line["metrics"] = json.loads(last[0])
    LINES.parent.mkdir(parents=True, exist_ok=True)
    with LINES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def scores(line: dict[str, Any]) -> list[float]:
    """Test score of each seed or run, the mean of its folds, in %."""
    runs: dict[tuple[str, int], list[float]] = {}
    for record in line["records"]:
        runs.setdefault((str(record["checkpoint"]), record["seed"]), []).append(record["test"])
    return [100 * statistics.fmean(tests) for tests in runs.values()]


def row(start: str, protocol: str) -> list[str] | None:
    """Cells of the table; None where one is not finished."""
    lines = finished()
    found = []
    for task in TASKS:
        name = f"{start} {protocol} {task}"
        line = lines.get(f"{name} of {len(SEEDS)} seeds", lines.get(name))
        if line is None:
            return None
        found.append(line)
    means = [statistics.fmean(scores(line)) for line in found]
    shown = [f"{mean:.1f}" + _spread(scores(line)) for mean, line in zip(means, found, strict=True)]
    trained = max(record["trainable"] for line in found for record in line["records"])
    return [start, protocol, *shown, f"{statistics.fmean(means):.1f}", f"{trained:,}"]


def _spread(values: Sequence[float]) -> str:
    return f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""


def table() -> None:
    """Write the table into the page, between its marks."""
    head = [
        "start",
        "protocol",
        "ten words",
        "digits of jackson",
        "ESC-10",
        "mean",
        "trained weights",
    ]
    rows = [made for start in STARTS for name in PROTOCOLS if (made := row(start, name))]
    text = PAGE.read_text(encoding="utf-8")
    first, last = "<!-- downstream -->", "<!-- end downstream -->"
    before, rest = text.split(first)
    _, after = rest.split(last)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    PAGE.write_text("\n".join([before + first, *lines, last + after]), encoding="utf-8")


def main() -> int:
    """Run cells, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the three corpora")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no cell after so long")
    parser.add_argument("--table", action="store_true", help="write the page from finished cells")
    arguments = parser.parse_args()
    status = run_all(arguments.data, arguments.only, arguments.minutes) if arguments.data else 0
    if arguments.table:
        table()
    return status


if __name__ == "__main__":
    sys.exit(main())
