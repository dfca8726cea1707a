from collections import Counter

import pytest

from sslaudio.data.corpora.fsdd import Config, build


def test_the_name_tells_digit_speaker_and_split(write_sounds):
    root = write_sounds(
        "recordings/7_jackson_4.wav",
        "recordings/7_jackson_5.flac",
        "recordings/0_mary_ann_49.WAV",
        "recordings/notes_about_1.wav",
    )

    clips = build(Config(), root)

    told = [(clip.source, clip.label, clip.speaker, clip.split) for clip in clips]
    assert told == [
        ("recordings/0_mary_ann_49.WAV", "0", "mary_ann", "train"),
        ("recordings/7_jackson_4.wav", "7", "jackson", "test"),
        ("recordings/7_jackson_5.flac", "7", "jackson", "train"),
    ]
    assert {clip.licence for clip in clips} == {"CC BY-SA 4.0"}


@pytest.mark.parametrize("source", ["yes/a_nohash_0.wav", "7_jackson_4.wav", "recordings/a.wav"])
def test_another_folder_is_told_what_was_looked_for(write_sounds, source):
    with pytest.raises(ValueError, match=r"not FSDD: looked for recordings/DIGIT_SPEAKER_N"):
        build(Config(), write_sounds(source))


def test_the_real_part(real_corpus):
    clips = build(Config(), real_corpus("fsdd"))

    assert len(clips) == 2_000
    assert Counter(clip.split for clip in clips) == {"train": 1_800, "test": 200}
    assert set(Counter((clip.label, clip.speaker) for clip in clips).values()) == {50}
    assert len({clip.speaker for clip in clips}) == 4


def test_a_second_file_of_a_take_is_left_out_with_a_warning(write_sounds):
    root = write_sounds("recordings/7_ada_0.wav", "recordings/7_ada_0.flac")

    with pytest.warns(UserWarning, match="1 files are left out, since another .*7_ada_0.wav"):
        (clip,) = build(Config(), root)

    assert clip.source == "recordings/7_ada_0.flac"
