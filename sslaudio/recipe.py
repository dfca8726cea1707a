"""What a run is: one config a room, and how the parts are built from them.

In:  a recipe (YAML and flags, see :mod:`sslaudio.config`) or a RUN on disk.
Out: front end, backbone and encoder, and the ``config.json`` that lets others build them again.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from sslaudio import config as configs
from sslaudio.backbones.base import Backbone
from sslaudio.backbones.encoder import Encoder
from sslaudio.data import stream
from sslaudio.downstream import live, supervised
from sslaudio.downstream import probe as probes
from sslaudio.downstream.classify import Classifier, Head
from sslaudio.features import front_end
from sslaudio.plugins import Plugin, plugin_field
from sslaudio.training import loop, runs


@dataclass(frozen=True)
class Pretrain:
    """A pretraining run; the keys stand in the order the sound travels."""

    data: stream.Config = field(default_factory=stream.Config)
    """Which shards, cut how, how many at once."""
    features: front_end.Config = field(default_factory=front_end.Config)
    """How sound becomes a picture."""
    augments: tuple[Plugin, ...] = field(default=(), metadata={"room": "augments"})
    """What is done to the pictures, in this order, once a view."""
    backbone: Plugin = plugin_field("backbones", "ast")
    """What encodes them."""
    objective: Plugin = plugin_field("objectives", "masked_patch")
    """What the backbone is trained by."""
    training: loop.Config = field(default_factory=loop.Config)
    """How long and how fast."""
    knn: live.Config = field(default_factory=live.Config)
    """What the encoder is tried on meanwhile; changes nothing in it."""


@dataclass(frozen=True)
class Finetune:
    """A fine-tuning run; ``--protocol X`` is short for ``--adapter X``."""

    task: Plugin = plugin_field("tasks", "speechcommands")
    """Labelled clips, splits and classes."""
    features: front_end.Config = field(default_factory=front_end.Config)
    """How sound becomes a picture; a checkpoint brings its own."""
    augments: tuple[Plugin, ...] = field(default=(), metadata={"room": "augments"})
    """Done to training pictures where the encoder learns."""
    backbone: Plugin = plugin_field("backbones", "ast")
    """What encodes them; a checkpoint brings its own, the recipe's and flags' fields on top."""
    adapter: Plugin = plugin_field("adapters", "full")
    """What of the encoder learns."""
    probe: probes.Config = field(default_factory=probes.Config)
    """How the head is fitted where nothing in the encoder learns."""
    training: supervised.Config = field(default_factory=supervised.Config)
    """How head and encoder learn where it does."""


@dataclass(frozen=True)
class Model:
    """A front end and a backbone alone: what may be set where weights come in."""

    features: front_end.Config = field(default_factory=front_end.Config)
    """How sound becomes a picture."""
    backbone: Plugin = plugin_field("backbones", "ast")
    """What encodes them."""


ALSO = {"pretrain": ("ablations",)}
"""Folders of ``configs`` whose recipes are of a kind too, beside the one of its name."""


def find(name: str, kind: str) -> Path:
    """A recipe file: a path as it stands, or a name from ``configs/KIND`` and what is :data:`ALSO`.

    Raises:
        ValueError: neither is there; the message lists the names.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = {file.stem: file for file in shipped(kind)}
    if path.name in (path.stem, f"{path.stem}.yaml") and path.stem in known:
        return known[path.stem]
    near = difflib.get_close_matches(path.stem, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"there is no recipe {name}; {hint}give a YAML file or one of {', '.join(known)}"
    )


def shipped(kind: str) -> list[Path]:
    """Recipes that come with the package, from a checkout or from a wheel, those of KIND first."""
    for folder in (Path(__file__).parents[1] / "configs", Path(__file__).parent / "configs"):
        if (folder / kind).is_dir():
            rooms = (kind, *ALSO.get(kind, ()))
            return [file for room in rooms for file in sorted((folder / room).glob("*.yaml"))]
    raise ValueError(f"this installation has no recipes for {kind}; give --config a YAML file")


def read(path: Path | None, flags: Sequence[str], schema: type = Pretrain) -> Any:
    """The effective recipe: ``schema``'s defaults < the file < the flags."""
    given = configs.read_yaml(path) if path else {}
    return configs.build(schema, configs.parse_flags(flags, schema, given))


def over(
    run: Mapping[str, Any], given: Mapping[str, Any], flags: Sequence[str], schema: type
) -> Any:
    """The effective recipe on top of a RUN: its front end and backbone < ``given`` < the flags.

    Args:
        run: its ``config.json``.
        given: keys of a recipe.
        flags: leaves, as words.
        schema: what to build.
    """
    name = run["backbone"]["name"]
    said = configs.parse_flags(flags, schema, {**given, "backbone": given.get("backbone") or name})
    backbone = said["backbone"] if isinstance(said["backbone"], dict) else {"name": name}
    if backbone["name"] == name:
        backbone = {**run["backbone"], **backbone}
    features = features_over(run["features"], said.get("features") or {})
    return configs.build(schema, {**said, "features": features, "backbone": backbone})


def features_over(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings laid over those of a front end; what belongs to another kind or pad rule goes."""
    kind = own.get("kind", front_end.Config.kind)
    if given.get("kind", kind) != kind:
        return dict(given)
    laid = {**own, **given}
    if laid.get("pad") == "masked" and "legacy_frames" not in given:
        laid["legacy_frames"] = None
    return laid


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
    encoder = build_encoder(runs.read_config(run))
    fill_backbone(encoder.backbone, runs.read_weights(run), str(run))
    return encoder.eval()


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
    if not own or not config.get("classes"):
        raise ValueError(
            f"{run} has no head that tells classes apart; fine-tune it (sslaudio finetune --task "
            f"NAME --checkpoint {run} --out RUN2), or import weights of a classifier"
        )
    encoder, classes = build_encoder(config), tuple(config["classes"])
    fill_backbone(encoder.backbone, weights, str(run))
    head = Head(encoder.dim, len(classes), config.get("head", {}).get("norm_eps"))
    runs.fill(head, own, f"the head of {run}")
    return Classifier(encoder, head, classes).eval()


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


def fill_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Put the ``backbone.`` weights of a run into ``backbone``, positions resized to its grid."""
    own = {
        name.removeprefix("backbone."): value
        for name, value in weights.items()
        if name.startswith("backbone.")
    }
    runs.fill(backbone, cast(Backbone, backbone).fitted(own), source)
