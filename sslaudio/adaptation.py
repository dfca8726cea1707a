"""One checkpoint adapted to one fold of a task: what ``finetune`` and ``evaluate`` are made of.

In:  a fine-tuning recipe, where its weights come from, a task and a fold.
Out: an :class:`Outcome`: the record of its scores, the scores clip by clip, and the model.
"""

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslaudio import config as configs
from sslaudio import models, plugins
from sslaudio import recipe as recipes
from sslaudio.adapters.base import Adapter
from sslaudio.backbones.encoder import Encoder
from sslaudio.data import overlap, progress
from sslaudio.downstream import classify, embed, gather, knn, probe, results, supervised
from sslaudio.downstream.metrics import Scores, measured
from sslaudio.features.front_end import Config as Features
from sslaudio.features.stats import Statistics, measure, plain
from sslaudio.tasks.base import Example, Fold, Task
from sslaudio.training import runs
from sslaudio.training.report import is_first_process

Examples = Sequence[Example]
Rows = Float[np.ndarray, "clips dim"]
Embed = Callable[[Encoder, Sequence[Example]], Rows]
"""Gives the embeddings of clips, however it comes by them."""
FEW = 0.5
"""A run that trained some of the backbone's weights, and at most this share, holds these alone."""


@dataclass(frozen=True)
class Start:
    """Where weights come from."""

    run: Path | None
    """A RUN or one of its checkpoints; None: random weights."""
    config: Mapping[str, Any] | None
    """The RUN's ``config.json`` with the recipe's settings laid over it."""
    tuned_on: Mapping[str, Any] | None = None
    """``task``, ``fold`` and ``clips`` of a RUN that was fine-tuned before."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    record: results.Record
    validation_scores: Scores
    """One row a clip of the validation part."""
    test_scores: Scores
    """One row a clip of the test part."""
    weights: Mapping[str, Tensor]
    """What the run holds: of few trained weights, these alone."""
    config: Mapping[str, Any]
    """Its ``config.json``."""


def recipe_over(
    checkpoint: Path | None, given: dict[str, Any], words: Sequence[str]
) -> tuple[recipes.Finetune, Start]:
    """The effective recipe on top of a checkpoint, and where its weights come from.

    Args:
        checkpoint: a RUN; None for random weights of the recipe's backbone.
        given: keys of a recipe.
        words: flags.

    Raises:
        ValueError: what is set does not go with the checkpoint.
    """
    if checkpoint is None:
        merged = configs.parse_flags(words, recipes.Finetune, given)
        return configs.build(recipes.Finetune, merged), Start(None, None)
    own = runs.read_config(checkpoint)
    tuned_on = {key: own.pop(key, None) for key in ("task", "fold", "clips")}
    for other in ("head", "objective", "base", "adapter", "classes", "kind", "seconds"):
        own.pop(other, None)  # the model's own are made below
    recipe: recipes.Finetune = recipes.over(own, given, words, recipes.Finetune)
    trained_on = configs.build(Features, own["features"], "features").kind
    if recipe.features.kind != trained_on:
        raise ValueError(
            f"features.kind is {recipe.features.kind}, but {checkpoint} was trained "
            f"on pictures of kind {trained_on}; leave it out to take the checkpoint's own"
        )
    own["features"] = configs.plain(recipe.features)
    own["backbone"] = configs.plain(recipe.backbone)
    return recipe, Start(checkpoint, own, tuned_on if tuned_on["task"] else None)


def unheeded(recipe: recipes.Finetune, words: Sequence[str]) -> list[str]:
    """Those of the flags that mean nothing to the recipe's protocol."""
    idle = {"probe", "knn"}
    if recipe.adapter.build().trains == "nothing":
        idle = {"augments", "training", "probe" if recipe.adapter.name == "knn" else "knn"}
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [one for one in flags if one[2:].split(".")[0] in idle and one != "--training.seed"]


