"""What a run has come to, read from its folder: for the end of a run, and to compare runs.

In:  a RUN, of which ``metrics.jsonl`` may end in the middle of a line.
Out: a :class:`Progress`, and a summary in a few lines.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslaudio import config as configs
from sslaudio.training.checkpoint import checkpoints, step_of
from sslaudio.training.report import clock, history

LOSSES = ("objective/loss", "finetuning/loss")
"""Of pretraining by step, of fine-tuning by epoch."""


@dataclass(frozen=True)
class Progress:
    """How far a run is and how well it does; None is what it has not told."""

    steps: int | None
    """That it is to have."""
    step: int
    """Of its last line of metrics."""
    kept: int | None
    """Step of the newest checkpoint."""
    loss: float | None
    """The last."""
    lowest: tuple[int, float] | None
    """Step and value of the lowest loss."""
    probe: tuple[int, float] | None
    """Step and accuracy of the best probe, 0 to 1."""
    last_probe: float | None
    """Accuracy of the last probe."""
    skipped: int
    """Steps whose loss or gradient was no number and that changed nothing."""
    clips_a_second: float | None
    """Mean over the run."""
    seconds: float
    """Spent in steps and probes, before a resume too."""


def progress(run: Path) -> Progress:
    """Read what a RUN has told.

    Raises:
        ValueError: its ``recipe.yaml`` is absent or damaged.
    """
    recipe = configs.read_yaml(run / "recipe.yaml")
    path = run / "metrics.jsonl"
    told = history(path) if path.is_file() else {}
    losses = next((told[name] for name in LOSSES if name in told), [])
    probes = told.get("probe/knn", [])
    skips = told.get("training/skipped_steps", [])  # so many so far
    clips, seconds = _worked(told, _leaf(recipe, "data", "batch") or 0)
    there = checkpoints(run)
    return Progress(
        steps=_leaf(recipe, "training", "steps"),
        step=max((values[-1][0] for values in told.values()), default=0),
        kept=step_of(there[-1]) if there else None,
        loss=losses[-1][1] if losses else None,
        lowest=min(losses, key=lambda one: one[1], default=None),
        probe=max(probes, key=lambda one: one[1], default=None),
        last_probe=probes[-1][1] if probes else None,
        skipped=round(skips[-1][1]) if skips else 0,
        clips_a_second=clips / seconds if seconds else None,
        seconds=seconds + sum(value for _, value in told.get("probe/seconds", [])),
    )


def summary(run: Path) -> str:
    """Best, last, where, and how to go on; of a run that is done or was stopped."""
    now = progress(run)
    done = now.steps is not None and (now.kept or 0) >= now.steps
    rows = {"best": _best(now) if done else "", "last": _last(now)}
    if done:
        rows["where"] = f"{run}/curve.png; tensorboard --logdir {run}"
        rows["use"] = f"sslaudio finetune --task NAME --root DIR --checkpoint {run}"
        more = 2 * max(1, now.steps or 1)
        rows["train on"] = f"sslaudio pretrain --out {run} --resume --training.steps {more}"
    else:
        rows["go on"] = f"sslaudio pretrain --out {run} --resume auto"
    lines = [f"{'done' if done else 'stopped'}: {run}"]
    return "\n".join(lines + [f"  {name + ':':10s}{text}" for name, text in rows.items() if text])


def _best(now: Progress) -> str:
    parts = []
    if now.probe is not None:
        untrained = "" if now.probe[0] else ", before the first"
        parts.append(f"kNN {now.probe[1]:.1%} at step {now.probe[0]}{untrained}")
    if now.lowest is not None:
        parts.append(f"lowest loss {now.lowest[1]:.3f} at step {now.lowest[0]}")
    return ", ".join(parts)


def _last(now: Progress) -> str:
    of = f" of {now.steps}" if now.steps is not None else ""
    parts = [f"step {now.step}{of}"]
    if now.kept is not None and now.kept != now.step:
        parts.append(f"checkpoint of step {now.kept}")
    if now.loss is not None:
        parts.append(f"loss {now.loss:.3f}")
    if now.last_probe is not None:
        parts.append(f"kNN {now.last_probe:.1%}")
    if now.skipped:
        parts.append(f"{now.skipped} step(s) skipped")
    if now.clips_a_second is not None:
        parts.append(f"{clock(now.seconds)} at {now.clips_a_second:.0f} clips/s")
    return ", ".join(parts)


def _worked(told: dict[str, list[tuple[int, float]]], batch: int) -> tuple[float, float]:
    """Clips that were trained on, and seconds that their steps took."""
    before, clips, seconds = 0, 0.0, 0.0
    for step, speed in told.get("speed/clips_a_second", []):
        if speed > 0:
            clips += (step - before) * batch
            seconds += (step - before) * batch / speed
        before = step
    return clips, seconds


def _leaf(recipe: dict[str, Any], room: str, name: str) -> int | None:
    """A whole number of a recipe as it was written; None where there is none."""
    section = recipe.get(room)
    value = section.get(name) if isinstance(section, dict) else None
    return value if isinstance(value, int) else None
