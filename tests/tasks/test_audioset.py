"""AudioSet: balanced or all of it trains, eval tests, a keyed tenth of the balanced validates."""

import shutil

import pytest
from miniatures import audioset as miniature

from sslaudio.data.corpora.base import Clip
from sslaudio.tasks import sources
from sslaudio.tasks.audioset import Config, build, validates


@pytest.fixture
def root(tmp_path):
    miniature.make(tmp_path / "corpus")
    return tmp_path / "corpus"


def ids(task):
    (fold,) = task.folds
    return {part: sorted(one.recording for one in held) for part, held in fold.parts().items()}


def test_the_balanced_part_trains_and_validates(root):
    task = build(Config(), root)

    assert ids(task) == {
        "train": ["-train00001", "_train00002"],
        "validation": [miniature.VALIDATES],
        "test": ["eval000000A", "eval000000B"],
    }
    assert task.classes == ("Dog", "Male speech, man speaking", "Speech")
    targets = {one.recording: one.target for one in task.folds[0].test}
    assert targets == {"eval000000A": (1, 2), "eval000000B": (0,)}
    assert (task.metric, task.seconds) == ("mAP", 10.0)


def test_the_unbalanced_part_trains_besides_and_never_validates(root):
    smaller, larger = ids(build(Config(), root)), ids(build(Config(version="2m"), root))

    assert validates("Ytrain00003")  # were it balanced
    assert larger["train"] == sorted([*smaller["train"], "Ytrain00003", "train00004A"])
    assert larger["validation"] == smaller["validation"]


def test_what_is_missing_is_counted_in_the_version_at_hand(root):
    (root / "audio" / "unbalanced_train" / "part00" / "Ytrain00003.wav").unlink()
    (root / "eval" / "eval000000B.ogg").unlink()

    smaller, larger = build(Config(), root), build(Config(version="2m"), root)

    assert (smaller.missing, larger.missing) == (1, 2)
    assert "4 of 5 listed clips" in smaller.notes
    assert ids(larger)["validation"] == [miniature.VALIDATES]


def test_without_the_unbalanced_part_there_is_no_2m(root):
    shutil.rmtree(root / "audio" / "unbalanced_train")

    assert build(Config(), root).folds
    with pytest.raises(
        ValueError, match=r"no clip of unbalanced_train; set --root.*version to 20k"
    ):
        build(Config(version="2m"), root)


def test_a_tenth_of_the_published_balanced_clips_validates(monkeypatch, tmp_path):
    names = [f"{number:011}" for number in range(22_160)]
    clips = [
        Clip(tmp_path, name, labels=("ab"[place % 2],), split="train", recording=name,
             subsets=("balanced_train",))
        for place, name in enumerate(names)
    ]  # fmt: skip
    clips.append(Clip(tmp_path, "e", labels=("a",), split="test", recording="e", subsets=("eval",)))
    monkeypatch.setattr(sources, "read", lambda *_: sources.Source(tuple(clips), 0))

    counts = build(Config(), tmp_path).folds[0].clips()

    assert counts["train"] + counts["validation"] == 22_160
    # Three deviations of a coin of one in ten: 134.
    assert abs(counts["validation"] - 2_216) < 134


def test_each_version_has_its_own_published_scores(root):
    smaller, larger = build(Config(), root), build(Config(version="2m"), root)

    scores = {other.system: other.score for other in smaller.published}
    assert scores["SSAST patch-400"] == 0.31
    assert scores["AST, ImageNet"] == 0.347
    assert scores["AST, AudioSet (supervised)"] == 0.286
    assert {other.system: other.score for other in larger.published}["SSLAM"] == 0.502
