"""Pretrain a backbone on shards of unlabelled sound, wired top to bottom.

    accelerate launch sslaudio/pretrain.py --config configs/pretrain/demo.yaml --out runs/demo
    sslaudio pretrain …        the same in one process

Every leaf of the recipe is a flag: ``--training.steps 100``, ``--objective masked_patch
--objective.mask_share 0.5``. Without ``--config`` the demo recipe runs on synthetic shards, which
are made if absent.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: the folder above, not this one, holds the package
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import dataclasses
import time
import warnings
from contextlib import nullcontext
from typing import Any, cast

import torch

from sslaudio import config as configs
from sslaudio import models
from sslaudio import recipe as recipes
from sslaudio.backbones.encoder import Encoder
from sslaudio.data import overlap, synth
from sslaudio.data.streams import stream_for
from sslaudio.downstream.live import Probe
from sslaudio.features.front_end import FrontEnd
from sslaudio.features.stats import of_shards
from sslaudio.training import checkpoint, runs, storage
from sslaudio.training.environment import commit, environment, listed
from sslaudio.training.launch import accelerator_for, from_first
from sslaudio.training.loop import Loop
from sslaudio.training.peers import one_voice
from sslaudio.training.report import is_first_process, say, speak
from sslaudio.training.summary import summary
from sslaudio.training.trackers import check_installed

SYNTHETIC = Path("shards/synth")
STATISTICS_CLIPS = 1024
"""Enough for a mean within 0.02 deviations of that of four times as many, in a second."""
PATIENCE_SECONDS = 5.0
"""Time that a resumed run waits for one that still writes, as its launcher was killed."""
FREE = {
    "data.cache",
    "data.cache_megabytes",
    "data.corrupt_in_a_row",
    "data.corrupt_share",
    "data.kept_megabytes",
    "data.workers",
    "knn.every",
    "training.checkpoint_every",
    "training.checkpoint_forever_every",
    "training.checkpoints_kept",
    "training.log_every",
    "training.pictures_every",
    "training.trackers",
}
"""What a resumed run may set otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that are no leaves of the recipe."""
    parser.epilog = (
        "Every leaf of the recipe is a flag: --training.steps 100, --objective masked_patch "
        "--objective.mask_share 0.5. `sslaudio show training` (data, features, knn, backbone "
        "NAME, objective NAME, augments NAME) tells what there is."
    )
    parser.add_argument(
        "--config",
        help="recipe: a YAML file, or a name from configs/pretrain or configs/ablations",
    )
    parser.add_argument("--out", type=Path, help="folder of the run (runs/RECIPE-TIME)")
    parser.add_argument(
        "--init",
        type=Path,
        metavar="RUN",
        help="start from the weights of RUN, with its front end and backbone; the recipe's own "
        "fields and flags lie on top",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="must",
        choices=("must", "auto"),
        help="go on with the run in --out; auto: start where there is none",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, take three steps, tell shapes, memory, speed and the time of the "
        "whole run, and write nothing",
    )


def main(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Pretrain; gives the exit status."""
    speak()
    name = arguments.config or ("continued" if arguments.init else "demo")
    run = arguments.out or Path("runs") / f"{Path(name).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    runs.check_out(run)
    writes = is_first_process() and not arguments.dry_run
    patience = PATIENCE_SECONDS if arguments.resume else 0.0
    holding = runs.held(run, patience) if writes else nullcontext()
    with checkpoint.full_disk_told(run), holding:
        return _pretrain(arguments, flags, name, run)


