"""Adapting by gradients: a head, and of an encoder what its adapter lets, learn from labels.

In:  an encoder, a fold of a task.
Out: scores of the epoch that validated best, and the encoder and head in that state. The test part
     is looked at once, after the epoch is chosen.

Several processes learn together: each takes its share of every batch, gradients are those of the
whole batch, and every clip of validation and test is scored once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from sslaudio import ranks
from sslaudio.adapters.base import Adapter
from sslaudio.augments.base import Augment, Draws, numbered
from sslaudio.backbones.drop import keep
from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream import gather
from sslaudio.downstream.classify import Classifier, LearningHead, reads
from sslaudio.downstream.clips import Bank, batches, check_batch, cuts, padded
from sslaudio.downstream.metrics import Scores, measured
from sslaudio.downstream.mixing import Loss, Mix, laid, loss
from sslaudio.downstream.probe import first
from sslaudio.downstream.scoring import TokenBank, autocast, score
from sslaudio.tasks.base import Example, Fold, Task
from sslaudio.training.optim import decayed_weights, rate_share, stepped_share


@dataclass(frozen=True)
class Config:
    """How to fine-tune."""

    epochs: int = 30
    """Times every training clip is heard; the best epoch on validation is kept."""
    batch: int = 32
    """Clips a step, over all processes."""
    learning_rate: float = 5e-4
    """Of the head and the last block, after the warm-up; the adapter sets the shares of others."""
    head_rate: float = 1.0
    """Rate of the head as a multiple of ``learning_rate``."""
    weight_decay: float = 0.05
    """AdamW's, on weight matrices."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's; AST and SSAST: 0.95 0.999."""
    warmup_share: float = 0.1
    """Share of the steps in which the rate rises."""
    warmup_steps: int | None = None
    """Those steps themselves, 0 for none; unset: the share above. AST on AudioSet: 1000."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """What the rate does then: fall along a cosine to 0, or be cut at the ends of epochs."""
    cut_from: int = 5
    """Of schedule steps: the epoch after which the rate is cut first."""
    cut_every: int = 1
    """Epochs from one cut to the next."""
    cut_to: float = 0.85
    """Share of the rate that a cut leaves."""
    loss: Loss = "auto"
    """``ce``: cross-entropy over the classes; ``bce``: each class by itself; ``auto``: ce where a
    clip has one class, bce where it has several. A number is told by its squared error."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them, as AST and SSAST do."""
    label_smoothing: float = 0.1
    """Share of a target spread over all classes (bce: over yes and no)."""
    mixup: Literal["none", "wave", "log"] = "none"
    """Mix clips of a batch and their targets: their waveforms, or their log-mel energies."""
    mixup_chance: float = 0.5
    """Share of the clips that are mixed."""
    mixup_alpha: float = 10.0
    """What a clip keeps of itself is drawn from Beta(alpha, alpha); AST: 10."""
    crop_seconds: float | None = None
    """Length of the random piece that is taken of a longer training clip; unset: the task's."""
    test_crops: int = 1
    """Pieces of that length, evenly spaced, whose scores are averaged at validation and test; 1:
    the whole clip at once."""
    patch_drop: float = 0.0
    """Share of the patches that leave in training (backbones/drop.py)."""
    balanced: bool = False
    """Whether clips of rare classes are drawn more often, as AST does on AudioSet."""
    average_from: int | None = None
    """Epoch from which weights are averaged over epochs; the mean is kept only if it validates
    better than the best epoch. Unset: never."""
    patience: int | None = None
    """Stop after so many epochs without a better validation; unset: never."""
    dropout: float = 0.0
    """Of the embedding before the head."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of matrix products; weights stay float32."""
    kept_megabytes: float = 4_000.0
    """Memory for decoded clips; those beyond it are decoded in every epoch."""
    seed: int = 0
    """Of random weights, head, order and augments."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise ValueError(
                f"training.epochs is {self.epochs} and training.batch {self.batch}; set at least "
                f"1 epoch and 2 clips"
            )
        if self.learning_rate <= 0 or self.head_rate <= 0:
            raise ValueError(
                f"training.learning_rate is {self.learning_rate:g} and training.head_rate "
                f"{self.head_rate:g}; both are above 0"
            )
        for key in ("warmup_share", "label_smoothing", "dropout", "patch_drop"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(
                    f"training.{key} is {getattr(self, key):g}; it is at least 0 and under 1"
                )
        for key in ("cut_from", "cut_every", "test_crops", "average_from", "patience"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise ValueError(f"training.{key} is {value}; it is at least 1")
        if (self.warmup_steps or 0) < 0 or self.clip_norm < 0:
            raise ValueError(
                f"training.warmup_steps is {self.warmup_steps} and training.clip_norm "
                f"{self.clip_norm:g}; both are at least 0, which turns them off"
            )
        if not 0 <= self.mixup_chance <= 1 or self.mixup_alpha <= 0:
            raise ValueError(
                f"training.mixup_chance is {self.mixup_chance:g}, from 0 to 1, and "
                f"training.mixup_alpha {self.mixup_alpha:g}, above 0 (AST: 0.5 and 10)"
            )
        if not 0 < self.cut_to <= 1 or (self.crop_seconds or 1) <= 0 or self.kept_megabytes < 0:
            raise ValueError(
                f"training.cut_to is {self.cut_to:g}, above 0 and at most 1; training.crop_seconds "
                f"{self.crop_seconds}, above 0; training.kept_megabytes {self.kept_megabytes:g}, 0 "
                f"or more"
            )
        if self.average_from is not None and self.average_from > self.epochs:
            raise ValueError(
                f"training.average_from is {self.average_from}, after the last of "
                f"training.epochs {self.epochs}; set it to an epoch that is trained"
            )

    def share(self, step: int, steps: int, epoch: int) -> float:
        """Share of the full rate at ``step`` of ``steps``, in an epoch from 1."""
        warmup = self.warmup_steps
        if warmup is None:
            warmup = int(self.warmup_share * steps)
        if self.schedule == "cosine":
            return rate_share(step, steps, max(1, warmup), 0.0)
        risen = min(1.0, (step + 1) / max(1, warmup))
        return risen * stepped_share(epoch, self.cut_from, self.cut_every, self.cut_to)


@dataclass(frozen=True)
class Fitted:
    """A fine-tuned model and its scores."""

    validation: float
    """Score of the chosen epoch on validation."""
    test: float
    """Score of the same epoch on test, looked at once."""
    epoch: int
    """The chosen epoch, from 1: the last of those that validate best; 0: the averaged weights."""
    validation_scores: Scores
    test_scores: Scores
    classifier: Classifier
    """In the state of that epoch, in eval mode, its head a plain one."""
    trainable: int
    """Weights that were trained."""


def fit(
    encoder: Encoder,
    task: Task,
    fold: Fold,
    adapter: Adapter,
    augments: Sequence[Augment],
    config: Config,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> Fitted:
    """Fine-tune on ``fold.train`` what ``adapter`` lets learn, and a head.

    Args:
        encoder: is changed.
        task: what is to be told.
        fold: validation chooses the epoch; test is scored once, at the end.
        adapter: which weights learn, and their shares of the rate.
        augments: applied to training pictures only.
        config: rates and lengths.
        progress: told epoch and scalars after each epoch.

    Raises:
        ValueError: a batch is larger than the training part, or the loss is not finite.
    """
    check_batch(task, len(fold.train), config.batch, fold.name)
    if task.kind == "number" and (config.balanced or config.loss != "auto"):
        raise ValueError(
            f"{task.name} tells a number, which has no classes to balance and a loss of its own; "
            f"leave out training.balanced and training.loss"
        )
    torch.manual_seed(config.seed)
    adapter.adapt(encoder)
    if adapter.trains == "head" and config.dropout:
        raise ValueError(
            f"training.dropout is {config.dropout:g}, which is the linear head's: this protocol "
            f"has a head of its own; leave it out"
        )
    columns = len(task.classes) or 1
    head = cast(Any, adapter).head(encoder, columns) if adapter.trains == "head" else None
    classifier = Classifier(
        encoder,
        head or LearningHead(encoder.dim, columns, config.dropout),
        task.classes,
        task.kind,
        task.seconds,
    ).to(next(encoder.parameters()).device)
    learner = Learner(classifier, task, fold, adapter, augments, config)
    epoch = learner.learn(progress)
    return learner.finished(epoch)


class Learner:
    """Takes a classifier through the epochs, and leaves it in the state of the best."""

    def __init__(
        self,
        classifier: Classifier,
        task: Task,
        fold: Fold,
        adapter: Adapter,
        augments: Sequence[Augment],
        config: Config,
    ) -> None:
        self.classifier, self.task, self.fold = classifier, task, fold
        self.adapter, self.augments, self.config = adapter, augments, config
        encoder = classifier.encoder
        seconds = config.crop_seconds or task.seconds
        self.bank = Bank(
            encoder.front_end, round(seconds * encoder.sample_rate), config.kept_megabytes
        )
        self.learning = [p for p in classifier.parameters() if p.requires_grad]
        self.optimiser = _optimiser(classifier, adapter, config)
        self.scale = Scale.of(task, fold.train)
        still = adapter.trains == "head" and not augments and config.test_crops == 1
        still &= config.crop_seconds is None
        self.tokens: TokenBank | None = None
        if still and config.mixup == "none" and not config.patch_drop:
            self.tokens = TokenBank(encoder, self.bank, config.precision, config.kept_megabytes)
        self.best, self.best_state = -np.inf, dict[str, Tensor]()

    def learn(self, progress: Callable[[int, dict[str, float]], None] | None) -> int:
        """Go through the epochs; gives the best, 0 for the mean of several."""
        config = self.config
        steps_an_epoch = len(cuts(len(self.fold.train), config.batch)) + 1
        step, best_epoch, gained = 0, 0, 0
        mean = Mean()
        for epoch in range(1, config.epochs + 1):
            self.classifier.train()
            if self.adapter.trains == "head":
                self.classifier.encoder.eval()
            losses = []
            order = batches(self.fold.train, config.batch, config.seed, epoch, config.balanced)
            for examples in order:
                share = config.share(step, config.epochs * steps_an_epoch, epoch)
                for group in self.optimiser.param_groups:
                    group["lr"] = group["full_rate"] * share
                losses.append(self._step(examples, step))
                step += 1
            self._agree()
            score = self._validated()
            if progress:
                progress(epoch, {"loss": float(np.mean(losses)), "validation": score})
            if score > self.best:
                gained = epoch
            if score >= self.best:  # of equals the later, at a lower rate
                self._remember(score)
                best_epoch = epoch
            if config.average_from is not None and epoch >= config.average_from:
                mean.add(self._state())
            if config.patience is not None and epoch - gained >= config.patience:
                break
        if mean.count > 1:
            self._restore(mean.state())
            if (score := self._validated()) > self.best:
                self._remember(score)
                best_epoch = 0
        return best_epoch

    def finished(self, epoch: int) -> Fitted:
        """The best state, its head made plain, scored on test."""
        self._restore(self.best_state)
        trainable = sum(parameter.numel() for parameter in self.learning)
        if isinstance(self.classifier.head, LearningHead):
            self.classifier.head = self.classifier.head.plain()
        self.scale.fold_into(self.classifier.head)
        self.scale = Scale()
        device = next(self.classifier.encoder.parameters()).device
        self.classifier.eval().to(device)
        validated, said = self.scored(self.fold.validation), self.scored(self.fold.test)
        return Fitted(
            first(measured(self.task.targets(self.fold.validation), validated)),
            first(measured(self.task.targets(self.fold.test), said)),
            epoch,
            validated,
            said,
            self.classifier,
            trainable,
        )

    def scored(self, examples: Sequence[Example]) -> Scores:
        """Scores of clips in the order given, by all processes together."""
        own = gather.share(examples)
        config = self.config
        asked = (self.bank, config.precision, config.test_crops, self.tokens)
        scores = gather.alike(lambda: score(self.classifier, own, *asked))
        rows = scores * self.scale.spread + self.scale.middle
        keys = [example.key for example in examples]
        return gather.gathered(keys, [example.key for example in own], list(rows))

    def _validated(self) -> float:
        targets = self.task.targets(self.fold.validation)
        return first(measured(targets, self.scored(self.fold.validation)))

    def _step(self, examples: Sequence[Example], step: int) -> float:
        own = gather.share(examples)
        random = np.random.default_rng((self.config.seed, step, ranks.rank()))
        self.optimiser.zero_grad()
        scores, targets = gather.alike(lambda: self._heard(own, step, random))
        smoothing = self.config.label_smoothing
        each = loss(scores.float(), targets, self.task.kind, self.config.loss, smoothing)
        total = each.sum() / len(examples)
        total.backward()
        total = total.detach()
        self._exchange(total)
        if not torch.isfinite(total):
            raise ValueError(
                f"the loss became {total.item()}; lower training.learning_rate or set "
                f"training.precision fp32"
            )
        nn.utils.clip_grad_norm_(self.learning, self.config.clip_norm or math.inf)
        self.optimiser.step()
        for augment in self.augments:
            if isinstance(augment, nn.Module):  # one that remembers
                cast(Any, augment).after_step()
        return total.item()

    def _heard(
        self, examples: Sequence[Example], step: int, random: np.random.Generator
    ) -> tuple[Float[Tensor, "clips columns"], Float[Tensor, "clips columns"]]:
        """Scores of a training batch and what they should be."""
        classifier, config = self.classifier, self.config
        device = next(classifier.parameters()).device
        known = torch.from_numpy(self.scale.standard(self.task.targets(examples)))
        targets = laid(known, self.task.kind, len(classifier.classes)).to(device)
        if self.tokens is not None:
            head: nn.Module = classifier.head
            return head(self.tokens.tokens(examples)), targets
        mix = None
        if config.mixup != "none":
            mix = Mix(len(examples), config.mixup_chance, config.mixup_alpha, random)
            targets = mix.targets(targets)
        places = random.random(len(examples))
        if mix and config.mixup == "wave":
            waves = self.bank.heard(examples)
            cut = [self.bank.cropped(*pair) for pair in zip(waves, places, strict=True)]
            shown = self.bank.shown(mix.waveforms(cut))
        else:
            shown = self.bank.pictures_of(examples, places)
        pictures, frames = padded(shown, device)
        if mix and config.mixup == "log":
            pictures = mix.pictures(pictures, frames, classifier.encoder.front_end.std or 1.0)
        draws = self._draws(examples, step, device)
        for augment in self.augments:
            pictures = augment(pictures, frames, draws)
        drop = None
        if config.patch_drop:
            drop = partial(_dropped, classifier.encoder, config.patch_drop, draws)
        with autocast(config.precision):
            return classifier.scores(pictures, frames, drop), targets

    def _draws(self, examples: Sequence[Example], step: int, device: torch.device) -> Draws:
        seed = self.config.seed * 1_000_003 + step * ranks.count() + ranks.rank()
        return Draws(
            torch.Generator().manual_seed(seed),
            start=0,
            clips=len(examples),
            batch=len(examples),
            device=device,
            recordings=numbered([example.key for example in examples]).to(device),
        )

    def _exchange(self, total: Tensor) -> None:
        """Make every process's loss and gradients those of the whole batch."""
        if not ranks.several():
            return
        distributed.all_reduce(total)
        for parameter in self.learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)

    def _agree(self) -> None:
        """Average what batches left in buffers, which each process saw its share of."""
        if ranks.several():
            for buffer in self.classifier.head.buffers():
                if buffer.is_floating_point():
                    distributed.all_reduce(buffer)
                    buffer.div_(ranks.count())

    def _state(self) -> dict[str, Tensor]:
        """What training changes: weights that learn, and the head's buffers."""
        named = {n: p for n, p in self.classifier.named_parameters() if p.requires_grad}
        return named | {f"head.{n}": b for n, b in self.classifier.head.named_buffers()}

    def _remember(self, validated: float) -> None:
        self.best = validated
        self.best_state = {name: value.detach().clone() for name, value in self._state().items()}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._state().items():
                value.copy_(state[name])


