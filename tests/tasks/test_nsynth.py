"""NSynth: the published parts, instruments kept apart, LAPE's use of them."""

import json

import pytest

from sslaudio.tasks.nsynth import PUBLISHED, Config, build

NOTES = {
    "nsynth-train": ("bass_a-060", "bass_b-060", "organ_c-060", "organ_d-061"),
    "nsynth-valid": ("bass_e-060", "organ_f-060"),
    "nsynth-test": ("bass_e-061", "organ_f-061", "organ_f-062"),
}


@pytest.fixture
def layout(tmp_path, sound):
    """Write NSynth's layout: folder to notes, each FAMILY_X-PITCH of the instrument FAMILY_X."""

    def write(parts):
        for folder, notes in parts.items():
            for note in notes:
                sound(tmp_path / folder / "audio" / f"{note}.wav")
            told = {
                note: {
                    "instrument_str": note.split("-")[0],
                    "instrument_family_str": note.split("_")[0],
                }
                for note in notes
            }
            (tmp_path / folder / "examples.json").write_text(json.dumps(told))
        return tmp_path

    return write


def test_the_folders_are_the_parts(layout):
    task = build(Config(), layout(NOTES))

    (fold,) = task.folds
    assert fold.clips() == {"train": 4, "validation": 2, "test": 3}
    assert [example.target for example in fold.test] == [0, 1, 1]
    assert task.classes == ("bass", "organ")
    assert task.notes == ("2 of 11 families",)


def test_no_instrument_that_trains_is_tested_on(layout):
    (fold,) = build(Config(), layout(NOTES)).folds

    trained = {example.recording for example in fold.train}
    assert trained == {"bass_a", "bass_b", "organ_c", "organ_d"}
    assert not trained & {example.recording for example in (*fold.validation, *fold.test)}


def test_instruments_that_train_and_test_are_said_and_warned_about(layout):
    parts = {**NOTES, "nsynth-test": ("bass_a-064", "organ_f-061")}

    with pytest.warns(UserWarning, match="task nsynth: 1 training instruments are in validation"):
        task = build(Config(), layout(parts))

    assert "1 training instruments are in validation or test too" in task.notes


def test_legacy_trains_on_valid_and_chooses_on_test(layout):
    task = build(Config(split="lape_legacy"), layout(NOTES))

    (fold,) = task.folds
    assert task.legacy and fold.validation == fold.test
    assert fold.clips() == {"train": 6, "validation": 3, "test": 3}
    assert task.split_rule.startswith("lape_legacy: ")


def test_a_part_that_is_absent_is_named(layout):
    parts = {folder: notes for folder, notes in NOTES.items() if folder != "nsynth-train"}

    with (
        pytest.warns(UserWarning, match=r"lacks nsynth-train/examples\.json"),
        pytest.raises(ValueError, match=r"the train part holds no clip \(0 train, 2 validation"),
    ):
        build(Config(), layout(parts))


def test_published_scores_are_those_of_the_variant():
    scores = {(one.system, one.protocol): one.score for one in PUBLISHED["published"]}

    assert scores["M2D-CLAP (2024)", "linear"] == 0.78
    assert scores["Dasheng base", "knn"] == 0.7
    assert not any("SS-MAST" in one.source for one in PUBLISHED["published"])
    assert max(one.score for one in PUBLISHED["lape_legacy"]) == 0.812
    assert all("epoch chosen on test" in one.source for one in PUBLISHED["lape_legacy"])
