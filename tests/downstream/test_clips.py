"""Clips as an encoder hears them: the front end's pictures, in bounded memory, in a fair order."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sslaudio.downstream.clips import Bank, batches, check_batch, padded, rarity
from sslaudio.features.front_end import Config, FrontEnd
from sslaudio.tasks.base import Example, Fold, Task

CROP = 4_000
SHORT, WHOLE, LONG = 1_600, 4_000, 12_000
DECODED: Counter[str] = Counter()


@dataclass(frozen=True)
class Counted(Example):
    """An example that counts how often it is decoded."""

    def waveform(self, sample_rate: int) -> np.ndarray:
        DECODED[self.key] += 1
        return super().waveform(sample_rate)


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Noise, of four lengths."""
    DECODED.clear()
    out = []
    for place, samples in enumerate((LONG, SHORT, WHOLE, LONG + 160)):
        noise = 0.1 * np.random.default_rng(place).standard_normal(samples)
        path = tmp_path / f"{place}.wav"
        soundfile.write(path, noise, 16_000, subtype="FLOAT")
        out.append(Counted(path.name, place % 2, path))
    return out


@pytest.fixture
def front_end() -> FrontEnd:
    return FrontEnd(Config(mel_bins=64), -8.0, 5.0)


def by_hand(front_end: FrontEnd, waveform: np.ndarray) -> torch.Tensor:
    """The front end's picture of one clip alone."""
    pictures, frames = front_end(
        torch.from_numpy(waveform)[None].float(), torch.tensor([len(waveform)])
    )
    return pictures[0, :, : int(frames)]


def held(bank: Bank) -> int:
    """Bytes that a bank keeps."""
    kept = [*bank.waveforms.values(), *bank.pictures.values()]
    return sum(one.numel() * one.element_size() for one in kept)


def test_pictures_of_whole_clips_are_the_front_ends(examples, front_end):
    bank = Bank(front_end, CROP, 10)

    shown = bank.pictures_of(examples)

    assert [picture.shape[1] for picture in shown] == [73, 8, 23, 74]  # 1 + (samples - 400) // 160
    for picture, example in zip(shown, examples, strict=True):
        assert torch.allclose(picture, by_hand(front_end, example.waveform(16_000)), atol=1e-4)


@pytest.mark.parametrize(("place", "start"), [(0.0, 0), (0.5, 4_000), (1.0, 8_000)])
def test_a_longer_clip_is_cropped_where_it_is_told(examples, front_end, place, start):
    shown = Bank(front_end, CROP, 10).pictures_of(examples[:3], np.full(3, place))

    sounds = [example.waveform(16_000) for example in examples[:3]]
    sounds[0] = sounds[0][start : start + CROP]  # the others are no longer than that
    for picture, sound in zip(shown, sounds, strict=True):
        assert torch.allclose(picture, by_hand(front_end, sound), atol=1e-4)


def test_places_reach_every_start_alike(examples, front_end):
    bank, waveform = Bank(front_end, 4, 1), torch.arange(6.0)

    starts = [int(bank.cropped(waveform, place)[0]) for place in np.linspace(0, 0.999, 300)]

    assert Counter(starts) == {0: 100, 1: 100, 2: 100}
    assert bank.cropped(waveform[:3], 0.7).tolist() == [0, 1, 2]


def test_what_is_heard_whole_is_kept_as_a_picture_and_longer_clips_as_sound(examples, front_end):
    bank = Bank(front_end, CROP, 10)

    for place in (0.1, 0.9):
        first = bank.pictures_of(examples, np.full(4, place))
    again = bank.pictures_of(examples, np.full(4, 0.9))

    assert set(bank.pictures) == {"1.wav", "2.wav"} and set(bank.waveforms) == {"0.wav", "3.wav"}
    assert set(DECODED.values()) == {1}
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


@pytest.mark.parametrize("megabytes", [0.0, 0.03, 0.06, 10.0])
def test_memory_stays_below_its_bound_and_changes_no_picture(examples, front_end, megabytes):
    bank, free = Bank(front_end, CROP, megabytes), Bank(front_end, CROP, 10)

    for place in (0.2, 0.4, 0.6):
        twice = [*examples, *reversed(examples)]
        shown = bank.pictures_of(twice, np.full(8, place))
        expected = free.pictures_of(twice, np.full(8, place))
        assert held(bank) <= megabytes * 1e6
        assert bank.room == round(megabytes * 1e6) - held(bank)
        for one, two in zip(shown, expected, strict=True):
            assert torch.allclose(one, two, atol=1e-4)
    assert (held(bank) > 0) == (megabytes > 0)


def test_a_batch_is_padded_with_the_mean(front_end):
    batch, frames = padded([torch.ones(2, 3), torch.ones(2, 1)])

    assert frames.tolist() == [3, 1]
    assert batch[:, 0].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_batch_goes_where_it_is_told():
    batch, frames = padded([torch.ones(2, 3), torch.ones(2, 1)], torch.device("meta"))

    assert batch.is_meta and frames.is_meta


def test_an_epoch_has_every_clip_once_in_an_order_of_its_own():
    clips = [Example(str(place), 0, Path()) for place in range(11)]

    one, again, two, other = (
        list(batches(clips, 4, seed, epoch, balanced=False))
        for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
    )

    assert [len(batch) for batch in one] == [4, 4, 3]
    assert sorted(int(clip.key) for batch in one for clip in batch) == list(range(11))
    assert one == again and one != two and one != other
    nine = list(batches(clips[:9], 4, 0, 1, balanced=False))
    assert [len(batch) for batch in nine] == [4, 5]  # a single clip cannot be standardised


def test_balanced_chances_are_the_sum_of_inverse_counts():
    targets = [(0,), (0,), (0, 1), (), (0, 2), (2,)]
    clips = [Example(str(place), target, Path()) for place, target in enumerate(targets)]

    # By hand: class 0 has four clips, class 1 one, class 2 two.
    assert rarity(clips) == pytest.approx([0.25, 0.25, 1.25, 0.0, 0.75, 0.5])


def test_balanced_draws_hear_classes_alike():
    clips = [Example(str(place), int(place >= 90), Path()) for place in range(100)]

    drawn = [
        clip.target
        for epoch in range(1, 21)
        for batch in batches(clips, 10, 0, epoch, balanced=True)
        for clip in batch
    ]

    assert len(drawn) == 2_000  # as many as there are, in each epoch
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)  # 4.5 deviations of 2,000 draws


def test_a_batch_larger_than_the_part_is_refused():
    one = Example("a", 0, Path())
    fold = Fold("f", (one, Example("b", 1, Path())), (one,), (one,))
    task = object.__new__(Task)
    object.__setattr__(task, "name", "tones")

    check_batch(task, 2, 2, fold.name)
    with pytest.raises(ValueError, match=r"training.batch is 3, but fold f of tones has 2"):
        check_batch(task, 2, 3, fold.name)
