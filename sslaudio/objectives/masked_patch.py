"""Masked patch modelling: tell which patch was hidden where, and what was in it.

Source: Gong et al. 2022 (SSAST, arXiv:2110.09784), section 2.3. Where we differ from its code:
one forward pass and one mask for both losses (it makes two of each); the softmax of InfoNCE runs
over the candidate patches, as the paper's equation 1 has it (the code's runs over predictions);
cosine with a temperature instead of raw products; targets normalised patch by patch, so that the
weight of the squared error is 1 (10 belongs to targets normalised over the dataset).

A flat patch looks like any other flat patch, and a padded one is no sound: neither is a target nor
a candidate.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sslaudio.augments.base import Draws
from sslaudio.backbones.base import Backbone, Kept, Tokens, at, sounding
from sslaudio.backbones.drop import keep
from sslaudio.objectives.base import View, masked_mean, spread
from sslaudio.objectives.heads import Activation, Predictor
from sslaudio.objectives.masks import hide


@dataclass(frozen=True)
class Config:
    """What is hidden and how the answers are judged."""

    mask_share: float = 0.625
    """Share of a clip's patches to hide. SSAST hides 400 of 512."""
    mask_shape: Literal["uniform", "columns", "clusters"] = "uniform"
    """Each patch by itself, whole columns of time, or squares."""
    mask_span: int = 1
    """Columns that are hidden in a row (``columns``), or side of a square (``clusters``)."""
    centred: bool = False
    """Whether the candidates of InfoNCE are first freed of their clip's mean hidden patch: what
    they share (spectral tilt, hum, room) tells none apart, and predicting it earns nothing."""
    drop_share: float = 0.0
    """Share of a clip's patches that leave before the backbone, neither seen nor asked for; rounded
    to what the backbone can drop (whole patches; on MAST whole columns)."""
    temperature: float = 0.1
    """Of the cosine between a prediction and the candidate patches."""
    contrastive_weight: float = 1.0
    """Weight of InfoNCE in the loss."""
    error_weight: float = 1.0
    """Weight of the mean squared error in the loss."""
    head_dim: int = 256
    """Hidden width of the two prediction heads."""
    activation: Activation = "gelu"
    """Of the two heads; SSAST's have relu."""
    flat_std: float = 0.1
    """A patch of the standardised picture with less deviation than this is flat."""

    def __post_init__(self) -> None:
        if not 0 < self.mask_share < 1:
            raise ValueError(
                f"objective.mask_share is {self.mask_share:g}; it is the share of patches hidden, "
                f"between 0 and 1 (SSAST: 0.78)"
            )
        if not 0 <= self.drop_share < 1:
            raise ValueError(
                f"objective.drop_share is {self.drop_share:g}; it is the share of patches dropped, "
                f"at least 0 and under 1 (SS-MAST: 0.2)"
            )
        for key in ("mask_span", "head_dim"):
            if getattr(self, key) < 1:
                raise ValueError(f"objective.{key} is {getattr(self, key)}; it is at least 1")
        if self.flat_std <= 0:
            raise ValueError(
                f"objective.flat_std is {self.flat_std:g}; it is above 0, or flat patches would be "
                f"blown up to noise (0.1 is usual)"
            )
        if self.temperature <= 0:
            raise ValueError(f"objective.temperature is {self.temperature:g}; it must be above 0")
        if min(self.contrastive_weight, self.error_weight) < 0 or not (
            self.contrastive_weight + self.error_weight
        ):
            raise ValueError(
                f"objective.contrastive_weight is {self.contrastive_weight:g} and error_weight "
                f"{self.error_weight:g}; neither may be negative, and one must be above 0"
            )


@dataclass
class Question:
    """What is asked of the model for a micro-batch."""

    hidden: Bool[Tensor, "clips patches"]
    """Patches that are replaced."""
    index: Int[Tensor, "clips asked"]
    """Hidden patches of each clip, filled up with others to the largest count."""
    asked: Bool[Tensor, "clips asked"]
    """Which of ``index`` are hidden, wholly sound and not flat."""
    targets: Float[Tensor, "clips asked values"]
    """The patches at ``index``, each normalised to mean 0 and deviation 1."""
    kept: Kept | None
    """Patches that go through the backbone; unset: all."""


