"""results.json: written whole, read back, summed up."""

import json
import math
from dataclasses import replace

import pytest

from sslaudio.downstream.results import Record, read, summary, table, write

RECORD = Record(
    task="esc50",
    protocol="linear",
    metric="accuracy",
    split_rule="esc10, published folds; the next fold validates",
    fold="1",
    seed=0,
    validation=0.5,
    test=0.6,
    clips={"train": 160, "validation": 80, "test": 80},
    checkpoint="runs/demo",
    trainable=3_850,
    seconds=1.5,
    notes=("4 of 5 folds",),
)


def test_records_come_back_as_written(tmp_path):
    path = tmp_path / "new" / "results.json"

    write(path, [RECORD, replace(RECORD, checkpoint=None)])

    assert read(path) == [RECORD, replace(RECORD, checkpoint=None)]
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_the_file_is_a_list_with_the_agreed_keys(tmp_path):
    write(tmp_path / "results.json", [RECORD])

    (row,) = json.loads((tmp_path / "results.json").read_text())

    agreed = """task protocol metric split_rule fold seed validation test clips checkpoint
        trainable seconds notes"""
    assert list(row) == agreed.split()
    assert row["clips"] == {"train": 160, "validation": 80, "test": 80}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write(path, [RECORD])

    with pytest.raises(ValueError):
        write(path, [replace(RECORD, test=math.nan)])

    assert read(path) == [RECORD]


def test_mean_and_deviation_over_folds():
    records = [replace(RECORD, fold=str(fold), test=fold / 10) for fold in (4, 5, 6)]

    (row,) = summary(records)

    assert (row.folds, row.seeds) == (3, 1)
    assert row.test == pytest.approx(0.5)
    assert row.test_deviation == pytest.approx(0.1)


def test_protocols_and_checkpoints_are_told_apart():
    rows = summary([RECORD, replace(RECORD, protocol="full"), replace(RECORD, checkpoint=None)])

    assert [(row.protocol, row.checkpoint) for row in rows] == [
        ("linear", "runs/demo"),
        ("full", "runs/demo"),
        ("linear", None),
    ]


def test_one_record_has_no_deviation():
    (row,) = summary([RECORD])

    assert math.isnan(row.test_deviation)
    assert "60.0 |" in table([RECORD])


def test_the_table_is_in_percent_with_random_weights_named():
    records = [replace(RECORD, checkpoint=None, fold=str(fold), test=fold / 10) for fold in (4, 6)]

    lines = table(records).splitlines()

    assert len(lines) == 3
    assert "random" in lines[2]
    assert "50.0 ± 14.1" in lines[2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot read results"),
        ("{}", "no list of records"),
        ('[{"task": "esc50"}]', "record 0 lacks checkpoint"),
        ("[3]", "record 0 lacks checkpoint"),
    ],
)
def test_a_file_that_is_none_says_so(tmp_path, text, words):
    (tmp_path / "results.json").write_text(text)

    with pytest.raises(ValueError, match=words):
        read(tmp_path / "results.json")
