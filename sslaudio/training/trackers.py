"""Trackers beside TensorBoard, by the names that accelerate knows: wandb, mlflow, …

Each gets the leaves of the recipe as its configuration and every line of metrics.
``RUN/trackers.json`` keeps the id of each tracked run, so that a resumed run goes on with it. What
else a tracker needs (a key, a server, offline or not) it takes from its own environment variables.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from sslaudio.training.storage import write_json

LOG = logging.getLogger("sslaudio")

PROJECT = "sslaudio"
"""That runs are filed under, unless ``WANDB_PROJECT`` or the like says otherwise."""
IDS = "trackers.json"


class Kind(NamedTuple):
    """How a tracker is started for a run, and how it goes on with one."""

    settings: Callable[[Path, str | None], dict[str, Any]]
    """What it is started with, given the RUN and the id of the tracked run (None: a new one)."""
    identity: Callable[[Any], str]
    """The id of what was started."""


KINDS = {
    "aim": Kind(
        lambda run, kept: {"logging_dir": str(run), "run_hash": kept}, lambda one: str(one.hash)
    ),
    "clearml": Kind(
        lambda run, kept: {"task_name": run.name, "continue_last_task": kept or False},
        lambda one: str(one.id),
    ),
    "comet_ml": Kind(
        lambda run, kept: {"experiment_key": kept} if kept else {}, lambda one: str(one.get_key())
    ),
    "dvclive": Kind(
        lambda run, kept: {
            "dir": str(run / "dvclive"),
            "dvcyaml": str(run / "dvclive" / "dvc.yaml"),
            "resume": kept is not None,
        },
        lambda one: str(one.dir),
    ),
    "mlflow": Kind(
        lambda run, kept: {"run_name": run.name, "run_id": kept}, lambda one: str(one.info.run_id)
    ),
    "swanlab": Kind(
        lambda run, kept: {
            "name": run.name,
            "log_dir": str(run / "swanlab"),
            **({"id": kept, "resume": "allow"} if kept else {}),
        },
        lambda one: str(one.id),
    ),
    "trackio": Kind(
        lambda run, kept: {"name": kept or run.name, "resume": "allow" if kept else "never"},
        lambda one: str(one.name),
    ),
    "wandb": Kind(
        lambda run, kept: {"dir": str(run), "name": run.name, "id": kept, "resume": "allow"},
        lambda one: str(one.id),
    ),
}


def check_names(names: Sequence[str]) -> None:
    """Refuse what accelerate does not know, and TensorBoard, which is always written.

    Raises:
        ValueError: names the first that is wrong.
    """
    for name in names:
        if name == "tensorboard":
            raise ValueError(
                "training.trackers names tensorboard, which every run writes anyway; leave it out"
            )
        if name not in KINDS:
            raise ValueError(
                f"training.trackers names {name!r}; accelerate knows {', '.join(sorted(KINDS))}"
            )


def check_installed(names: Sequence[str]) -> None:
    """Refuse a tracker whose package is not there.

    Raises:
        ValueError: says what to install.
    """
    there = {str(one) for one in get_available_trackers()}
    for name in names:
        if name not in there:
            raise ValueError(
                f"training.trackers names {name}, which is not installed: pip install "
                f"{name.replace('_', '-')}"
            )


class Trackers:
    """The trackers of one run, started; on the process that reports."""

    def __init__(self, names: Sequence[str], run: Path, recipe: Mapping[str, Any]) -> None:
        ids = run / IDS
        kept = json.loads(ids.read_text(encoding="utf-8")) if ids.is_file() else {}
        self.started = []
        for name in names:
            settings = KINDS[name].settings(run, kept.get(name))
            project = os.environ.get(f"{name.upper()}_PROJECT", PROJECT)
            tracker = LOGGER_TYPE_TO_CLASS[name](project, **settings)
            tracker.start()
            if name not in kept:  # mlflow refuses a setting that has changed
                tracker.store_init_configuration({key: _told(one) for key, one in recipe.items()})
            self.started.append(tracker)
            kept[name] = KINDS[name].identity(tracker.tracker)
        if names:
            write_json(ids, kept)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Tell all of them a step's scalars."""
        for tracker in self.started:
            self._try(tracker, lambda one: one.log(dict(scalars), step=step))

    def close(self) -> None:
        """Have them send what they hold."""
        for tracker in self.started:
            self._try(tracker, lambda one: one.finish())

    def _try(self, tracker: Any, work: Callable[[Any], None]) -> None:
        """Do without a tracker that fails: its server is no reason to lose a run."""
        try:
            work(tracker)
        except Exception as error:
            name = tracker.name
            LOG.warning(f"warning: {name} fails ({error}); the run goes on, told elsewhere only")
            self.started = [one for one in self.started if one is not tracker]


def _told(value: Any) -> Any:
    """A leaf as every tracker takes it."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
