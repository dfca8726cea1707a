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
from sslaudio import plugins
from sslaudio.backbones.base import Backbone
from sslaudio.backbones.encoder import Encoder
from sslaudio.data import stream
from sslaudio.downstream import probe as probes
from sslaudio.downstream import supervised
from sslaudio.features import front_end
from sslaudio.plugins import Plugin
from sslaudio.training import checkpoint, loop


def plugin_field(room: str, name: str) -> Any:
    """A dataclass field that holds a plug-in of ``room``, ``name`` unless said otherwise."""
    return field(
        metadata={"room": room},
        default_factory=lambda: Plugin(room, name, plugins.load(room, name).Config()),
    )


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


def find(name: str, kind: str) -> Path:
    """A recipe file: a path as it stands, or a name from ``configs/KIND``.

    Raises:
        ValueError: neither is there; the message lists the names.
    """
    path = Path(name)
    if path.is_file():
        return path
    folder = shipped(kind)
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if path.stem in names and path.name in (path.stem, f"{path.stem}.yaml"):
        return folder / f"{path.stem}.yaml"
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"there is no recipe {name}; {hint}give a YAML file or one of {', '.join(names)}"
    )


def shipped(kind: str) -> Path:
    """Folder of the recipes that come with the package, from a checkout or from a wheel."""
    for folder in (Path(__file__).parents[1] / "configs", Path(__file__).parent / "configs"):
        if (folder / kind).is_dir():
            return folder / kind
    raise ValueError(f"this installation has no recipes for {kind}; give --config a YAML file")


def read(path: Path | None, flags: Sequence[str], schema: type = Pretrain) -> Any:
    """The effective recipe: ``schema``'s defaults < the file < the flags."""
    given = configs.read_yaml(path) if path else {}
    return configs.build(schema, configs.parse_flags(flags, schema, given))


def model_config(recipe: Any, clip_frames: int, statistics: Mapping[str, float]) -> dict[str, Any]:
    """All that it takes to build the encoder again: what ``config.json`` holds.

    Args:
        recipe: has ``features`` and ``backbone``.
        clip_frames: width of a training clip's picture.
        statistics: ``mean`` and ``std`` of the pictures.
    """
    return {
        "format": checkpoint.FORMAT,
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
    encoder = build_encoder(checkpoint.read_config(run))
    fill_backbone(encoder.backbone, checkpoint.read_weights(run), str(run))
    return encoder.eval()


def fill_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Put the ``backbone.`` weights of a run into ``backbone``, positions resized to its grid."""
    own = {
        name.removeprefix("backbone."): value
        for name, value in weights.items()
        if name.startswith("backbone.")
    }
    checkpoint.fill(backbone, cast(Backbone, backbone).fitted(own), source)
