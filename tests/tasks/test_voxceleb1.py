"""VoxCeleb1: the published identification list, speakers in all parts, LAPE's use of it."""

from pathlib import Path

import pytest

from sslaudio.data.corpora.base import Clip
from sslaudio.tasks import sources
from sslaudio.tasks.voxceleb1 import PUBLISHED, Config, build


@pytest.fixture
def layout(tmp_path, sound):
    """Write VoxCeleb1's layout from the lines of its list."""

    def write(*lines):
        for line in lines:
            sound(tmp_path / "wav" / line.split()[1])
        (tmp_path / "iden_split.txt").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write


LINES = (
    "1 id10001/aaaaaaaaaaa/00001.wav",
    "1 id10001/aaaaaaaaaaa/00002.wav",
    "2 id10001/bbbbbbbbbbb/00001.wav",
    "3 id10001/ccccccccccc/00001.wav",
    "1 id10002/ddddddddddd/00001.wav",
    "3 id10002/eeeeeeeeeee/00001.wav",
)


def test_one_two_three_are_train_validation_and_test(layout):
    task = build(Config(), layout(*LINES))

    (fold,) = task.folds
    assert fold.name == "published"
    assert fold.clips() == {"train": 3, "validation": 1, "test": 2}
    assert [example.target for example in fold.test] == [0, 1]
    assert {example.recording for example in fold.validation} == {"bbbbbbbbbbb"}
    assert task.classes == ("id10001", "id10002")
    assert task.notes == ("2 of 1,251 speakers",)


def test_legacy_trains_on_validation_and_chooses_on_test(layout):
    task = build(Config(split="lape_legacy"), layout(*LINES))

    (fold,) = task.folds
    assert task.legacy
    assert task.split_rule.startswith("lape_legacy: ")
    assert len(fold.train) == 4
    assert fold.validation == fold.test


def test_what_is_listed_and_not_there_is_said(layout):
    root = layout(*LINES)
    (root / "wav/id10001/aaaaaaaaaaa/00002.wav").unlink()

    task = build(Config(), root)

    assert task.missing == 1
    assert "5 of 6 listed clips" in task.notes


def test_a_speaker_that_never_trains_is_said(layout):
    lines = (*LINES, "3 id10003/fffffffffff/00001.wav")

    assert "fold published has no training clip of id10003" in build(Config(), layout(*lines)).notes


def test_a_list_without_validation_is_told_with_the_counts(layout):
    with pytest.raises(ValueError, match=r"validation part holds no clip \(3 train, 0 validation"):
        build(Config(), layout(*(line for line in LINES if line[0] != "2")))


def test_there_is_one_fold(layout):
    with pytest.raises(ValueError, match="asks for 2, but the folds here are published"):
        build(Config(folds=("2",)), layout(*LINES))


def test_published_scores_are_those_of_the_variant():
    scores = {(one.system, one.source[:4]): one.score for one in PUBLISHED["published"]}

    assert scores["SSAST frame-400", "Gong"] == 0.808
    assert scores["BYOL-A", "EVAR"] == 0.576
    assert len(scores) == len(PUBLISHED["published"]) == 8 + 8 + 15 + 2
    assert scores["AudioMAE", "READ"] == 0.029
    assert not any("SS-MAST" in one.source for one in PUBLISHED["published"])
    assert len(PUBLISHED["lape_legacy"]) == 10
    assert max(one.score for one in PUBLISHED["lape_legacy"]) == 0.573
    assert all("epoch chosen on test" in one.source for one in PUBLISHED["lape_legacy"])


def test_the_published_size_is_one_fold_of_1251_classes(monkeypatch):
    codes = ["train"] * 138_361 + ["validation"] * 6_904 + ["test"] * 8_251
    path = Path("a.wav")
    clips = tuple(
        Clip(path, str(place), label=f"id{10_001 + place % 1_251}", split=part)
        for place, part in enumerate(codes)
    )
    monkeypatch.setattr(sources, "read", lambda corpus, root: sources.Source(clips, 0))

    task = build(Config(), Path())

    assert len(task.classes) == 1_251
    assert task.notes == ()
    assert task.folds[0].clips() == {"train": 138_361, "validation": 6_904, "test": 8_251}