def _pretrain(arguments: argparse.Namespace, flags: list[str], name: str, run: Path) -> int:
    """Pretrain into a folder that no other process writes to."""
    _check_asked(run, arguments.resume)
    path, told = _found(arguments, run)
    if told:
        say(told)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        recipe = _recipe(path, arguments.init, flags)
    for text in dict.fromkeys(str(warning.message) for warning in warned):
        say(f"warning: {text}")
    check_installed(recipe.training.trackers)
    accelerator = accelerator_for(recipe.training.precision)
    if (
        not recipe.data.shards
        and not recipe.data.procedural
        and path is not None
        and path.stem == "demo"
    ):
        recipe = _with_synthetic_shards(recipe, accelerator, arguments.dry_run)
    with one_voice(run), checkpoint.full_disk_told(run):
        found = _resumed(run, arguments.resume) if accelerator.is_main_process else None
        resumed = from_first(accelerator, found)
        if resumed is None and not arguments.init:
            _check_start(recipe, name)
        _check_resumed(run, recipe, resumed, accelerator)
        loop = _loop(recipe, run, resumed, accelerator, arguments.init)
        if arguments.dry_run:
            rows = loop.rehearse(resumed).rows()
            say("dry run, nothing is written")
            for title, text in rows.items():
                say(f"  {title:10s} {text}")
            return 0
        status = _train(loop, recipe, resumed, arguments.init)
        accelerator.wait_for_everyone()  # a launcher may end the others with the first that leaves
    if accelerator.is_main_process:
        say(summary(run))
    return status


def _found(arguments: argparse.Namespace, run: Path) -> tuple[Path | None, str | None]:
    """The recipe's file, if any, and what to say where none was named."""
    if arguments.config is not None:
        return recipes.find(arguments.config, "pretrain"), None
    if _is_run(run):
        return run / "recipe.yaml", f"no --config: the recipe in {run}"
    if arguments.init is not None:
        return None, f"no --config: front end and backbone of {arguments.init}, usual settings"
    return recipes.find("demo", "pretrain"), "no --config: the demo recipe"


def _recipe(path: Path | None, init: Path | None, flags: list[str]) -> recipes.Pretrain:
    """The effective recipe: an initial run's front end and backbone < the file < the flags."""
    if init is None:
        return cast(recipes.Pretrain, recipes.read(path, flags))
    given = configs.read_yaml(path) if path else {}
    own = runs.read_config(init)
    return cast(recipes.Pretrain, recipes.over(own, given, flags, recipes.Pretrain))


def _loop(
    recipe: recipes.Pretrain, run: Path, resumed: Path | None, accelerator: Any, init: Path | None
) -> Loop:
    """All parts of a run, wired; nothing is written."""
    training = recipe.training
    stream = stream_for(recipe.data)(
        recipe.data,
        sample_rate=recipe.features.sample_rate,
        seed=training.seed,
        rank=accelerator.process_index,
        ranks=accelerator.num_processes,
        accumulation=training.accumulation,
    )
    if recipe.features.cuts(round(recipe.data.clip_seconds * stream.sample_rate)):
        say(
            f"warning: data.clip_seconds is {recipe.data.clip_seconds:g}, and of every clip "
            f"features.legacy_frames {recipe.features.legacy_frames} hears the beginning alone"
        )
    clip_frames = recipe.features.frames(round(recipe.data.clip_seconds * stream.sample_rate))
    torch.manual_seed(training.seed)
    backbone = recipe.backbone.build(recipe.features.bins, clip_frames)
    grid = backbone.grid(clip_frames)
    if grid.rows * grid.columns < 2:
        raise ValueError(
            f"data.clip_seconds {recipe.data.clip_seconds:g} makes pictures of "
            f"{recipe.features.bins} bins by {clip_frames} frames, one patch a clip, from "
            f"which nothing is to be learned; make backbone.patch smaller or data.clip_seconds "
            f"longer"
        )
    measured = _statistics(recipe, run, resumed, accelerator)
    config = models.model_config(recipe, clip_frames, measured)
    config["objective"] = configs.plain(recipe.objective)
    config["provenance"] = _provenance(run, resumed, init)
    if init is not None and resumed is None:
        models.fill_backbone(backbone, models.backbone_weights(init), f"--init {init}")
    objective = recipe.objective.build(backbone)
    front_end = FrontEnd(recipe.features, **measured)
    if init is not None and resumed is None:
        told = models.fill_heads(objective, recipe.objective, init)
        if told:
            say(told)

    first = "initial" if config["provenance"].get("init") else "untrained"
    watchers = []
    if recipe.knn.every:
        chosen = recipe.backbone.config
        encoder = Encoder(front_end, backbone, chosen.pooling, chosen.pooled_block, clip_frames)
        aloud = accelerator.is_main_process
        watchers.append(Probe(recipe.knn, encoder, training.steps, first, aloud))

    def save_model() -> None:
        weights = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
        runs.save_weights(run, weights, config)

    return Loop(
        objective,
        front_end,
        [augment.build() for augment in recipe.augments],
        stream,
        training,
        run,
        accelerator,
        save_model,
        first=first,
        watchers=watchers,
        texts={
            "recipe": configs.to_yaml(recipe),
            "environment": listed({**config["provenance"], **environment()}),
        },
        recipe=dict(configs.flat(recipe)),
    )