def adapt(
    recipe: recipes.Finetune,
    start: Start,
    task: Task,
    fold: Fold,
    out: Path,
    embeddings: Embed | None = None,
    told: Callable[[int, dict[str, float]], None] | None = None,
) -> Outcome:
    """Adapt, choose on validation, score test once.

    Args:
        recipe: its adapter says how.
        start: weights.
        task: what is to be told.
        fold: one of its folds.
        out: where the run will lie, which a base is found from.
        embeddings: of a frozen encoder; unset: they are worked out.
        told: called with epoch and scalars, where there are epochs.
    """
    began = time.perf_counter()
    encoder, config = start_of(recipe, start, task, fold)
    adapter: Adapter = recipe.adapter.build()
    base = {}  # told, and hashed, where a run may hold few weights alone
    if adapter.trains == "encoder":
        base = models.base_of(encoder.backbone, start.run, recipe.training.seed, out)
    total = sum(weight.numel() for weight in encoder.backbone.parameters())
    if adapter.trains == "nothing":
        adapter.adapt(encoder)
        found = _closed_form(recipe, encoder, task, fold, embeddings or embedded)
    else:
        found = _by_gradients(recipe, adapter, encoder, task, fold, told)
    own = models.learned(encoder.backbone)
    few = adapter.trains == "encoder" and sum(map(Tensor.numel, own.values())) <= FEW * total
    if not few:
        own = models.named(encoder.backbone.state_dict())
    head = {f"head.{name}": value.detach() for name, value in found.head.state_dict().items()}
    targets = task.targets(fold.test)
    record = results.record(
        task,
        fold,
        protocol=recipe.adapter.name,
        seed=recipe.training.seed,
        validation=found.validation,
        test=found.test,
        checkpoint=start.run,
        trainable=found.trainable,
        seconds=time.perf_counter() - began,
        chosen=found.chosen,
        figures=measured(targets, found.test_scores),
        variant=variant(recipe),
        notes=(
            *task.notes,
            *_heard_before(start, task, fold),
            *_heard_unlabelled(start, task, fold),
        ),
    )
    kept = {
        **config,
        "classes": list(task.classes),
        "kind": task.kind,
        "seconds": task.seconds,
        "task": configs.plain(recipe.task),
        "fold": fold.name,
        "clips": fold.fingerprint(),
        "head": classify.told(found.head),
        **({"adapter": configs.plain(recipe.adapter), "base": base} if few else {}),
    }
    return Outcome(record, found.validation_scores, found.test_scores, {**head, **own}, kept)


def variant(recipe: recipes.Finetune) -> str:
    """The task's settings that are not its defaults: which of its variants this is."""
    config = recipe.task.config
    usual = {field.name: field.default for field in fields(config)}
    told = {name: value for name, value in vars(config).items() if value != usual[name]}
    return " ".join(f"{name}={value}" for name, value in told.items())


def _heard_before(start: Start, task: Task, fold: Fold) -> tuple[str, ...]:
    """A note where the checkpoint was fine-tuned on this task, on other clips than the fold's."""
    before = start.tuned_on
    if start.run is None or before is None or before["task"]["name"] != task.name:
        return ()
    if before["clips"] == fold.fingerprint():
        return ()
    return (
        f"{start.run} was fine-tuned on fold {before['fold']} of {task.name}: it may have learned "
        f"from the test clips of other folds and variants",
    )


def _heard_unlabelled(start: Start, task: Task, fold: Fold) -> tuple[str, ...]:
    """A note where pretraining heard recordings of the test clips."""
    corpus = (
        plugins.load("tasks", task.name).CORPUS if task.name in plugins.names("tasks") else None
    )
    if start.run is None or corpus is None:
        return ()
    marks = {kind: one.numpy().view("uint64") for kind, one in runs.read_heard(start.run).items()}
    names = {example.recording or example.key for example in fold.test}
    count = overlap.heard_among(marks, corpus, names)
    if not count:
        return ()
    return (f"pretraining heard {count} of the {len(names)} test recordings, unlabelled",)


def identity(
    recipe: recipes.Finetune, start: Start, fold: Fold, names: Callable[[Example], str]
) -> str:
    """SHA-256 of all that a score hangs on: settings, weights, and the clips as they lie there.

    Args:
        recipe: how it is adapted.
        start: weights.
        fold: its clips.
        names: gives each clip's name, which changes with its sound.
    """
    told = hashlib.sha256()
    for part, examples in fold.parts().items():
        for example in examples:
            told.update(f"{part} {names(example)} {example.target}".encode())
    settings = {
        "recipe": configs.plain(recipe),
        "weights": runs.weights_digest(start.run) if start.run else None,
        "config": start.config,
    }
    told.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return told.hexdigest()


@dataclass(frozen=True)
class _Found:
    validation: float
    test: float
    validation_scores: Scores
    test_scores: Scores
    head: nn.Module
    trainable: int
    chosen: str


