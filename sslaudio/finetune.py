"""Adapt a checkpoint to a labelled task and score it, wired top to bottom.

    sslaudio finetune --task fsdd --root DIR --checkpoint RUN --protocol linear --out RUN2

``linear`` fits a line on frozen embeddings; ``full`` trains every weight. Without
``--checkpoint`` the weights of ``--backbone`` are random. Validation chooses epoch and strength;
test is scored once. Every fold of the task is run; the saved model is the last fold's.
"""

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sslaudio import config as configs
from sslaudio import recipe as recipes
from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream import embed, results, supervised
from sslaudio.downstream import probe as probes
from sslaudio.features import logmel
from sslaudio.features.logmel import FrontEnd
from sslaudio.features.stats import Statistics, measure
from sslaudio.plugins import Plugin
from sslaudio.tasks.base import Example, Fold, Task
from sslaudio.training import checkpoint
from sslaudio.training.report import Report, say, speak

CORPORA = {"speechcommands": "speech_commands"}
"""Task to corpus where the two differ in name."""


@dataclass(frozen=True)
class Finetune:
    """A fine-tuning run."""

    task: Plugin = field(metadata={"room": "tasks"}, default=None)  # type: ignore[assignment]
    """Labelled clips, splits and classes."""
    features: logmel.Config = field(default_factory=logmel.Config)
    """How sound becomes a picture; a checkpoint brings its own."""
    augments: tuple[Plugin, ...] = field(default=(), metadata={"room": "augments"})
    """Done to training pictures, under ``full`` only."""
    backbone: Plugin = recipes.plugin_field("backbones", "ast")
    """What encodes them; a checkpoint brings its own."""
    probe: probes.Config = field(default_factory=probes.Config)
    """How ``linear`` fits."""
    finetuning: supervised.Config = field(default_factory=supervised.Config)
    """How ``full`` trains."""
    seed: int = 0
    """Of random weights, head, order and augments."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that are no leaves of the recipe."""
    parser.add_argument("--config", help="recipe: a YAML file, or a name from configs/finetune")
    parser.add_argument("--root", type=Path, help="the corpus as published ($SSLAUDIO_DATA/CORPUS)")
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="start from its weights")
    parser.add_argument("--protocol", choices=("full", "linear"), default="full")
    parser.add_argument("--out", type=Path, help="folder of the run (runs/TASK-PROTOCOL-TIME)")


