"""Damaged shards: whatever bytes change, a clip comes out as it was, or one clear error does."""

import json
import shutil
import time
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslaudio.data.crops import At, Crops
from sslaudio.data.decode import decode_bytes
from sslaudio.data.foreign import index as index_foreign
from sslaudio.data.index import KINDS, CorruptError, Index
from sslaudio.data.kept import Kept
from sslaudio.data.layout import SPLIT_CODES
from sslaudio.data.progress import silent
from sslaudio.data.selection import Selection
from sslaudio.data.shards import build

SLOWEST_SECONDS = 5.0
"""No damaged shard may hold anyone up so long."""

edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "random", "zeros", "ones", "cut", "grow", "move", "digit"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=4,
)
files = st.sampled_from(["tar", "idx", "index.json"])


@dataclass(repr=False)
class Pristine:
    """Files before any accident, and the samples of every clip by key."""

    contents: dict[str, bytes]
    sounds: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, make_clips):
    """Two shards of four clips."""
    folder = tmp_path_factory.mktemp("pristine")
    clips = make_clips(folder / "in", 8, seconds=0.01)
    out = folder / "out"
    built, _ = build(clips, out, corpus="toy", clips_per_shard=4, jobs=1, progress=silent)
    found = [built.clip(shard, member) for shard in range(2) for member in range(4)]
    sounds = {clip.key: decode_bytes(clip.audio, 16_000) for clip in found}
    return Pristine({path.name: path.read_bytes() for path in out.glob("*.*")}, sounds)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def edited(data: bytes, changes) -> bytes:
    """The bytes after some accidents."""
    held = bytearray(data)
    for what, where, seed in changes:
        at, random = int(where * max(1, len(held))), np.random.default_rng(seed)
        size = int(random.choice([1, 4, 8, 64, 512]))
        if what == "flip" and held:
            held[at] ^= 1 << int(random.integers(8))
        elif what in ("random", "zeros", "ones"):
            value = {"random": random.bytes(size), "zeros": bytes(size), "ones": b"\xff" * size}
            held[at : at + size] = value[what][: max(0, len(held) - at)]
        elif what == "cut":
            del held[at:]
        elif what == "grow":
            held += random.bytes(size)
        elif what == "move":
            to = int(random.integers(0, max(1, len(held))))
            held[to : to + size] = held[at : at + size]
        elif what == "digit":  # a number of a text, or of a header, becomes another
            digits = [place for place, byte in enumerate(held) if 48 <= byte <= 57]
            if digits:
                held[digits[int(where * len(digits))]] = int(random.integers(48, 58))
    return bytes(held)


def mend(contents: dict[str, bytes]) -> dict[str, bytes]:
    """Sizes and checksums that fit the altered files, as a clever stranger would write them."""
    try:
        told = json.loads(contents["index.json"])
        for shard in told["shards"]:
            tar, idx = contents[shard["name"]], contents[shard["name"].replace(".tar", ".idx")]
            shard |= {"bytes": len(tar), "offsets_crc32": zlib.crc32(idx)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return contents
    return {**contents, "index.json": json.dumps(told).encode()}


def heard(folder) -> dict[str, np.ndarray]:
    """Every clip that can be had, by key; errors are to be clear ones."""
    sounds = {}
    try:
        index = Index.open(folder)
        crops = Crops([Selection(index, SPLIT_CODES, {})], 10**6, Kept(0))
        for shard in range(len(index.shards)):
            count = len(index.offsets(shard))
            for found in crops.read([At(0, shard, nth) for nth in range(count)], [0.0] * count):
                if isinstance(found, CorruptError):
                    assert found.kind in KINDS and "\n" not in str(found)
                else:
                    sounds[found.key] = found.waveform
    except (ValueError, OSError) as error:
        assert str(error) and "\n" not in str(error)
    return sounds


def check(pristine, work, name, changes, clever) -> None:
    contents, sounds = pristine.contents, pristine.sounds
    target = {"tar": "toy-000001.tar", "idx": "toy-000001.idx"}.get(name, name)
    altered = {**contents, target: edited(contents[target], changes)}
    for path, data in (mend(altered) if clever else altered).items():
        (work / path).write_bytes(data)

    began = time.perf_counter()
    found = heard(work)

    assert time.perf_counter() - began < SLOWEST_SECONDS
    for key, sound in found.items():
        if clever:  # whose own checksums vouch for another sound, or part of it
            assert len(sound) <= 10**6 and np.isfinite(sound).all()
        else:
            assert key in sounds and np.array_equal(sound, sounds[key])


few = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(name=files, changes=edits, clever=st.booleans())
def test_damaged_shards_give_the_right_sound_or_a_clear_error(
    pristine, work, name, changes, clever
):
    check(pristine, work, name, changes, clever)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@many
@given(name=files, changes=edits, clever=st.booleans())
def test_ten_thousand_damaged_shards(pristine, work, name, changes, clever):
    check(pristine, work, name, changes, clever)


@few
@given(changes=edits)
def test_a_damaged_tar_of_a_stranger_is_indexed_or_refused(pristine, tmp_path_factory, changes):
    contents = pristine.contents
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "a.tar").write_bytes(edited(contents["toy-000000.tar"], changes))
    (folder / "b.tar").write_bytes(contents["toy-000001.tar"])
    began = time.perf_counter()

    index_foreign(folder, max_rejected=1.0, jobs=1, progress=silent)

    found = heard(folder)
    assert time.perf_counter() - began < SLOWEST_SECONDS
    assert len(found) >= 4
    shutil.rmtree(folder)
