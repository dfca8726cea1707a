"""Runs the cells of docs/results.md one after the other, and goes on where it stopped.

    python benchmarks/evidence.py --data DIR [--only WORD] [--minutes 150]
    python benchmarks/evidence.py --table

DIR holds ``speech_commands``, ``fsdd`` and ``esc10`` in their published layouts. A finished cell is
a line of ``docs/results/real_micro.jsonl`` with its command and commit and is not run again;
weights lie in ``runs/evidence`` and are remade by their command. ``--table`` writes the tables of
docs/results.md and its curve from those lines.
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
LINES = ROOT / "docs" / "results" / "real_micro.jsonl"
PAGE = ROOT / "docs" / "results.md"
RUNS = Path("runs/evidence")
SHARDS = Path("shards")
CORPORA = {"speech_commands": "speech_commands", "fsdd": "fsdd", "esc50": "esc10"}
TASKS = {
    "words": ("speechcommands", "speech_commands", ["--task.version", "v2-10"]),
    "digits": ("fsdd", "fsdd", ["--task.split", "leave-one-speaker-out"]),
    "sounds": ("esc50", "esc10", ["--task.subset", "esc10"]),
}
OBJECTIVES = {"contrastive": "contrastive_micro", "mast": "mast_micro"}
"""Runs of other objectives and backbones, and their recipes."""
SHORT_STEPS = 12_000
CURVE_EVERY = 4_000
SEEDS = (0, 1, 2)
KNOWN_START = 44.7
"""Mean of a linear probe on a random AST with the usual pooling; a lift counts from the better."""
LIFT = 12.0
"""Points that pretraining must give."""


@dataclass(frozen=True)
class Cell:
    """One command and the folder that it fills."""

    name: str
    command: list[str]
    out: Path
    needs: str | None = None
    """Name of the pretraining cell whose run it reads."""


def cells(data: Path) -> Iterator[Cell]:
    """Every cell, in the order in which they are worth having."""
    yield from _no_network(data)
    for seed in SEEDS:
        yield _pretrain(f"random-{seed}", seed, ["--training.steps", "0"])
        yield from _linear(data, f"random-{seed}")
    for seed in SEEDS:
        yield _pretrain(f"short-{seed}", seed, ["--training.steps", str(SHORT_STEPS)])
        yield from _linear(data, f"short-{seed}")
    for run in ("short-0", "random-0", "random-1", "random-2"):
        yield from _beside(data, run)
    for run in OBJECTIVES:
        yield from _other(data, run)
    yield from _full(data, "short-0")
    yield from _full(data, "random-0")
    exclude = ["--data.exclude", "configs/exclude/control.txt"]
    yield _pretrain("control", 0, ["--training.steps", str(SHORT_STEPS), *exclude])
    yield _linear_cell(data, "control", "digits", ["--task.folds", "jackson"])
    yield _linear_cell(data, "control", "sounds", ["--task.folds", "1"])
    yield _pretrain(
        "long", 0,
        ["--training.checkpoint_every", str(CURVE_EVERY), "--training.checkpoints_kept", "100"],
    )  # fmt: skip
    yield from _linear(data, "long")
    yield from _beside(data, "long")
    for checkpoint in sorted((ROOT / RUNS / "long" / "checkpoints").glob("step-*")):
        yield from _linear(data, "long", checkpoint.name)


def _other(data: Path, run: str) -> Iterator[Cell]:
    """Another recipe, its random start first."""
    yield _pretrain(f"{run}-random", 0, ["--training.steps", "0"], OBJECTIVES[run])
    yield from _linear(data, f"{run}-random")
    yield _pretrain(run, 0, [], OBJECTIVES[run])
    yield from _linear(data, run)


def _pretrain(name: str, seed: int, extra: Sequence[str], recipe: str = "real_micro") -> Cell:
    command = [
        "sslaudio", "pretrain", "--config", f"configs/pretrain/{recipe}.yaml",
        "--training.seed", str(seed), *extra, "--out", str(RUNS / name), "--resume", "auto",
    ]  # fmt: skip
    return Cell(f"pretrain {name}", command, RUNS / name)


def _probe(data: Path, task: str, verb: Sequence[str], out: Path) -> list[str]:
    plugin, folder, flags = TASKS[task]
    return [*verb, "--task", plugin, *flags, "--root", str(data / folder), "--out", str(out)]


def _linear_cell(data: Path, run: str, task: str, flags: Sequence[str], step: str = "") -> Cell:
    name = f"linear {run}{'@' + step if step else ''} {task}"
    checkpoint = RUNS / run / "checkpoints" / step if step else RUNS / run
    verb = ["sslaudio", "finetune", "--protocol", "linear", "--checkpoint", str(checkpoint)]
    out = RUNS / name.replace(" ", "-")
    return Cell(name, [*_probe(data, task, verb, out), *flags], out, f"pretrain {run}")


def _linear(data: Path, run: str, step: str = "") -> Iterator[Cell]:
    for task in TASKS:
        yield _linear_cell(data, run, task, [], step)


def _no_network(data: Path) -> Iterator[Cell]:
    for task in TASKS:
        out = RUNS / f"statistics-{task}"
        verb = ["python", "benchmarks/statistics_probe.py"]
        yield Cell(f"statistics none {task}", _probe(data, task, verb, out), out)


def _beside(data: Path, run: str) -> Iterator[Cell]:
    for task in TASKS:
        out = RUNS / f"statistics-{run}-{task}"
        verb = ["python", "benchmarks/statistics_probe.py", "--checkpoint", str(RUNS / run)]
        needs = f"pretrain {run}"
        yield Cell(f"statistics+linear {run} {task}", _probe(data, task, verb, out), out, needs)


def _full(data: Path, run: str) -> Iterator[Cell]:
    for task in TASKS:
        out = RUNS / f"full-{run}-{task}"
        recipe = "configs/finetune/real_micro.yaml"
        checkpoint = ["--checkpoint", str(RUNS / run), "--config", recipe]
        verb = ["sslaudio", "finetune", "--protocol", "full", *checkpoint]
        one = ["--task.folds", "jackson"] if task == "digits" else []
        yield Cell(
            f"full {run} {task}", [*_probe(data, task, verb, out), *one], out, f"pretrain {run}"
        )


def finished() -> dict[str, dict[str, Any]]:
    """Cell name to its line."""
    if not LINES.is_file():
        return {}
    return {line["cell"]: line for line in map(json.loads, LINES.read_text().splitlines())}


def run_all(data: Path, only: str, minutes: float) -> int:
    """Run what is not finished; stop starting cells after ``minutes``."""
    began = time.monotonic()
    for corpus, folder in CORPORA.items():
        build = ["sslaudio", "shards", "build", "--corpus", corpus]
        _call([*build, "--root", str(data / folder), "--out", str(SHARDS / corpus)])
    status = 0
    for cell in cells(data):
        if only not in cell.name or _is_done(cell, data):
            continue
        if time.monotonic() - began > 60 * minutes:
            print("out of time; run again to go on")
            return status
        if cell.needs and not (ROOT / RUNS / cell.needs.split()[1] / "config.json").is_file():
            print(f"{cell.name}: {cell.needs} is not there; run without --only")
            continue
        print(f"== {cell.name}", flush=True)
        started, commit = time.perf_counter(), _commit()
        if _call(cell.command):
            status = 1
            continue
        _write(cell, commit, time.perf_counter() - started, data)
    return status


def _is_done(cell: Cell, data: Path) -> bool:
    """Whether a cell has its line; weights that are gone and still needed are remade."""
    lines = finished()
    if cell.name not in lines or (ROOT / cell.out / "config.json").is_file():
        return cell.name in lines
    return not any(other.needs == cell.name and other.name not in lines for other in cells(data))


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
    results = ROOT / cell.out / "results.json"
    if results.is_file():
        line["records"] = json.loads(results.read_text())
    elif (ROOT / cell.out / "metrics.jsonl").is_file():
        last = (ROOT / cell.out / "metrics.jsonl").read_text().splitlines()[-1:]
        line["metrics"] = json.loads(last[0]) if last else {"step": 0}
    LINES.parent.mkdir(parents=True, exist_ok=True)
    with LINES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def score(line: dict[str, Any]) -> float:
    """Mean test score of a cell's folds, in %."""
    return 100 * statistics.fmean(record["test"] for record in line["records"])