class MaskedPatch(nn.Module):
    """A backbone with the two heads of SSAST."""

    views = 1

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        if any(step < size for step, size in zip(backbone.stride, backbone.patch, strict=True)):
            raise ValueError(
                f"backbone.stride is {backbone.stride} and backbone.patch {backbone.patch}: what "
                f"is hidden in a patch would be seen in its neighbours; set backbone.stride to "
                f"none here, and as you like when fine-tuning"
            )
        self.config = config
        self.backbone = backbone
        values = backbone.patch[0] * backbone.patch[1]
        sizes = (backbone.dim, config.head_dim, values)
        self.tell = Predictor(*sizes, config.activation)
        self.rebuild = Predictor(*sizes, config.activation)

    def forward(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Loss and parts of a micro-batch; ``views`` holds one view.

        Returns:
            ``loss`` and its parts ``info_nce`` and ``squared_error``, means over patches, then
            clips; ``accuracy`` of finding the right patch among ``candidates`` patches, and
            ``chance``, what guessing would give; ``hidden_share`` of the patches that stay and
            ``dropped_share`` of all; ``spread`` of the clips' mean tokens.
        """
        (view,) = views
        question = self.ask(view, draws)
        tokens, on_grid, sound = self._encode(view, question)
        asked = at(on_grid, question.index)
        told, rebuilt = self.tell(asked).float(), self.rebuild(asked).float()
        targets = question.targets
        candidates = centre(targets, question.asked) if self.config.centred else targets
        info_nce, found = contrast(told, candidates, question.asked, self.config.temperature)
        error = masked_mean((rebuilt - targets).square().mean(dim=2), question.asked)
        count = question.asked.sum(dim=1).float()
        loss = (
            self.config.contrastive_weight * info_nce.mean()
            + self.config.error_weight * error.mean()
        )
        dropped = {} if question.kept is None else {"dropped_share": question.kept.share}
        return {
            "loss": loss,
            "info_nce": info_nce.mean().detach(),
            "squared_error": error.mean().detach(),
            "accuracy": found.sum() / count.sum().clamp(min=1),
            "chance": (count > 0).sum() / count.sum().clamp(min=1),
            "candidates": count.mean(),
            "hidden_share": (question.hidden & sound).sum() / sound.sum(),
            "spread": spread(_mean_token(tokens)),
            **dropped,
        }

    def after_step(self, step: int, steps: int) -> None:
        """No teacher to move."""

    def ask(self, view: View, draws: Draws) -> Question:
        """Choose the patches to hide and lay out the targets."""
        patches = self.backbone.patchify(view.pictures)
        grid = self.backbone.grid(view.pictures.shape[2])
        sound = sounding(grid, self.backbone.columns(view.frames))
        # The last column of a clip may be part padding: hidden like any other, but not asked for.
        whole = sounding(grid, self.backbone.whole_columns(view.frames))
        config, kept = self.config, None
        if config.drop_share:
            width = view.pictures.shape[2]
            kept = keep(self.backbone, view.frames, width, config.drop_share, draws)
            sound = torch.zeros_like(sound).scatter(1, kept.index, kept.sound)
        hidden = hide(config.mask_shape, config.mask_span, config.mask_share, sound, grid, draws)
        whole &= hidden
        most = max(1, int(whole.sum(dim=1).max()))
        index = whole.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        targets = at(patches, index)
        std, mean = std_mean(targets)
        asked = whole.gather(1, index) & (std[..., 0] >= config.flat_std)
        targets = (targets - mean) / std.clamp(min=config.flat_std)
        return Question(hidden, index, asked, targets, kept)

    def _encode(
        self, view: View, question: Question
    ) -> tuple[Tokens, Float[Tensor, "clips patches dim"], Bool[Tensor, "clips patches"]]:
        """Tokens; the same on the whole grid; and where there is one that is sound."""
        tokens = self.backbone(
            view.pictures, view.frames, hidden=question.hidden, kept=question.kept
        )
        if question.kept is None:
            return tokens, tokens.patches, tokens.sound
        laid, sound = tokens.laid()
        return tokens, laid.flatten(1, 2), sound.flatten(1)

    @torch.no_grad()
    def pictures(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Input, what the model sees of it, and what it makes of the hidden patches."""
        (view,) = views
        question = self.ask(view, draws)
        _, on_grid, sound = self._encode(view, question)
        patches = self.backbone.patchify(view.pictures)
        std, mean = std_mean(patches)
        rebuilt = self.rebuild(on_grid).float() * std + mean
        hidden = question.hidden[..., None]
        return {
            "1_input": self._picture(patches, view),
            "2_seen": self._picture(patches.masked_fill(hidden | ~sound[..., None], 0.0), view),
            "3_rebuilt": self._picture(torch.where(hidden, rebuilt, patches), view),
        }

    def _picture(
        self, patches: Float[Tensor, "clips patches values"], view: View
    ) -> Float[Tensor, "clips bins frames"]:
        return rearrange(
            patches,
            "clips (rows columns) (high wide) -> clips (rows high) (columns wide)",
            rows=self.backbone.grid(view.pictures.shape[2]).rows,
            high=self.backbone.patch[0],
        )


def contrast(
    told: Float[Tensor, "clips asked values"],
    targets: Float[Tensor, "clips asked values"],
    asked: Bool[Tensor, "clips asked"],
    temperature: float,
) -> tuple[Float[Tensor, " clips"], Float[Tensor, " clips"]]:
    """InfoNCE of each prediction among its own clip's hidden patches.

    Args:
        told: predictions.
        targets: the patches; prediction i belongs to patch i.
        asked: which places hold a question; the others are no candidates either.
        temperature: of the cosine.

    Returns:
        Each clip's loss (mean over its questions; 0 where it has none) and how many of its
        patches were found.
    """
    with torch.autocast(told.device.type, enabled=False):
        told = told.float()
        length = told.norm(dim=2, keepdim=True).clamp(min=1e-12)
        targets = nn.functional.normalize(targets.float(), dim=2)
        # Dividing the products costs a fraction of dividing the predictions, most of it backward.
        logits = told @ targets.transpose(1, 2) / (length * temperature)
    logits = logits.masked_fill(~asked[:, None], torch.finfo(logits.dtype).min)
    right = torch.arange(logits.shape[1], device=logits.device)
    surprise = -logits.log_softmax(dim=2).diagonal(dim1=1, dim2=2)
    found = (logits.argmax(dim=2) == right) & asked
    return masked_mean(surprise, asked), found.sum(dim=1).float()


def centre(
    targets: Float[Tensor, "clips asked values"], asked: Bool[Tensor, "clips asked"]
) -> Float[Tensor, "clips asked values"]:
    """Take the mean of each clip's hidden patches off them."""
    count = asked.sum(dim=1).clamp(min=1)[:, None, None]
    return targets - torch.where(asked[..., None], targets, 0.0).sum(dim=1, keepdim=True) / count


def std_mean(
    patches: Float[Tensor, "clips patches values"],
) -> tuple[Float[Tensor, "clips patches 1"], Float[Tensor, "clips patches 1"]]:
    """Deviation and mean of each patch; several times as fast on a CPU as ``torch.std_mean``."""
    mean = patches.mean(dim=2, keepdim=True)
    return (patches - mean).square().mean(dim=2, keepdim=True).sqrt(), mean


def _mean_token(tokens: Tokens) -> Float[Tensor, "clips dim"]:
    sound = tokens.sound[..., None]
    total = torch.where(sound, tokens.patches, 0.0).sum(dim=1)
    return cast(Tensor, total / sound.sum(dim=1))


def build(config: Config, backbone: Backbone) -> MaskedPatch:
    """The objective on ``backbone``."""
    return MaskedPatch(config, backbone)
