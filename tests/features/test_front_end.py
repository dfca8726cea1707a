"""Every kind of front end against its reference, and its lengths, paddings and gradients."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from sslaudio import config as configs
from sslaudio.features import filters
from sslaudio.features.front_end import FLOOR, KINDS, Config, FrontEnd
from sslaudio.features.stats import measure, plain

FRONT_END = FrontEnd(Config())
KALDI = {
    "sample_frequency": 16_000,
    "use_energy": False,
    "window_type": "hanning",
    "dither": 0.0,
    "frame_shift": 10,
}
BEFORE = {
    "sample_rate": 16_000,
    "window_samples": 400,
    "hop_samples": 160,
    "mel_bins": 128,
    "f_min_hz": 20.0,
    "f_max_hz": 8_000.0,
    "preemphasis": 0.97,
    "mean": -5.0,
    "std": 4.0,
    "pad": "masked",
}
"""What a config.json held before there were kinds."""


def kaldi(waveform: torch.Tensor) -> torch.Tensor:
    """AST's call (src/dataloader.py of its code), [bins, frames]."""
    torchaudio = pytest.importorskip("torchaudio")
    return torchaudio.compliance.kaldi.fbank(
        waveform[None], htk_compat=True, num_mel_bins=128, **KALDI
    ).T


def mfcc(waveform: torch.Tensor) -> torch.Tensor:
    torchaudio = pytest.importorskip("torchaudio")
    return torchaudio.compliance.kaldi.mfcc(
        waveform[None], num_mel_bins=40, num_ceps=32, cepstral_lifter=22.0, **KALDI
    ).T


def librosa_mel(waveform: torch.Tensor) -> torch.Tensor:
    librosa = pytest.importorskip("librosa")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a clip shorter than the FFT
        energies = librosa.feature.melspectrogram(
            y=waveform.numpy(),
            sr=16_000,
            n_fft=1024,
            hop_length=160,
            n_mels=128,
            fmin=60,
            fmax=7800,
        )
    return torch.from_numpy(np.log(energies + np.finfo(np.float32).eps))


def librosa_lines(waveform: torch.Tensor) -> torch.Tensor:
    librosa = pytest.importorskip("librosa")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = librosa.stft(waveform.numpy(), n_fft=512, hop_length=160)
    power = np.abs(lines[:256]) ** 2  # all but Nyquist's
    return torch.from_numpy(np.log(power + np.finfo(np.float32).eps))


REFERENCES = {"kaldi": kaldi, "librosa": librosa_mel, "spectrogram": librosa_lines, "mfcc": mfcc}


def sound(path: Path) -> torch.Tensor:
    samples, rate = soundfile.read(path, dtype="float32")
    return torch.from_numpy(np.asarray(soxr.resample(samples, rate, 16_000), dtype=np.float32))


