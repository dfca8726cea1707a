"""Fine-tuning by gradients: an encoder and a head learn from labelled clips.

In:  an encoder, a fold of a task.
Out: scores of the epoch that validated best, and the encoder and head in that state. The test part
     is looked at once, after the epoch is chosen.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.adapters.base import Adapter
from sslaudio.augments.base import Augment, Draws, numbered
from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream.metrics import accuracy
from sslaudio.tasks.base import Example, Fold
from sslaudio.training.optim import decayed_weights, rate_share


@dataclass(frozen=True)
class Config:
    """How to fine-tune."""

    epochs: int = 30
    """Times every training clip is heard; the best epoch on validation is kept."""
    batch: int = 32
    """Clips a step."""
    learning_rate: float = 5e-4
    """Of the head and the last block, after the warm-up; the adapter sets the shares of others."""
    head_rate: float = 1.0
    """Rate of the head as a multiple of ``learning_rate``."""
    weight_decay: float = 0.05
    """AdamW's, on weight matrices."""
    warmup_share: float = 0.1
    """Share of the steps in which the rate rises; a cosine follows."""
    label_smoothing: float = 0.1
    """Share of a target spread over all classes."""
    dropout: float = 0.0
    """Of the embedding before the head."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of matrix products; weights stay float32."""
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
        for key in ("warmup_share", "label_smoothing", "dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(
                    f"training.{key} is {getattr(self, key):g}; it is at least 0 and under 1"
                )