class Mean:
    """Running mean of states."""

    def __init__(self) -> None:
        self.count, self.total = 0, dict[str, Tensor]()

    def add(self, state: Mapping[str, Tensor]) -> None:
        """Take a state in."""
        self.count += 1
        for name, value in state.items():
            own = value.detach().double()
            self.total[name] = self.total[name] + own if name in self.total else own.clone()

    def state(self) -> dict[str, Tensor]:
        """The mean of those taken in."""
        return {name: total / self.count for name, total in self.total.items()}


@dataclass(frozen=True)
class Scale:
    """How numbers are standardised on the training part; classes are left alone."""

    middle: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, task: Task, train: Sequence[Example]) -> "Scale":
        """The training part's."""
        if task.kind != "number":
            return cls()
        targets = task.targets(train)
        return cls(float(targets.mean()), float(targets.std()))

    def standard(self, targets: np.ndarray) -> np.ndarray:
        """Targets at mean 0 and deviation 1; classes as they are."""
        if (self.middle, self.spread) == (0.0, 1.0):
            return targets
        return (targets - self.middle) / self.spread

    def fold_into(self, head: nn.Module) -> None:
        """Make a head's scores those of the numbers as they are."""
        linear = cast(nn.Linear, head.head if reads(head) == "tokens" else head)
        with torch.no_grad():
            linear.weight.mul_(self.spread)
            linear.bias.mul_(self.spread).add_(self.middle)


def _dropped(encoder: Encoder, share: float, draws: Draws, frames: Tensor, width: int) -> Any:
    """Patches that stay of each clip, or of each window of longer ones."""
    whole = Draws(
        draws.generator, start=0, clips=len(frames), batch=len(frames), device=draws.device
    )
    return keep(encoder.backbone, frames, width, share, whole)


def _optimiser(classifier: Classifier, adapter: Adapter, config: Config) -> torch.optim.AdamW:
    matrices = decayed_weights(classifier)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if not parameter.requires_grad:
            continue
        share = config.head_rate
        if adapter.trains == "head":
            share *= adapter.rate_share(name, classifier.encoder)
        elif name.startswith("encoder."):
            share = adapter.rate_share(name.removeprefix("encoder."), classifier.encoder)
        groups.setdefault((share, parameter in matrices), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "full_rate": config.learning_rate * share,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (share, decayed), parameters in groups.items()
        ],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )
