"""One's own table as a corpus: what rows tell, where files may lie, several clips of one file."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from miniatures import sounds

from sslaudio.data.corpora.csv import Config, build, recognises
from sslaudio.data.decode import decode
from sslaudio.data.progress import silent
from sslaudio.data.shards import build as build_shards


@pytest.fixture
def table(tmp_path):
    def write(*lines, name="labels.csv", mark="", ends="\n", folder=tmp_path / "mine") -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_bytes((mark + ends.join(lines) + ends).encode())
        return path

    return write


def shards_of(clips, out, **settings):
    index, _ = build_shards(clips, out, corpus="csv", jobs=1, progress=silent, **settings)
    return {one.key: one.fields for one in index.examples()}


def test_a_row_tells_all_of_its_clip(table, tmp_path):
    root = table(
        "path,label,split,fold,start,end,speaker,recording",
        "x/b.wav,rain,VAL,3,,,ada,r7",
        '"x/a, 1.wav","dog, barking",,,0.01,0.04,,',
    )
    sounds(root.parent, "x/a, 1.wav", "x/b.wav")

    told = shards_of(build(Config(), root), tmp_path / "out")

    assert told == {
        "x_a__1": {
            "label": "dog, barking",
            "recording": "x/a, 1.wav",
            "source": "x/a, 1.wav",
            "start": 0.01,
            "seconds": 0.03,
        },
        "x_b": {
            "label": "rain",
            "split": "validation",
            "fold": 3,
            "speaker": "ada",
            "recording": "r7",
            "source": "x/b.wav",
            "seconds": 0.05,
        },
    }


def test_several_labels_are_parted_and_may_be_none(table):
    root = table("path,labels", 'a.wav,"dog, wet; cat;dog, wet"', "b.wav,")

    assert [one.labels for one in build(Config(), root)] == [("dog, wet", "cat"), ()]
    bars = table("file\tclasses", "a.wav\tdog|cat", name="own.tsv")
    config = Config(path_column="file", labels_column="classes", separator="|")
    assert [one.labels for one in build(config, bars)] == [("dog", "cat")]


def test_a_table_of_paths_alone_has_no_labels(table):
    (clip,) = build(Config(), table("path", "a.wav"))

    assert (clip.label, clip.labels, clip.recording) == (None, (), None)


def test_of_both_columns_one_is_chosen(table):
    root = table("path,label,labels", "a.wav,dog,dog;cat")

    with pytest.raises(ValueError, match="columns label and labels; set --target to single or"):
        build(Config(), root)
    assert build(Config(target="single"), root)[0].label == "dog"
    assert build(Config(target="multi"), root)[0].labels == ("dog", "cat")


def test_several_clips_of_one_file_have_keys_of_their_own_and_share_the_recording(table, tmp_path):
    lines = [f"long.wav,{'ab'[n % 2]},{n / 4},{n / 4 + 0.25}" for n in (2, 0, 3, 1)]
    root = table("path,label,start,end", *lines, "other.wav,a,,", "./long.wav,a,0.5,0.75")
    soundfile.write(root.parent / "long.wav", np.arange(16_000, dtype=np.int16), 16_000)
    sounds(root.parent, "other.wav")

    with pytest.warns(UserWarning, match="1 lines that repeat another are left out"):
        clips = build(Config(), root)
    told = shards_of(clips, tmp_path / "out")

    starts = {key: one["start"] for key, one in told.items() if "start" in one}
    assert starts == {f"long-{n:04d}": n / 4 for n in range(4)}
    assert {told[key]["recording"] for key in starts} == {"long.wav"}
    assert {told[key]["source"] for key in starts} == {"long.wav"}
    cut = {one.part: one for one in clips}["0002"]
    whole = decode(cut.path, 16_000)
    index, _ = build_shards(clips, tmp_path / "out", corpus="csv", jobs=1, progress=silent)
    (kept,) = [one for one in index.examples() if one.key == "long-0002"]
    sound = decode(kept.shard, 16_000, byte_range=kept.byte_range)
    np.testing.assert_array_equal(sound, whole[8_000:12_000])


def test_clips_that_begin_together_are_several_and_one_written_otherwise_is_none(table):
    lines = ["a.wav,x,0,1", "a.wav,y,0,0.5", "a.wav,z,,", "a.wav,x,0.0,1.00", "a.wav,z,0,"]

    with pytest.warns(UserWarning, match="2 lines that repeat another are left out"):
        clips = build(Config(), table("path,label,start,end", *lines))

    told = [(clip.label, clip.start_seconds, clip.seconds, clip.part) for clip in clips]
    assert told == [("y", 0.0, 0.5, "0000"), ("x", 0.0, 1.0, "0001"), ("z", 0.0, None, "0002")]


def test_a_row_that_is_longer_than_a_segment_is_cut_in_its_bounds(table, tmp_path):
    root = table("path,label,start,end", "long.wav,a,1,3.5", "long.wav,b,5,")
    sounds(root.parent, "long.wav", seconds=7, rate=16_000)

    told = shards_of(build(Config(), root), tmp_path / "out", segment_seconds=1.0)

    assert {key: (one["start"], one["seconds"], one["label"]) for key, one in told.items()} == {
        "long-0000-0000": (1.0, 1.0, "a"),
        "long-0000-0001": (2.0, 1.0, "a"),
        "long-0000-0002": (3.0, 0.5, "a"),
        "long-0001-0000": (5.0, 1.0, "b"),
        "long-0001-0001": (6.0, 1.0, "b"),
    }


def test_files_outside_the_tables_folder_have_clean_sources(table, tmp_path):
    sounds(tmp_path, "mine/a.wav", "a.wav", "far/a.wav")
    root = table("path", "a.wav", "../a.wav", str(tmp_path / "far" / "a.wav"))

    clips = build(Config(), root)

    assert [one.source for one in clips] == ["a.wav", "far/a.wav", "mine/a.wav"]
    assert all(one.path.is_file() for one in clips)
    assert len(shards_of(clips, tmp_path / "out")) == 3
    inside = table("path", str(tmp_path / "mine" / "a.wav"), "./a.wav")
    with pytest.warns(UserWarning, match="1 lines that repeat another"):
        assert [one.source for one in build(Config(), inside)] == ["a.wav"]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_written_otherwise_in_the_table_than_on_the_disk(table, tmp_path, forms):
    name, written = (unicodedata.normalize(form, "vögel/käuzchen é.wav") for form in forms)
    sounds(tmp_path / "mine", name)

    (clip,) = build(Config(), table("path,label", f"{written},eule"))

    assert clip.path.is_file()
    assert clip.source == name


def test_marks_and_line_ends_of_windows_and_hidden_tables_do_no_harm(table, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "._labels.csv").write_bytes(b"\0\5\26\7")
    root = table("path,label", "A.WAV,dog", mark="\ufeff", ends="\r\n", name="x.csv")

    assert recognises(tmp_path / "mine")
    (clip,) = build(Config(), tmp_path / "mine")

    assert (clip.path, clip.label) == (root.parent / "A.WAV", "dog")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["file", "a.wav"], "no column 'path'; it has file: set --path-column"),
        (["path,split", "a.wav,holdout"], "line 2: .* or set --split-column to another"),
        (["path,label", "a.wav,x", "a.wav,y"], "line 3: a.wav is in line 2 too"),
        (
            ["path,label,start", "a.wav,x,1", "a.wav,y,1.0"],
            r"line 3: a\.wav#1\.0- is in line 2 too",
        ),
        (["path,start,end", "a.wav,2,1"], "line 2: the clip ends at 1 s, not after"),
        (["path"], "lists no clips"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_or_flag(table, lines, words):
    with pytest.raises(ValueError, match=words):
        build(Config(), table(*lines))
