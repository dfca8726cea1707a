import unicodedata
from collections import Counter

import pytest

from sslaudio.data.corpora.esc50 import Config, build
from sslaudio.data.progress import silent
from sslaudio.data.shards import build as build_shards

HEADER = "filename,fold,target,category,esc10,src_file,take\n"
ROWS = (
    "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
    "1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n"
    "5-9032-A-0.wav,5,0,dog,True,9032,A\n"
)


@pytest.fixture
def esc50(write_sounds):
    root = write_sounds("audio/1-100032-A-0.ogg", "audio/1-100038-A-14.wav", "audio/5-9032-A-0.wav")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text(HEADER + ROWS)
    return root


def test_the_table_tells_and_the_suffix_may_differ(esc50):
    clips = build(Config(), esc50)

    told = [(c.source, c.label, c.fold, c.recording, c.subsets) for c in clips]
    assert told == [
        ("audio/1-100032-A-0.ogg", "dog", 1, "100032", ("esc10",)),
        ("audio/1-100038-A-14.wav", "chirping_birds", 1, "100038", ()),
        ("audio/5-9032-A-0.wav", "dog", 5, "9032", ("esc10",)),
    ]
    assert {clip.split for clip in clips} == {None}
    assert {clip.licence for clip in clips} == {"CC BY-NC 3.0"}


def test_a_table_of_licences_is_followed(esc50):
    (esc50 / "meta" / "attribution.csv").write_text(
        'filename,freesound_title,author,licence\n1-100032-A-0.ogg,"bark, loud",nfrae,CC0\n'
    )

    licences = {clip.source: clip.licence for clip in build(Config(), esc50)}

    assert licences["audio/1-100032-A-0.ogg"] == "CC0"
    assert licences["audio/5-9032-A-0.wav"] == "CC BY-NC 3.0"


@pytest.mark.parametrize(
    ("table", "absent"),
    [("file,license\nx,CC0\n", "filename"), ("filename,license\nx,CC0\n", "licence"), ("", "f")],
)
def test_another_table_of_licences_is_passed_over_with_a_warning(esc50, table, absent):
    (esc50 / "meta" / "attribution.csv").write_text(table)

    with pytest.warns(UserWarning, match=rf"attribution\.csv lacks the column {absent}"):
        clips = build(Config(), esc50)

    assert {clip.licence for clip in clips} == {"CC BY-NC 3.0"}


def test_a_short_row_of_licences_leaves_the_corpus_licence(esc50):
    (esc50 / "meta" / "attribution.csv").write_text("filename,licence\n1-100032-A-0.wav\n")

    assert {clip.licence for clip in build(Config(), esc50)} == {"CC BY-NC 3.0"}


def test_a_listed_file_that_is_missing_is_rejected_and_listed(esc50, tmp_path):
    (esc50 / "audio" / "5-9032-A-0.wav").unlink()

    index, _ = build_shards(
        build(Config(), esc50), tmp_path / "out", corpus="esc50", jobs=1, progress=silent
    )

    assert index.totals.clips == 2
    assert (tmp_path / "out" / "rejected.jsonl").read_text() == (
        '{"source": "audio/5-9032-A-0.wav", "reason": "missing"}\n'
    )


def test_the_esc10_part_is_told_in_the_shards(esc50, tmp_path):
    index, _ = build_shards(
        build(Config(), esc50), tmp_path / "out", corpus="esc50", jobs=1, progress=silent
    )

    subsets = {e.fields["source"]: e.fields.get("subsets") for e in index.examples()}
    assert subsets["audio/1-100032-A-0.ogg"] == ["esc10"]
    assert subsets["audio/1-100038-A-14.wav"] is None


def test_unlisted_files_are_left_out_with_a_warning(esc50, write_sounds):
    write_sounds("audio/2-1-A-3.wav")

    with pytest.warns(UserWarning, match=r"1 files .*meta/esc50\.csv does not name.*2-1-A-3\.wav"):
        clips = build(Config(), esc50)

    assert len(clips) == 3


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("filename,fold\n", "lacks the column category"),
        (HEADER, "lists no clips"),
        (HEADER + "a.wav,one,0,dog,True,1,A\n", "line 2: its fold is 'one'.* of 1 to 5"),
        (HEADER + "a.wav,6,0,dog,True,1,A\n", "line 2: its fold is '6'"),
        (HEADER + "a.wav,1,0,dog,True,1,A\nb.wav\n", "line 3: the row ends before its fold"),
        (HEADER + "a.wav,1,0,dog\n", "line 2: the row ends before its esc10"),
        (HEADER + "a.wav,1,0,dog,True\n", "line 2: the row ends before its src_file"),
        (HEADER + "a.wav,1,0,dog,True,1,A\na.wav,2,0,dog,True,1,A\n", "line 3: a.wav is in line 2"),
    ],
)
def test_a_broken_table_is_told(esc50, table, words):
    (esc50 / "meta" / "esc50.csv").write_text(table)

    with pytest.raises(ValueError, match=words):
        build(Config(), esc50)


def test_accents_may_be_written_otherwise_on_the_disk(esc50, write_sounds):
    write_sounds(f"audio/{unicodedata.normalize('NFD', '2-é-A-0')}.wav")
    row = f"{unicodedata.normalize('NFC', '2-é-A-0')}.wav,2,0,dog,True,1,A\n"
    (esc50 / "meta" / "esc50.csv").write_text(HEADER + ROWS + row)

    assert all(clip.path.is_file() for clip in build(Config(), esc50))


def test_another_folder_is_told_what_was_looked_for(write_sounds):
    with pytest.raises(ValueError, match=r"not ESC-50: looked for meta/esc50\.csv"):
        build(Config(), write_sounds("audio/1-100032-A-0.ogg"))


def test_the_real_part(real_corpus):
    clips = build(Config(), real_corpus("esc10"))

    assert len(clips) == 310
    assert {clip.fold for clip in clips} == {1, 2, 3, 4}
    assert len({clip.label for clip in clips}) == 10
    assert all(clip.path.is_file() and clip.recording for clip in clips)
    assert Counter(clip.subsets for clip in clips) == {("esc10",): 310}
    assert all("CC" in clip.licence for clip in clips)
