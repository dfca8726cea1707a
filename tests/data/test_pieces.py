"""Pieces of files: the same samples as the whole, however long, and the same complaints."""

import numpy as np
import pytest
import soundfile

from sslaudio.data import pieces
from sslaudio.data.decode import DecodeError, decode
from sslaudio.data.pieces import cut_out, samples_of

RATE = 16_000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pieces, "BLOCK", 5_000)


@pytest.fixture(
    params=[("wav", 16_000, 1), ("flac", 44_100, 2), ("ogg", 8_000, 1), ("opus", 48_000, 1)]
)
def file(request, tmp_path):
    kind, rate, channels = request.param
    noise = 0.5 * np.random.default_rng(0).standard_normal((2 * rate + 1, channels))
    path = tmp_path / f"a.{kind}"
    coded = {"format": "OGG", "subtype": "OPUS"} if kind == "opus" else {}
    soundfile.write(path, noise, rate, **coded)
    return path


@pytest.mark.parametrize(("length", "hop"), [(3_000, 1_500), (4_000, 4_000), (500, 9_000)])
def test_pieces_are_cut_from_what_decoding_the_whole_gives(file, length, hop):
    whole = decode(file, RATE)
    count = samples_of(file, RATE)
    spans = [(start, start + length) for start in range(0, count, hop)]

    cut = list(cut_out(file, RATE, spans))

    assert count == len(whole)
    for (start, end), piece in zip(spans, cut, strict=True):
        np.testing.assert_array_equal(piece, whole[start:end])


def test_an_mp3_is_the_same_but_for_rounding(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, 0.3 * np.random.default_rng(0).standard_normal(22_050), 22_050)

    (all_of_it,) = cut_out(path, RATE, [(0, samples_of(path, RATE))])

    np.testing.assert_allclose(all_of_it, decode(path, RATE), atol=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 5_000, 10_000])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_few_samples_and_whole_blocks_are_no_exception(tmp_path, samples, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(samples, 0.5), rate, "FLOAT")

    (all_of_it,) = cut_out(path, RATE, [(0, 1 << 20)])

    np.testing.assert_array_equal(all_of_it, decode(path, RATE))
    assert len(all_of_it) == samples_of(path, RATE)


@pytest.mark.parametrize("use", [samples_of, lambda *of: list(cut_out(*of, [(0, 20_000)]))])
def test_what_cannot_be_read_is_told_as_decoding_tells_it(tmp_path, use):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "silent.wav", np.zeros(0), RATE)
    for name in ("absent.wav", "empty.wav", "text.wav", "silent.wav", "."):
        with pytest.raises(DecodeError) as whole:
            decode(tmp_path / name, RATE)
        with pytest.raises(DecodeError) as piece:
            use(tmp_path / name, RATE)

        assert str(piece.value) == str(whole.value)


def test_a_file_that_ends_early_is_told_when_its_end_is_reached(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 40_000), RATE)
    path.write_bytes(path.read_bytes()[:30_000])

    with pytest.raises(DecodeError, match=r"a\.flac: "):
        list(cut_out(path, RATE, [(0, 20_000), (20_000, 40_000)]))
