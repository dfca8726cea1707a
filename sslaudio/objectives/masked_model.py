"""A backbone with the two heads of masked patch modelling: the losses of one batch.

In:  a view of a batch; :class:`Settings`, what is in force of the objective's config.
Out: the loss and its parts, and pictures of question and answer.

The settings are explained and checked in :mod:`sslaudio.objectives.masked_patch`.
"""

from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sslaudio.augments.base import Draws
from sslaudio.backbones.base import Backbone, Tokens, at
from sslaudio.backbones.drop import keep, staying
from sslaudio.objectives.base import View, masked_mean, spread, touched
from sslaudio.objectives.decoder import HEAD_DIM, Decoder
from sslaudio.objectives.heads import Activation, Predictor
from sslaudio.objectives.legacy import hide_as_ssast
from sslaudio.objectives.losses import centre, contrast, std_mean
from sslaudio.objectives.masks import Area, Shape, hide
from sslaudio.objectives.questions import Cells, Question, lay_out

Similarity = Literal["cosine", "raw"]
"""How a prediction is compared with a patch."""
Targets = Literal["patch", "dataset"]
"""What the values that are to be predicted are normalised over."""


class Settings(NamedTuple):
    """What is in force; names as in the objective's config, but where one says more."""

    legacy: bool
    mask_share: float
    mask_shape: Shape
    mask_span: int | None
    """None: drawn by the clip."""
    drops_hidden: bool
    decoder_dim: int | None
    """None: half of the backbone's."""
    decoder_depth: int
    patch: tuple[int, int] | None
    """None: the backbone's."""
    centred: bool
    drop_share: float
    temperature: float | None
    """None: raw products."""
    targets: Targets
    contrastive_weight: float
    error_weight: float
    head_dim: int
    activation: Activation
    flat_std: float | None
    """None: none is flat."""


class Pass(NamedTuple):
    """A question, and the encoder's answer to it."""

    question: Question
    tokens: Tokens
    on_grid: Float[Tensor, "clips tokens dim"]
    """What the heads read, for every place of the grid."""