class Classifier(nn.Module):
    """An encoder and a linear head on its standardised embedding."""

    def __init__(self, encoder: Encoder, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = nn.BatchNorm1d(encoder.dim, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.dim, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, pictures: Float[Tensor, "clips bins frames"], frames: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips classes"]:
        """Class scores of standardised log-mel pictures."""
        embedding = self.encoder.embed(pictures, frames)
        return self.head(self.dropout(self.norm(embedding)))


@dataclass(frozen=True)
class Fitted:
    """A fine-tuned model and its scores."""

    validation: float
    """Accuracy of the chosen epoch on validation."""
    test: float
    """Accuracy of the same epoch on test, looked at once."""
    epoch: int
    """The chosen epoch, from 1: the last of those that validate best."""
    classifier: Classifier
    """In the state of that epoch, in eval mode."""
    trainable: int
    """Weights that were trained."""


def fit(
    encoder: Encoder,
    fold: Fold,
    classes: int,
    adapter: Adapter,
    augments: Sequence[Augment],
    config: Config,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> Fitted:
    """Fine-tune on ``fold.train`` what ``adapter`` lets learn, and a head.

    Args:
        encoder: is changed.
        fold: validation chooses the epoch; test is scored once, at the end.
        classes: how many the task has.
        adapter: which weights learn, and their shares of the rate.
        augments: applied to training pictures only.
        config: rates and lengths.
        progress: told epoch and scalars after each epoch.

    Raises:
        ValueError: a batch is larger than the training part, or the loss is not finite.
    """
    if config.batch > len(fold.train):
        raise ValueError(
            f"training.batch is {config.batch}, but fold {fold.name} has {len(fold.train)} "
            f"training clips; set training.batch to at most that"
        )
    torch.manual_seed(config.seed)
    adapter.adapt(encoder)
    device = next(encoder.parameters()).device
    classifier = Classifier(encoder, classes, config.dropout).to(device)
    optimiser = _optimiser(classifier, adapter, config)
    steps_an_epoch = -(-len(fold.train) // config.batch)
    steps = config.epochs * steps_an_epoch
    best, best_state, best_epoch = -1.0, {}, 0
    step = 0
    for epoch in range(1, config.epochs + 1):
        classifier.train()
        losses = []
        for examples in _batches(fold.train, config.batch, config.seed, epoch):
            share = rate_share(step, steps, max(1, int(config.warmup_share * steps)), 0.0)
            for group in optimiser.param_groups:
                group["lr"] = group["full_rate"] * share
            losses.append(
                _step(classifier, optimiser, examples, augments, config, (config.seed, step))
            )
            step += 1
        score = _score(classifier, fold.validation, config)
        if progress:
            progress(epoch, {"loss": float(np.mean(losses)), "validation": score})
        if score >= best:  # of equals the later, at a lower rate
            best, best_epoch = score, epoch
            best_state = copy.deepcopy(classifier.state_dict())
    classifier.load_state_dict(best_state)
    trainable = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    test = _score(classifier, fold.test, config)
    return Fitted(best, test, best_epoch, classifier.eval(), trainable)


def predict(
    classifier: Classifier, examples: Sequence[Example], config: Config
) -> Int[np.ndarray, "clips"]:
    """Predicted class of each example, in the order given."""
    classifier.eval()
    predicted = []
    with torch.inference_mode():
        for first in range(0, len(examples), 2 * config.batch):
            part = examples[first : first + 2 * config.batch]
            pictures, frames = _pictures(classifier.encoder, part)
            with _autocast(config):
                scores = classifier(pictures, frames)
            predicted.append(scores.float().argmax(dim=1).cpu().numpy())
    return np.concatenate(predicted)


def _score(classifier: Classifier, examples: Sequence[Example], config: Config) -> float:
    targets = np.array([example.target for example in examples])
    return accuracy(targets, predict(classifier, examples, config))


def _step(
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    examples: Sequence[Example],
    augments: Sequence[Augment],
    config: Config,
    seeds: tuple[int, int],
) -> float:
    pictures, frames = _pictures(classifier.encoder, examples)
    generator = torch.Generator().manual_seed(seeds[0] * 1_000_003 + seeds[1])
    draws = Draws(
        generator,
        start=0,
        clips=len(examples),
        batch=len(examples),
        device=pictures.device,
        recordings=numbered([example.key for example in examples]).to(pictures.device),
    )
    for augment in augments:
        pictures = augment(pictures, frames, draws)
    targets = torch.tensor([example.target for example in examples], device=pictures.device)
    with _autocast(config):
        scores = classifier(pictures, frames)
    loss = nn.functional.cross_entropy(
        scores.float(), targets, label_smoothing=config.label_smoothing
    )
    if not torch.isfinite(loss):
        raise ValueError(
            f"the loss became {loss.item()}; lower training.learning_rate or set "
            f"training.precision fp32"
        )
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
    optimiser.step()
    for augment in augments:
        if isinstance(augment, nn.Module):  # one that remembers
            cast(Any, augment).after_step()
    return loss.item()


def _pictures(
    encoder: Encoder, examples: Sequence[Example]
) -> tuple[Float[Tensor, "clips bins frames"], Int[Tensor, " clips"]]:
    device = next(encoder.parameters()).device
    sounds = [torch.from_numpy(example.waveform(encoder.sample_rate)) for example in examples]
    lengths = torch.tensor([len(sound) for sound in sounds])
    waveforms = nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    with torch.no_grad():
        return encoder.front_end(waveforms.to(device), lengths.to(device))


def _batches(
    examples: Sequence[Example], batch: int, seed: int, epoch: int
) -> Iterator[list[Example]]:
    """Every example once, in an order of this seed and epoch; a last single one joins the rest."""
    order = np.random.default_rng((seed, epoch)).permutation(len(examples))
    cuts = list(range(batch, len(order), batch))
    if cuts and len(order) - cuts[-1] < 2:
        cuts.pop()
    for rows in np.split(order, cuts):
        yield [examples[row] for row in rows]


def _optimiser(classifier: Classifier, adapter: Adapter, config: Config) -> torch.optim.AdamW:
    matrices = decayed_weights(classifier)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if not parameter.requires_grad:
            continue
        share = config.head_rate
        if name.startswith("encoder."):
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
    )


def _autocast(config: Config) -> torch.autocast:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16")
