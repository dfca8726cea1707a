import json
import pickle
import shutil
import zlib

import numpy as np
import pytest

from sslaudio.data.describe import describe
from sslaudio.data.index import Index
from sslaudio.data.layout import OFFSETS
from sslaudio.data.verify import verify


@pytest.fixture
def copy(shards_folder, tmp_path):
    return shutil.copytree(shards_folder, tmp_path / "copy")


def test_a_missing_folder_says_how_to_build_one(tmp_path):
    with pytest.raises(ValueError, match=r"no folder of shards.*sslaudio shards build"):
        Index.open(tmp_path / "nowhere")


def test_a_folder_without_index_says_how_to_build_one(tmp_path):
    with pytest.raises(ValueError, match=r"no index\.json.*sslaudio shards build"):
        Index.open(tmp_path)


def test_another_version_is_refused(copy):
    content = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**content, "version": 99}))

    with pytest.raises(ValueError, match="version 99, this sslaudio reads 2"):
        Index.open(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 2}', "\x00", '"a"'])
def test_what_is_no_index_is_refused(copy, text):
    (copy / "index.json").write_text(text)

    with pytest.raises(ValueError, match=r"index\.json (is no index|lacks)"):
        Index.open(copy)


@pytest.mark.parametrize("reads", [Index.open, lambda folder: verify(folder, jobs=1)])
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"sha256"', '"sha"', r"index\.json lacks shards\.0\.sha256; build the shards again"),
        ('"samples"', '"clips"', r"index\.json lacks shards\.0\.samples"),
        ('"totals"', '"total"', r"index\.json lacks totals"),
        ('"rejected"', '"reject"', r"index\.json lacks totals\.rejected"),
        ('"sample_rate": 16000', '"sample_rate": "16 kHz"', "has sample_rate '16 kHz'"),
        ('"samples": 10', '"samples": null', r"has shards\.0\.samples 'None'"),
        ('"sample_rate": 16000', '"sample_rate": 999999999', "has a sample_rate of 999999999 Hz"),
        ('"sample_rate": 16000', '"sample_rate": 0', "has a sample_rate of 0 Hz"),
        ('"codec": "flac"', '"codec": "../x"', r"has the codec '\.\./x'"),
        ('"toy-000003.tar"', '""', "the shard '' has a name that is no plain file name of a tar"),
        ('"toy-000003.tar"', '".."', r"the shard '\.\.' has a name that is no plain file name"),
        ('"seconds": ', '"seconds": -', r"the shard 'toy.* has -[0-9.]+ seconds of sound"),
        ('"train": {', '"train": 3, "x": {', r"has totals\.splits\.train"),
    ],
)
def test_a_field_that_is_renamed_absent_or_of_another_type_is_named(
    copy, reads, before, after, words
):
    text = (copy / "index.json").read_text()
    assert before in text
    (copy / "index.json").write_text(text.replace(before, after))

    with pytest.raises(ValueError, match=words):
        reads(copy)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "no plain file name of a tar"),
        ("name", "..", "no plain file name of a tar"),
        ("name", "../toy-000000.tar", "no plain file name of a tar"),
        ("name", "/etc/passwd", "no plain file name of a tar"),
        ("name", "a\\b.tar", "no plain file name of a tar"),
        ("bytes", 10**30, r"10 clips in 1000\d+ bytes"),
        ("bytes", 511 * 10, "10 clips in 5110 bytes"),
        ("bytes", -1, "a count below 0"),
    ],
)
def test_a_shard_that_cannot_be_is_named(copy, field, value, words):
    content = json.loads((copy / "index.json").read_text())
    content["shards"][2][field] = value
    (copy / "index.json").write_text(json.dumps(content))

    with pytest.raises(ValueError, match=rf"index\.json: the shard .* has .*{words}.*build"):
        Index.open(copy)


def test_counts_of_which_there_cannot_be_so_many_are_refused(copy):
    content = json.loads((copy / "index.json").read_text())
    content["shards"][2] |= {"samples": 10**20, "splits": {"train": 10**20}, "bytes": 10**14}
    (copy / "index.json").write_text(json.dumps(content))

    with pytest.raises(ValueError, match=r"toy-000002\.tar' has 10+ clips in 10+ bytes"):
        Index.open(copy)


def test_a_truncated_tar_is_refused_when_opened(copy):
    tar = copy / "toy-000003.tar"
    tar.write_bytes(tar.read_bytes()[:-100])

    with pytest.raises(ValueError, match=r"toy-000003\.tar is truncated.*shards verify"):
        Index.open(copy)


def test_offsets_that_point_outside_the_tar_are_refused(copy):
    rows = np.fromfile(copy / "toy-000000.idx", OFFSETS)
    rows["json_offset"][0] = 2**31 - 1
    rows["json_offset"][1] = -(2**31)
    rows["audio_offset"][2] = 0
    rows["audio_offset"][3] = 2**62
    rows.tofile(copy / "toy-000000.idx")
    with pytest.raises(ValueError, match=r"toy-000000\.idx is altered.*shards verify"):
        Index.open(copy).clip(0, 0)
    content = json.loads((copy / "index.json").read_text())
    content["shards"][0]["offsets_crc32"] = zlib.crc32(rows.tobytes())  # by someone who knows how
    (copy / "index.json").write_text(json.dumps(content))
    index = Index.open(copy)

    for member in range(4):
        with pytest.raises(
            ValueError, match=r"toy-000000\.tar: clip .*does not hold.*shards verify"
        ):
            index.clip(0, member)


def test_an_index_travels_to_another_process(shards_folder):
    index = Index.open(shards_folder)
    index.clip(0, 0)

    again = pickle.loads(pickle.dumps(index))

    assert again.clip(2, 1) == index.clip(2, 1)


def test_the_table_tells_what_there_is(shards_folder):
    table = describe(shards_folder)

    seconds = sum(800 + number for number in range(50)) / 16_000
    assert "corpus toy, flac at 16000 Hz" in table
    assert f"50 clips, {seconds:.1f} s" in table
    assert "CC0 1.0" in table
    lines = {line.split()[0]: line.split()[1] for line in table.splitlines() if line}
    assert (lines["train"], lines["validation"], lines["test"]) == ("30", "10", "10")
    assert (lines["even"], lines["odd"]) == ("25", "25")


def test_a_flipped_bit_is_never_heard(copy):
    tar = copy / "toy-000000.tar"
    original = tar.read_bytes()
    rows = np.fromfile(copy / "toy-000000.idx", OFFSETS)
    random = np.random.default_rng(0)
    for _ in range(200):
        member = int(random.integers(len(rows)))
        first = int(rows["audio_offset"][member]) - 512
        end = first + 512 + int(rows["json_offset"][member]) + int(rows["json_bytes"][member])
        data = bytearray(original)
        data[int(random.integers(first, end))] ^= 1 << int(random.integers(8))
        tar.write_bytes(data)

        with pytest.raises(ValueError, match=r"toy-000000\.tar: clip .* is corrupt"):
            Index.open(copy).clip(0, member)
