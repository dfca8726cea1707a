"""Samples to the bytes of a shard's audio member, the same bytes every time."""

import io
import struct
import zlib
from typing import Literal, get_args

import numpy as np
import soundfile
from jaxtyping import Float32

Codec = Literal["flac", "ogg"]
"""``flac`` keeps all 16 bits; ``ogg`` (Vorbis) takes about a fifth of the room, but
more for clips of a second: every file carries its own code books."""
CODECS: tuple[str, ...] = get_args(Codec)

_BLOCK_SAMPLES = 1 << 16
_FLAC_LEVEL = 0.625  # libsndfile's 0 to 1 is FLAC's level 0 to 8: this is FLAC's default, 5
_VORBIS_LEVEL = 0.8  # Vorbis quality 0.2: a fifth of FLAC's size on five-second clips
_OGG_PAGE = struct.Struct("<4sBBqIIIB")
_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def encode(waveform: Float32[np.ndarray, "samples"], sample_rate: int, codec: Codec) -> bytes:
    """Mono samples in [-1, 1] as a FLAC or Ogg Vorbis file.

    FLAC holds 16-bit integers of the very scale that decoding divides by, so that a 16-bit
    source at the same rate comes back bit for bit.
    """
    file = io.BytesIO()
    if codec == "flac":
        integers = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)
        soundfile.write(
            file, integers, sample_rate, "PCM_16", format="FLAC", compression_level=_FLAC_LEVEL
        )
        return file.getvalue()
    with soundfile.SoundFile(
        file, "w", sample_rate, 1, "VORBIS", format="OGG", compression_level=_VORBIS_LEVEL
    ) as sound:
        # In blocks: libsndfile encodes one large write on the stack, which overflows.
        for start in range(0, len(waveform), _BLOCK_SAMPLES):
            sound.write(waveform[start : start + _BLOCK_SAMPLES])
    return _with_fixed_serial(file.getvalue())


def _with_fixed_serial(ogg: bytes) -> bytes:
    """Replace the random stream number that libsndfile gives each Ogg file by 1.

    It stands in every page's header, under the page's checksum.
    Source: RFC 3533, section 6.
    """
    pages, start = bytearray(ogg), 0
    while start < len(pages):
        magic, version, flags, granule, _, number, _, segments = _OGG_PAGE.unpack_from(pages, start)
        body = start + _OGG_PAGE.size + segments
        end = body + sum(pages[start + _OGG_PAGE.size : body])
        head = (magic, version, flags, granule, 1, number)
        _OGG_PAGE.pack_into(pages, start, *head, 0, segments)
        checksum = _ogg_checksum(bytes(pages[start:end]))
        _OGG_PAGE.pack_into(pages, start, *head, checksum, segments)
        start = end
    return bytes(pages)


def _ogg_checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial with the bits of every byte the other way round."""
    crc = zlib.crc32(page.translate(_BIT_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
