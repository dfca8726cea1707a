"""One's own table: what is told, how it is divided, and what is wrong with it in which line."""

import warnings

import numpy as np
import pytest
import soundfile

from sslaudio.tasks.csv import Config, build


@pytest.fixture
def table(tmp_path, sound):
    """Write a table of the given lines beside the sounds that it names first."""

    def write(head, *lines, name="labels.csv", absent=()):
        for line in lines:
            file = line.replace("\t", ",").split(",")[0]
            if file and file not in absent:
                sound(tmp_path / file)
        path = tmp_path / name
        path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        return path

    return write


def rows(count, *told):
    """``count`` lines, numbered; what is told of each goes round."""
    return [f"{place}.wav,{told[place % len(told)]}" for place in range(count)]


def counts(task):
    return task.folds[0].clips()


def test_one_class_a_clip_is_divided_by_seed(table):
    task = build(Config(), table("path,label", *rows(40, "cat", "狗")))

    assert (task.name, task.kind, task.classes) == ("csv", "single", ("cat", "狗"))
    assert counts(task) == {"train": 28, "validation": 6, "test": 6}
    assert task.split_rule == "labels.csv: 70/15/15 by key, seed 0"
    assert task.seconds == pytest.approx(0.05)
    assert counts(build(Config(seed=1), table("path,label", *rows(40, "cat", "狗")))) == counts(
        task
    )


def test_several_classes_a_clip_are_parted_and_may_be_none(table):
    root = table("path,labels,split", "a.wav,dog; cat ;dog,train", "b.wav,,TRAIN", "c.wav,cat,val",
                 "d.wav,dog,Eval")  # fmt: skip

    task = build(Config(), root)

    assert (task.kind, task.metric, task.classes) == ("multi", "mAP", ("cat", "dog"))
    assert [one.target for one in task.folds[0].train] == [(0, 1), ()]
    assert counts(task) == {"train": 2, "validation": 1, "test": 1}
    assert task.targets(task.folds[0].train).tolist() == [[True, True], [False, False]]


def test_numbers_are_told_by_their_points_or_by_the_key(table):
    lines = rows(20, "0.5", "1", "-2")

    task = build(Config(), table("path,label", *lines))
    digits = table("path,label", *rows(20, "0", "1"), name="digits.csv")

    assert (task.kind, task.classes, task.metric) == ("number", (), "R2")
    assert {one.target for one in task.folds[0].train} == {0.5, 1.0, -2.0}
    assert counts(task) == {"train": 14, "validation": 3, "test": 3}
    assert build(Config(), digits).kind == "single"
    assert build(Config(target="number"), digits).kind == "number"


def test_folds_of_the_table_are_used_and_can_be_asked_for(table):
    root = table("path,label,fold", *(f"{n}.wav,{n % 2},{n // 4}" for n in range(16)))

    task = build(Config(folds=(3,)), root)

    (fold,) = task.folds
    assert fold.clips() == {"train": 8, "validation": 4, "test": 4}
    assert {one.key for one in fold.test} == {"12.wav", "13.wav", "14.wav", "15.wav"}
    assert {one.key for one in fold.validation} == {"0.wav", "1.wav", "2.wav", "3.wav"}