def main(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Fine-tune on every fold, write results, print the table."""
    speak(True)
    recipe, config = _recipe(arguments, flags)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    root = corpus_root(arguments.root, recipe.task.name)
    task: Task = recipe.task.build(root)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = arguments.out or Path("runs") / f"{task.name}-{arguments.protocol}-{stamp}"
    if (out / "results.json").is_file():
        raise ValueError(f"{out} holds results already; give another --out")
    if task.notes:
        say(f"{task.name}: {'; '.join(task.notes)}")
    with checkpoint.held(out):
        records = [_fold(recipe, config, task, fold, arguments, out) for fold in task.folds]
        results.write(out / "results.json", records)
        checkpoint.write_text(out / "recipe.yaml", configs.to_yaml(recipe))
    say(results.table(records))
    say(f"done: {out}")
    return 0


def _recipe(
    arguments: argparse.Namespace, flags: list[str]
) -> tuple[Finetune, dict[str, Any] | None]:
    """The effective recipe, and the checkpoint's ``config.json`` with the flags laid over it."""
    path = recipes.find(arguments.config, "finetune") if arguments.config else None
    given = configs.read_yaml(path) if path else {}
    own = None
    if arguments.checkpoint is not None:
        own = checkpoint.read_config(arguments.checkpoint)
        for room in ("features", "backbone"):
            given[room] = {**own[room], **given.get(room, {})}
    if "task" not in given and "--task" not in flags:
        raise ValueError("no task; name one with --task, such as --task speechcommands")
    given.setdefault("task", {"name": _flag(flags, "--task")})
    recipe: Finetune = configs.build(Finetune, configs.parse_flags(flags, Finetune, given))
    if own is not None:
        own["features"] = configs.plain(recipe.features)
        own["backbone"] = configs.plain(recipe.backbone)
    return recipe, own


def _flag(flags: Sequence[str], name: str) -> str:
    place = list(flags).index(name)
    if place + 1 == len(flags):
        raise ValueError(f"{name} has no value; write {name} NAME")
    return flags[place + 1]


def corpus_root(root: Path | None, task: str) -> Path:
    """``--root``, or ``$SSLAUDIO_DATA/CORPUS``.

    Raises:
        ValueError: neither leads to a folder.
    """
    if root is None:
        base = os.environ.get("SSLAUDIO_DATA")
        if base is None:
            raise ValueError(f"no --root for task {task}; give it, or set $SSLAUDIO_DATA")
        root = Path(base) / CORPORA.get(task, task)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; --root must lead to the corpus of {task}")
    return root


def _fold(
    recipe: Finetune,
    config: dict[str, Any] | None,
    task: Task,
    fold: Fold,
    arguments: argparse.Namespace,
    out: Path,
) -> results.Record:
    started = time.perf_counter()
    encoder, config = _encoder(recipe, config, task, fold, arguments.checkpoint)
    if arguments.protocol == "linear":
        train, validation_part, test_part = (
            _embedded(encoder, examples) for examples in fold.parts().values()
        )
        line = probes.fit(train, validation_part, test_part, len(task.classes), recipe.probe)
        validation, test, head = line.validation, line.test, line.linear()
        trainable = sum(weight.numel() for weight in head.parameters())
        weights = {f"head.{name}": value for name, value in head.state_dict().items()}
    else:
        fitted = _full(recipe, encoder, task, fold, out)
        validation, test, trainable = fitted.validation, fitted.test, fitted.trainable
        weights = head_weights(fitted.classifier)
    weights |= {f"backbone.{key}": value for key, value in encoder.backbone.state_dict().items()}
    extra = {"classes": list(task.classes), "task": configs.plain(recipe.task), "fold": fold.name}
    checkpoint.save_weights(out, weights, {**config, **extra})
    say(f"{task.name} {fold.name}: validation {validation:.1%}, test {test:.1%}")
    return results.Record(
        task=task.name,
        protocol=arguments.protocol,
        metric=task.metric,
        split_rule=task.split_rule,
        fold=fold.name,
        seed=recipe.seed,
        validation=validation,
        test=test,
        clips=fold.clips(),
        checkpoint=str(arguments.checkpoint) if arguments.checkpoint else None,
        trainable=trainable,
        seconds=round(time.perf_counter() - started, 1),
        notes=task.notes,
    )


def _encoder(
    recipe: Finetune,
    config: dict[str, Any] | None,
    task: Task,
    fold: Fold,
    run: Path | None,
) -> tuple[Encoder, dict[str, Any]]:
    """The checkpoint's encoder; without one, random weights with the fold's own statistics."""
    torch.manual_seed(recipe.seed)
    if config is None:
        clip_frames = recipe.features.frames(round(task.seconds * recipe.features.sample_rate))
        found = _statistics(recipe, fold.train)
        config = recipes.model_config(recipe, clip_frames, {"mean": found.mean, "std": found.std})
    encoder = recipes.build_encoder(config)
    if run is not None:
        recipes.fill_backbone(encoder.backbone, checkpoint.read_weights(run), str(run))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return encoder.eval().to(device), config


def _statistics(recipe: Finetune, examples: Sequence[Example]) -> Statistics:
    front_end = FrontEnd(dataclasses.replace(recipe.features, mean=None, std=None))
    sounds = (torch.from_numpy(e.waveform(front_end.sample_rate))[None] for e in examples)
    return measure(((sound, torch.tensor([sound.shape[1]])) for sound in sounds), front_end)


def _embedded(encoder: Encoder, examples: Sequence[Example]) -> probes.Part:
    targets = torch.tensor([example.target for example in examples]).numpy()
    return probes.Part(embed.embed_examples(encoder, examples), targets)


def _full(
    recipe: Finetune, encoder: Encoder, task: Task, fold: Fold, out: Path
) -> supervised.Fitted:
    report = Report(out / f"fold-{fold.name}", recipe.finetuning.epochs, 0, aloud=True)

    def progress(epoch: int, scalars: dict[str, float]) -> None:
        report.log(epoch, {f"finetuning/{name}": value for name, value in scalars.items()})
        text = f"loss {scalars['loss']:.3f}  validation {scalars['validation']:.1%}"
        each = (time.perf_counter() - began) / epoch
        report.show(epoch, text, each * (recipe.finetuning.epochs - epoch))

    began = time.perf_counter()
    augments = [augment.build() for augment in recipe.augments]
    try:
        return supervised.fit(
            encoder, fold, len(task.classes), augments, recipe.finetuning, recipe.seed, progress
        )
    finally:
        report.close()


def head_weights(classifier: supervised.Classifier) -> dict[str, torch.Tensor]:
    """The head as a plain linear layer, the running standardisation folded in."""
    norm, head = classifier.norm, classifier.head
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    weight = head.weight * scale
    return {"head.weight": weight, "head.bias": head.bias - weight @ norm.running_mean}
