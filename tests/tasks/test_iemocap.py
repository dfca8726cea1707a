"""IEMOCAP: four classes of five sessions, one left out at a time."""

from collections import Counter
from pathlib import Path

import pytest

from sslaudio.data.corpora.base import Clip
from sslaudio.tasks import sources
from sslaudio.tasks.iemocap import PUBLISHED, Config, build

CODES = ("neu", "ang", "exc", "hap", "sad", "fru", "xxx", "sur", "oth")


@pytest.fixture
def layout(tmp_path, sound):
    """Write sessions, each with an utterance of every code."""

    def write(sessions, codes=CODES):
        for session in sessions:
            dialogue = f"Ses0{session}F_impro01"
            lines = []
            for place, code in enumerate(codes):
                turn = f"{dialogue}_{'FM'[place % 2]}{place:03d}"
                sound(tmp_path / f"Session{session}/sentences/wav/{dialogue}/{turn}.wav")
                lines.append(f"[0.0 - 1.0]\t{turn}\t{code}\t[2.5, 2.5, 2.5]")
            tables = tmp_path / f"Session{session}" / "dialog" / "EmoEvaluation"
            tables.mkdir(parents=True)
            (tables / f"{dialogue}.txt").write_text("\n".join(lines))
        return tmp_path

    return write


def sessions_of(examples):
    return {int(example.key[len("Session")]) for example in examples}


def test_four_classes_and_excited_is_happy(layout):
    task = build(Config(), layout((1, 2, 3)))

    assert task.classes == ("angry", "happy", "neutral", "sad")
    counts = Counter(task.classes[example.one_class] for example in task.folds[0].test)
    assert counts == {"angry": 1, "happy": 2, "neutral": 1, "sad": 1}


def test_a_session_tests_and_the_next_validates(layout):
    task = build(Config(), layout((1, 2, 3, 4, 5)))

    assert [fold.name for fold in task.folds] == ["1", "2", "3", "4", "5"]
    assert task.notes == ()
    assert sessions_of(task.folds[4].test) == {5}
    assert sessions_of(task.folds[4].validation) == {1}
    assert sessions_of(task.folds[4].train) == {2, 3, 4}


def test_no_speaker_is_in_two_parts(layout):
    for fold in build(Config(), layout((1, 2, 3))).folds:
        speakers = [{one.speaker for one in examples} for examples in fold.parts().values()]
        assert sum(map(len, speakers)) == len(set().union(*speakers)) == 6


def test_absent_sessions_and_classes_are_said(layout):
    task = build(Config(), layout((1, 3, 4), codes=("neu", "ang", "sad")))

    assert task.notes == ("3 of 4 classes", "3 of 5 sessions")


def test_two_sessions_are_too_few(layout):
    with pytest.raises(ValueError, match=r"needs three folds or more.* 2 and 5"):
        build(Config(), layout((2, 5)))


def test_folds_can_be_asked_for(layout):
    assert [fold.name for fold in build(Config(folds=(2,)), layout((1, 2, 3))).folds] == ["2"]


def test_legacy_is_one_split_and_says_whose(layout):
    task = build(Config(split="lape_legacy"), layout((1, 2, 5)))

    (fold,) = task.folds
    assert task.legacy and fold.validation == fold.test
    assert sessions_of(fold.test) == {5}
    assert sessions_of(fold.train) == {1, 2}
    assert task.split_rule.startswith("lape_legacy: ")
    assert "stand-in" in task.split_rule


def test_legacy_without_the_last_session_is_refused(layout):
    with pytest.raises(ValueError, match=r"fold 5: the validation part holds no clip"):
        build(Config(split="lape_legacy"), layout((1, 2, 3)))


def test_the_published_size_is_5531_utterances(monkeypatch):
    # 10,039 utterances; SUPERB keeps 1,708 + 1,636 + 1,103 + 1,084 of them.
    published = {"neutral": 1_708, "happy": 595, "excited": 1_041, "angry": 1_103, "sad": 1_084}
    published |= {"frustrated": 1_849, None: 2_507, "other": 152}
    labels = [label for label, count in published.items() for _ in range(count)]
    clips = tuple(
        Clip(Path("a.wav"), str(place), label=label, fold=place % 5 + 1)
        for place, label in enumerate(labels)
    )
    monkeypatch.setattr(sources, "read", lambda corpus, root: sources.Source(clips, 0))

    task = build(Config(), Path())

    counts = Counter(one.one_class for fold in task.folds for one in fold.test)
    assert len(clips) == 10_039
    assert [counts[target] for target in range(4)] == [1_103, 1_636, 1_708, 1_084]
    assert all(sum(fold.clips().values()) == 5_531 for fold in task.folds)


def test_published_scores_are_those_of_the_variant():
    assert {one.score for one in PUBLISHED["published"]} >= {0.605, 0.661}
    assert max(one.score for one in PUBLISHED["lape_legacy"]) == 0.644
    assert all("unpublished" in one.source for one in PUBLISHED["lape_legacy"])
