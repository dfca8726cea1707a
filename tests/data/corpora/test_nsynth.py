import json
from collections import Counter

import pytest

from sslaudio.data.corpora.nsynth import PARTS, Config, build


def note(family, instrument):
    return {"instrument_family_str": family, "instrument_str": instrument, "pitch": 60}


def table(root, folder, notes):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "examples.json").write_text(json.dumps(notes))


@pytest.fixture
def nsynth(write_sounds):
    root = write_sounds(
        "nsynth-train/audio/bass_synthetic_033-022-050.wav",
        "nsynth-valid/audio/organ_electronic_001-060-075.wav",
        "nsynth-test/audio/bass_electronic_018-022-100.wav",
    )
    table(root, "nsynth-train", {"bass_synthetic_033-022-050": note("bass", "bass_synthetic_033")})
    table(
        root,
        "nsynth-valid",
        {"organ_electronic_001-060-075": note("organ", "organ_electronic_001")},
    )
    table(root, "nsynth-test", {"bass_electronic_018-022-100": note("bass", "bass_electronic_018")})
    return root


def test_the_tables_tell_family_part_and_instrument(nsynth):
    clips = build(Config(), nsynth)

    assert [(c.source.split("/")[0], c.label, c.split, c.recording) for c in clips] == [
        ("nsynth-test", "bass", "test", "bass_electronic_018"),
        ("nsynth-train", "bass", "train", "bass_synthetic_033"),
        ("nsynth-valid", "organ", "validation", "organ_electronic_001"),
    ]


def test_absent_parts_are_said(nsynth):
    (nsynth / "nsynth-train" / "examples.json").unlink()

    with pytest.warns(
        UserWarning, match=r"lacks nsynth-train/examples\.json: .* of train are left"
    ):
        clips = build(Config(), nsynth)

    assert len(clips) == 2


def test_a_note_without_its_file_is_a_clip_that_is_not_there(nsynth):
    (nsynth / "nsynth-test" / "audio" / "bass_electronic_018-022-100.wav").unlink()

    missing = [clip.source for clip in build(Config(), nsynth) if not clip.path.is_file()]

    assert missing == ["nsynth-test/audio/bass_electronic_018-022-100.wav"]


def test_files_of_no_note_are_left_out_with_a_warning(nsynth, write_sounds):
    write_sounds("nsynth-test/audio/ünknown, 1.wav")

    with pytest.warns(
        UserWarning, match=r"1 files .* nsynth-test/examples\.json does not name.*ünknown"
    ):
        clips = build(Config(), nsynth)

    assert len(clips) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": ', r"nsynth-valid/examples\.json is no JSON \(.*line 1.*\); unpack the published"),
        ("[]", "names no notes; unpack"),
        ("{}", "names no notes; unpack"),
        ('{"a": {"instrument_str": "b"}}', "note 'a' lacks its instrument_family_str; unpack"),
        ('{"a": {"instrument_family_str": "b"}}', "note 'a' lacks its instrument_str"),
        ('{"a": 3}', "note 'a' lacks its instrument_family_str"),
    ],
)
def test_a_damaged_table_is_told(nsynth, text, words):
    (nsynth / "nsynth-valid" / "examples.json").write_text(text)

    with pytest.raises(ValueError, match=words):
        build(Config(), nsynth)


def test_counts_of_tables_of_the_published_size(tmp_path):
    sizes = {"nsynth-valid": 12_678, "nsynth-test": 4_096}  # and 289,205 train
    for folder in PARTS:
        notes = range(sizes.get(folder, 1))
        table(tmp_path, folder, {f"{folder}-{n}": note("bass", f"bass_{n % 53}") for n in notes})

    counts = Counter(clip.split for clip in build(Config(), tmp_path))

    assert counts == {"train": 1, "validation": 12_678, "test": 4_096}
