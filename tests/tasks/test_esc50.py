"""ESC-50: published folds, one validates, recordings stay whole."""

import pytest

from sslaudio.tasks.esc50 import Config, build

HEAD = "filename,fold,target,category,esc10,src_file,take"


@pytest.fixture
def layout(tmp_path, sound):
    """Write ESC-50's layout: (fold, source, take, category, esc10) a clip."""

    def write(clips):
        lines = [HEAD]
        for fold, source, take, category, esc10 in clips:
            target = {"dog": 0, "rain": 10, "cat": 5}[category]
            name = f"{fold}-{source}-{take}-{target}.wav"
            sound(tmp_path / "audio" / name)
            lines.append(f"{name},{fold},{target},{category},{esc10},{source},{take}")
        (tmp_path / "meta").mkdir(exist_ok=True)
        (tmp_path / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write


def clips(folds):
    """A dog in two takes, a rain and a cat in every fold; the cat is not in ESC-10."""
    rows = []
    for fold in folds:
        rows += [
            (fold, 100 + fold, "A", "dog", True),
            (fold, 100 + fold, "B", "dog", True),
            (fold, 200 + fold, "A", "rain", True),
            (fold, 300 + fold, "A", "cat", False),
        ]
    return rows


def folds_of(examples):
    return {int(example.path.name[0]) for example in examples}


def test_the_next_fold_validates_and_after_the_last_the_first(layout):
    task = build(Config(), layout(clips([1, 2, 3, 4, 5])))

    assert [fold.name for fold in task.folds] == ["1", "2", "3", "4", "5"]
    assert folds_of(task.folds[1].test) == {2}
    assert folds_of(task.folds[1].validation) == {3}
    assert folds_of(task.folds[1].train) == {1, 4, 5}
    assert folds_of(task.folds[4].validation) == {1}


def test_absent_folds_are_passed_over_and_said(layout):
    task = build(Config(), layout(clips([1, 2, 5])))

    assert [fold.name for fold in task.folds] == ["1", "2", "5"]
    assert folds_of(task.folds[1].validation) == {5}
    assert "3 of 5 folds" in task.notes
    assert "3 of 50 classes" in task.notes


def test_esc10_holds_its_classes_only(layout):
    task = build(Config(subset="esc10"), layout(clips([1, 2, 3])))

    assert task.classes == ("dog", "rain")
    assert task.folds[0].clips() == {"train": 3, "validation": 3, "test": 3}


def test_takes_of_one_source_are_one_recording(layout):
    (fold, *_) = build(Config(subset="esc10"), layout(clips([1, 2, 3]))).folds

    assert len({example.recording for example in fold.test}) == 2


def test_recordings_in_two_folds_are_said_and_warned_about(layout):
    # Dog 101 of fold 1 has a take in fold 2 as well.
    rows = [*clips([1, 2, 3]), (2, 101, "C", "dog", True)]

    with pytest.warns(UserWarning, match="task esc50: 1 recordings lie.*rewards remembering"):
        task = build(Config(), layout(rows))

    said = [note for note in task.notes if "recordings" in note]
    assert said == [f"1 recordings lie in several parts of fold {fold}" for fold in (1, 2, 3)]


def test_a_row_without_its_source_is_told_with_its_line(layout):
    root = layout(clips([1, 2, 3]))
    table = root / "meta" / "esc50.csv"
    table.write_text(table.read_text() + "1-9-A-0.wav,1,0,dog,True\n")

    with pytest.raises(ValueError, match=r"esc50\.csv, line 14: the row ends before its src_file"):
        build(Config(), root)


def test_folds_can_be_asked_for(layout):
    root = layout(clips([1, 2, 3]))

    assert [fold.name for fold in build(Config(folds=(3,)), root).folds] == ["3"]
    with pytest.raises(ValueError, match="asks for 4, but the folds here are 1, 2, 3"):
        build(Config(folds=(1, 4)), root)


def test_two_folds_are_too_few(layout):
    with pytest.raises(ValueError, match=r"needs three folds or more.* 1 and 2"):
        build(Config(), layout(clips([1, 2])))


def test_a_listed_clip_that_is_not_there_is_left_out_and_said(layout):
    root = layout(clips([1, 2, 3]))
    (root / "audio" / "1-101-A-0.wav").unlink()

    task = build(Config(), root)

    assert "11 of 12 listed clips" in task.notes
    assert task.folds[0].clips()["test"] == 3


def test_a_class_that_a_fold_never_trains_on_is_said(layout):
    rows = [row for row in clips([1, 2, 3]) if row[3] != "cat" or row[0] == 2]

    assert "fold 2 has no training clip of cat" in build(Config(), layout(rows)).notes


def test_counts_of_the_shared_part(shared):
    task = build(Config(subset="esc10"), shared("esc10"))

    assert len(task.classes) == 10
    assert task.notes == ("4 of 5 folds",)
    # Folds 1 to 4 hold 80, 80, 78 and 72 clips.
    assert [fold.clips()["test"] for fold in task.folds] == [80, 80, 78, 72]
    assert [fold.clips()["validation"] for fold in task.folds] == [80, 78, 72, 80]
    assert all(sum(fold.clips().values()) == 310 for fold in task.folds)


def test_others_scores_stand_by_all_classes_alone(layout):
    root = layout(clips([1, 2, 3]))

    scores = {(one.system, one.protocol): one.score for one in build(Config(), root).published}

    assert scores["SSAST patch-400", "full"] == 0.888
    assert scores["AST, AudioSet (supervised)", "full"] == 0.868
    assert scores["M2D/0.7", "linear"] == 0.913
    assert scores["Dasheng base", "knn"] == 0.619
    assert build(Config(subset="esc10"), root).published == ()
