"""Contrastive learning with a momentum teacher: which clip is this another view of?

Student and teacher see two augmented views of each clip, patches dropped. The student's embedding
of one view is compared with the teacher's of the other, among those of the batch's other clips;
both directions are summed, in one pass.

Source: Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), section 2. The paper tells neither
temperature nor momentum: ours are our choice. Its published code differs from it, and
``variant: released`` takes that code's settings and course instead: a queue of 65,536 keys, random
at first, that are the only negatives; two passes, each of which moves the teacher before it and
puts its keys into the queue after, so that the second finds keys of its own clips there. Optimiser
(SGD, rate 0.03, momentum 0.9), batch (16) and front end (librosa) of that code are other rooms'.

Where we differ from the paper: clips of one recording are no negatives of each other.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio import ranks
from sslaudio.augments.base import Draws
from sslaudio.backbones import pooling
from sslaudio.backbones.base import Backbone
from sslaudio.backbones.drop import check_share, keep
from sslaudio.objectives.base import View, touched
from sslaudio.objectives.info_nce import Told, info_nce, strangers
from sslaudio.objectives.key_queue import EMPTY, KeyQueue
from sslaudio.objectives.projection import linear_head, mlp
from sslaudio.objectives.teacher import Schedule, Teacher, momentum_at


class Settings(NamedTuple):
    """What a variant sets where the recipe does not."""

    temperature: float
    momentum: float
    momentum_end: float
    schedule: Schedule
    queue: int


VARIANTS = {
    "paper": Settings(0.1, 0.99, 1.0, "cosine", 0),
    "released": Settings(0.07, 0.999, 0.999, "constant", 65_536),
}
"""The paper, its gaps filled by our choice; and the code that was published with it."""


@dataclass(frozen=True)
class Config:
    """How views are embedded and compared."""

    variant: Literal["paper", "released"] = "paper"
    """The paper's objective, or that of its published code, to compare with."""
    temperature: float | None = None
    """Of the cosine between embeddings; unset: 0.1, released 0.07."""
    momentum: float | None = None
    """Share of itself that the teacher keeps at each step, at first; unset: 0.99, released
    0.999."""
    momentum_end: float | None = None
    """The same at the end of the run; unset: 1, released 0.999."""
    schedule: Schedule | None = None
    """How momentum goes from the one to the other; unset: cosine, released constant."""
    queue: int | None = None
    """Keys of past batches that are negatives too; unset: 0, released 65536."""
    head: Literal["linear", "projector"] = "linear"
    """One linear map (SS-MAST), or MoCo v3's projector of three and predictor of two."""
    norm: Literal["none", "batch"] = "none"
    """Whether pooled features are standardised over the batch before the linear head. With few
    clips and a small net, training hardly starts without."""
    dim: int = 256
    """Length of an embedding."""
    hidden_dim: int = 4096
    """Width inside projector and predictor."""
    pooling: tuple[str, ...] = ("mean",)
    """How a view's tokens become the head's features; parts: sslaudio/backbones/pooling.py."""
    drop_share: float = 0.2
    """Share of a view's patches that leave before the backbone, rounded to what it can drop."""
    drop_in: Literal["both", "student", "teacher"] = "both"
    """Whose patches leave."""
    gradient_cache: bool = False
    """Whether all accumulated parts of a batch are compared with each other: they are encoded
    twice, and what must be remembered is that of one part (sslaudio/training/cache.py)."""

    def __post_init__(self) -> None:
        pooling.check(self.pooling, "objective.pooling")
        check_share(self.drop_share)
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"objective.temperature is {self.temperature:g}; it must be above 0")
        for key in ("momentum", "momentum_end"):
            value = getattr(self, key)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(
                    f"objective.{key} is {value:g}; the share of itself that the teacher keeps is "
                    f"from 0 to 1, near 1"
                )
        for key in ("dim", "hidden_dim"):
            if getattr(self, key) < 1:
                raise ValueError(f"objective.{key} is {getattr(self, key)}; it is at least 1")
        settings = self.settings
        if settings.queue < 0:
            raise ValueError(f"objective.queue is {settings.queue}; it is at least 0")
        if settings.schedule == "constant" and self.momentum_end not in (None, settings.momentum):
            raise ValueError(
                f"objective.momentum_end is {self.momentum_end:g} and objective.schedule constant; "
                f"set the schedule to linear or cosine, or leave momentum_end out"
            )
        if self.head == "projector" and self.norm == "batch":
            raise ValueError(
                "objective.norm is batch and objective.head projector, which has batch norms of "
                "its own; leave objective.norm out"
            )
        if self.variant == "released" and settings.schedule != "constant":
            raise ValueError(
                f"objective.variant is released, whose momentum is constant, and "
                f"objective.schedule {settings.schedule}; leave objective.schedule out"
            )
        if self.variant == "released" and (self.gradient_cache or not settings.queue):
            raise ValueError(
                "objective.variant is released, which compares with its queue alone: set "
                "objective.queue above 0 and leave objective.gradient_cache out"
            )

    @property
    def settings(self) -> Settings:
        """The variant's settings, but for those that are set."""
        given = ((key, getattr(self, key)) for key in Settings._fields)
        return VARIANTS[self.variant]._replace(**{k: v for k, v in given if v is not None})


