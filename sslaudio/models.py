"""A model on disk and in memory: front end, backbone, adapter and head of a RUN.

In:  a RUN's ``config.json`` and weights.
Out: an encoder, a classifier; what a RUN holds of each.

A run that trained few weights (an adapter, a head) holds these alone and names the base that they
belong on: where it lay, and the SHA-256 of its backbone's weights, which is checked.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sslaudio import config as configs
from sslaudio.adapters.base import Adapter
from sslaudio.backbones.base import Backbone
from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream.classify import Classifier, build_head
from sslaudio.features import front_end
from sslaudio.plugins import Plugin
from sslaudio.training import runs

BASE = "SSLAUDIO_BASE"
"""Environment variable: where to look for the base of an adapted run first."""


def model_config(recipe: Any, clip_frames: int, statistics: Mapping[str, float]) -> dict[str, Any]:
    """All that it takes to build the encoder again: what ``config.json`` holds.

    Args:
        recipe: has ``features`` and ``backbone``.
        clip_frames: width of a training clip's picture.
        statistics: ``mean`` and ``std`` of the pictures.
    """
    return {
        "format": runs.FORMAT,
        "features": {**configs.plain(recipe.features), **statistics},
        "backbone": configs.plain(recipe.backbone),
        "clip_frames": clip_frames,
    }


def build_encoder(config: Mapping[str, Any]) -> Encoder:
    """An encoder with random weights, as a ``config.json`` describes it."""
    features = configs.build(front_end.Config, config["features"], "features")
    chosen = configs.plugin("backbones", config["backbone"], "backbone")
    backbone = chosen.build(features.bins, config["clip_frames"])
    return Encoder(
        front_end.FrontEnd(features),
        backbone,
        chosen.config.pooling,
        chosen.config.pooled_block,
        config["clip_frames"],
    )


def load_encoder(run: Path) -> Encoder:
    """The encoder of a RUN or of one of its checkpoints, in eval mode."""
    return _encoder(run, runs.read_config(run), runs.read_weights(run)).eval()


def load_classifier(run: Path) -> Classifier:
    """Encoder and head of a RUN, in eval mode.

    Raises:
        ValueError: the RUN has no head.
    """
    config, weights = runs.read_config(run), runs.read_weights(run)
    own = {
        name.removeprefix("head."): value
        for name, value in weights.items()
        if name.startswith("head.")
    }
    kind = config.get("kind", "single")
    if not own or not (config.get("classes") or kind == "number"):
        raise ValueError(
            f"{run} has no head that tells classes apart; fine-tune it (sslaudio finetune --task "
            f"NAME --checkpoint {run} --out RUN2), or import weights of a classifier"
        )
    encoder, classes = _encoder(run, config, weights), tuple(config.get("classes", ()))
    head = build_head(config.get("head", {}), encoder, len(classes) or 1)
    runs.fill(head, own, f"the head of {run}")
    return Classifier(encoder, head, classes, kind, config.get("seconds")).eval()


def backbone_weights(run: Path) -> dict[str, Tensor]:
    """The weights of a RUN with those of its backbone as plain ones, whatever adapted it.

    Raises:
        ValueError: what adapted it cannot be folded into plain weights.
    """
    config, weights = runs.read_config(run), runs.read_weights(run)
    if "base" not in config:
        return weights
    encoder = _encoder(run, config, weights)
    _adapter(config).merge(encoder)
    others = {name: value for name, value in weights.items() if not name.startswith("backbone.")}
    return {**others, **named(encoder.backbone.state_dict())}


def learned(backbone: nn.Module) -> dict[str, Tensor]:
    """What an adapter lets learn in a backbone, by the names of the run's weights."""
    kept = {name: value for name, value in backbone.named_parameters() if value.requires_grad}
    return named(kept)


