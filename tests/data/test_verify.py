import json
import shutil

import numpy as np
import pytest

from sslaudio.data.index import Index
from sslaudio.data.layout import OFFSETS
from sslaudio.data.progress import silent
from sslaudio.data.verify import verify


@pytest.fixture
def copy(shards_folder, tmp_path):
    return shutil.copytree(shards_folder, tmp_path / "copy")


def problems(folder, jobs=1):
    return verify(folder, jobs=jobs, progress=silent)


def rewrite(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def test_whole_shards_have_no_problems(shards_folder):
    assert problems(shards_folder) == []


def test_a_missing_shard_is_named(copy):
    (copy / "toy-000002.tar").unlink()

    assert problems(copy) == ["toy-000002.tar: missing"]


def test_truncated_shards_and_offsets_are_named(copy):
    tar, offsets = copy / "toy-000001.tar", copy / "toy-000003.idx"
    size = tar.stat().st_size
    tar.write_bytes(tar.read_bytes()[: size // 2])
    offsets.write_bytes(offsets.read_bytes()[:-36])

    found = problems(copy)

    assert f"toy-000001.tar is truncated: {size // 2} of {size} bytes" in found
    assert "toy-000003.idx is truncated: 324 of 360 bytes" in found


def test_an_altered_sound_is_named_with_its_clip(copy):
    row = np.fromfile(copy / "toy-000004.idx", OFFSETS)[6]
    clip = Index.open(copy).clip(4, 6)

    def scramble(data):
        start = int(row["audio_offset"]) + 20
        data[start : start + 60] = bytes(60)

    rewrite(copy / "toy-000004.tar", scramble)

    found = problems(copy)
    assert "toy-000004.tar is altered: its SHA-256 is not the index's" in found
    assert any(clip.key in line for line in found)
    assert all("toy-000004" in line for line in found)


@pytest.mark.parametrize("place", [600, 3_000, 9_000])
def test_a_single_flipped_bit_is_found(copy, place):
    def flip(data):
        data[place] ^= 4

    rewrite(copy / "toy-000000.tar", flip)

    assert any(line.startswith("toy-000000.tar") for line in problems(copy))


def test_altered_offsets_are_named(copy):
    rows = np.fromfile(copy / "toy-000000.idx", OFFSETS)
    rows["audio_offset"][2] += 512
    rows["marks"][5] = 4
    rows.tofile(copy / "toy-000000.idx")

    found = problems(copy)

    assert len(found) == 2
    assert any("offsets file does not fit the tar" in line for line in found)
    assert any("its length, split or recording" in line for line in found)


def test_extra_files_and_altered_totals_are_named(copy):
    shutil.copy(copy / "toy-000000.tar", copy / "toy-000005.tar")
    content = json.loads((copy / "index.json").read_text())
    content["totals"]["clips"] = 51
    (copy / "index.json").write_text(json.dumps(content))

    assert problems(copy) == [
        "index.json: altered, its total of clips is 51, its shards have 50",
        "toy-000005.tar: extra, index.json does not know it",
    ]


def test_garbage_instead_of_a_tar_is_named(copy):
    size = (copy / "toy-000000.tar").stat().st_size
    (copy / "toy-000000.tar").write_bytes(b"x" * size)

    assert any("is no whole tar" in line for line in problems(copy, jobs=2))


def test_sixty_scrambled_places_never_crash_it(copy):
    original = (copy / "toy-000000.tar").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(original)
        start = int(random.integers(0, 18 * 1_024))
        data[start : start + 8] = random.bytes(8)
        (copy / "toy-000000.tar").write_bytes(data)

        assert problems(copy)


def test_a_folder_without_an_index_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"no index\.json.*sslaudio shards build"):
        problems(tmp_path)
