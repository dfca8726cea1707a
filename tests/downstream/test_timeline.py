"""Time lines: the right class at the right time, whatever the batch, the length and the panel."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sslaudio.backbones import ast
from sslaudio.backbones.encoder import Encoder
from sslaudio.data.decode import decode
from sslaudio.downstream import windows
from sslaudio.downstream.classify import Classifier, Head
from sslaudio.downstream.timeline import Panel, cut, predict
from sslaudio.downstream.timeline_told import draw_all, spectrogram, table
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd

RATE = 16_000
LOW_HZ, HIGH_HZ = 300.0, 5_000.0


def tone(hertz: float, seconds: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def write(path: Path, *parts: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, np.concatenate(parts), rate, "FLOAT")
    return path


def classifier(kind: str = "single", features: Features | None = None, **settings) -> Classifier:
    """A head that tells a low tone from a high one by an untrained encoder, fitted on both."""
    torch.manual_seed(0)
    config = ast.Config(patch=(64, 4))
    front_end = FrontEnd(features or Features(mel_bins=64), -5.0, 4.0)
    encoder = Encoder(front_end, ast.build(config, 64, 98), ("mean",), None, 98)
    names = ("number",) if kind == "number" else ("low", "high", "never")
    model = Classifier(
        encoder, Head(encoder.dim, len(names)), names if kind != "number" else (), kind, **settings
    ).eval()
    with torch.inference_mode():
        low, high = (
            model.encoder(torch.from_numpy(tone(hertz, 1.0)[None]).float())[0]
            for hertz in (LOW_HZ, HIGH_HZ)
        )
        towards = (high - low) / (high - low).square().sum()
        middle = (towards * (high + low)).sum() / 2
        rows = [-8 * towards, 8 * towards, 0 * towards][-len(names) - 1 :]
        if kind == "number":
            rows = [towards]  # rises by 1 from low to high
            model.head.bias.copy_(-middle[None])
        else:
            model.head.bias.copy_(torch.stack([8 * middle, -8 * middle, torch.tensor(-9.0)]))
        model.head.weight.copy_(torch.stack(rows))
    return model


@pytest.fixture(scope="module")
def model() -> Classifier:
    return classifier(seconds=1.0)


@pytest.fixture(scope="module")
def two_tones(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sounds") / "two_tones.wav"
    return write(path, tone(LOW_HZ, 3.0), tone(HIGH_HZ, 2.0))


def test_the_time_line_names_the_right_tone_at_the_right_time(model, two_tones):
    (file,), failures = predict(Panel([model], ["run"]), [two_tones])

    assert not failures and file.seconds == 5.0
    assert file.spans.tolist() == [[start / 2, start / 2 + 1] for start in range(9)]
    heard = file.shares.argmax(axis=1).tolist()
    # The window from 2.5 to 3.5 s has half of each.
    assert heard[:5] == [0] * 5 and heard[6:] == [1] * 3
    assert file.shares.sum(axis=1) == pytest.approx(1.0)
    assert file.whole == pytest.approx(file.shares.mean(axis=0))


def test_a_window_says_what_its_sound_says_alone(model, two_tones, monkeypatch):
    monkeypatch.setattr(windows, "BATCH_SECONDS", 3.0)
    (file,), _ = predict(Panel([model], ["run"]), [two_tones])
    whole = torch.from_numpy(decode(two_tones, RATE))

    with torch.inference_mode():
        for (start, end), shares in zip(file.spans, file.shares, strict=True):
            part = whole[round(start * RATE) : round(end * RATE)]
            alone = model.shares(model(part[None]))[0]
            assert shares == pytest.approx(alone.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("samples", "starts"),
    [
        (80, [0]),
        (100, [0]),
        (101, [0, 1]),  # by itself a window of one more sample: nothing goes unheard
        (150, [0, 50]),
        (175, [0, 75]),  # a quarter of a window is left: the last one moves to the end
        (176, [0, 50, 76]),  # more than a quarter: one more
        (200, [0, 50, 100]),
        (224, [0, 50, 124]),
    ],
)
def test_windows_end_with_the_file(samples, starts):
    spans = cut(samples, window=100, hop=50)

    assert [start for start, _ in spans] == starts
    assert [end - start for start, end in spans] == [min(100, samples)] * len(starts)
    assert spans[-1][1] == samples


@pytest.mark.parametrize("hop", [1, 7, 50, 75, 90, 100])
def test_no_sample_is_left_out(hop):
    for samples in range(1, 450):
        heard = np.zeros(samples, bool)
        for start, end in cut(samples, window=100, hop=hop):
            assert 0 <= start < end <= samples
            heard[start:end] = True
        assert heard.all()


def test_a_file_up_to_half_as_long_again_is_one_clip(model, tmp_path):
    whole = write(tmp_path / "whole.wav", tone(LOW_HZ, 1.5))
    long = write(tmp_path / "long.wav", tone(LOW_HZ, 1.6))

    files, _ = predict(Panel([model], ["run"]), [whole, long])

    assert [len(file.spans) for file in files] == [1, 2]
    with torch.inference_mode():
        said = model.shares(model(torch.from_numpy(decode(whole, RATE))[None]))[0]
    assert files[0].whole == pytest.approx(said.numpy(), abs=1e-5)


def test_files_of_any_length_and_rate_come_in_the_order_given(model, tmp_path):
    paths = [
        write(tmp_path / "b.wav", tone(LOW_HZ, 2.0)),
        write(tmp_path / "sample.wav", tone(LOW_HZ, 1.0)[:1]),
        tmp_path / "absent.wav",
        write(tmp_path / "a.wav", tone(HIGH_HZ / 2, 1.0), rate=2 * RATE),  # half as long, as high
        write(tmp_path / "silent.wav", np.zeros(0)),
    ]

    files, failures = predict(Panel([model], ["run"]), paths)

    assert [file.path.name for file in files] == ["b.wav", "sample.wav", "a.wav"]
    assert [int(file.whole.argmax()) for file in (files[0], files[2])] == [0, 1]
    assert files[2].seconds == 0.5
    told = [(str(paths[2]), "missing"), (str(paths[4]), "holds no samples")]
    assert failures == told


def test_a_file_that_cannot_be_read_to_its_end_is_none(model, two_tones, tmp_path):
    spoilt = write(tmp_path / "spoilt.wav", tone(LOW_HZ, 20.0), [np.nan])

    files, failures = predict(Panel([model], ["run"]), [spoilt, two_tones])

    assert [file.path for file in files] == [two_tones]
    assert failures == [(str(spoilt), "holds samples that are not finite numbers")]


def test_a_panel_says_the_mean_also_of_models_at_two_rates(model, two_tones):
    other = classifier(
        features=Features(mel_bins=64, sample_rate=8_000, f_max_hz=4_000.0), seconds=2.0
    )
    both = predict(Panel([model, other], ["a", "b"]), [two_tones])[0][0]
    alone = [predict(Panel([one], ["a"], 1.0), [two_tones])[0][0] for one in (model, other)]

    # The shorter clip is the window of both.
    assert both.spans.tolist() == alone[0].spans.tolist() == alone[1].spans.tolist()
    assert both.shares == pytest.approx((alone[0].shares + alone[1].shares) / 2, abs=1e-5)
    assert np.abs(alone[0].shares - alone[1].shares).max() > 0.01


def test_a_panel_of_other_classes_is_refused(model):
    other, order, several = (classifier(kind) for kind in ("single", "single", "multi"))
    other.classes = ("low", "high", "always")
    order.classes = ("high", "low", "never")

    with pytest.raises(ValueError, match=r"a tells 3 classes and b 3; one alone knows 'always'"):
        Panel([model, other], ["a", "b"])
    with pytest.raises(ValueError, match=r"differ in order from 'low' on"):
        Panel([model, order], ["a", "b"])
    with pytest.raises(ValueError, match=r"a tells one class a clip and b several classes a clip"):
        Panel([model, several], ["a", "b"])


def test_windows_that_leave_sound_out_are_refused(model):
    with pytest.raises(ValueError, match=r"the hop is 2 s and the window 1 s"):
        Panel([model], ["run"], hop_seconds=2.0)
    with pytest.raises(ValueError, match=r"a hop is above 0"):
        Panel([model], ["run"], hop_seconds=0.0)


def test_a_model_of_fixed_length_hears_all_of_a_longer_file(tmp_path):
    features = Features(mel_bins=64, pad="legacy", legacy_frames=98)
    model = classifier(features=features)
    path = write(tmp_path / "a.wav", tone(LOW_HZ, 0.6), tone(HIGH_HZ, 0.8))

    panel = Panel([model], ["run"])
    (file,), _ = predict(panel, [path])

    # 98 frames are 0.995 s: more than that is cut, and so a second window hears the end.
    assert panel.window_seconds == pytest.approx(0.995)
    assert file.spans.tolist() == [[0, 0.995], [pytest.approx(0.405), 1.4]]
    with pytest.raises(ValueError, match=r"the window is 1.5 s, but run hears 0.995 s .* at most"):
        Panel([model], ["run"], window_seconds=1.5)


def test_shares_of_several_classes_stand_by_themselves_and_are_marked(two_tones):
    panel = Panel([classifier("multi", seconds=1.0)], ["run"])
    (file,), _ = predict(panel, [two_tones])

    told = table(panel, [file], top=2, threshold=0.5).splitlines()

    assert len(told) == 2 + 9 + 1 and told[2].split()[3:] == [
        "low", f"{file.shares[0, 0]:.3f}*", "high", f"{file.shares[0, 1]:.3f}",
    ]  # fmt: skip
    assert told[-1].split()[1] == "mean"
    # By hand: opposite scores, so that the sigmoids of the two tones sum to one.
    assert file.shares[:, :2].sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert file.shares[:, 2] == pytest.approx(1 / (1 + np.exp(9)), abs=1e-5)


def test_a_number_is_told_as_it_is(two_tones):
    panel = Panel([classifier("number", seconds=1.0)], ["run"])
    (file,), _ = predict(panel, [two_tones])

    assert panel.columns == ("number",)
    assert file.shares[0, 0] == pytest.approx(-0.5, abs=0.01)  # by the head's making
    assert file.shares[-1, 0] == pytest.approx(0.5, abs=0.01)
    assert table(panel, [file], 3, 0.5).splitlines()[2].split()[3] == f"{file.shares[0, 0]:.4g}"


@pytest.mark.parametrize("kind", ["kaldi", "librosa"])
def test_the_drawn_spectrogram_is_the_files_picture_averaged(two_tones, kind, monkeypatch):
    monkeypatch.setattr("sslaudio.downstream.timeline_told.DRAWN_COLUMNS", 100)
    monkeypatch.setattr("sslaudio.downstream.timeline_told.BLOCK_FRAMES", 64)
    front_end = FrontEnd(Features(kind=kind), -5.0, 4.0)
    waveform = torch.from_numpy(decode(two_tones, RATE))[None]

    drawn = spectrogram(two_tones, front_end)

    picture = front_end(waveform, torch.tensor([waveform.shape[1]]))[0][0]
    together = {"kaldi": 5, "librosa": 6}[kind]  # 498 and 501 frames, in 100 columns at most
    by_hand = np.stack([part.mean(1).numpy() for part in picture.split(together, dim=1)], axis=1)
    assert drawn == pytest.approx(by_hand, abs=1e-4)


def test_every_long_file_is_drawn_by_a_name_of_its_own(model, two_tones, tmp_path):
    other = tmp_path / "b" / "two_tones.wav"
    other.parent.mkdir()
    other.write_bytes(two_tones.read_bytes())
    short = write(tmp_path / "short.wav", tone(LOW_HZ, 1.0))
    panel = Panel([model], ["run"])
    files = predict(panel, [two_tones, short, other]).files

    drawn = draw_all(tmp_path / "plots", panel, files)

    assert len(drawn) == len(set(drawn)) == 2
    assert sorted(drawn) == sorted((tmp_path / "plots").iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