def named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a backbone under the names that a run holds them by."""
    return {f"backbone.{name}": value.detach() for name, value in weights.items()}


def base_of(backbone: nn.Module, run: Path | None, seed: int, out: Path) -> dict[str, Any]:
    """What an adapted run says of its base, before anything is put into it.

    Args:
        backbone: of the base, as the adapted run builds it.
        run: where its weights came from; None for random ones of ``seed``.
        seed: of random weights.
        out: the adapted run.
    """
    told: dict[str, Any] = {"sha256": runs.digest(backbone), "seed": seed, "run": None}
    if run is not None:
        told["run"] = str(run)
        told["beside"] = os.path.relpath(run, out)
    return told


def copy_run(source: Path, run: Path) -> None:
    """Make the model of ``source`` that of ``run``; where its base lies is told from there."""
    config = runs.read_config(source)
    if "base" in config and config["base"]["run"] is not None:
        base = {**config["base"], "beside": os.path.relpath(source / config["base"]["beside"], run)}
        config["base"] = base
    runs.save_weights(run, runs.read_weights(source), config)


def _encoder(run: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Encoder:
    """The encoder of a RUN with its weights, adapted as it was."""
    if "base" not in config:
        encoder = build_encoder(config)
        fill_backbone(encoder.backbone, weights, str(run))
        return encoder
    encoder = _base(run, config)
    with torch.random.fork_rng(devices=[]):
        _adapter(config).adapt(encoder)
    there = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    wanted = learned(encoder.backbone)
    if {name: value.shape for name, value in wanted.items()} != {
        name: value.shape for name, value in there.items()
    }:
        raise ValueError(
            f"{run} does not hold what its adapter {config['adapter']['name']} learns; it was "
            f"written by another version, or damaged: fine-tune again"
        )
    state = {name.removeprefix("backbone."): value for name, value in there.items()}
    encoder.backbone.load_state_dict(state, strict=False)
    encoder.requires_grad_(False)
    return encoder


def _adapter(config: Mapping[str, Any]) -> Adapter:
    adapter: Adapter = configs.plugin("adapters", config["adapter"], "adapter").build()
    return adapter


def _base(run: Path, config: Mapping[str, Any]) -> Encoder:
    """The encoder that an adapted run belongs on, by its hash.

    Raises:
        ValueError: it is nowhere, or holds other weights now.
    """
    base = config["base"]
    looked = []
    for place in _places(run, base):
        if place is not None and not (place / runs.WEIGHTS).is_file():
            looked.append(f"{place} (not there)")
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(base["seed"])
            encoder = build_encoder(config)
        try:
            if place is not None:
                fill_backbone(encoder.backbone, backbone_weights(place), str(place))
        except ValueError:  # another model lies there
            looked.append(f"{place} (another model)")
            continue
        if runs.digest(encoder.backbone) == base["sha256"]:
            return encoder
        looked.append(f"{place or 'random weights of its seed'} (other weights)")
    raise ValueError(
        f"{run} holds adapted weights alone, and the base they belong on (SHA-256 "
        f"{base['sha256'][:12]}…) is not found: looked at {', '.join(looked)}; set ${BASE} to the "
        f"run that has it"
    )


def _places(run: Path, base: Mapping[str, Any]) -> Iterator[Path | None]:
    """Where a base may lie; None: nowhere, it is made of its seed."""
    if base["run"] is None:
        yield None
        return
    if os.environ.get(BASE):
        yield Path(os.environ[BASE])
    yield Path(base["run"])
    yield runs.run_folder(run) / base["beside"]


def fill_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Put the ``backbone.`` weights of a run into ``backbone``, positions resized to its grid."""
    own = {
        name.removeprefix("backbone."): value
        for name, value in weights.items()
        if name.startswith("backbone.")
    }
    runs.fill(backbone, cast(Backbone, backbone).fitted(own), source)


HEADS_HANG_ON = (
    *("head_dim", "activation", "targets", "patch"),
    *("hide", "decoder_dim", "decoder_depth"),
)
"""Settings of an objective, as they are in force, that its heads' weights hang on."""


def fill_heads(objective: nn.Module, chosen: Plugin, run: Path) -> str | None:
    """Put the heads of pretraining that a RUN holds into ``objective`` where they fit.

    Args:
        objective: is changed.
        chosen: its plug-in.
        run: may hold none, as a RUN of ours does: its checkpoints have them.

    Returns:
        What to say of it; None where the RUN holds no heads.
    """
    # A classifier's head is none of pretraining's; what a run counted and remembered stays its own.
    aside: tuple[str, ...] = ("backbone.", "untrained", "queue.")
    if runs.read_config(run).get("classes"):
        aside = (*aside, "head.")
    there = {
        name: value for name, value in runs.read_weights(run).items() if not name.startswith(aside)
    }
    if not there:
        return None
    state = objective.state_dict()
    here = {name: value for name, value in state.items() if not name.startswith(aside)}
    names = ", ".join(sorted({name.split(".")[0] for name in there}))
    trained = runs.read_config(run).get("objective", {})
    if trained.get("name", chosen.name) != chosen.name:
        return f"{run}: {names} are left out, they are of objective {trained['name']}"
    for key in HEADS_HANG_ON:
        ours, theirs = _in_force(chosen.config, key), _trained_with(trained, key)
        if theirs is not None and ours != theirs:
            flag = " ".join(map(str, theirs)) if isinstance(theirs, tuple) else theirs
            return (
                f"{run}: {names} are left out, objective.{key} is {ours} here and {theirs} there; "
                f"add --objective.{key} {flag} to take them"
            )
    if {name: value.shape for name, value in here.items()} != {
        name: value.shape for name, value in there.items()
    }:
        return f"{run}: {names} are left out, the heads of objective {chosen.name} differ"
    objective.load_state_dict({**state, **there})
    return f"{run}: {names} come along"


def _trained_with(objective: Mapping[str, Any], key: str) -> Any:
    """A setting that was in force for the objective of a ``config.json``."""
    if "name" not in objective:
        return None
    return _in_force(configs.plugin("objectives", objective, "objective").config, key)


def _in_force(config: Any, key: str) -> Any:
    """A setting of an objective: from its ``settings``, where these say what is in force."""
    return getattr(getattr(config, "settings", config), key, getattr(config, key, None))
