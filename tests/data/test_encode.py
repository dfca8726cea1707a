import io

import numpy as np
import pytest
import soundfile

from sslaudio.data.decode import decode_bytes
from sslaudio.data.encode import encode


def test_flac_keeps_sixteen_bits_bit_for_bit():
    integers = np.random.default_rng(0).integers(-32_768, 32_768, 5_000).astype(np.int16)
    integers[:3] = (-32_768, 32_767, 0)
    waveform = integers.astype(np.float32) / 32_768

    flac = encode(waveform, 16_000, "flac")

    stored, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
    assert rate == 16_000
    assert stored.tolist() == integers.tolist()
    assert decode_bytes(flac, 16_000).tolist() == waveform.tolist()


def test_full_scale_does_not_wrap_round():
    flac = encode(np.array([1.0, -1.0], np.float32), 16_000, "flac")

    assert soundfile.read(io.BytesIO(flac), dtype="int16")[0].tolist() == [32_767, -32_768]


@pytest.mark.parametrize("codec", ["flac", "ogg"])
def test_the_same_sound_gives_the_same_bytes(codec):
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)

    assert encode(waveform, 16_000, codec) == encode(waveform, 16_000, codec)


def test_an_ogg_with_a_fixed_stream_number_still_decodes():
    phases = 2 * np.pi * 440 * np.arange(160_000) / 16_000
    waveform = (0.5 * np.sin(phases)).astype(np.float32)

    ogg = encode(waveform, 16_000, "ogg")

    assert ogg.count(b"OggS") > 2  # several pages, each with its own checksum
    found = decode_bytes(ogg, 16_000)
    assert len(found) == len(waveform)
    assert np.abs(found - waveform)[1_000:-1_000].max() < 0.05


def test_ogg_takes_far_less_room_on_speech_like_sound():
    random = np.random.default_rng(0)
    waveform = np.convolve(random.standard_normal(32_000), np.ones(8) / 8, "same") * 0.1

    sizes = {
        codec: len(encode(waveform.astype(np.float32), 16_000, codec)) for codec in ("flac", "ogg")
    }

    assert sizes["ogg"] < 0.4 * sizes["flac"]
