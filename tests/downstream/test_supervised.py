"""Full fine-tuning: learns what can be heard, keeps the epoch that validates best."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sslaudio.adapters import full
from sslaudio.backbones import ast
from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream.metrics import accuracy
from sslaudio.downstream.supervised import Config, Fitted, fit
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd
from sslaudio.tasks.base import Example, Fold, Task

HERTZ = (440.0, 1_760.0)


@pytest.fixture
def fold(tmp_path: Path) -> Fold:
    """Two tones under noise, 12 clips a part, half a second each."""
    generator = np.random.default_rng(0)
    parts = []
    for part in ("train", "validation", "test"):
        examples = []
        for index in range(12):
            target = index % 2
            seconds = np.arange(8_000) / 16_000
            tone = np.sin(2 * np.pi * HERTZ[target] * seconds + generator.uniform(0, 6))
            path = tmp_path / f"{part}-{index}.wav"
            soundfile.write(path, 0.2 * tone + 0.1 * generator.normal(size=8_000), 16_000)
            examples.append(Example(path.name, target, path))
        parts.append(tuple(examples))
    return Fold("one", *parts)


def fitted(fold: Fold, told: list[float]) -> Fitted:
    torch.manual_seed(0)
    backbone = ast.build(ast.Config(patch=(64, 8)), 64, 48)
    encoder = Encoder(FrontEnd(Features(mel_bins=64), -8.0, 5.0), backbone, ("mean",), None, 48)
    task = Task("tones", ("high", "low"), 0.5, "by hand", (fold,))
    return fit(
        encoder,
        task,
        fold,
        full.build(full.Config()),
        [],
        Config(epochs=5, batch=6),
        lambda _, scalars: told.append(scalars["validation"]),
    )


def test_it_learns_and_keeps_the_last_of_the_best_epochs(fold: Fold):
    validations: list[float] = []

    result = fitted(fold, validations)

    assert result.test >= 0.9
    assert result.validation == max(validations)
    assert result.epoch == max(e for e in range(1, 6) if validations[e - 1] == max(validations))
    targets = np.array([example.target for example in fold.test])
    assert accuracy(targets, result.test_scores.argmax(axis=1)) == result.test
    # The plain head says in float32, from sound, what the learning one did.
    sound = torch.stack([torch.from_numpy(one.waveform(16_000)) for one in fold.test])
    said = result.classifier(sound).detach().numpy()
    assert said == pytest.approx(result.test_scores, abs=0.05)


def test_the_same_seed_gives_the_same_weights(fold: Fold):
    one, two = (fitted(fold, []).classifier.state_dict() for _ in range(2))

    assert all(torch.equal(one[name], two[name]) for name in one)
