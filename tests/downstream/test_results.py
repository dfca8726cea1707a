"""results.json: written whole, read back."""

import json
import math
from dataclasses import replace

import pytest

from sslaudio.downstream.results import Record, read, told, write

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
    assert list(row)[: len(agreed.split())] == agreed.split()
    assert row["clips"] == {"train": 160, "validation": 80, "test": 80}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write(path, [RECORD])

    with pytest.raises(ValueError):
        write(path, [replace(RECORD, test=math.nan)])

    assert read(path) == [RECORD]


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


def test_a_record_of_an_earlier_version_is_read_with_what_it_has(tmp_path):
    path = tmp_path / "results.json"
    write(path, [RECORD])
    (row,) = json.loads(path.read_text())
    path.write_text(json.dumps([{k: v for k, v in row.items() if k not in ("chosen", "labels")}]))

    assert read(path) == [RECORD]


def test_every_figure_is_told():
    several = replace(RECORD, metric="mAP", figures={"mAP": 0.6, "AUC": 0.9}, chosen="epoch 3")

    assert told(several) == "validation 50.0 %, test mAP 60.0 %, AUC 0.900, epoch 3"
