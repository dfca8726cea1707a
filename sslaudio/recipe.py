"""What a run is: one config a room.

In:  a recipe (YAML and flags, see :mod:`sslaudio.config`).
Out: its dataclasses; :mod:`sslaudio.models` builds the parts from them.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslaudio import config as configs
from sslaudio.data import stream
from sslaudio.downstream import knn as neighbours
from sslaudio.downstream import live, supervised
from sslaudio.downstream import probe as probes
from sslaudio.features import front_end
from sslaudio.plugins import Plugin, plugin_field
from sslaudio.training import loop


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
    """How it is adapted: what of the encoder learns, and which head it gets."""
    probe: probes.Config = field(default_factory=probes.Config)
    """How the line of protocol linear is fitted."""
    knn: neighbours.Config = field(default_factory=neighbours.Config)
    """How the neighbours of protocol knn vote."""
    training: supervised.Config = field(default_factory=supervised.Config)
    """How head and encoder learn where they do by gradients."""


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