def table() -> None:
    """Write the tables into the page, between their marks, and draw the curve."""
    lines = finished()
    rows = [
        "| | ten words | digits, unseen speakers (transductive) | ESC-10 (transductive) | mean |",
        "|---|---|---|---|---|",
    ]
    groups = [
        ("chance", None),
        ("no network: log-mel statistics", ["statistics none"]),
        ("linear, random start, mean of three", [f"linear random-{seed}" for seed in SEEDS]),
        ("linear, pretrained briefly, mean of three", [f"linear short-{s}" for s in SEEDS]),
        ("linear, pretrained by the whole recipe", ["linear long"]),
        ("statistics + random, mean of three", [f"statistics+linear random-{s}" for s in SEEDS]),
        ("statistics + pretrained briefly", ["statistics+linear short-0"]),
        ("statistics + pretrained by the whole recipe", ["statistics+linear long"]),
        ("full, from random", ["full random-0"]),
        ("full, from pretrained briefly", ["full short-0"]),
    ]
    for name, wanted in groups:
        if wanted is None:
            rows.append(f"| {name} | 10 | 10 | 10 | 10 |")
            continue
        columns = [[lines.get(f"{cell} {task}") for cell in wanted] for task in TASKS]
        if all(line for column in columns for line in column):
            rows.append(f"| {name} | {' | '.join(_cells(columns))} |")
    _replace("main", rows)
    _replace("control", _control(lines))
    _replace("objectives", _objectives(lines))
    _curve(lines)


