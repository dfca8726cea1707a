"""Masked patch modelling: tell which patch was hidden where, and what was in it.

Source: Gong et al. 2022 (SSAST, arXiv:2110.09784), section 2.3. Where we differ from its code:
one forward pass and one mask for both losses (it makes two of each); the softmax of InfoNCE runs
over the candidate patches, as the paper's equation 1 has it (the code's runs over predictions);
cosine with a temperature instead of raw products; targets normalised patch by patch, so that the
weight of the squared error is 1 (10 belongs to targets normalised over the dataset); flat patches
are not asked for. ``variant: legacy`` does all of these as SSAST's code does, with its masks; what
else it takes is SSAST's heads, ``activation: relu`` and ``head_dim`` the backbone's dim, and its
``mask_share`` of 0.78125, 400 of 512.

On MAST, whose tokens stand for more of the picture than a patch, patches are hidden on the picture
before the stem, and every token answers for all patches under it (``patch``).
"""

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any, Literal

from sslaudio.backbones.base import Backbone
from sslaudio.backbones.drop import check_share
from sslaudio.objectives.decoder import HEAD_DIM
from sslaudio.objectives.heads import Activation
from sslaudio.objectives.masked_model import MaskedPatch, Settings, Similarity, Targets
from sslaudio.objectives.masks import Shape

LEGACY_FIXES = (
    *("mask_shape", "mask_span", "hide", "patch", "centred", "drop_share"),
    *("similarity", "temperature", "targets", "flat_std"),
)
"""Settings that have no effect in ``variant: legacy``."""