@pytest.mark.parametrize(
    ("column", "told", "words"),
    [
        ("fold", "1 2 3", "folds are passed over, since 1 of 41 clips have none"),
        ("split", "train val", "splits are passed over, since no clip's is test"),
    ],
)
def test_folds_and_splits_that_cannot_be_used_are_told(table, column, told, words):
    lines = [*rows(40, *(f"{label},{part}" for part in told.split() for label in "ab")), "x.wav,a,"]
    root = table(f"path,label,{column}", *lines)

    with pytest.warns(UserWarning, match=words):
        task = build(Config(), root)

    assert (task.folds[0].name, task.notes) == ("seeded", (words,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build(Config(split="seeded"), root).folds == task.folds


@pytest.mark.parametrize("unit", ["speaker", "recording"])
def test_a_seeded_split_keeps_a_unit_whole(table, unit):
    lines = [f"{n}.wav,{'ab'[n % 2]},id{n // 4}" for n in range(40)]

    task = build(Config(), table(f"path,label,{unit}", *lines))

    units = [{getattr(one, unit) for one in held} for held in task.folds[0].parts().values()]
    assert [len(held) for held in units] == [6, 2, 2]
    assert len(set.union(*units)) == 10
    assert f"by {unit}" in task.split_rule


def test_a_tenth_validates_where_no_split_does(table):
    lines = [*rows(40, "a,train", "b,train"), "x.wav,a,test", "y.wav,b,test"]

    task = build(Config(), table("path,label,split", *lines))

    assert counts(task) == {"train": 36, "validation": 4, "test": 2}


@pytest.mark.parametrize("spelt", ["{}.wav", "./{}.wav"])
def test_clips_cut_from_one_file_stay_together(table, spelt):
    lines = [
        f"{(spelt if start else '{}.wav').format(file)},{'ab'[start % 2]},{start},{start + 1}"
        for file in range(10)
        for start in range(4)
    ]

    task = build(Config(), table("path,label,start,end", *lines))

    files = [{one.path.name for one in held} for held in task.folds[0].parts().values()]
    assert [len(held) for held in files] == [6, 2, 2]
    assert len(set.union(*files)) == 10
    assert "by recording" in task.split_rule


def test_one_files_two_spellings_are_one_clip(table):
    lines = [*rows(40, "a", "b"), "./0.wav,a", "x/../1.wav,b"]

    with pytest.warns(UserWarning, match="2 lines that repeat another are left out"):
        task = build(Config(), table("path,label", *lines, absent=("x/../1.wav",)))

    assert sum(counts(task).values()) == 40


def test_a_class_of_few_speakers_does_not_tear_the_others_apart(table):
    lines = [f"{n}.wav,{'ab'[n % 2]},id{n // 4}" for n in range(40)]
    lines += [f"x{n}.wav,c,few{n % 2}" for n in range(6)]

    task = build(Config(), table("path,label,speaker", *lines))

    speakers = [{one.speaker for one in held} for held in task.folds[0].parts().values()]
    assert "by speaker" in task.split_rule
    assert not speakers[0] & speakers[1] and not (speakers[0] | speakers[1]) & speakers[2]
    assert "fold seeded has no test clip of c" in task.notes
    assert "fold seeded has no validation clip of c" in task.notes


def test_speakers_that_cannot_be_kept_whole_are_warned_of(table):
    lines = [f"{n}.wav,{'ab'[n % 2]},id{n % 2}" for n in range(40)]

    with pytest.warns(UserWarning, match="task csv: 2 speakers lie in several parts"):
        task = build(Config(), table("path,label,speaker", *lines))

    assert "by key" in task.split_rule
    assert "2 speakers lie in several parts" in task.notes


@pytest.mark.parametrize("column", ["label", "labels"])
def test_a_column_of_empty_labels_says_so(table, column):
    root = table(f"path,{column}", "a.wav,", "b.wav,")

    with pytest.raises(ValueError, match=rf"column {column} is empty .* set task\.{column}_column"):
        build(Config(), root)


def test_clips_lie_between_their_seconds_in_a_file_of_two_channels(table, tmp_path):
    lines = [f"long.wav,{'ab'[n % 2]},{n},{n + 0.5}" for n in range(20)]
    root = table("path,label,start,end", *lines)
    left = np.repeat(np.arange(20) / 20, 8_000)  # the level tells the second
    soundfile.write(tmp_path / "long.wav", np.stack([left, left], 1), 8_000)

    task = build(Config(), root)

    (clip,) = [one for held in task.folds[0].parts().values() for one in held if "#7" in one.key]
    assert task.seconds == 0.5
    assert clip.waveform(8_000) == pytest.approx(np.full(4_000, 7 / 20), abs=1e-3)


def test_columns_may_be_called_otherwise(table):
    lines = [f"{n}.wav|{n % 2}".replace("|", "\t") for n in range(20)]
    config = Config(path_column="file", label_column="what is heard")

    task = build(config, table("file\twhat is heard", *lines, name="own.tsv"))

    assert task.classes == ("0", "1")
    assert task.split_rule.startswith("own.tsv: ")


def test_a_folder_is_known_by_its_table(table, tmp_path):
    table("path,label", *rows(20, "a", "b"), name="other.csv")
    assert build(Config(), tmp_path).classes == ("a", "b")

    table("path,label", *rows(20, "c", "d"), name="more.csv")
    with pytest.raises(ValueError, match=r"holds more\.csv, other\.csv: .*set --root to the table"):
        build(Config(), tmp_path)

    table("path,label", *rows(20, "e", "f"), name="metadata.csv")
    assert build(Config(), tmp_path).classes == ("e", "f")


def test_a_folder_without_a_table_and_a_file_that_is_none_say_so(tmp_path, sound):
    with pytest.raises(ValueError, match="holds no CSV file: looked for .*set --root"):
        build(Config(), tmp_path)
    with pytest.raises(ValueError, match=r"a\.wav is no table in UTF-8|a\.wav has no column"):
        build(Config(), sound(tmp_path / "a.wav"))


def test_absent_files_are_counted_and_cannot_all_be(table):
    lines = rows(40, "a", "b")

    task = build(Config(), table("path,label", *lines, absent=("0.wav", "1.wav")))

    assert task.missing == 2
    assert "38 of 40 listed clips" in task.notes
    nothing = table("path,label", "x/1.wav,a", "x/2.wav,b", absent=("x/1.wav", "x/2.wav"))
    with pytest.raises(
        ValueError, match=r"none of the 2 labelled files .* the first is .*x/1\.wav"
    ):
        build(Config(), nothing)


def test_clips_without_a_label_and_repeated_lines_are_left_out_with_a_warning(table):
    lines = [*rows(40, "a", "b"), "x.wav,", "0.wav,a"]

    with pytest.warns(UserWarning) as warned:
        task = build(Config(), table("path,label", *lines))

    said = [str(warning.message) for warning in warned]
    assert any("1 clips without a label are left out" in words for words in said)
    assert any("1 lines that repeat another are left out" in words for words in said)
    assert sum(counts(task).values()) == 40


def test_a_file_of_no_sound_does_not_keep_the_others_from_being_listed(table, tmp_path):
    root = table("path,label", *rows(40, "a", "b"))
    (tmp_path / "0.wav").write_bytes(b"")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sum(counts(build(Config(), root)).values()) == 40


@pytest.mark.parametrize(
    ("head", "lines", "config", "words"),
    [
        ("file,label", ["a.wav,x"], Config(),
         "no column 'path'; it has file, label: set task.path_column"),
        ("path,class", ["a.wav,x"], Config(),
         "no column 'label'; it has path, class: set task.label_column"),
        ("path,label", ["a.wav,x"], Config(target="multi"), "set task.labels_column"),
        ("path,label,labels", ["a.wav,x,y"], Config(), "set task.target to single"),
        ("path,label", ["a.wav,x", "b.wav"], Config(), "line 3: the row ends before its label"),
        ("path,label", ["a.wav,x,y"], Config(), "line 2: the row has 3 cells for 2 columns"),
        ("path,label", ["a.wav,x", ",y"], Config(), "line 3: its path is empty; mend"),
        ("path,label", ["a.wav,x", "a.wav,y"], Config(), "line 3: a.wav is in line 2 too"),
        ("path,label,split", ["a.wav,x,holdout"], Config(), "line 2: its split is 'holdout', none"),
        ("path,label,fold", ["a.wav,x,one"], Config(), "line 2: its fold is 'one', not a whole"),
        ("path,label", ["a.wav,1.5", "b.wav,tall"], Config(target="number"),
         "line 3: its label is 'tall', not a number"),
        ("path,label,start,end", ["a.wav,x,2,1"], Config(), "line 2: the clip ends at 1 s, not"),
        ("path,label,start", ["a.wav,x,-1"], Config(), "line 2: its start is -1 s"),
        ("path,label", ["a.wav,x"], Config(), "two classes or more"),
        ("path,label", [], Config(), "lists no clips"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line_or_key(table, head, lines, config, words):
    with pytest.raises(ValueError, match=words) as caught:
        build(config, table(head, *lines))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "some", "words"),
    [
        ("label", "2.5", "of one value, which leaves R2"),
        ("labels", "", "of no class, which leaves"),
    ],
)
@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_part_that_leaves_the_score_undefined_is_told_at_once(table, column, some, words, part):
    split = ["train", "train", "validation", "validation", "test", "test"]
    lines = [
        f"{place}.wav,{some if name == part else place + 0.5},{name}"
        for place, name in enumerate(split)
    ]

    with pytest.raises(ValueError, match=f"fold published: the {part} clips are all {words}"):
        build(Config(), table(f"path,{column},split", *lines))
