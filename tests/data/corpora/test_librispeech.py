from collections import Counter

import pytest
from miniatures import librispeech as miniature

from sslaudio.data.corpora.librispeech import Config, build


@pytest.fixture
def root(tmp_path):
    miniature.make(tmp_path / "corpus")
    return tmp_path / "corpus"


def test_part_chapter_and_speaker_are_told(root):
    clips = {clip.source: clip for clip in build(Config(), root)}

    clip = clips["LibriSpeech/dev-clean/84/121123/84-121123-0001.flac"]
    assert (clip.split, clip.subsets) == ("validation", ("dev-clean",))
    assert (clip.speaker, clip.recording, clip.licence) == ("84", "84-121123", "CC BY 4.0")
    assert clip.label is None and not clip.labels
    assert Counter(one.split for one in clips.values()) == {
        "train": 8,
        "validation": 4,
        "test": 4,
    }


def test_the_folder_and_the_one_above_it_serve(root):
    above, below = build(Config(), root), build(Config(), root / "LibriSpeech")

    assert [one.path for one in above] == [one.path for one in below]
    assert [one.source for one in above] == [f"LibriSpeech/{one.source}" for one in below]


@pytest.mark.parametrize(
    ("subset", "parts"),
    [
        ("100", {"train-clean-100"}),
        ("460", {"train-clean-100"}),
        ("960", {"train-clean-100", "train-other-500"}),
        ("test-other", {"test-other"}),
    ],
)
def test_parts_can_be_asked_for(root, subset, parts, recwarn):
    clips = build(Config(subset), root)

    assert {part for clip in clips for part in clip.subsets} == parts
    absent = [str(warning.message) for warning in recwarn]
    assert ["train-clean-360" in words for words in absent] == [True] * (subset in ("460", "960"))


def test_a_part_that_is_not_there_is_told(root):
    with pytest.raises(ValueError, match="is not LibriSpeech's dev-other: looked for .*set --root"):
        build(Config("dev-other"), root)


def test_an_utterance_of_a_transcript_is_listed_though_its_file_is_missing(root):
    path = root / "LibriSpeech/test-other/367/130732/367-130732-0001.flac"
    path.unlink()

    (missing,) = [clip for clip in build(Config(), root) if not clip.path.exists()]

    assert (missing.path, missing.speaker, missing.split) == (path, "367", "test")


def test_other_files_and_second_ones_are_left_out_with_a_warning(root):
    chapter = root / "LibriSpeech/test-other/367/130732"
    for name in ("367-130732-0000.wav", "intro.flac", "._367-130732-0000.flac"):
        (chapter / name).write_bytes(b"")
    (chapter / "._367-130732.trans.txt").write_bytes(b"\0\5")

    with pytest.warns(UserWarning, match="2 files are left out.* as test-other's") as heard:
        clips = build(Config(), root)

    assert [one.message.files for one in heard] == [2]
    assert len(clips) == 16
    assert {clip.path.suffix for clip in clips} == {".flac"}


def test_a_transcript_with_a_mark_and_other_line_ends_reads_the_same(root):
    table = root / "LibriSpeech/test-other/367/130732/367-130732.trans.txt"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    assert len(build(Config(), root)) == 16

    table.write_text("GO DO YOU HEAR\n")
    with pytest.raises(ValueError, match=r"trans\.txt, line 1: 'GO DO YOU HEAR' does not begin"):
        build(Config(), root)
