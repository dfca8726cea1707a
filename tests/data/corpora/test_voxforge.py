import unicodedata

import pytest

from sslaudio.data.corpora.base import LeftOutWarning
from sslaudio.data.corpora.voxforge import Config, build, recognises, split_by_hash


def test_the_folders_tell_language_user_and_submission(write_sounds):
    root = write_sounds("de/ralf-herzog-20080425-acs/wav/de5-01.wav")

    (clip,) = build(Config(), root)

    assert clip.label == "de"
    assert clip.speaker == "German ralf-herzog"
    assert clip.recording == "ralf-herzog-20080425-acs"
    assert clip.licence == "GPL-3.0"
    assert clip.split == split_by_hash("ralf-herzog")


@pytest.mark.parametrize(
    ("folder", "language"),
    [
        ("en", "English"),
        ("ENGLISH", "English"),
        ("SpeechCorpus", "English"),
        ("Español", "Spanish"),
        ("fr", "French"),
        ("Italian", "Italian"),
        ("ru", "Russian"),
    ],
)
def test_a_language_goes_by_several_names_in_any_case(write_sounds, folder, language):
    (clip,) = build(Config(), write_sounds(f"{folder}/ada-20080425-acs/flac/a.flac"))

    assert clip.label == unicodedata.normalize("NFC", folder)
    assert clip.speaker == f"{language} ada"


def test_the_repositorys_own_folders_serve(write_sounds):
    root = write_sounds("it/Trunk/Audio/Main/16kHz_16bit/ada-20080425-acs/wav/a.wav")

    assert recognises(root)
    assert [clip.label for clip in build(Config(), root)] == ["it"]


def test_anonymous_is_nobody_and_trains(write_sounds):
    (clip,) = build(Config(), write_sounds("fr/Anonymous-20080425-acs/wav/a.wav"))

    assert clip.speaker is None
    assert clip.split == "train"


def test_users_fall_eight_to_one_to_one():
    parts = [split_by_hash(f"user{number}") for number in range(10_000)]

    # Three standard deviations of a tenth of 10,000 are 90.
    assert abs(parts.count("validation") - 1_000) < 90
    assert abs(parts.count("test") - 1_000) < 90


def test_the_rule_is_pinned():
    # sha256("voxforge NAME") begins with 2ae5, e5b1 and feac: of 10000 (hex) tenths 1, 8 and 9.
    assert [split_by_hash(user) for user in ("ada", "cleo", "paul")] == [
        "train",
        "validation",
        "test",
    ]
    assert split_by_hash("PAUL") == "test"


def test_a_user_of_two_languages_is_in_one_part(write_sounds):
    root = write_sounds("de/paul-20080425-acs/wav/a.wav", "en/Paul-20110101-xyz/wav/a.wav")

    clips = build(Config(), root)

    assert {clip.speaker for clip in clips} == {"German paul", "English Paul"}
    assert {clip.split for clip in clips} == {"test"}


def test_users_who_leave_move_nobody(write_sounds):
    users = [f"user{number}" for number in range(40)]
    root = write_sounds(*(f"en/{user}-20080425-acs/wav/a.wav" for user in users))
    before = {clip.speaker: clip.split for clip in build(Config(), root)}

    for user in users[::3]:
        (root / f"en/{user}-20080425-acs/wav/a.wav").unlink()

    after = {clip.speaker: clip.split for clip in build(Config(), root)}
    assert len(after) == 26
    assert after.items() < before.items()


def test_a_sound_in_both_encodings_is_one_clip(write_sounds):
    root = write_sounds("de/ada-20080425-acs/flac/a.flac", "de/ada-20080425-acs/wav/a.wav")

    (clip,) = build(Config(), root)

    assert clip.path.suffix == ".wav"


def test_other_languages_are_left_out_with_a_warning(write_sounds):
    root = write_sounds("nl/ada-20080425-acs/wav/a.wav", "de/ada-20080425-acs/wav/a.wav")

    with pytest.warns(UserWarning, match="nl is left out.*rename it"):
        clips = build(Config(), root)

    assert len(clips) == 1


def test_folders_of_languages_without_submissions_are_no_voxforge(write_sounds):
    root = write_sounds("en/clips/common_voice_1.wav", "de/clips/common_voice_2.wav")

    assert not recognises(root)
    with pytest.raises(ValueError, match="not VoxForge: looked for LANGUAGE/USER-YYYYMMDD"):
        build(Config(), root)


def test_stray_files_do_no_harm_and_empty_submissions_are_told(write_sounds):
    root = write_sounds("de/ada-20080425-acs/wav/ä, ö.WAV", "de/ada-20080425-acs/wav/._a.wav",
                        "de/dora-20080425-xyz/dora-20080425-xyz/wav/a.wav")  # fmt: skip
    (root / "de" / "bob-20080425-xyz").mkdir()
    (root / "de" / "cleo-20080425-xyz.tgz").touch()

    with pytest.warns(UserWarning, match="2 submissions .* no sound in flac or wav.*bob-20080425"):
        clips = build(Config(), root)

    assert [clip.source for clip in clips] == ["de/ada-20080425-acs/wav/ä, ö.WAV"]


def test_a_user_is_in_one_part_however_the_accents_are_written():
    assert split_by_hash("Jos\u00e9") == split_by_hash("Jose\u0301") == split_by_hash("JOS\u00c9")


def test_a_submission_in_two_folders_of_a_language_is_one(write_sounds):
    root = write_sounds(
        "en/Trunk/Audio/Main/16kHz_16bit/ada-20080425-acs/wav/a.wav",
        "English/ada-20080425-acs/wav/a.wav",
        "de/ada-20080425-acs/wav/a.wav",
    )

    with pytest.warns(UserWarning, match="1 files are left out, since another file"):
        clips = build(Config(), root)

    assert sorted(clip.label for clip in clips) == ["English", "de"]


def test_folders_that_do_not_tell_a_user_are_counted(write_sounds):
    root = write_sounds(
        "de/ada-20080425-acs/wav/a.wav", "de/my_takes/wav/a.wav", "de/my_takes/flac/b.flac"
    )

    with pytest.warns(LeftOutWarning, match=r"2 .*not named as a submission.*my_takes/flac/b\."):
        clips = build(Config(), root)

    assert [clip.speaker for clip in clips] == ["German ada"]
