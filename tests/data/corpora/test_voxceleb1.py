from collections import Counter

import pytest

from sslaudio.data.corpora.voxceleb1 import Config, build, recognises

LISTED = (
    "1 id10001/1zcIwhmdeo4/00001.wav\n"
    "3 id10001/7gWzIy6yIIk/00001.wav\n"
    "2 id10270/-XjkKN0ccFs/00012.wav\n"
)


@pytest.fixture
def voxceleb1(write_sounds):
    root = write_sounds(
        "dev/wav/id10001/1zcIwhmdeo4/00001.wav",
        "dev/wav/id10001/7gWzIy6yIIk/00001.wav",
        "test/wav/id10270/-XjkKN0ccFs/00012.wav",
    )
    (root / "iden_split.txt").write_text(LISTED)
    return root


def test_the_list_tells_wherever_the_archives_unpacked(voxceleb1):
    clips = build(Config(), voxceleb1)

    told = [(c.source, c.label, c.speaker, c.recording, c.split) for c in clips]
    assert told == [
        ("dev/wav/id10001/1zcIwhmdeo4/00001.wav", "id10001", "id10001", "1zcIwhmdeo4", "train"),
        ("dev/wav/id10001/7gWzIy6yIIk/00001.wav", "id10001", "id10001", "7gWzIy6yIIk", "test"),
        (
            "test/wav/id10270/-XjkKN0ccFs/00012.wav",
            "id10270",
            "id10270",
            "-XjkKN0ccFs",
            "validation",
        ),
    ]


@pytest.mark.parametrize("holder", ["", "wav/", "dev/wav/"])
def test_speakers_without_the_list_are_told_where_to_get_it(write_sounds, holder):
    root = write_sounds(f"{holder}id10001/1zcIwhmdeo4/00001.wav")

    assert recognises(root)
    with pytest.raises(
        ValueError, match=r"lacks iden_split\.txt.* get it from https://www\.robots"
    ):
        build(Config(), root)


def test_another_suffix_serves(write_sounds):
    root = write_sounds("id10001/1zcIwhmdeo4/00001.FLAC")
    (root / "iden_split.txt").write_text("1 id10001/1zcIwhmdeo4/00001.wav\n")

    (clip,) = build(Config(), root)

    assert clip.source == "id10001/1zcIwhmdeo4/00001.FLAC"


def test_a_listed_file_that_is_missing_is_a_clip_that_is_not_there(voxceleb1):
    (voxceleb1 / "dev/wav/id10001/1zcIwhmdeo4/00001.wav").unlink()

    clips = build(Config(), voxceleb1)

    assert [clip.source for clip in clips if not clip.path.is_file()] == [
        "wav/id10001/1zcIwhmdeo4/00001.wav"
    ]


def test_unlisted_and_second_files_are_left_out_with_a_warning(voxceleb1, write_sounds):
    write_sounds("wav/id10001/1zcIwhmdeo4/00001.wav", "wav/id10001/Ünlisted/1, 2.wav")

    with pytest.warns(UserWarning, match=r"2 files are left out, since iden_split\.txt"):
        clips = build(Config(), voxceleb1)

    assert len(clips) == 3


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "lists no clips; get the list anew from https"),
        ("1 id10001/a/1.wav\n1\n", r"line 2: '1' is not like '1 id10001"),
        ("4 id10001/a/1.wav\n", r"line 1: '4 id10001/a/1\.wav' is not like"),
        ("1 id10001/1.wav\n", r"line 1: .* is not like"),
        ("\n1 id10001/a/1.wav\n3 id10001/a/1.wav\n", "line 3: .* is in part 3, and in part 1"),
    ],
)
def test_a_damaged_list_is_told_with_its_line(voxceleb1, lines, words):
    (voxceleb1 / "iden_split.txt").write_text(lines)

    with pytest.raises(ValueError, match=words):
        build(Config(), voxceleb1)


def test_windows_line_ends_and_a_line_said_twice_do_no_harm(voxceleb1):
    (voxceleb1 / "iden_split.txt").write_bytes((LISTED + LISTED).replace("\n", "\r\n").encode())

    assert len(build(Config(), voxceleb1)) == 3


def test_counts_of_a_list_of_the_published_size(tmp_path):
    # Nagrani et al. 2017 and EVAR: 153,516 clips of 1,251 speakers.
    codes = [1] * 138_361 + [2] * 6_904 + [3] * 8_251
    lines = [
        f"{code} id{10_001 + place % 1_251}/video{place}/00001.wav"
        for place, code in enumerate(codes)
    ]
    (tmp_path / "iden_split.txt").write_text("\n".join(lines))

    clips = build(Config(), tmp_path)

    assert Counter(clip.split for clip in clips) == {
        "train": 138_361,
        "validation": 6_904,
        "test": 8_251,
    }
    assert len({clip.speaker for clip in clips}) == 1_251