def _train(loop: Loop, recipe: recipes.Pretrain, resumed: Path | None, init: Path | None) -> int:
    """Train; gives the status of a request to stop, or 0."""
    accelerator, stream = loop.accelerator, loop.stream
    weights = sum(w.numel() for w in cast(Any, loop.objective).backbone.parameters())
    if accelerator.is_main_process:
        storage.write_text(loop.run / "recipe.yaml", configs.to_yaml(recipe))
        if resumed is None:
            loop.save_model()
            _save_heard(loop, init)
        say(
            f"{stream.told}; {recipe.backbone.name} of "
            f"{weights / 1e6:.2f} M weights; "
            f"{recipe.training.steps} steps of {recipe.data.batch} clips into {loop.run}; "
            f"{accelerator.num_processes} process(es) on {accelerator.device}, "
            f"{torch.get_num_threads()} threads each, {recipe.training.precision}"
        )
    return loop.train(resumed)


def _save_heard(loop: Loop, init: Path | None) -> None:
    """Write down which recordings this run hears, and those before it."""
    found = {
        kind: torch.from_numpy(marks.view("int64"))
        for kind, marks in overlap.heard(loop.stream.selections).items()
    }
    for kind, marks in (runs.read_heard(init) if init else {}).items():
        found[kind] = torch.cat([found.get(kind, marks[:0]), marks]).unique()
    runs.save_heard(loop.run, found)


def _statistics(
    recipe: recipes.Pretrain, run: Path, resumed: Path | None, accelerator: Any
) -> dict[str, float]:
    """Mean and std: the recipe's, else the resumed run's, else the training split's."""
    features = recipe.features
    if features.mean is not None and features.std is not None:
        return {"mean": features.mean, "std": features.std}
    if resumed is not None:
        kept = runs.read_config(run)
        return {"mean": kept["features"]["mean"], "std": kept["features"]["std"]}
    found = None
    if accelerator.is_main_process:
        measured = of_shards(recipe.data, features, STATISTICS_CLIPS)
        found = {"mean": measured.mean, "std": measured.std}
    return from_first(accelerator, found)


def _with_synthetic_shards(
    recipe: recipes.Pretrain, accelerator: Any, dry: bool
) -> recipes.Pretrain:
    if dry and not (SYNTHETIC / "index.json").is_file():
        raise ValueError(
            "no --data.shards, and a dry run makes no synthetic ones; name some, or make them with "
            f"`sslaudio shards synth --out {SYNTHETIC}`"
        )
    say(f"no --data.shards: the synthetic shards in {SYNTHETIC}, made if absent")
    with accelerator.main_process_first():
        if accelerator.is_main_process and not (SYNTHETIC / "index.json").is_file():
            synth.build(SYNTHETIC)
    data = dataclasses.replace(recipe.data, shards=(str(SYNTHETIC),))
    return dataclasses.replace(recipe, data=data)


def _is_run(out: Path | None) -> bool:
    return out is not None and (out / "recipe.yaml").is_file()


def _check_asked(run: Path, resume: str | None) -> None:
    """Refuse to write over a run.

    Raises:
        ValueError: one is there and was not asked for, or is none that can go on.
    """
    if runs.is_imported(run):
        raise ValueError(
            f"--out {run} holds imported weights; give another, and --init {run} to start from them"
        )
    if resume is None and _is_run(run):
        raise ValueError(
            f"{run} holds a run already; add --resume to go on with it, or give another --out"
        )