@dataclass(frozen=True)
class Config:
    """What is hidden and how the answers are judged."""

    variant: Literal["paper", "legacy"] = "paper"
    """SSAST as its paper has it, or its published code: raw products, the softmax over predictions,
    targets as they are in the standardised picture and flat ones among them, two passes with two
    masks, clusters that spare low frequencies and the clip's end."""
    mask_share: float = 0.625
    """Share of a clip's patches to hide. SSAST hides 400 of 512."""
    mask_shape: Shape | None = None
    """Each patch by itself, whole columns of time, whole rows of frequency, squares, or all but a
    few squares; unset: uniform (legacy: SSAST's)."""
    mask_span: int | None = None
    """Columns or rows that are hidden in a run, or side of a square; unset: 1, for clusters 3, 4 or
    5 by the clip, for inverse blocks 5."""
    hide: Literal["replace", "drop"] = "replace"
    """What becomes of hidden patches: the backbone sees something learned instead (SSAST), or they
    leave, and a small decoder fills them in (MAE, arXiv:2111.06377). For MAST: whole columns or
    rows may leave."""
    decoder_dim: int | None = None
    """Width of that decoder, a multiple of 32; unset: half of the backbone's dim."""
    decoder_depth: int | None = None
    """Blocks of that decoder; unset: 1."""
    patch: tuple[int, int] | None = None
    """(bins, frames) of what is hidden and predicted; unset: what a token of the backbone stands
    for. On MAST it may be finer: whatever divides that."""
    centred: bool = False
    """Whether the candidates of InfoNCE are first freed of their clip's mean hidden patch: what
    they share (spectral tilt, hum, room) tells none apart, and predicting it earns nothing."""
    drop_share: float = 0.0
    """Share of a clip's patches that leave before the backbone, neither seen nor asked for; rounded
    to what the backbone can drop (whole patches; on MAST whole columns)."""
    similarity: Similarity | None = None
    """Of a prediction and the candidate patches: cosine over a temperature, or the raw product;
    unset: cosine (legacy: raw)."""
    temperature: float | None = None
    """Of the cosine; unset: 0.1."""
    targets: Targets | None = None
    """Patches normalised one by one (mean 0, deviation 1), or as they are in the picture that is
    normalised over the dataset; unset: patch (legacy: dataset)."""
    contrastive_weight: float = 1.0
    """Weight of InfoNCE in the loss."""
    error_weight: float | None = None
    """Weight of the mean squared error in the loss; unset: 10 on targets by dataset, else 1."""
    head_dim: int = 256
    """Hidden width of the two prediction heads."""
    activation: Activation = "gelu"
    """Of the two heads; SSAST's have relu."""
    flat_std: float | None = None
    """A patch of the standardised picture with less deviation than this is flat; unset: 0.1
    (legacy: none is)."""

    def __post_init__(self) -> None:
        if not 0 < self.mask_share < 1:
            raise ValueError(
                f"objective.mask_share is {self.mask_share:g}; it is the share of patches hidden, "
                f"between 0 and 1 (SSAST: 0.78)"
            )
        check_share(self.drop_share)
        for key in ("mask_span", "head_dim", "decoder_depth"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"objective.{key} is {value}; it is at least 1")
        if self.flat_std is not None and self.flat_std <= 0:
            raise ValueError(
                f"objective.flat_std is {self.flat_std:g}; it is above 0, or flat patches would be "
                f"blown up to noise (0.1 is usual)"
            )
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"objective.temperature is {self.temperature:g}; it must be above 0")
        if self.decoder_dim is not None and (self.decoder_dim < 1 or self.decoder_dim % HEAD_DIM):
            raise ValueError(
                f"objective.decoder_dim is {self.decoder_dim}; it is a multiple of {HEAD_DIM}, the "
                f"width of a head"
            )
        self._check_meaning()
        weights = self.contrastive_weight, self.settings.error_weight
        if min(weights) < 0 or not sum(weights):
            raise ValueError(
                f"objective.contrastive_weight is {weights[0]:g} and error_weight {weights[1]:g}; "
                f"neither may be negative, and one must be above 0"
            )

    def _check_meaning(self) -> None:
        """Refuse what another setting makes meaningless."""
        if self.variant == "legacy":
            if said := self._without_effect():
                warnings.warn(
                    f"objective.variant is legacy: masks, axis, targets and passes are those of "
                    f"SSAST's code, and {', '.join(said)} has no effect; set objective.variant to "
                    f"paper to use it",
                    stacklevel=2,
                )
        elif (self.mask_span or 1) > 1 and self.settings.mask_shape == "uniform":
            raise ValueError(
                f"objective.mask_span is {self.mask_span}, but patches are hidden one by one; "
                f"set it to none, or set objective.mask_shape to columns, rows, clusters or "
                f"inverse_blocks"
            )
        if self.temperature is not None and self.similarity == "raw":
            raise ValueError(
                f"objective.temperature is {self.temperature:g}, but raw products have none; "
                f"set it to none, or objective.similarity to cosine"
            )
        for key in ("decoder_dim", "decoder_depth"):
            if self.hide == "replace" and getattr(self, key) is not None:
                raise ValueError(
                    f"objective.{key} is {getattr(self, key)}, but only what was dropped is filled "
                    f"in by a decoder; set it to none, or objective.hide to drop"
                )
        for key in ("centred", "similarity", "temperature"):
            value = getattr(self, key)
            if value and not self.contrastive_weight:
                raise ValueError(
                    f"objective.{key} is {value}, but objective.contrastive_weight is 0: there are "
                    f"no candidates; leave objective.{key} out or raise the weight"
                )

    def _without_effect(self) -> list[str]:
        """What is set that SSAST's code does not know."""
        own = {"similarity": "raw", "targets": "dataset"}
        defaults = type(self).__dataclass_fields__
        return [
            f"objective.{key} {getattr(self, key)}"
            for key in LEGACY_FIXES
            if getattr(self, key) not in (defaults[key].default, own.get(key))
        ]

    @property
    def settings(self) -> Settings:
        """What is in force, set or not."""
        legacy = self.variant == "legacy"
        if legacy and self._without_effect():
            defaults = type(self).__dataclass_fields__
            free: dict[str, Any] = {key: defaults[key].default for key in LEGACY_FIXES}
            return dataclasses.replace(self, **free).settings
        raw = legacy or self.similarity == "raw"
        shape: Shape = self.mask_shape or "uniform"
        spans = {"columns": 1, "rows": 1, "inverse_blocks": 5}
        targets: Targets = self.targets or ("dataset" if legacy else "patch")
        return Settings(
            legacy=legacy,
            mask_share=self.mask_share,
            mask_shape=shape,
            mask_span=self.mask_span or spans.get(shape),
            drops_hidden=self.hide == "drop",
            decoder_dim=self.decoder_dim,
            decoder_depth=self.decoder_depth or 1,
            patch=self.patch,
            centred=self.centred,
            drop_share=self.drop_share,
            temperature=None if raw else self.temperature or 0.1,
            targets=targets,
            contrastive_weight=self.contrastive_weight,
            error_weight=_first(self.error_weight, 10.0 if targets == "dataset" else 1.0),
            head_dim=self.head_dim,
            activation=self.activation,
            flat_std=None if legacy else self.flat_std or 0.1,
        )


def _first(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def build(config: Config, backbone: Backbone) -> MaskedPatch:
    """The objective on ``backbone``."""
    return MaskedPatch(config.settings, backbone)
