"""Clips to scores: an encoder and the head that fine-tuning or an import left in a run.

In:  waveforms, their rate and lengths.
Out: one score a class, before any softmax or sigmoid; or the number that was asked for.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.adapters.attentive import AttentivePool
from sslaudio.backbones.encoder import Drop, Encoder
from sslaudio.downstream.knn import NeighbourHead
from sslaudio.tasks.base import Kind

Reads = Literal["embedding", "tokens"]
"""What a head is given."""


class Head(nn.Linear):
    """A linear map of the pooled embedding, after a layer norm where there is one."""

    def __init__(self, dim: int, classes: int, norm_eps: float | None = None) -> None:
        super().__init__(dim, classes)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips classes"]:
        """Class scores."""
        return super().forward(self.norm(embeddings))


class LearningHead(nn.Module):
    """A linear head while it learns: on the embedding standardised over the batch."""

    def __init__(self, dim: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips classes"]:
        """Class scores."""
        return self.linear(self.dropout(self.norm(embeddings)))

    def plain(self) -> Head:
        """The same map with the running standardisation folded in."""
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        head = Head(self.linear.in_features, self.linear.out_features)
        scale = (self.norm.running_var + self.norm.eps).rsqrt()
        with torch.no_grad():
            head.weight.copy_(self.linear.weight * scale)
            head.bias.copy_(self.linear.bias - head.weight @ self.norm.running_mean)
        return head


class Classifier(nn.Module):
    """What ``sslaudio.load_classifier`` gives."""

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Module,
        classes: tuple[str, ...],
        kind: Kind = "single",
        seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.classes = classes
        self.kind = kind
        self.seconds = seconds
        """Nominal length of the clips it learned from; None where it is not known."""

    @property
    def sample_rate(self) -> int:
        """Hz that the waveforms must have."""
        return self.encoder.sample_rate

    @property
    def clip_seconds(self) -> float:
        """Length of what it hears as one clip: the nominal one, else that of the backbone's clips.

        A model of fixed length hears no more than that.
        """
        features, rate = self.encoder.front_end.config, self.sample_rate
        if self.seconds is not None and not features.cuts(round(self.seconds * rate)):
            return self.seconds
        return features.samples(features.legacy_frames or self.encoder.window_frames) / rate

    def forward(
        self,
        waveforms: Float[Tensor, "clips samples"],
        sample_rate: int | None = None,
        lengths: Int[Tensor, " clips"] | None = None,
    ) -> Float[Tensor, "clips classes"]:
        """Score clips; arguments as the encoder's, columns as ``classes``."""
        return self.scores(*self.encoder.pictures(waveforms, sample_rate, lengths))

    def scores(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        drop: Drop | None = None,
    ) -> Float[Tensor, "clips classes"]:
        """Score standardised pictures; ``drop`` as :meth:`Encoder.tokens` has it."""
        tokens = self.encoder.tokens(pictures, frames, drop)
        # In bfloat16 a number near 1000 would be told in steps of 4.
        with torch.autocast(pictures.device.type, enabled=False):
            if reads(self.head) == "tokens":
                return self.head(tokens)
            return self.head(self.encoder.pooled(tokens, frames))

    def shares(self, scores: Float[Tensor, "clips classes"]) -> Float[Tensor, "clips classes"]:
        """Scores as shares from 0 to 1: of one (one class a clip), each by itself, or the number.

        Neighbours of clips with several classes give shares already.
        """
        if self.kind == "number":
            return scores
        if self.kind == "single":
            return scores.softmax(dim=1)
        return scores if isinstance(self.head, NeighbourHead) else scores.sigmoid()


def reads(head: nn.Module) -> Reads:
    """What a head is given."""
    return "tokens" if isinstance(head, AttentivePool) else "embedding"


def told(head: nn.Module) -> dict[str, Any]:
    """What ``config.json`` says of a head, for :func:`build_head`."""
    if isinstance(head, NeighbourHead):
        return {
            "kind": "neighbours",
            "clips": len(head.directions),
            "neighbours": head.neighbours,
            "temperature": head.temperature,
            "one_class": head.one_class,
            "form": head.form,
        }
    if isinstance(head, AttentivePool):
        return {"kind": "attentive", "heads": head.heads}
    return {"kind": "linear"}


def build_head(config: Mapping[str, Any], encoder: Encoder, columns: int) -> nn.Module:
    """A head as ``config.json`` tells of it, its weights yet to be filled in."""
    kind = config.get("kind", "linear")
    if kind == "attentive":
        width = encoder.backbone.width(encoder.pooled_block)
        return AttentivePool(width, config["heads"], columns)
    if kind == "neighbours":
        form = config.get("form", "number")
        head = NeighbourHead(
            config["clips"], encoder.dim, columns, config["neighbours"], config["temperature"], form
        )
        head.one_class = config["one_class"]
        return head
    if kind != "linear":
        raise ValueError(
            f"head.kind is {kind!r}, and this version knows linear, attentive and neighbours; use "
            f"the version of sslaudio that wrote the run"
        )
    return Head(encoder.dim, columns, cast(float | None, config.get("norm_eps")))