def _check_start(recipe: recipes.Pretrain, name: str) -> None:
    """Refuse to let random weights pass for others.

    Raises:
        ValueError: the recipe is of a run that starts from weights.
    """
    if recipe.training.starts_from_weights:
        raise ValueError(
            f"training.starts_from_weights is true in {name}, and no weights are given: add "
            f"--init RUN (sslaudio weights import makes one), or --training.starts_from_weights "
            f"false to start from random ones"
        )


def _resumed(run: Path, resume: str | None) -> Path | None:
    """The checkpoint to go on from; None to start.

    Raises:
        ValueError: one was asked for and is not there, or none of those there is whole.
    """
    if resume is None:
        return None
    newest = checkpoint.to_resume(run)
    if newest is None and resume == "must":
        raise ValueError(f"{run} holds no checkpoint to resume; leave --resume out to start")
    return newest


def _check_unchanged(run: Path, recipe: recipes.Pretrain, resumed: Path | None) -> None:
    """A resumed run keeps all that its weights, order and rates hang on, and does not go back.

    Raises:
        ValueError: a setting differs, or the run has more steps than it is to have.
    """
    taken = checkpoint.read_state(resumed)["step"] if resumed else 0
    if taken > recipe.training.steps:
        raise ValueError(
            f"training.steps is {recipe.training.steps}, but {resumed} has taken {taken} already; "
            f"set training.steps to {taken} or more"
        )
    before, after = (
        {**dict(configs.flat(one)), **_front_end(one)}
        for one in (recipes.read(run / "recipe.yaml", []), recipe)
    )
    differing = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if not before["knn.every"]:  # no probe was taken that another would have to continue
        differing = [key for key in differing if not key.startswith("knn.")]
    for key in differing:
        if key == "training.steps":
            say(f"training.steps was {before[key]} and is {after[key]}: the rate's cosine follows")
        elif key == "training.accumulation":
            say(
                f"training.accumulation was {before[key]} and is {after[key]}: the order of the "
                f"clips goes on, none is read twice; from here on rounding differs, and drop-path, "
                f"and what an objective compares that compares the clips of a part"
            )
        elif key not in FREE:
            raise ValueError(
                f"{key} was {before.get(key)} when {run} was started and is {after.get(key)} now; "
                f"resume with the same recipe (leave --config out to take the run's own), or start "
                f"a new run with --init {run}"
            )


def _check_resumed(
    run: Path, recipe: recipes.Pretrain, resumed: Path | None, accelerator: Any
) -> None:
    """Refuse what a run that is there cannot go on with, and say what else is changed."""
    if _is_run(run):
        _check_unchanged(run, recipe, resumed)
    if resumed is not None:
        _tell_machine(resumed, accelerator)


def _tell_machine(resumed: Path, accelerator: Any) -> None:
    """Say what another number of processes or threads than before changes, and what not."""
    state = checkpoint.read_state(resumed)
    now = {"processes": accelerator.num_processes, "threads": torch.get_num_threads()}
    other = {key: state[key] for key in now if state.get(key, now[key]) != now[key]}
    if other:
        before = " and ".join(f"{key} were {other[key]} and are {now[key]}" for key in other)
        differs = "rounding differs"
        if "processes" in other:
            differs += ", and drop-path, whose random numbers each process draws"
        say(f"{before}: the order of the clips goes on, none is read twice; from here on {differs}")


def _front_end(recipe: recipes.Pretrain) -> dict[str, Any]:
    """What is in force of the front end, whether it was set or is the kind's own."""
    return {f"features.{key}": value for key, value in recipe.features.settings._asdict().items()}


def _provenance(run: Path, resumed: Path | None, init: Path | None) -> dict[str, Any]:
    if resumed is not None:
        return dict(runs.read_config(run).get("provenance", {}))
    return {"commit": commit(), "init": str(init) if init else None, **environment()}


if __name__ == "__main__":
    from sslaudio.cli import run_entry

    sys.exit(run_entry("pretrain", sys.argv[1:]))
