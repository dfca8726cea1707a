"""Learning by gradients: what is heard is learned, the best epoch is kept, the rest is still."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sslaudio import adaptation, plugins
from sslaudio.adapters.base import Adapter
from sslaudio.augments import gain
from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream import scoring, supervised
from sslaudio.downstream.clips import Bank, check_batch
from sslaudio.downstream.metrics import accuracy
from sslaudio.downstream.scoring import TokenBank, score
from sslaudio.downstream.supervised import Config, Fitted, Learner, Mean, fit
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd
from sslaudio.plugins import Plugin
from sslaudio.recipe import Finetune
from sslaudio.tasks.base import PARTS, Example, Fold, Target, Task
from sslaudio.training.optim import stepped_share

HERTZ = (440.0, 1_760.0)
SHORT = Config(epochs=4, batch=6, learning_rate=2e-3, kept_megabytes=100)
Told = list[dict[str, float]]


def sounds(
    folder: Path,
    clips: int,
    target: Callable[[int, np.random.Generator], Target],
    sound: Callable[[Target, np.ndarray], np.ndarray],
    seconds: float = 0.4,
) -> Fold:
    """A fold of so many clips a part, each by itself under noise."""
    generator = np.random.default_rng(0)
    parts = {}
    for part in PARTS:
        examples = []
        for index in range(clips):
            told = target(index, generator)
            times = np.arange(round(16_000 * seconds)) / 16_000 + generator.uniform(0, 6)
            noise = 0.05 * generator.normal(size=len(times))
            path = folder / f"{part}-{index}.wav"
            soundfile.write(path, sound(told, times) + noise, 16_000)
            examples.append(Example(path.name, told, path))
        parts[part] = tuple(examples)
    return Fold("one", **parts)


def tone(target: Target, times: np.ndarray) -> np.ndarray:
    """One of two pitches, or both or neither."""
    heard = target if isinstance(target, tuple) else (int(target),)
    silence = np.zeros_like(times)
    return 0.2 * sum((np.sin(2 * np.pi * HERTZ[one] * times) for one in heard), silence)


@pytest.fixture
def fold(tmp_path: Path) -> Fold:
    """Two tones under noise, 12 clips a part."""
    return sounds(tmp_path, 12, lambda index, _: index % 2, tone)


def task_of(fold: Fold, kind: str = "single", seconds: float = 0.4) -> Task:
    classes = () if kind == "number" else ("high", "low")
    return Task("tones", classes, seconds, "by hand", (fold,), kind)


def encoder_of(name: str = "ast", **settings) -> Encoder:
    torch.manual_seed(0)
    room = plugins.load("backbones", name)
    small = {"patch": (64, 8), "dim": 32, "heads": 2, "depth": 2} if name == "ast" else {}
    backbone = room.build(room.Config(**small, **settings), 64, 40)
    return Encoder(FrontEnd(Features(mel_bins=64), -8.0, 5.0), backbone, ("mean",), None, 40)


def adapter_of(name: str, **settings) -> Adapter:
    room = plugins.load("adapters", name)
    return room.build(room.Config(**settings))


def fitted(
    fold: Fold,
    told: Told | None = None,
    *,
    kind: str = "single",
    encoder: Encoder | None = None,
    adapter: str = "full",
    augments=(),
    seconds: float = 0.4,
    **settings,
) -> Fitted:
    """Fine-tuned on a fold, with what each epoch told."""
    scalars = told if told is not None else []
    return fit(
        encoder or encoder_of(),
        task_of(fold, kind, seconds),
        fold,
        adapter_of(adapter),
        augments,
        replace(SHORT, **settings),
        lambda _, values: scalars.append(values),
    )


def losses(told: Told) -> list[float]:
    return [values["loss"] for values in told]


def test_it_learns_and_keeps_the_last_of_the_best_epochs(fold):
    told: Told = []

    result = fitted(fold, told)

    validations = [values["validation"] for values in told]
    assert result.test >= 0.9
    assert result.validation == max(validations)
    assert result.epoch == max(e for e in range(1, 5) if validations[e - 1] == max(validations))
    targets = np.array([example.target for example in fold.test])
    assert accuracy(targets, result.test_scores.argmax(axis=1)) == result.test
    # The plain head says in float32, from sound, what the learning one did.
    sound = torch.stack([torch.from_numpy(one.waveform(16_000)) for one in fold.test])
    said = result.classifier(sound).detach().numpy()
    assert said == pytest.approx(result.test_scores, abs=0.05)


def test_several_classes_a_clip_are_learned(tmp_path):
    told = [(0,), (1,), (0, 1), ()]
    fold = sounds(tmp_path, 24, lambda index, _: told[index % 4], tone)

    result = fitted(fold, kind="multi", epochs=8)

    assert result.test > 0.95


def test_a_number_is_learned_in_its_own_unit(tmp_path):
    def level(target, times):
        return 10 ** ((target - 140) / 20) * np.sin(2 * np.pi * 440 * times)

    fold = sounds(tmp_path, 24, lambda _, random: float(random.uniform(100, 130)), level)

    result = fitted(fold, kind="number", epochs=20, learning_rate=1e-3)

    assert result.test > 0.7  # share of the variance
    numbers = task_of(fold, "number").targets(fold.test)
    assert abs(result.test_scores[:, 0] - numbers).mean() < 5
    # The unit is folded into the head, whose scores have float32's digits, not bfloat16's eight.
    assert len(set(result.test_scores[:, 0])) == 24
    sound = torch.from_numpy(fold.test[0].waveform(16_000))[None]
    assert result.classifier(sound).item() == pytest.approx(result.test_scores[0, 0], abs=1)


def test_labels_that_mean_nothing_score_chance(tmp_path):
    coin = sounds(
        tmp_path,
        60,
        lambda _, random: int(random.integers(2)),
        lambda target, times: tone(int(times[0] * 1e6) % 2, times),
    )

    result = fitted(coin, batch=20, epochs=6)

    assert 0.3 < result.test < 0.7  # three deviations of 60 tosses


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mixup": "wave", "loss": "bce", "test_crops": 2, "crop_seconds": 0.3},
        {"mixup": "log", "patch_drop": 0.3, "balanced": True, "dropout": 0.1},
    ],
)
def test_the_same_seed_gives_the_same_weights_and_scores_to_the_last_digit(fold, settings):
    made = [
        fitted(fold, augments=[gain.build(gain.Config())], epochs=2, seed=seed, **settings)
        for seed in (3, 3, 4)
    ]

    one, two, other = (result.classifier.state_dict() for result in made)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (made[0].test_scores == made[1].test_scores).all()
    assert any(not torch.equal(one[name], other[name]) for name in one)


# What the rate does.


def test_rates_are_cut_as_in_asts_log():
    full = [1e-5 * stepped_share(epoch, 2, 1, 0.5) for epoch in range(1, 6)]
    balanced = [stepped_share(epoch, 10, 5, 0.5) for epoch in (1, 10, 11, 15, 16, 20, 21, 25)]

    assert full == pytest.approx([1e-5, 1e-5, 5e-6, 2.5e-6, 1.25e-6])
    assert balanced == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


def test_the_warm_up_rises_over_its_steps_and_0_is_none():
    steps = Config(schedule="steps", warmup_steps=4, cut_from=1, cut_to=0.5)

    assert [steps.share(step, 100, 1) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert [steps.share(step, 100, 2) for step in (1, 50)] == [0.25, 0.5]
    assert replace(steps, warmup_steps=0).share(0, 100, 1) == 1
    cosine = Config(warmup_share=0.1)
    assert [cosine.share(step, 20, 1) for step in (0, 1)] == [0.5, 1]
    assert replace(cosine, warmup_steps=5).share(0, 20, 1) == 0.2


def test_every_weight_is_stepped_at_the_rate_of_its_place(fold, monkeypatch):
    rates: list[set[float]] = []
    step = torch.optim.AdamW.step

    def told(self, *given):
        rates.append({group["lr"] for group in self.param_groups})
        return step(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", told)
    fitted(fold, schedule="steps", warmup_steps=0, cut_from=1, cut_to=0.5, epochs=2, head_rate=10.0)

    # Blocks 2 and 1 and the patches by layer decay 0.75, the head by its multiple.
    full = [2e-3 * share for share in (10, 1, 0.75, 0.75**2)]
    assert [sorted(rates[0], reverse=True), len(rates)] == [pytest.approx(full), 4]
    assert sorted(rates[2]) == pytest.approx([rate / 2 for rate in sorted(full)])


def test_gradients_are_cut_to_a_norm_or_left(fold, monkeypatch):
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def told(self, *given):
        every = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        norms.append(torch.stack(every).norm().item())
        return step(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", told)
    fitted(fold, epochs=1, clip_norm=1e-3)
    fitted(fold, epochs=1, clip_norm=0.0)

    assert norms[:2] == pytest.approx([1e-3] * 2, rel=1e-2) and min(norms[2:]) > 1e-2


# Which epoch is kept.


@pytest.fixture
def validations(monkeypatch) -> list[float]:
    """What validation will say, epoch by epoch."""
    said: list[float] = []
    monkeypatch.setattr(Learner, "_validated", lambda self: said.pop(0))
    return said


def test_it_stops_after_so_many_epochs_without_a_better_one(fold, validations):
    validations += [0.5, 0.7, 0.6, 0.6, 0.9]
    told: Told = []

    result = fitted(fold, told, epochs=5, patience=2)

    assert (len(told), result.epoch) == (4, 2)
    assert validations == [0.9]


@pytest.mark.parametrize(("of_mean", "epoch"), [(0.8, 0), (0.7, 2), (0.1, 2)])
def test_averaged_weights_are_kept_only_if_they_validate_better(
    fold, validations, monkeypatch, of_mean, epoch
):
    validations += [0.6, 0.7, 0.5, of_mean]
    states: list[dict[str, torch.Tensor]] = []
    add = Mean.add

    def seen(self, state):
        states.append({name: value.detach().clone() for name, value in state.items()})
        add(self, state)

    monkeypatch.setattr(Mean, "add", seen)

    result = fitted(fold, epochs=3, average_from=2)

    assert (len(states), result.epoch) == (2, epoch)
    weights = dict(result.classifier.encoder.named_parameters())
    for name, weight in weights.items():
        if weight.requires_grad:
            second, third = (state[f"encoder.{name}"] for state in states)
            expected = second if epoch else (second.double() + third) / 2
            assert torch.allclose(weight.double(), expected.double(), atol=1e-7)


# What a clip is heard as.


def test_several_crops_are_averaged_by_their_shares(tmp_path):
    fold = sounds(tmp_path, 4, lambda index, _: index % 2, tone, seconds=1.0)
    result = fitted(fold, batch=4, epochs=1, crop_seconds=0.4)
    classifier = result.classifier

    said = score(classifier, fold.test, Bank(classifier.encoder.front_end, 6_400, 10), "fp32", 3)

    for row, example in zip(said, fold.test, strict=True):
        sound = torch.from_numpy(example.waveform(16_000))
        with torch.inference_mode():
            shares = [  # the beginning, the middle, the end: 16,000 - 6,400 samples to go
                classifier(sound[None, start : start + 6_400]).softmax(dim=1)[0]
                for start in (0, 4_800, 9_600)
            ]
        mean = torch.stack(shares).mean(dim=0).numpy()
        assert np.exp(row) / np.exp(row).sum() == pytest.approx(mean, abs=1e-4)
    whole = score(classifier, fold.test, Bank(classifier.encoder.front_end, 6_400, 10), "fp32", 1)
    assert abs(whole - said).max() > 1e-3


def test_longer_clips_are_cropped_elsewhere_in_every_epoch_and_the_same_again(
    tmp_path, monkeypatch
):
    fold = sounds(tmp_path, 6, lambda index, _: index % 2, tone, seconds=1.0)
    places: list[float] = []
    cropped = Bank.cropped

    def told(self, waveform, place):
        places.append(float(place))
        return cropped(self, waveform, place)

    monkeypatch.setattr(Bank, "cropped", told)
    for _ in range(2):
        fitted(fold, epochs=3, crop_seconds=0.4)

    one, two = places[:18], places[18:]
    assert one == two and len(set(one)) == 18  # six clips, three epochs
    assert min(one) < 0.25 and max(one) > 0.75


def test_tokens_of_few_frames_at_a_time_are_those_of_all(fold, tmp_path, monkeypatch):
    longer = sounds(tmp_path, 2, lambda index, _: index % 2, tone, seconds=0.7)
    examples = [*fold.train[2:5], *longer.train, fold.train[2]]
    encoder = encoder_of().eval()
    widths: list[int] = []
    tokens = Encoder.tokens

    def seen(self, pictures, frames, drop=None):
        widths.append(pictures.shape[0] * pictures.shape[2])
        return tokens(self, pictures, frames, drop)

    monkeypatch.setattr(Encoder, "tokens", seen)
    banks = [TokenBank(encoder, Bank(encoder.front_end, 16_000, 10), "fp32", 10) for _ in range(2)]
    whole = banks[0].tokens(examples)
    monkeypatch.setattr(scoring, "FRAMES_AT_ONCE", 100)
    parts = banks[1].tokens(examples)

    assert len(widths) > 3 and max(widths[1:]) <= 100 < widths[0]
    assert torch.equal(parts.sound, whole.sound) and len(set(whole.sound.sum(1).tolist())) == 2
    assert torch.allclose(parts.patches, whole.patches, atol=2e-3)  # kept in half precision
    assert torch.equal(banks[1].tokens(examples).patches, parts.patches)  # as they were kept


@pytest.mark.gpu
@pytest.mark.parametrize("adapter", ["full", "attentive"])
def test_what_is_kept_is_in_the_cpus_memory(fold, monkeypatch, adapter):
    learners: list[Learner] = []
    finished = Learner.finished
    monkeypatch.setattr(
        Learner, "finished", lambda own, epoch: learners.append(own) or finished(own, epoch)
    )

    fitted(fold, encoder=encoder_of().cuda(), adapter=adapter, epochs=1)

    (learner,) = learners
    held = learner.tokens.held if learner.tokens else learner.bank.pictures
    assert held and not any(kept.is_cuda for kept in held.values())


@pytest.mark.parametrize("name", ["ast", "mast"])
def test_dropping_patches_changes_what_training_hears_and_nothing_else(fold, name, monkeypatch):
    told: list[Told] = [[], []]
    for values, share in zip(told, (0.0, 0.4), strict=True):
        fitted(fold, values, encoder=encoder_of(name), epochs=1, patch_drop=share)
    assert losses(told[0]) != losses(told[1]) and np.isfinite(losses(told[1])).all()

    drops: list[bool] = []
    tokens = Encoder.tokens

    def seen(self, pictures, frames, drop=None):
        drops.append(drop is not None)
        return tokens(self, pictures, frames, drop)

    monkeypatch.setattr(Encoder, "tokens", seen)
    fitted(fold, encoder=encoder_of(name), epochs=1, patch_drop=0.4)
    assert drops == [True, True, False, False, False]  # two steps; what is scored is whole


@pytest.mark.parametrize("settings", [{"mixup": "wave"}, {"mixup": "log"}, {"patch_drop": 0.2}])
def test_it_learns_with_every_regulariser(fold, settings):
    assert fitted(fold, epochs=8, **settings).test >= 0.9


# What learns, and what does not.


@pytest.mark.parametrize("augments", [(), (gain.build(gain.Config()),)])
def test_an_attentive_head_learns_on_an_encoder_that_is_left_alone(fold, augments):
    encoder = encoder_of(drop_path=0.5)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    told: Told = []

    result = fitted(
        fold, told, encoder=encoder, adapter="attentive", augments=augments, epochs=12,
        learning_rate=1e-2,
    )  # fmt: skip

    assert losses(told)[-1] < 0.8 * losses(told)[0]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(one.grad is None and not one.requires_grad for one in encoder.parameters())
    assert result.trainable == sum(p.numel() for p in result.classifier.head.parameters())


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_what_is_found_in_closed_form_asks_for_no_gradient(fold, tmp_path, monkeypatch, protocol):
    def never(*_, **__):
        raise AssertionError("a gradient was asked for")

    monkeypatch.setattr(torch.Tensor, "backward", never)
    monkeypatch.setattr(supervised, "fit", never)
    room = plugins.load("adapters", protocol)
    ast = plugins.load("backbones", "ast")
    small = ast.Config(patch=(128, 8), dim=32, heads=2, depth=2, pooling=("mean",))
    recipe = Finetune(
        adapter=Plugin("adapters", protocol, room.Config()),
        backbone=Plugin("backbones", "ast", small),
        task=Plugin("tasks", "shards", plugins.load("tasks", "shards").Config()),
    )
    task = task_of(fold)
    encoder, _ = adaptation.start_of(recipe, adaptation.Start(None, None), task, fold)

    outcome = adaptation.adapt(recipe, adaptation.Start(None, None), task, fold, tmp_path)

    assert outcome.record.test >= 0.9
    for name, value in encoder.backbone.state_dict().items():  # random weights of the same seed
        assert torch.equal(outcome.weights[f"backbone.{name}"], value)


# What is refused.


@pytest.mark.parametrize("settings", [{"loss": "bce"}, {"loss": "ce"}, {"balanced": True}])
def test_what_only_classes_have_is_refused_for_a_number(tmp_path, settings):
    fold = sounds(tmp_path, 6, lambda index, _: float(index), lambda _, times: tone(0, times))

    with pytest.raises(ValueError, match=r"leave out training\.balanced and training\.loss"):
        fitted(fold, kind="number", **settings)


def test_a_batch_that_leaves_a_process_one_clip_is_refused(fold, monkeypatch):
    monkeypatch.setattr("sslaudio.ranks.count", lambda: 3)

    check_batch(task_of(fold), 12, 6, "one")
    with pytest.raises(ValueError, match=r"is 5 over 3 processes.*set training\.batch to 6"):
        check_batch(task_of(fold), 12, 5, "one")


def test_a_loss_that_is_not_finite_is_told(fold, monkeypatch):
    monkeypatch.setattr(supervised, "loss", lambda scores, *_: scores[:, 0] * torch.nan)

    with pytest.raises(ValueError, match=r"the loss became nan; lower training\.learning_rate"):
        fitted(fold)


@pytest.mark.parametrize(
    "wrong", [{"warmup_steps": -1}, {"clip_norm": -1.0}, {"epochs": 2, "average_from": 3}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="|".join(f"training.{key}" for key in wrong)):
        Config(**wrong)
