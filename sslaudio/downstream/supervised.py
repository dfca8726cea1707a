"""Full fine-tuning: every weight learns from labelled clips, the epoch is chosen on validation.

In:  an encoder, a fold of a task.
Out: scores of the epoch that validated best, and the encoder and head in that state.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.augments.base import Augment, Draws
from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream.metrics import accuracy
from sslaudio.tasks.base import Example, Fold
from sslaudio.training.optim import rate_share


@dataclass(frozen=True)
class Config:
    """How to fine-tune."""

    epochs: int = 30
    """Times every training clip is heard; the best epoch on validation is kept."""
    batch: int = 32
    """Clips a step."""
    learning_rate: float = 5e-4
    """Of the backbone's last block and the head, after the warm-up."""
    layer_decay: float = 0.75
    """Each earlier block learns at this share of the next one's rate; 1 for all alike."""
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

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(
                f"finetuning.epochs is {self.epochs} and finetuning.batch {self.batch}; "
                f"both are at least 1"
            )
        if self.learning_rate <= 0:
            raise ValueError(f"finetuning.learning_rate is {self.learning_rate:g}; it is above 0")


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
    """The chosen epoch, from 1."""
    classifier: Classifier
    """In the state of that epoch, in eval mode."""
    trainable: int
    """Weights that were trained."""


def fit(
    encoder: Encoder,
    fold: Fold,
    classes: int,
    augments: Sequence[Augment],
    config: Config,
    seed: int,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> Fitted:
    """Fine-tune all weights on ``fold.train``.

    Args:
        encoder: is changed.
        fold: validation chooses the epoch; test is scored once, at the end.
        classes: how many the task has.
        augments: applied to training pictures only.
        config: rates and lengths.
        seed: of head, order and augments.
        progress: told epoch and scalars after each epoch.
    """
    torch.manual_seed(seed)
    classifier = Classifier(encoder, classes, config.dropout)
    optimiser = _optimiser(classifier, config)
    steps_an_epoch = -(-len(fold.train) // config.batch)
    steps = config.epochs * steps_an_epoch
    best, best_state, best_epoch = -1.0, {}, 0
    step = 0
    for epoch in range(1, config.epochs + 1):
        classifier.train()
        losses = []
        for examples in _batches(fold.train, config.batch, seed, epoch):
            share = rate_share(step, steps, max(1, int(config.warmup_share * steps)), 0.0)
            for group in optimiser.param_groups:
                group["lr"] = group["full_rate"] * share
            losses.append(_step(classifier, optimiser, examples, augments, config, (seed, step)))
            step += 1
        score = _score(classifier, fold.validation, config)
        if progress:
            progress(epoch, {"loss": float(np.mean(losses)), "validation": score})
        if score > best:
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
    # Clips of like length together: less padding, and the answer does not depend on it.
    order = sorted(range(len(examples)), key=lambda i: (examples[i].seconds or 0, i))
    predicted = np.zeros(len(examples), dtype=np.int64)
    with torch.inference_mode():
        for first in range(0, len(order), 2 * config.batch):
            rows = order[first : first + 2 * config.batch]
            pictures, frames = _pictures(classifier.encoder, [examples[row] for row in rows])
            with _autocast(config):
                scores = classifier(pictures, frames)
            predicted[rows] = scores.float().argmax(dim=1).cpu().numpy()
    return predicted


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
    draws = Draws(generator, 0, len(examples), len(examples), pictures.device)
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
            f"the loss became {loss.item()}; lower finetuning.learning_rate or set "
            f"finetuning.precision fp32"
        )
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
    optimiser.step()
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


def _optimiser(classifier: Classifier, config: Config) -> torch.optim.AdamW:
    """AdamW with rates that fall from the head to the patch embedding.

    Source: Clark et al. 2020 (ELECTRA, arXiv:2003.10555), section 3.1, as BEiT and MAE do.
    """
    blocks = len(cast(nn.ModuleList, classifier.encoder.backbone.blocks))
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        depth = _depth(name, blocks)
        decayed = parameter.ndim > 1 and parameter.shape[0] > 1
        groups.setdefault((depth, decayed), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "full_rate": config.learning_rate
                * (config.head_rate if depth > blocks + 1 else 1.0)
                * config.layer_decay ** max(0, blocks + 1 - depth),
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (depth, decayed), parameters in groups.items()
        ],
        lr=config.learning_rate,
    )


def _depth(name: str, blocks: int) -> int:
    """0 for the embedding, 1 to ``blocks`` for blocks, then the norm, then the head."""
    if name.startswith("head."):
        return blocks + 2
    words = name.split(".")
    if "blocks" in words:
        return int(words[words.index("blocks") + 1]) + 1
    return blocks + 1 if "backbone.norm" in name else 0


def _autocast(config: Config) -> torch.autocast:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16")