def records() -> list[dict[str, Any]]:
    """The lift of the linear probe, as every benchmark of the project writes its rows."""
    lines = finished()

    def mean(cell: str, task: str) -> float:
        return statistics.fmean(score(lines[f"{cell}-{seed} {task}"]) for seed in SEEDS)

    scores = {task: (mean("linear short", task), mean("linear random", task)) for task in TASKS}
    ours, start = (statistics.fmean(values) for values in zip(*scores.values(), strict=True))
    peer = max(start, KNOWN_START)
    rows = [
        _row(f"linear probe, {task}: pretrained briefly against random start (%)", *pair, None)
        for task, pair in scores.items()
    ]
    name = "linear probe, mean of three: pretrained briefly against the better start (%)"
    return [*rows, _row(name, ours, peer, (peer + LIFT) / peer)]


def _row(name: str, ours: float, peer: float, goal: float | None) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": ours / peer, "goal": goal}


def _cells(columns: list[list[Any]]) -> Iterator[str]:
    """A row's scores by task and their mean; the spread is that of seeds, or of one run's folds."""
    scores = [[score(line) for line in column] for column in columns]
    means = [statistics.fmean(row) for row in zip(*scores, strict=True)]
    for column, values in zip(columns, scores, strict=True):
        several = values if len(values) > 1 else [100 * r["test"] for r in column[0]["records"]]
        yield _spread(statistics.fmean(values), several)
    yield _spread(statistics.fmean(means), means)


def _spread(mean: float, several: Sequence[float]) -> str:
    return f"{mean:.1f}" + (f" ± {statistics.stdev(several):.1f}" if len(several) > 1 else "")


def _objectives(lines: dict[str, dict[str, Any]]) -> list[str]:
    rows = [
        "| | ten words | digits, unseen speakers (transductive) | ESC-10 (transductive) | mean |",
        "|---|---|---|---|---|",
    ]
    titles = {"contrastive": "AST micro, contrastive", "mast": "MAST micro, masked patches"}
    for run in OBJECTIVES:
        for name, cell in (("random start", f"{run}-random"), ("pretrained", run)):
            columns = [[lines.get(f"linear {cell} {task}")] for task in TASKS]
            if all(line for column in columns for line in column):
                rows.append(f"| {titles[run]}: {name} | {' | '.join(_cells(columns))} |")
    return rows


def _control(lines: dict[str, dict[str, Any]]) -> list[str]:
    rows = ["| | digits of jackson | ESC-10 fold 1 |", "|---|---|---|"]
    for name, run in (
        ("random start", "random-0"),
        ("heard them", "short-0"),
        ("did not", "control"),
    ):
        found = []
        for task, fold in (("digits", "jackson"), ("sounds", "1")):
            line = lines.get(f"linear {run} {task}")
            records = [r for r in line["records"] if r["fold"] == fold] if line else []
            found.append(f"{100 * records[0]['test']:.1f}" if records else "–")
        rows.append(f"| {name} | {' | '.join(found)} |")
    return rows


def _replace(mark: str, rows: Sequence[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    first, last = f"<!-- {mark} -->", f"<!-- end {mark} -->"
    before, rest = text.split(first)
    _, after = rest.split(last)
    PAGE.write_text("\n".join([before + first, *rows, last + after]), encoding="utf-8")


def _curve(lines: dict[str, dict[str, Any]]) -> None:
    from matplotlib import pyplot

    pretrained = lines.get("pretrain long")
    if pretrained is None:
        return
    each = pretrained["seconds"] / 60 / pretrained["metrics"]["step"]
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for task in TASKS:
        points = [(0.0, score(lines[f"linear random-0 {task}"]))]
        for name, line in lines.items():
            words = name.split()
            if words[0] == "linear" and words[1].startswith("long@") and words[2] == task:
                points.append((int(words[1].split("-")[-1]) * each, score(line)))
        (drawn,) = axes.plot(*zip(*sorted(points), strict=True), marker="o", label=task)
        axes.axhline(score(lines[f"statistics none {task}"]), ls=":", color=drawn.get_color())
    axes.set(xlabel="minutes of pretraining on one core", ylabel="linear probe, test accuracy (%)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(LINES.parent / "real_micro_curve.png", dpi=110)


def main() -> int:
    """Run cells, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the three corpora")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no cell after so long")
    parser.add_argument("--table", action="store_true", help="write the page from finished cells")
    parser.add_argument("--json", type=Path, help="{name, ours, peer, ratio, goal}")
    arguments = parser.parse_args()
    status = 0
    if arguments.data:
        status = run_all(arguments.data, arguments.only, arguments.minutes)
    if arguments.table:
        table()
    if arguments.json:
        arguments.json.write_text(json.dumps(records(), indent=2) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