def _closed_form(
    recipe: recipes.Finetune, encoder: Encoder, task: Task, fold: Fold, embeddings: Embed
) -> _Found:
    train, validation, test = (
        probe.part_of(task, embeddings(encoder, examples), examples)
        for examples in fold.parts().values()
    )
    columns = len(task.classes) or 1
    if recipe.adapter.name == "knn":
        near = knn.fit(train, validation, test, columns, _unless_legacy(recipe.knn, task))
        return _Found(
            near.validation, near.test, near.validation_scores, near.test_scores,
            near.head, 0, f"{near.neighbours} neighbours",
        )  # fmt: skip
    line = probe.fit(train, validation, test, columns, _unless_legacy(recipe.probe, task))
    layer = line.linear()
    head = classify.Head(layer.in_features, layer.out_features)
    head.load_state_dict(layer.state_dict())
    return _Found(
        line.validation, line.test, line.validation_scores, line.test_scores,
        head, sum(weight.numel() for weight in head.parameters()), f"strength {line.strength:g}",
    )  # fmt: skip


def _unless_legacy(config: Any, task: Task) -> Any:
    """Where test validates, nothing is fitted on validation clips."""
    return replace(config, refit=False) if task.legacy else config


def _by_gradients(
    recipe: recipes.Finetune,
    adapter: Adapter,
    encoder: Encoder,
    task: Task,
    fold: Fold,
    told: Callable[[int, dict[str, float]], None] | None,
) -> _Found:
    augments = [augment.build() for augment in recipe.augments]
    fitted = supervised.fit(encoder, task, fold, adapter, augments, recipe.training, told)
    chosen = f"epoch {fitted.epoch}" if fitted.epoch else "mean of epochs"
    return _Found(
        fitted.validation, fitted.test, fitted.validation_scores, fitted.test_scores,
        fitted.classifier.head, fitted.trainable, chosen,
    )  # fmt: skip


def start_of(
    recipe: recipes.Finetune, start: Start, task: Task, fold: Fold
) -> tuple[Encoder, dict[str, Any]]:
    """The encoder to begin with, in eval mode, and the ``config.json`` that builds it again.

    Random weights are standardised on the fold's training clips; under LAPE's departures any
    are, on train and test.
    """
    config = copy.deepcopy(dict(start.config)) if start.config is not None else None
    features = recipe.features
    unknown = features.mean is None or features.std is None
    kept = {"mean": features.mean, "std": features.std}
    if task.legacy or (config is None and unknown):
        heard = (*fold.train, *(fold.test if task.legacy else ()))
        found = _statistics(recipe, heard)
        kept = {"mean": found.mean, "std": found.std}
    if config is None:
        clip_frames = features.frames(round(task.seconds * features.sample_rate))
        config = models.model_config(recipe, clip_frames, {n: v or 0.0 for n, v in kept.items()})
    elif task.legacy:
        config["features"] |= kept
    torch.manual_seed(recipe.training.seed)
    encoder = models.build_encoder(config)
    if start.run is not None:
        weights = models.backbone_weights(start.run)
        models.fill_backbone(encoder.backbone, weights, str(start.run))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return encoder.eval().to(device), config


def embedded(encoder: nn.Module, examples: Examples, told: embed.Progress | None = None) -> Rows:
    """What an encoder, or a classifier, makes of clips; several processes share the work."""
    own = gather.share(examples)
    rows = gather.alike(
        lambda: list(embed.embed_examples(encoder, own, progress=told)) if own else []
    )
    keys = [example.key for example in examples]
    return gather.gathered(keys, [example.key for example in own], rows)


def embedded_aloud(title: str, encoder: nn.Module, examples: Examples) -> Rows:
    """:func:`embedded`, telling how far it is."""
    shown = progress.shown if is_first_process() else progress.silent
    with shown(title, len(examples)) as advance:
        return embedded(encoder, examples, embed.telling(advance))


def _statistics(recipe: recipes.Finetune, examples: Sequence[Example]) -> Statistics:
    front_end = plain(recipe.features)

    def sounds() -> Iterable[tuple[Tensor, Tensor]]:
        for example in examples:
            sound = torch.from_numpy(example.waveform(front_end.sample_rate))[None]
            yield sound, torch.tensor([sound.shape[1]])

    return measure(sounds(), front_end)