class Contrastive(nn.Module):
    """A backbone and its head, their teacher, and keys of the past."""

    views = 2
    untrained: Tensor

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        if "cls" in config.pooling and not getattr(backbone, "prefix", torch.empty(0)).numel():
            raise ValueError(
                "objective.pooling has the part cls, but the backbone has no prefix tokens; set "
                "backbone.prefix_tokens to 1 or 2 (AST), or pool by mean"
            )
        self.config = config
        self.settings = config.settings
        self.gradient_cache = config.gradient_cache
        self.released = config.variant == "released"
        self.moves_in_passes = self.released  # the teacher, before each
        self.backbone = backbone
        rows = backbone.grid(backbone.patch[1]).rows
        features = pooling.pooled_dim(config.pooling, rows, backbone.dim)
        hidden, dim = config.hidden_dim, config.dim
        if config.head == "projector":
            self.head = mlp([features, hidden, hidden, dim], last_normed=True)
            self.predictor = mlp([dim, hidden, dim], last_normed=True)
        else:
            self.head = linear_head(features, dim, config.norm == "batch")
            self.predictor = nn.Sequential()
        self.teacher = Teacher(**self.student())
        queue = self.settings.queue
        self.queue = KeyQueue(queue, dim, self.released) if queue else None
        self.register_buffer("untrained", torch.full((), -1.0))
        self.embeddings: Float[Tensor, "views clips dim"] | None = None
        """The student's, of the last micro-batch."""
        self._new: list[tuple[Tensor, Tensor, Tensor]] = []

    def student(self) -> dict[str, nn.Module]:
        """What the teacher follows."""
        return {"backbone": cast(nn.Module, self.backbone), "head": self.head}

    def forward(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Loss and parts of a micro-batch, its clips compared with those of all processes.

        Returns:
            ``loss``, the sum of both directions; ``accuracy`` of finding the right key among
            ``candidates``, ``untrained_accuracy``, the same at the first step (of its first part
            where the batch is accumulated), and ``chance``;
            ``dropped_share`` of the student's patches.
        """
        return self.compare(self.encode(views, draws))

    def encode(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Features of every view by student and teacher, and whose they are; a row a clip.

        Rows of several micro-batches may be laid one after the other and compared together.
        """
        features: dict[str, Tensor] = {}
        order = [("student", 0), ("student", 1), ("teacher", 0), ("teacher", 1)]
        if self.released:
            order = [("student", 0), ("teacher", 1), ("student", 1), ("teacher", 0)]
        for who, view in order:
            if self.released and self.training and who == "student":
                self.teacher.update(self.student(), self.settings.momentum)
            features |= self._features(who, views[view], draws, f"{who}_{view}")
            if self.released and who == "teacher":  # before it moves again
                features[f"teacher_{view}"] = self.keys(features[f"teacher_{view}"])
        clips = draws.start + torch.arange(draws.clips, device=features["student_0"].device)
        recordings = torch.zeros_like(clips) if draws.recordings is None else draws.recordings
        return {**features, "places": clips, "recordings": recordings}

    def _features(self, who: str, view: View, draws: Draws, name: str) -> dict[str, Tensor]:
        """A view's pooled tokens, and the share of patches that were dropped."""
        config, width = self.config, view.pictures.shape[2]
        kept = None
        if config.drop_share and config.drop_in in (who, "both"):
            kept = keep(self.backbone, view.frames, width, config.drop_share, draws)
        learns = who == "student"
        backbone = self.backbone if learns else cast(Backbone, self.teacher.backbone)
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            tokens = backbone(view.pictures, view.frames, kept=kept)
            pooled = pooling.pool(tokens, backbone.columns(view.frames), config.pooling)
        if not learns:
            return {name: pooled}
        share = pooled.new_zeros(()) if kept is None else kept.share
        return {name: pooled, f"dropped_{name}": share.expand(len(pooled))}

    def compare(self, encoded: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss and parts of what :meth:`encode` gave."""
        queries = [self.queries(encoded[f"student_{view}"]) for view in (0, 1)]
        keys = [self.keys_of(encoded, view) for view in (0, 1)]
        recordings = encoded["recordings"]
        everyone = [ranks.gathered(own) for own in keys]
        places, whose = ranks.gathered(encoded["places"]), ranks.gathered(recordings)
        self.embeddings = torch.stack([query.detach() for query in queries])
        if self.released:
            told = self._from_queue(queries, keys, everyone)
        else:
            told = self._from_batch(queries, keys, everyone, recordings, whose)
            if self.training:
                self._new.append((places, torch.stack(everyone, dim=1), whose))
        accuracy = (told[0].found + told[1].found) / 2
        if self.training:
            found = ranks.gathered(accuracy[None]).mean()
            self.untrained = torch.where(self.untrained < 0, found, self.untrained)
        mask_token = getattr(self.backbone, "mask_token", None)
        candidates = (told[0].candidates + told[1].candidates) / 2
        return {
            "loss": told[0].loss + told[1].loss + touched(mask_token),
            "accuracy": accuracy,
            "untrained_accuracy": self.untrained.clone(),
            "candidates": candidates,
            "chance": 1 / candidates,
            "dropped_share": encoded["dropped_student_0"].mean().float(),
        }

    def queries(self, features: Float[Tensor, "clips features"]) -> Float[Tensor, "clips dim"]:
        """The student's embeddings, of length 1."""
        return nn.functional.normalize(self.predictor(self.head(features)).float(), dim=1)

    def keys_of(self, encoded: dict[str, Tensor], view: int) -> Float[Tensor, "clips dim"]:
        """The teacher's embeddings of a view in what :meth:`encode` gave."""
        rows = encoded[f"teacher_{view}"]
        return rows if self.released else self.keys(rows)

    @torch.no_grad()
    def keys(self, features: Float[Tensor, "clips features"]) -> Float[Tensor, "clips dim"]:
        """The teacher's embeddings, of length 1."""
        head = cast(nn.Sequential, self.teacher.head)
        return nn.functional.normalize(head(features).float(), dim=1)

    def _from_batch(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        everyone: list[Tensor],
        recordings: Int[Tensor, " clips"],
        whose: Int[Tensor, " all_clips"],
    ) -> list[Told]:
        """Both directions, among the batch of all processes and the queue."""
        if self.queue is None and len(whose) < 2:
            raise ValueError(
                "one clip at a time has nothing to be compared with: raise data.batch, or lower "
                "training.accumulation or set objective.gradient_cache to true"
            )
        first = ranks.rank() * len(recordings)
        own = first + torch.arange(len(recordings), device=recordings.device)
        counted = strangers(recordings, whose).scatter(1, own[:, None], False)
        if self.queue is not None:
            past = strangers(recordings, self.queue.recordings)
            counted = torch.cat([counted, past & (self.queue.recordings != EMPTY)], dim=1)
            everyone = [torch.cat([of_view, self.queue.keys]) for of_view in everyone]
        temperature = self.settings.temperature
        return [
            info_nce(queries[view], keys[1 - view], everyone[1 - view], counted, temperature)
            for view in (0, 1)
        ]

    def _from_queue(
        self, queries: list[Tensor], keys: list[Tensor], everyone: list[Tensor]
    ) -> list[Told]:
        """Two passes of the published code, each among the queue as it stands."""
        queue = cast(KeyQueue, self.queue)
        told = []
        for view in (0, 1):
            counted = torch.ones(
                len(queries[view]), len(queue.keys), dtype=torch.bool, device=queue.keys.device
            )
            temperature = self.settings.temperature
            told.append(info_nce(queries[view], keys[1 - view], queue.keys, counted, temperature))
            if self.training:
                unknown = torch.zeros(len(everyone[0]), dtype=torch.long, device=counted.device)
                queue.push(everyone[1 - view], unknown)
        return told

    def after_step(self, step: int, steps: int) -> None:
        """Move the teacher, and put the batch's keys into the queue."""
        if self.released:  # both happen in its two passes
            return
        settings = self.settings
        momentum = momentum_at(
            step, steps, settings.momentum, settings.momentum_end, settings.schedule
        )
        self.teacher.update(self.student(), momentum)
        if self.queue is not None and self._new:
            places, keys, recordings = (torch.cat(part) for part in zip(*self._new, strict=True))
            order = places.argsort()  # as in one process that takes the batch at once
            both = keys[order].flatten(0, 1)
            self.queue.push(both, recordings[order].repeat_interleave(2))
        self._new.clear()

    def skip_step(self) -> None:
        """Forget the keys of a step that was skipped."""
        self._new.clear()

    def accumulated(self, parts: int) -> str | None:
        """What is to be said where a process's share of the batch comes in ``parts``."""
        if self.released:
            return (
                f"training.accumulation {parts} moves the teacher and the queue of "
                f"objective.variant released at every part of a batch"
            )
        if self.gradient_cache:
            return None
        return (
            f"training.accumulation {parts} compares each clip with those of its own part of the "
            f"batch alone; --objective.gradient_cache true compares it with all"
        )

    def teacher_deviation(self) -> Float[Tensor, ""]:
        """How far the teacher is from the student."""
        return self.teacher.deviation(self.student())

    @torch.no_grad()
    def pictures(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Both views, and how near each clip's query is to each clip's key."""
        draws = Draws(draws.generator, 0, draws.clips, draws.clips, draws.device)
        encoded = self.encode(views, draws)
        near = self.queries(encoded["student_0"]) @ self.keys_of(encoded, 1).T
        shown = near.repeat_interleave(16, dim=0).repeat_interleave(16, dim=1)
        first, second = (view.pictures for view in views)
        return {"1_view": first, "2_other_view": second, "3_nearness": 2.5 * shown[None]}


def build(config: Config, backbone: Backbone) -> Contrastive:
    """The objective on ``backbone``."""
    return Contrastive(config, backbone)
