import io
import pickle
import tarfile

import numpy as np
import pytest
import soundfile

from sslaudio.data import pieces
from sslaudio.data.decode import DecodeError, decode, decode_bytes

TONE_HZ = 440.0
FORMATS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}


def tone(rate: int, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_rate_and_channel_count_gives_the_same_tone(tmp_path, suffix, rate, channels):
    path = tmp_path / f"tone.{suffix.upper()}"
    sound = np.repeat(tone(rate)[:, None], channels, axis=1)
    soundfile.write(path, sound, rate, FORMATS[suffix], format=suffix.upper())

    waveform = decode(path, 16_000)

    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert abs(len(waveform) - 8_000) <= (2_000 if suffix == "mp3" else 1)
    middle = waveform[2_000:6_000]
    phases = 2 * np.pi * TONE_HZ * np.arange(4_000) / 16_000
    amplitude = 2 * np.abs((middle * np.exp(-1j * phases)).mean())
    assert amplitude == pytest.approx(0.5, abs=0.02)
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), abs=0.02)


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1), 16_000)

    assert decode(path, 16_000) == pytest.approx(0.125, abs=1e-4)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_crop_is_a_slice_of_the_whole(tmp_path, suffix):
    path = tmp_path / f"noise.{suffix}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    soundfile.write(path, noise, 16_000, FORMATS[suffix], format=suffix.upper())
    whole = decode(path, 16_000)

    crop = decode(path, 16_000, start_seconds=1.25, seconds=0.5)

    assert len(crop) == 8_000
    np.testing.assert_allclose(crop, whole[20_000:28_000], atol=1e-6)
    np.testing.assert_allclose(decode(path, 16_000, start_seconds=2.5), whole[40_000:], atol=1e-6)


def test_a_crop_beyond_the_end_is_what_is_left(tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, tone(16_000, 0.1), 16_000)

    assert len(decode(path, 16_000, start_seconds=0.05, seconds=9.0)) == 800


def test_a_crop_that_begins_beyond_the_end_says_how_long_the_file_is(tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, tone(16_000, 0.5), 16_000)

    with pytest.raises(DecodeError, match=r"short\.wav: too short: lasts 0\.5 s, .* from 9 s on"):
        decode(path, 16_000, start_seconds=9.0)


def test_a_crop_counts_seconds_at_another_rate(tmp_path):
    path = tmp_path / "low.wav"
    soundfile.write(path, tone(8_000, 2.0), 8_000)

    assert len(decode(path, 16_000, start_seconds=0.5, seconds=1.0)) == 16_000


def test_a_member_of_a_tar_is_read_by_its_byte_range(tmp_path):
    sound = io.BytesIO()
    soundfile.write(sound, tone(16_000), 16_000, format="FLAC")
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name in ("a.flac", "b.flac"):
            member = tarfile.TarInfo(name)
            member.size = len(sound.getvalue())
            archive.addfile(member, io.BytesIO(sound.getvalue()))
    with tarfile.open(tmp_path / "shard.tar") as archive:
        second = archive.getmember("b.flac")

    found = decode(tmp_path / "shard.tar", 16_000, byte_range=(second.offset_data, second.size))

    np.testing.assert_allclose(found, tone(16_000), atol=1e-4)


def test_values_beyond_full_scale_are_clipped(tmp_path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([0.0, 3.0, -2.0], np.float32), 16_000, "FLOAT")

    assert decode(path, 16_000).tolist() == [0.0, 1.0, -1.0]


def broken_files() -> dict[str, tuple[bytes, str]]:
    def written(values, subtype="PCM_16", name="WAV") -> bytes:
        file = io.BytesIO()
        soundfile.write(file, values, 16_000, subtype, format=name)
        return file.getvalue()

    noise = np.random.default_rng(0).uniform(-1, 1, 40_000)
    return {
        "nothing": (b"", "empty: 0 bytes"),
        "text": (b"this is no sound at all, but a text\n" * 20, "cannot be decoded"),
        "no_samples": (written(np.zeros(0)), "holds no samples"),
        "nan": (written(np.array([0.0, np.nan]), "FLOAT"), "not finite"),
        "infinity": (written(np.array([0.0, -np.inf]), "FLOAT"), "not finite"),
        "cut_flac": (written(noise, name="FLAC")[:30_000], "truncated|cannot be decoded"),
        "scrambled_flac": (
            written(noise, name="FLAC")[:30_000] + bytes(60_000),
            "truncated|cannot be decoded",
        ),
    }


@pytest.mark.parametrize("name", broken_files())
def test_what_cannot_be_used_is_named_with_the_reason(tmp_path, name):
    data, reason = broken_files()[name]
    path = tmp_path / f"{name}.wav"
    path.write_bytes(data)

    with pytest.raises(DecodeError, match=reason) as caught:
        decode(path, 16_000)

    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(DecodeError, match=r"gone\.wav: missing"):
        decode(tmp_path / "gone.wav", 16_000)


def test_a_decode_error_survives_a_pipe_between_processes():
    error = pickle.loads(pickle.dumps(DecodeError("a.wav", "missing")))

    assert (error.name, error.reason, str(error)) == ("a.wav", "missing", "a.wav: missing")


def test_a_flac_that_does_not_tell_its_length_is_refused_with_the_cure():
    file = io.BytesIO()
    soundfile.write(file, tone(16_000), 16_000, format="FLAC")
    data = bytearray(file.getvalue())
    # STREAMINFO begins at byte 8; its total of samples is the low 36 bits of bytes 18 to 25.
    data[21] &= 0xF0
    data[22:26] = bytes(4)

    with pytest.raises(DecodeError, match=r"does not tell its length.*encode it again"):
        decode_bytes(bytes(data), 16_000)


def test_a_small_file_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "slow.wav"
    soundfile.write(path, np.zeros(40_000, np.int16), 1)  # a sample a second: 11 hours

    for read in (
        lambda: decode(path, 16_000),
        lambda: pieces.sought(path, 16_000, 16_000),
        lambda: next(pieces.cut_out(path, 16_000, [(0, 16_000)])),
    ):
        with pytest.raises(DecodeError, match=r"slow\.wav: too long: 11\.1 h at once; cut it"):
            read()
    assert len(decode(path, 16_000, seconds=2)) == 32_000
