"""What every importer gives, and what they all need to read off a vision transformer's weights."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sslaudio.backbones.ast import SIZES, Shape

State = Mapping[str, Tensor]
"""Names to tensors, as a module's ``state_dict``."""

AUDIOSET = (-4.2677393, 4.5689974)
"""Mean and deviation that AST's authors publish; facts of Gong et al. 2021, src/run.py."""
ESC50 = (-6.6268077, 5.358466)
SPEECH_COMMANDS = (-6.845978, 5.5654526)


@dataclass(frozen=True)
class Head:
    """A classifier's head: layer norm, then a linear map of the pooled embedding."""

    weights: dict[str, Tensor]
    """``norm.weight``, ``norm.bias``, ``weight`` [classes, dim] and ``bias``."""
    norm_eps: float
    """Added to the variance."""


@dataclass(frozen=True)
class Asked:
    """What the user sets: where a source does not tell, or to have it otherwise."""

    backbone: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the backbone's ``Config``."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the front end's ``Config``."""
    bins: int = 128
    """Rows of the pictures, by those fields."""
    frames: int | None = None
    """Width of a training clip's picture."""

    @property
    def width(self) -> int:
        """Width for weights that have none of their own; unset: AST's pictures on AudioSet."""
        return self.frames or self.features.get("legacy_frames") or 1024


@dataclass(frozen=True)
class Pretrained:
    """Weights under our names, and all that it takes to build and feed the model."""

    weights: dict[str, Tensor]
    """The backbone's whole state dict."""
    backbone: dict[str, Any]
    """``name`` of the plug-in and fields of its ``Config``."""
    features: dict[str, Any]
    """Fields of the front end's ``Config``."""
    clip_frames: int
    """Width of a training clip's picture."""
    head: Head | None = None
    """Of a classifier."""
    classes: tuple[str, ...] = ()
    """Names of the head's outputs, in order; none where the source has no names."""
    objective: dict[str, Any] | None = None
    """``name`` of the objective whose heads came along, and what they hang on."""
    objective_weights: dict[str, Tensor] = field(default_factory=dict)
    """Those heads, named as in a pretraining run's checkpoint."""
    notes: tuple[str, ...] = ()
    """What the user is to be told: what was assumed, what was left out."""


def sized(dim: int, heads: int, depth: int) -> dict[str, Any]:
    """Fields for a transformer: the size of that name, or all three numbers."""
    for size, shape in SIZES.items():
        if shape == Shape(dim, heads, depth):
            return {"size": size}
    return {"dim": dim, "heads": heads, "depth": depth}


def vit_fields(weights: State, heads: int | None = None) -> dict[str, Any]:
    """Fields of AST's ``Config`` that its weights tell.

    Args:
        weights: under our names, which are timm's.
        heads: how many share dim; unset: dim over 64, as in every ViT and DeiT.

    Raises:
        ValueError: ``heads`` is unset and 64 does not divide dim.
    """
    dim, _, high, wide = weights["patch_embed.proj.weight"].shape
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    if heads is None and dim % 64:
        raise ValueError(
            f"the tokens are {dim} wide, no multiple of the 64 that a head of AST's sizes has; say "
            f"how many heads there are with --backbone.heads N"
        )
    return {
        "name": "ast",
        **sized(dim, heads or dim // 64, depth),
        "patch": [high, wide],
        "prefix_tokens": weights["prefix"].shape[1],
        "prefix_positions": True,
        "mlp_ratio": len(weights["blocks.0.mlp.fc1.weight"]) / dim,
        "qkv_bias": "blocks.0.attn.qkv.bias" in weights,
    }


SHARED = re.compile(
    r"(patch_embed\.proj|norm|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12]))\.(weight|bias)"
)
"""Names that timm's vision transformers and our AST share."""


def encoder_weights(state: State) -> dict[str, Tensor]:
    """What timm's names and ours share: patches, blocks and the last norm, in float32."""
    return {name: value.float() for name, value in state.items() if SHARED.fullmatch(name)}


def prefix_weights(
    tokens: Iterable[Float[Tensor, "1 1 dim"]], positions: Float[Tensor, "1 places dim"]
) -> dict[str, Tensor]:
    """Tokens before the patches with their positions, and a mask token that starts at 0."""
    prefix = torch.cat(list(tokens), dim=1).float()
    return {
        "prefix": prefix,
        "prefix_positions": positions[:, : prefix.shape[1]].float(),
        "mask_token": torch.zeros_like(prefix[:, :1]),
    }


def places(bins: int, frames: int, patch: tuple[int, int], stride: tuple[int, int]) -> int:
    """Places of the grid of a convolution without padding."""
    rows, columns = (
        (size - high) // step + 1
        for size, high, step in zip((bins, frames), patch, stride, strict=True)
    )
    return max(0, rows) * max(0, columns)


def statistics_note(of: str, asked: Asked) -> tuple[str, ...]:
    """What to say of statistics that were assumed; nothing where the user gave both."""
    if {"mean", "std"} <= set(asked.features):
        return ()
    return (f"features.mean and features.std are {of}; set both if others are right",)


def pair(value: Any) -> tuple[int, int]:
    """One number for both axes, or one for each."""
    one, other = value if isinstance(value, list | tuple) else (value, value)
    return int(one), int(other)


HF_PREFIX = "audio_spectrogram_transformer."
"""Before the encoder's names in Hugging Face's classifier."""
MARKS = {
    "ssast": ("cpredlayer.0.weight", "mask_embed"),
    "ast": ("v.patch_embed.proj.weight",),
    "hf": ("embeddings.patch_embeddings.projection.weight",),
    "timm": ("patch_embed.proj.weight", "stages.0.blocks.0.norm1.weight"),
}
"""Names that tell a source, the more telling first."""


def recognised(state: State) -> str | None:
    """The source whose names these are, as ``--from`` wants it."""
    plain = {name.removeprefix("module.").removeprefix(HF_PREFIX) for name in state}
    return next((kind for kind, marks in MARKS.items() if plain & set(marks)), None)


def demand(state: State, names: Iterable[str], kind: str, source: str) -> None:
    """Refuse weights that lack what every model of ``kind`` has.

    Raises:
        ValueError: names what was looked for, and the source that the weights look like.
    """
    for name in names:
        if name not in state:
            found = recognised(state)
            hint = f"it looks like --from {found}" if found not in (None, kind) else None
            raise ValueError(
                f"{source} is no {kind} checkpoint: looked for {name!r} and found "
                f"{', '.join(sorted(state)[:3]) or 'no weights'} …; "
                f"{hint or 'give --from the source it is of'}"
            )