def real_clips(folder: Path, count: int) -> list[torch.Tensor]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".ogg"))
    return [clip for clip in map(sound, files[:: len(files) // count]) if len(clip) >= 400]


def padded(clips: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(clip) for clip in clips])
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths


def noise(clips: int, samples: int, seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=list(KINDS))
def kind(request) -> str:
    return request.param


@pytest.mark.parametrize("corpus", ["speech_commands", "fsdd", "esc10"])
def test_equals_its_reference_on_real_clips(real_sound: Path, corpus: str, kind: str):
    clips = real_clips(real_sound / corpus, 30)

    pictures, frames = FrontEnd(Config(kind=kind))(*padded(clips))

    assert pictures.dtype == torch.float32
    for clip, picture, count in zip(clips, pictures, frames.tolist(), strict=True):
        expected = REFERENCES[kind](clip)
        assert (len(picture), count) == expected.shape
        assert (picture[:, :count] - expected).abs().max() < 1e-3
        assert not picture[:, count:].any()


def test_equals_its_reference_on_noise_of_every_loudness(kind: str):
    for level in (10.0, 0.1, 1e-3):
        clip = level * noise(1, 16_000, seed=0)

        pictures, _ = FrontEnd(Config(kind=kind))(clip, torch.tensor([16_000]))

        assert (pictures[0] - REFERENCES[kind](clip[0])).abs().max() < 1e-3


def test_equals_librosa_under_a_loud_hum():
    # A line 80 dB under another: what float32 transforms get wrong.
    seconds = torch.arange(16_000) / 16_000
    clip = 0.9 * torch.sin(2 * torch.pi * 50 * seconds) + 1e-5 * noise(1, 16_000, seed=7)[0]

    for kind in ("librosa", "spectrogram"):
        pictures, _ = FrontEnd(Config(kind=kind))(clip[None], torch.tensor([16_000]))

        assert (pictures[0] - REFERENCES[kind](clip)).abs().max() < 1e-3


@pytest.mark.parametrize("bins", [40, 64, 128])
def test_slaneys_bank_is_librosas(bins: int):
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=bins, fmin=60, fmax=7800)

    bank = filters.slaney_bank(bins, 16_000, 1024, 60.0, 7800.0)

    assert torch.allclose(bank.T, torch.from_numpy(expected), atol=1e-8)


def test_settings_of_byol_a_are_librosas_call():
    librosa = pytest.importorskip("librosa")
    clip = noise(1, 15_200, seed=8)  # 0.95 s, BYOL-A's crop: 96 frames
    expected = librosa.feature.melspectrogram(
        y=clip[0].numpy(), sr=16_000, n_fft=1024, hop_length=160, n_mels=64, fmin=60, fmax=7800
    )

    pictures, frames = FrontEnd(Config(kind="librosa", mel_bins=64))(clip, torch.tensor([15_200]))

    assert pictures.shape == (1, 64, 96) and frames.tolist() == [96]
    assert (pictures[0] - torch.from_numpy(np.log(expected + FLOOR))).abs().max() < 1e-3


def test_other_windows_and_edges_are_the_references_too():
    librosa = pytest.importorskip("librosa")
    torchaudio = pytest.importorskip("torchaudio")
    clip = noise(1, 8_000, seed=9)
    ours = {
        "mfcc": Config(kind="mfcc", mel_bins=23, coefficients=13, f_min_hz=60.0, preemphasis=0.9),
        "lines": Config(kind="spectrogram", window_samples=400, f_min_hz=50.0, f_max_hz=4_000.0),
    }
    cepstra = torchaudio.compliance.kaldi.mfcc(
        clip, num_mel_bins=23, num_ceps=13, low_freq=60.0, preemphasis_coefficient=0.9, **KALDI
    ).T
    lines = np.abs(librosa.stft(clip[0].numpy(), n_fft=400, hop_length=160)) ** 2
    # Lines are 40 Hz apart: the first from 50 Hz is the 2nd (80 Hz), 4,000 Hz is the 100th.
    expected = {"mfcc": cepstra, "lines": torch.from_numpy(np.log(lines[2:100] + FLOOR))}

    for name, config in ours.items():
        pictures, _ = FrontEnd(config)(clip, torch.tensor([8_000]))

        assert pictures.shape[1] == config.bins
        assert (pictures[0] - expected[name]).abs().max() < 1e-3


def test_cosines_are_orthonormal_but_for_the_lifter():
    # By hand: 2 bands; C0 is their sum over the root of 2, C1 their difference over it, liftered
    # by 1 + 11 sin(pi / 22).
    root, lifter = 2**-0.5, 1 + 11 * float(np.sin(np.pi / 22))

    assert torch.allclose(
        filters.cepstra(2, 2), torch.tensor([[root, root * lifter], [root, -root * lifter]])
    )


@pytest.mark.parametrize(("seconds", "frames"), [(1, 98), (2, 198), (5, 498), (8, 798), (10, 998)])
def test_frame_counts_are_asts(seconds: int, frames: int):
    # facts measured on torchaudio: 1 s gives 98 frames, 10 s 998
    assert Config().frames(seconds * 16_000) == frames
    assert FRONT_END.lengths(torch.tensor([seconds * 16_000])).item() == frames


@pytest.mark.parametrize(("samples", "frames"), [(16_000, 101), (15_200, 96), (159, 1), (0, 1)])
def test_centred_windows_begin_at_every_hop_of_the_clip(samples: int, frames: int):
    # LAPE: 10 s gives 1001 frames, 0.95 s 96
    for config in (Config(kind="librosa"), Config(kind="spectrogram")):
        assert config.frames(samples) == frames
        assert FrontEnd(config).lengths(torch.tensor([samples])).tolist() == [frames]


@pytest.mark.parametrize(
    ("kind", "bins"), [("kaldi", 128), ("librosa", 128), ("spectrogram", 256), ("mfcc", 32)]
)
def test_patches_of_16_bins_divide_every_kinds_picture(kind: str, bins: int):
    config = Config(kind=kind)
    pictures, frames = FrontEnd(config)(noise(2, 4_000, seed=1), torch.tensor([4_000, 1_000]))

    assert config.bins == bins and bins % 16 == 0
    assert pictures.shape == (2, bins, config.frames(4_000))
    assert frames.tolist() == [config.frames(4_000), config.frames(1_000)]


def test_silence_is_the_floor_and_a_clip_under_one_window_has_one_frame():
    assert np.log(FLOOR) == pytest.approx(-15.942385)
    for kind in ("kaldi", "librosa", "spectrogram"):
        pictures, frames = FrontEnd(Config(kind=kind))(torch.zeros(1, 100), torch.tensor([100]))

        assert frames.tolist() == [1]
        assert torch.allclose(pictures, torch.tensor(-15.942385))


def test_what_lies_behind_a_clip_is_never_heard(kind: str):
    front_end = FrontEnd(Config(kind=kind))
    clip = noise(2, 1_000, seed=5)
    lengths = torch.tensor([1_000, 300])

    loud, _ = front_end(clip, lengths)
    clip[1, 300:] = 7.0
    quiet, _ = front_end(clip, lengths)

    assert torch.equal(loud, quiet)


def test_a_long_clip_is_worked_through_in_parts_without_a_seam():
    clip = torch.randn(1, 5_000 * 160, generator=torch.Generator().manual_seed(6))
    whole, frames = FRONT_END(clip, torch.tensor([clip.shape[1]]))

    later, _ = FRONT_END(clip[:, 4_090 * 160 : 4_110 * 160], torch.tensor([3_200]))

    assert int(frames) == 4_998
    assert torch.allclose(whole[0, :, 4_090 : 4_090 + later.shape[2]], later[0], atol=1e-5)


def test_a_clip_is_the_same_alone_and_padded_in_a_batch(kind: str):
    front_end = FrontEnd(Config(kind=kind), -5.0, 4.0)
    clips = noise(3, 16_000, seed=1)
    lengths = torch.tensor([16_000, 9_000, 4_000])

    together, frames = front_end(clips, lengths)

    for row in range(3):
        alone, count = front_end(clips[row : row + 1, : lengths[row]], lengths[row : row + 1])
        assert count == frames[row] == alone.shape[2]
        assert torch.allclose(alone[0], together[row, :, : int(count)], atol=1e-5)


def test_autocast_does_not_reach_the_front_end(kind: str):
    front_end = FrontEnd(Config(kind=kind))
    clip, lengths = noise(1, 8_000, seed=2), torch.tensor([8_000])
    outside, _ = front_end(clip, lengths)

    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = front_end(clip, lengths)

    assert inside.dtype == torch.float32
    assert torch.equal(outside, inside)


def test_gradients_reach_the_sound_and_are_finite_in_silence(kind: str):
    clips = noise(3, 4_000, seed=3)
    clips[1] = 0.0
    clips.requires_grad_()

    pictures, _ = FrontEnd(Config(kind=kind), -5.0, 4.0)(clips, torch.tensor([4_000, 4_000, 2_000]))
    pictures.square().sum().backward()

    assert clips.grad is not None and clips.grad.isfinite().all()
    assert clips.grad[0].count_nonzero() > 3_000
    assert clips.grad[2, :1_900].any() and not clips.grad[2, 2_000:].any()


def test_a_gradient_is_the_slope():
    # Along one direction: the picture's change over a small step, in float32.
    clip, way = noise(1, 1_200, seed=4), noise(1, 1_200, seed=5)
    for kind in KINDS:
        front_end = FrontEnd(Config(kind=kind, **({"mel_bins": 20} if kind == "kaldi" else {})))

        def height(step: float, front_end: Callable = front_end) -> torch.Tensor:
            return front_end(clip + step * way, torch.tensor([1_200]))[0].double().mean()

        step = torch.zeros((), requires_grad=True)
        height(step).backward()

        assert step.grad.item() == pytest.approx(
            (height(1e-3) - height(-1e-3)).item() / 2e-3, rel=0.02
        )


def test_a_click_stands_in_the_column_of_its_time(kind: str):
    front_end = FrontEnd(Config(kind=kind, hop_samples=80))
    clip = torch.zeros(1, 16_000)
    clip[0, 9_000] = 1.0

    pictures, frames = front_end(clip, torch.tensor([16_000]))

    seconds = front_end.seconds(int(frames))
    loudest = pictures[0, 0 if kind == "mfcc" else slice(None)].reshape(-1, int(frames)).sum(0)
    assert abs(seconds[loudest.argmax()].item() - 9_000 / 16_000) <= 80 / 16_000


def test_seconds_are_those_of_window_centres():
    # By hand: Kaldi's first window is 25 ms from the start on; a centred one begins before it.
    assert FRONT_END.seconds(2).tolist() == pytest.approx([0.0125, 0.0225])
    assert FrontEnd(Config(kind="librosa")).seconds(3).tolist() == pytest.approx([0, 0.01, 0.02])


@pytest.mark.parametrize("kind", ["kaldi", "librosa", "spectrogram"])
def test_a_tone_stands_in_the_row_of_its_frequency(kind: str):
    front_end = FrontEnd(Config(kind=kind))
    hertz = front_end.hertz()
    row = int(0.4 * len(hertz))
    tone = torch.sin(2 * torch.pi * hertz[row] * torch.arange(8_000) / 16_000)

    pictures, _ = front_end(tone[None], torch.tensor([8_000]))

    assert (hertz.diff() > 0).all()
    assert pictures[0, :, 20].argmax().item() == row


def test_hertz_of_rows():
    librosa = pytest.importorskip("librosa")
    centres = librosa.mel_frequencies(n_mels=130, fmin=60, fmax=7800)[1:-1]

    assert np.allclose(FrontEnd(Config(kind="librosa")).hertz().numpy(), centres, rtol=1e-5)
    assert FrontEnd(Config(kind="spectrogram")).hertz()[:3].tolist() == [0, 31.25, 62.5]
    with pytest.raises(ValueError, match="cepstral coefficient and has no frequency; set features"):
        FrontEnd(Config(kind="mfcc")).hertz()


def test_a_config_of_before_there_were_kinds_gives_the_same_picture():
    clips, lengths = noise(2, 16_000, seed=6), torch.tensor([16_000, 7_000])

    before, frames = FrontEnd(configs.build(Config, BEFORE))(clips, lengths)
    now, _ = FrontEnd(Config(), -5.0, 4.0)(clips, lengths)

    assert torch.equal(before, now)
    for clip, length, picture, count in zip(clips, lengths, before, frames, strict=True):
        assert (picture[:, :count] * 4 - 5 - kaldi(clip[:length])).abs().max() < 1e-3


def test_nothing_is_derived_into_a_config():
    written = configs.plain(Config(kind="librosa"))

    assert written["window_samples"] is None and written["f_max_hz"] is None
    assert configs.build(Config, written) == Config(kind="librosa")
    assert Config(kind="librosa").settings.f_max_hz == 7_800


def test_legacy_pads_with_raw_zeros_and_keeps_the_beginning():
    clips, lengths = noise(2, 16_000, seed=7), torch.tensor([16_000, 1_360])
    bare, _ = FRONT_END(clips, lengths)
    config = Config(pad="legacy", legacy_frames=20, mean=-4.0, std=8.0)

    pictures, frames = FrontEnd(config)(clips, lengths)

    assert pictures.shape == (2, 128, 20)
    assert frames.tolist() == [20, 20]
    assert config.frames(16_000) == config.frames(0) == 20
    assert torch.equal(pictures[0], (bare[0, :, :20] + 4) / 8)
    # 1,360 samples are 7 frames; behind them (0 - -4) / 8.
    assert torch.equal(pictures[1, :, :7], (bare[1, :, :7] + 4) / 8)
    assert (pictures[1, :, 7:] == 0.5).all()


def test_legacy_widens_a_batch_of_short_clips(kind: str):
    config = Config(kind=kind, pad="legacy", legacy_frames=64, mean=-4.0, std=8.0)

    pictures, frames = FrontEnd(config)(noise(3, 2_000, seed=8), torch.tensor([2_000, 900, 10]))

    assert pictures.shape == (3, config.bins, 64) and frames.tolist() == [64] * 3
    assert (pictures[..., 20:] == 0.5).all()


@pytest.mark.parametrize("width", [128, 1024])
def test_legacy_is_hugging_faces_ast(real_sound: Path, width: int):
    transformers = pytest.importorskip("transformers")
    clips = [*real_clips(real_sound / "speech_commands", 4), *real_clips(real_sound / "esc10", 4)]
    extractor = transformers.ASTFeatureExtractor(max_length=width, mean=-6.6, std=5.4)
    front_end = FrontEnd(Config(pad="legacy", legacy_frames=width, mean=-6.6, std=2 * 5.4))

    pictures, frames = front_end(*padded(clips))

    expected = extractor([clip.numpy() for clip in clips], 16_000, return_tensors="pt")
    widths = [Config().frames(len(clip)) for clip in clips]
    assert min(widths) < width < max(widths)
    assert frames.tolist() == [width] * len(clips)
    assert (pictures.transpose(1, 2) - expected["input_values"]).abs().max() < 1e-4


def test_statistics_leave_padding_out():
    clips = noise(4, 16_000, seed=3)
    lengths = torch.tensor([16_000, 12_000, 8_000, 4_000])
    sounding = [kaldi(clip[:length]) for clip, length in zip(clips, lengths.tolist(), strict=True)]
    values = torch.cat(sounding, dim=1)
    legacy = Config(pad="legacy", legacy_frames=1024)

    for front_end in (FRONT_END, plain(legacy)):
        found = measure([(clips[:2], lengths[:2]), (clips[2:], lengths[2:])], front_end)

        assert found.mean == pytest.approx(values.mean().item(), abs=1e-3)
        assert found.std == pytest.approx(values.std().item(), rel=1e-3)
        assert found.frames == values.shape[1]


def test_standardised_pictures_have_mean_0_and_deviation_1(kind: str):
    clips = noise(8, 16_000, seed=4)
    lengths = torch.full((8,), 16_000)
    found = measure([(clips, lengths)], FrontEnd(Config(kind=kind)))

    pictures, _ = FrontEnd(Config(kind=kind), found.mean, found.std)(clips, lengths)

    assert pictures.mean().item() == pytest.approx(0, abs=1e-3)
    assert pictures.std().item() == pytest.approx(1, abs=1e-3)


def test_bands_above_nyquist_are_refused():
    with pytest.raises(ValueError, match="features.f_max_hz 8000.*at most 4000 Hz"):
        Config(sample_rate=8_000)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "librosa", "preemphasis": 0.97}, "librosa has none.*kind to kaldi or mfcc"),
        ({"kind": "spectrogram", "preemphasis": 0.0}, "preemphasis is 0.0.*spectrogram has none"),
        ({"kind": "spectrogram", "mel_bins": 128}, "mel_bins is 128.*kaldi or librosa or mfcc"),
        ({"coefficients": 13}, "coefficients is 13, but features.kind kaldi.*kind to mfcc"),
        ({"kind": "mfcc", "coefficients": 41}, "41, but 40 mel bands.*raise features.mel_bins"),
        ({"kind": "mfcc", "mel_bins": 23}, "coefficients is 32, but 23 mel bands"),
        ({"kind": "mfcc", "coefficients": 0}, "coefficients is 0; it must be at least 1"),
        ({"mel_bins": 0}, "mel_bins is 0; it must be at least 1"),
        ({"window_samples": 0}, "window_samples is 0; it must be at least 1"),
        ({"kind": "spectrogram", "f_min_hz": 32.0, "f_max_hz": 60.0}, "no line.*31.25 Hz apart"),
        ({"pad": "legacy"}, "legacy_frames None; set it to.*1024"),
        ({"pad": "legacy", "legacy_frames": 0}, "legacy_frames 0; set it to"),
        ({"legacy_frames": 1024}, "pad masked.*leave it unset, or set features.pad to legacy"),
    ],
)
def test_what_a_front_end_cannot_use_is_refused_with_the_cure(given, said):
    with pytest.raises(ValueError, match=said):
        Config(**given)