class MaskedPatch(nn.Module):
    """A backbone with the two heads of SSAST, and a decoder where hidden patches are dropped."""

    views = 1
    embeddings: Float[Tensor, "1 clips dim"] | None = None
    """Mean tokens of the last call's clips, without gradient; none before the first."""

    def __init__(self, settings: Settings, backbone: Backbone) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = backbone
        self.cells = Cells(backbone, settings.patch)
        dim, self.decoder = backbone.dim, None
        self.drop_shape = _check_shape(settings, self.cells) if settings.drops_hidden else None
        if settings.mask_shape == "rows" and self.cells.rows == 1:
            raise ValueError(
                "objective.mask_shape is rows, but the picture is one row of patches: all would "
                "be hidden; set it to columns, or backbone.patch (on MAST objective.patch) to "
                "fewer bins"
            )
        if settings.drops_hidden:
            dim = settings.decoder_dim or HEAD_DIM * max(1, -(-backbone.dim // (2 * HEAD_DIM)))
            self.decoder = Decoder(backbone.dim, dim, settings.decoder_depth)
        sizes = (dim, settings.head_dim, self.cells.per_token * self.cells.values)
        self.tell = Predictor(*sizes, settings.activation)
        self.rebuild = Predictor(*sizes, settings.activation)

    def forward(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Loss and parts of a micro-batch; ``views`` holds one view.

        Returns:
            ``loss`` and its parts ``info_nce`` and ``squared_error``, means over patches, then
            clips; ``accuracy`` of finding the right patch among ``candidates`` patches, and
            ``chance``, what guessing would give; ``hidden_share`` of the patches that stay and
            ``dropped_share`` of all; ``spread`` of the clips' mean tokens.
        """
        (view,) = views
        telling, rebuilding = self._passes(view, draws)
        settings, question = self.settings, telling.question
        told = self._answers(self.tell, telling)
        candidates = self._normalised(question.targets)
        if settings.centred:
            candidates = centre(candidates, question.asked)
        info_nce, found = contrast(
            told, candidates, question.asked, settings.temperature, settings.legacy
        )
        rebuilt = self._answers(self.rebuild, rebuilding)
        wrong = rebuilt - self._normalised(rebuilding.question.targets)
        error = masked_mean(wrong.square().mean(dim=2), rebuilding.question.asked)
        loss = (
            settings.contrastive_weight * info_nce.mean()
            + settings.error_weight * error.mean()
            + (touched(getattr(self.backbone, "mask_token", None)) if self.decoder else 0.0)
        )
        mean_token = _mean_token(telling.tokens).detach().float()
        self.embeddings = mean_token[None]
        count = question.asked.sum(dim=1).float()
        parts = {
            "loss": loss,
            "info_nce": info_nce.mean().detach(),
            "squared_error": error.mean().detach(),
            "accuracy": found.sum() / count.sum().clamp(min=1),
            "chance": (count > 0).sum() / count.sum().clamp(min=1),
            "candidates": count.mean(),
            "hidden_share": question.hidden.sum() / question.stays.sum(),
            "spread": spread(mean_token),
        }
        if question.dropped_share is not None:
            parts["dropped_share"] = question.dropped_share
        return parts

    def after_step(self, step: int, steps: int) -> None:
        """No teacher to move."""

    def ask(self, view: View, draws: Draws) -> Question:
        """Choose the patches to hide and lay out the targets."""
        width = view.pictures.shape[2]
        if width < self.cells.patch[1]:
            raise ValueError(
                f"pictures of {width} frames hold no whole patch of {self.cells.patch[1]}, so that "
                f"nothing can be asked for: raise data.clip_seconds, or set backbone.patch (on "
                f"MAST objective.patch, or backbone.stem_stride) to fewer frames"
            )
        settings, cells, area = self.settings, self.cells, self.cells.area(view)
        kept = None
        if settings.drop_share:
            kept = keep(self.backbone, view.frames, width, settings.drop_share, draws)
            stays = torch.zeros_like(cells.by_token(area.free, area.grid)[..., 0])
            stays = stays.scatter(1, kept.index, kept.sound)
            area = area._replace(free=area.free & cells.spread(stays, area.grid))
        dropped_share = None if kept is None else kept.share
        if settings.legacy:
            hidden = hide_as_ssast(settings.mask_share, area, draws)
        else:
            shape, span = settings.mask_shape, settings.mask_span
            hidden = hide(shape, span, settings.mask_share, area, draws)
        if self.drop_shape is not None:
            hidden = hidden & _leaves_some(hidden, area, self.drop_shape)
            patches = area.columns * area.rows
            kept = staying(area.free & ~hidden, area.grid, self.drop_shape, patches)
        asked = lay_out(cells, view, hidden, settings.flat_std)
        return Question(area.grid, hidden, area.free, *asked, kept, dropped_share)

    def _passes(self, view: View, draws: Draws) -> tuple[Pass, Pass]:
        """What InfoNCE judges, and what the squared error: the same but for SSAST's code."""
        first = self._encode(view, self.ask(view, draws))
        if not self.settings.legacy:
            return first, first
        return first, self._encode(view, self.ask(view, draws))

    def _encode(self, view: View, question: Question) -> Pass:
        """Tokens of what is not hidden, and a token for every place of the grid."""
        if self.decoder is not None:
            tokens = self.backbone(view.pictures, view.frames, kept=question.kept)
            return Pass(question, tokens, self.decoder(tokens, question.hidden, view.frames))
        hidden = self.cells.given(question.hidden, question.grid)
        tokens = self.backbone(view.pictures, view.frames, hidden=hidden, kept=question.kept)
        if question.kept is None:
            return Pass(question, tokens, tokens.patches)
        return Pass(question, tokens, tokens.laid()[0].flatten(1, 2))

    def _answers(self, head: Predictor, given: Pass) -> Float[Tensor, "clips asked values"]:
        """What a head says of the cells that are asked for."""
        said = head(at(given.on_grid, given.question.index)).float()
        return said.unflatten(2, (self.cells.per_token, -1)).flatten(1, 2)

    def _normalised(
        self, targets: Float[Tensor, "clips asked values"]
    ) -> Float[Tensor, "clips asked values"]:
        if self.settings.targets == "dataset":
            return targets
        std, mean = std_mean(targets)
        return (targets - mean) / std.clamp(min=self.settings.flat_std)

    @torch.no_grad()
    def pictures(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Input, what the model sees of it (NaN: hidden), and what it makes of what is hidden."""
        (view,) = views
        question, _, on_grid = self._passes(view, draws)[1]
        cells, grid = self.cells, question.grid
        patches = cells.cut(view.pictures)
        rebuilt = self.rebuild(on_grid).float().unflatten(2, (cells.per_token, -1))
        if self.settings.targets == "patch":
            std, mean = std_mean(patches)
            rebuilt = rebuilt * std + mean
        hidden = cells.by_token(question.hidden, grid)[..., None]
        seen = cells.by_token(question.stays & ~question.hidden, grid)[..., None]
        return {
            "1_input": cells.picture(patches, grid),
            "2_seen": cells.picture(patches.where(seen, torch.nan), grid),
            "3_rebuilt": cells.picture(torch.where(hidden, rebuilt, patches), grid),
        }


def _check_shape(settings: Settings, cells: Cells) -> str:
    """In which shape hidden patches may leave the backbone.

    Raises:
        ValueError: in none.
    """
    shapes, name = cells.backbone.drop_shapes, type(cells.backbone).__name__
    if cells.per_token > 1:
        raise ValueError(
            f"objective.hide is drop, but {name} cannot drop parts of what a token stands for; "
            f"leave objective.patch out (on MAST set backbone.last_stride to 1 for finer tokens)"
        )
    for shape in ("patches", settings.mask_shape):
        if shape in shapes:
            return shape
    lines = " or ".join(shape for shape in ("columns", "rows") if shape in shapes)
    raise ValueError(
        f"objective.hide is drop, but {name} cannot drop patches one by one, as "
        f"objective.mask_shape {settings.mask_shape} hides them; set mask_shape to {lines}, or "
        f"hide to replace"
    )


def _leaves_some(
    hidden: Bool[Tensor, "clips patches"], area: Area, shape: str
) -> Bool[Tensor, "clips 1"]:
    """Which clips keep a patch, or of their columns a whole one, if so many are hidden."""
    if shape != "columns":
        return (area.free & ~hidden).any(dim=1, keepdim=True)
    columns = area.free.unflatten(1, tuple(area.grid)).any(dim=1)
    return columns.sum(dim=1, keepdim=True) > 1


def _mean_token(tokens: Tokens) -> Float[Tensor, "clips dim"]:
    sound = tokens.sound[..., None]
    total = torch.where(sound, tokens.patches, 0.0).sum(dim=1)
    return cast(Tensor, total / sound.sum(dim=1).clamp(min=1))
