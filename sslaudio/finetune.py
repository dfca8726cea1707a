"""Adapt a checkpoint to a labelled task and score it, wired top to bottom.

    sslaudio finetune --task fsdd --root DIR --checkpoint RUN --protocol linear --out RUN2

``linear`` fits a line on frozen embeddings; ``full`` trains every weight. Without
``--checkpoint`` the weights of ``--backbone`` are random. Validation chooses epoch and strength;
test is scored once. Every fold of the task is run and its model kept; the run's own is that of the
fold that validates best.
"""

import argparse
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslaudio import config as configs
from sslaudio import recipe as recipes
from sslaudio.adapters.base import Adapter
from sslaudio.backbones.encoder import Encoder
from sslaudio.data import progress
from sslaudio.data.processes import cores
from sslaudio.downstream import embed, results, supervised
from sslaudio.downstream import probe as probes
from sslaudio.features.front_end import Config as Features
from sslaudio.features.stats import Statistics, measure, plain
from sslaudio.tasks import sources
from sslaudio.tasks.base import Example, Fold, Task
from sslaudio.training import runs, storage
from sslaudio.training.report import Report, is_first_process, say, speak


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that are no leaves of the recipe."""
    parser.epilog = (
        "--task NAME is required. Every leaf of the recipe is a flag: --task.version v2-10, "
        "--training.epochs 20, --probe.refit false. `sslaudio show task NAME` (training, probe, "
        "adapter NAME, backbone NAME) tells what there is."
    )
    parser.add_argument("--config", help="recipe: a YAML file, or a name from configs/finetune")
    parser.add_argument("--root", type=Path, help="the corpus as published ($SSLAUDIO_DATA/CORPUS)")
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="start from its weights")
    parser.add_argument("--protocol", metavar="ADAPTER", help="full (default) or linear")
    parser.add_argument("--out", type=Path, help="folder of the run (runs/TASK-PROTOCOL-TIME)")


def main(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Fine-tune on every fold, write results, print the table."""
    speak()
    recipe, config = _recipe(arguments, flags)
    torch.set_num_threads(cores())
    root = sources.root_of(recipe.task.name, arguments.root)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            task: Task = recipe.task.build(root)
        finally:
            for warning in warned:
                say(f"warning: {warning.message}")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = arguments.out or Path("runs") / f"{task.name}-{recipe.adapter.name}-{stamp}"
    runs.check_out(out)
    _check_free(out)
    features = recipe.features
    if features.cuts(round(task.seconds * features.sample_rate)):
        say(
            f"warning: clips of {task.name} last {task.seconds:g} s, and features.legacy_frames "
            f"{features.legacy_frames} hears their beginning alone"
        )
    if task.notes:
        say(f"{task.name}: {'; '.join(task.notes)}")
    records: list[results.Record] = []
    with runs.held(out):
        storage.write_text(out / "recipe.yaml", configs.to_yaml(recipe))
        for fold in task.folds:
            folder = out / f"fold-{fold.name}" if len(task.folds) > 1 else out
            records.append(_fold(recipe, config, task, fold, arguments.checkpoint, folder))
            say(
                f"{task.name} {fold.name}: validation {records[-1].validation:.1%}, "
                f"test {records[-1].test:.1%}"
            )
        if len(task.folds) > 1:
            best = max(records, key=lambda record: record.validation)
            runs.copy_weights(out / f"fold-{best.fold}", out)
        results.write(out / "results.json", records)
    say(results.table(records))
    if len(task.folds) > 1:
        say(f"the model in {out} is that of fold {best.fold}; every fold's is below it")
    say(f"done: {out}")
    return 0


def _check_free(out: Path) -> None:
    """Refuse a folder that holds results or another run; one cut short is begun again.

    Raises:
        ValueError: names the folder.
    """
    begun = out / "recipe.yaml"
    other = begun.is_file() and "task" not in configs.read_yaml(begun)
    other |= runs.is_imported(out)
    if (out / "results.json").is_file() or (out / "checkpoints").exists() or other:
        raise ValueError(f"--out {out} holds a run already; give another")


def _recipe(
    arguments: argparse.Namespace, flags: list[str]
) -> tuple[recipes.Finetune, dict[str, Any] | None]:
    """The effective recipe, and the checkpoint's ``config.json`` with the recipe laid over it."""
    path = recipes.find(arguments.config, "finetune") if arguments.config else None
    given = configs.read_yaml(path) if path else {}
    own = None
    if arguments.checkpoint is not None:
        own = runs.read_config(arguments.checkpoint)
        for other in ("head", "objective"):  # the model's own are made below
            own.pop(other, None)
    words = list(flags)
    if arguments.protocol is not None:
        words = ["--adapter", arguments.protocol, *words]
    if "task" not in given and not any(word.split("=")[0] == "--task" for word in words):
        raise ValueError("no task; name one with --task, such as --task speechcommands")
    recipe: recipes.Finetune
    if own is None:
        merged = configs.parse_flags(words, recipes.Finetune, given)
        recipe = configs.build(recipes.Finetune, merged)
    else:
        recipe = recipes.over(own, given, words, recipes.Finetune)
        trained_on = configs.build(Features, own["features"], "features").kind
        if recipe.features.kind != trained_on:
            raise ValueError(
                f"features.kind is {recipe.features.kind}, but {arguments.checkpoint} was trained "
                f"on pictures of kind {trained_on}; leave it out to take the checkpoint's own"
            )
        own["features"] = configs.plain(recipe.features)
        own["backbone"] = configs.plain(recipe.backbone)
    return recipe, own


