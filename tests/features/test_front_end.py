"""The log-mel front end against torchaudio's Kaldi, and its lengths."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from sslaudio.features.front_end import FLOOR, Config, FrontEnd
from sslaudio.features.stats import measure

FRONT_END = FrontEnd(Config())


def kaldi(waveform: torch.Tensor) -> torch.Tensor:
    """AST's call (src/dataloader.py of its code), [bins, frames]."""
    torchaudio = pytest.importorskip("torchaudio")
    return torchaudio.compliance.kaldi.fbank(
        waveform[None],
        htk_compat=True,
        sample_frequency=16_000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    ).T


def sound(path: Path) -> torch.Tensor:
    samples, rate = soundfile.read(path, dtype="float32")
    return torch.from_numpy(np.asarray(soxr.resample(samples, rate, 16_000), dtype=np.float32))


@pytest.mark.parametrize("corpus", ["speech_commands", "fsdd", "esc10"])
def test_equals_kaldi_on_real_clips(real_sound: Path, corpus: str):
    files = sorted(
        path for path in (real_sound / corpus).rglob("*") if path.suffix in (".flac", ".ogg")
    )
    clips = [clip for clip in map(sound, files[:: len(files) // 30]) if len(clip) >= 400]
    lengths = torch.tensor([len(clip) for clip in clips])
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)

    pictures, frames = FRONT_END(padded, lengths)

    for clip, picture, count in zip(clips, pictures, frames.tolist(), strict=True):
        expected = kaldi(clip)
        assert count == expected.shape[1]
        assert (picture[:, :count] - expected).abs().max() < 1e-3
        assert not picture[:, count:].any()


def test_equals_kaldi_on_noise_of_every_loudness():
    generator = torch.Generator().manual_seed(0)
    for level in (1.0, 1e-2, 1e-4):
        noise = level * (2 * torch.rand(16_000, generator=generator) - 1)

        pictures, _ = FRONT_END(noise[None], torch.tensor([16_000]))

        assert (pictures[0] - kaldi(noise)).abs().max() < 1e-3


@pytest.mark.parametrize(("seconds", "frames"), [(1, 98), (2, 198), (5, 498), (8, 798), (10, 998)])
def test_frame_counts_are_asts(seconds: int, frames: int):
    # facts measured on torchaudio: 1 s gives 98 frames, 10 s 998
    assert Config().frames(seconds * 16_000) == frames
    assert FRONT_END.lengths(torch.tensor([seconds * 16_000])).item() == frames


def test_silence_is_the_floor_and_a_clip_under_one_window_has_one_frame():
    pictures, frames = FRONT_END(torch.zeros(1, 100), torch.tensor([100]))

    assert frames.tolist() == [1]
    assert np.log(FLOOR) == pytest.approx(-15.942385)
    assert torch.allclose(pictures, torch.tensor(-15.942385))


def test_what_lies_behind_a_clip_is_never_heard():
    clip = torch.randn(2, 1_000, generator=torch.Generator().manual_seed(5))
    lengths = torch.tensor([1_000, 300])

    loud, _ = FRONT_END(clip, lengths)
    clip[1, 300:] = 7.0
    quiet, _ = FRONT_END(clip, lengths)

    assert torch.equal(loud, quiet)


def test_a_long_clip_is_worked_through_in_parts_without_a_seam():
    noise = torch.randn(1, 5_000 * 160, generator=torch.Generator().manual_seed(6))
    whole, frames = FRONT_END(noise, torch.tensor([noise.shape[1]]))

    later, _ = FRONT_END(noise[:, 4_090 * 160 : 4_110 * 160], torch.tensor([3_200]))

    assert int(frames) == 4_998
    assert torch.allclose(whole[0, :, 4_090 : 4_090 + later.shape[2]], later[0], atol=1e-5)


def test_a_clip_is_the_same_alone_and_padded_in_a_batch():
    clips = 0.1 * torch.randn(3, 16_000, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([16_000, 9_000, 4_000])

    together, frames = FRONT_END(clips, lengths)

    for row in range(3):
        alone, count = FRONT_END(clips[row : row + 1, : lengths[row]], lengths[row : row + 1])
        assert count == frames[row]
        assert torch.allclose(alone[0], together[row, :, : int(count)], atol=1e-5)


def test_autocast_does_not_reach_the_front_end():
    clip = torch.randn(1, 8_000, generator=torch.Generator().manual_seed(2))
    plain, _ = FRONT_END(clip, torch.tensor([8_000]))

    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = FRONT_END(clip, torch.tensor([8_000]))

    assert inside.dtype == torch.float32
    assert torch.equal(plain, inside)


def test_statistics_leave_padding_out():
    clips = 0.1 * torch.randn(4, 16_000, generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor([16_000, 12_000, 8_000, 4_000])
    sounding = [kaldi(clip[:length]) for clip, length in zip(clips, lengths.tolist(), strict=True)]
    values = torch.cat(sounding, dim=1)

    found = measure([(clips[:2], lengths[:2]), (clips[2:], lengths[2:])], FRONT_END)

    assert found.mean == pytest.approx(values.mean().item(), abs=1e-3)
    assert found.std == pytest.approx(values.std().item(), rel=1e-3)
    assert found.frames == values.shape[1]


def test_standardised_pictures_have_mean_0_and_deviation_1():
    clips = 0.1 * torch.randn(8, 16_000, generator=torch.Generator().manual_seed(4))
    lengths = torch.full((8,), 16_000)
    found = measure([(clips, lengths)], FRONT_END)

    pictures, _ = FrontEnd(Config(), found.mean, found.std)(clips, lengths)

    assert pictures.mean().item() == pytest.approx(0, abs=1e-3)
    assert pictures.std().item() == pytest.approx(1, abs=1e-3)


def test_bands_above_nyquist_are_refused():
    with pytest.raises(ValueError, match="features.f_max_hz 8000.*at most 4000 Hz"):
        Config(sample_rate=8_000)