def _fold(
    recipe: recipes.Finetune,
    config: dict[str, Any] | None,
    task: Task,
    fold: Fold,
    run: Path | None,
    out: Path,
) -> results.Record:
    started = time.perf_counter()
    encoder, config = _encoder(recipe, config, task, fold, run)
    adapter = recipe.adapter.build()
    if adapter.trains == "encoder":
        fitted = _learn(recipe, adapter, encoder, task, fold, out)
        validation, test, trainable = fitted.validation, fitted.test, fitted.trainable
        weights = head_weights(fitted.classifier)
    else:
        adapter.adapt(encoder)
        train, validates, tests = (_embedded(encoder, fold, part) for part in fold.parts())
        line = probes.fit(train, validates, tests, len(task.classes), recipe.probe)
        validation, test, head = line.validation, line.test, line.linear()
        trainable = sum(weight.numel() for weight in head.parameters())
        weights = {f"head.{name}": value for name, value in head.state_dict().items()}
    weights |= {f"backbone.{key}": value for key, value in encoder.backbone.state_dict().items()}
    extra = {"classes": list(task.classes), "task": configs.plain(recipe.task), "fold": fold.name}
    runs.save_weights(out, weights, {**config, **extra})
    return results.record(
        task,
        fold,
        protocol=recipe.adapter.name,
        seed=recipe.training.seed,
        validation=validation,
        test=test,
        checkpoint=run,
        trainable=trainable,
        seconds=time.perf_counter() - started,
    )


def _encoder(
    recipe: recipes.Finetune,
    config: dict[str, Any] | None,
    task: Task,
    fold: Fold,
    run: Path | None,
) -> tuple[Encoder, dict[str, Any]]:
    """The checkpoint's encoder; without one, random weights with the fold's own statistics."""
    torch.manual_seed(recipe.training.seed)
    if config is None:
        features = recipe.features
        clip_frames = features.frames(round(task.seconds * features.sample_rate))
        if features.mean is None or features.std is None:
            found = _statistics(recipe, fold.train)
            kept = {"mean": found.mean, "std": found.std}
        else:
            kept = {"mean": features.mean, "std": features.std}
        config = recipes.model_config(recipe, clip_frames, kept)
    encoder = recipes.build_encoder(config)
    if run is not None:
        recipes.fill_backbone(encoder.backbone, runs.read_weights(run), str(run))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return encoder.eval().to(device), config


def _statistics(recipe: recipes.Finetune, examples: Sequence[Example]) -> Statistics:
    front_end = plain(recipe.features)

    def sounds() -> Iterable[tuple[Tensor, Tensor]]:
        for example in examples:
            sound = torch.from_numpy(example.waveform(front_end.sample_rate))[None]
            yield sound, torch.tensor([sound.shape[1]])

    return measure(sounds(), front_end)


def _embedded(encoder: Encoder, fold: Fold, part: str) -> probes.Part:
    examples = fold.parts()[part]
    with progress.shown(f"{fold.name}, {part}", len(examples)) as advance:
        told = embed.telling(advance)
        embeddings = embed.embed_examples(encoder, examples, progress=told)
    return probes.part_of(embeddings, examples)


def _learn(
    recipe: recipes.Finetune,
    adapter: Adapter,
    encoder: Encoder,
    task: Task,
    fold: Fold,
    out: Path,
) -> supervised.Fitted:
    epochs = recipe.training.epochs
    report = Report(out, epochs, 0, aloud=is_first_process(), unit="epoch")
    began = time.perf_counter()

    def told(epoch: int, scalars: dict[str, float]) -> None:
        report.log(epoch, {f"finetuning/{name}": value for name, value in scalars.items()})
        text = f"loss {scalars['loss']:.3f}  validation {scalars['validation']:.1%}"
        report.show(epoch, text, (time.perf_counter() - began) / epoch * (epochs - epoch))

    augments = [augment.build() for augment in recipe.augments]
    try:
        return supervised.fit(
            encoder,
            fold,
            len(task.classes),
            adapter,
            augments,
            recipe.training,
            told,
        )
    finally:
        report.close()


def head_weights(classifier: supervised.Classifier) -> dict[str, Tensor]:
    """The head as a plain linear layer, the running standardisation folded in."""
    norm, head = classifier.norm, classifier.head
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    weight = head.weight * scale
    return {"head.weight": weight, "head.bias": head.bias - weight @ norm.running_mean}
