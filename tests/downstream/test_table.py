"""The table: means, Student's interval, bootstrap, others' scores beside ours."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sslaudio.downstream import table
from sslaudio.downstream.metrics import measured
from sslaudio.downstream.predictions import Predictions
from sslaudio.downstream.results import Record
from sslaudio.tasks.base import Published

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


def test_mean_interval_and_deviation_over_folds_known_by_hand():
    scores = (0.4, 0.5, 0.6)
    records = [replace(RECORD, fold=str(fold), test=score) for fold, score in enumerate(scores)]

    (row,) = table.rows(records)

    assert row.test == pytest.approx(0.5)
    assert row.deviation == pytest.approx(0.1)
    assert row.over == "3 folds"
    # By hand: t of 2 degrees of freedom at 97.5 % is 4.303; times 0.1 / sqrt 3.
    assert row.interval == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    low, high = stats.t.interval(0.95, 2, loc=0.5, scale=0.1 / 3**0.5)
    assert (row.test - row.interval, row.test + row.interval) == pytest.approx((low, high))


def test_of_several_seeds_the_interval_is_over_seeds_of_fold_means():
    scores = {(0, "1"): 0.2, (0, "2"): 0.8, (1, "1"): 0.3, (1, "2"): 0.9}
    records = [replace(RECORD, seed=s, fold=f, test=test) for (s, f), test in scores.items()]

    (row,) = table.rows(records)

    assert row.over == "2 seeds"
    assert row.deviation == pytest.approx(np.std([0.5, 0.6], ddof=1))


def test_one_record_has_no_interval():
    (row,) = table.rows([RECORD])

    assert row.interval is None
    assert "60.0 accuracy" in table.markdown([row])
    assert "Student" not in table.markdown([row])


def test_protocols_checkpoints_and_labels_are_told_apart():
    others = (
        replace(RECORD, protocol="full"),
        replace(RECORD, checkpoint=None),
        replace(RECORD, labels=5),
    )

    told = table.rows([RECORD, *others])

    assert [(row.protocol, row.checkpoint, row.labels) for row in told] == [
        ("linear", "runs/demo", None),
        ("full", "runs/demo", None),
        ("linear", "random", None),
        ("linear", "runs/demo", 5),
    ]
    assert "labels a class" in table.markdown(told)


def test_others_scores_stand_behind_the_same_task_and_protocol_alone():
    linear = Published("M2D", "linear", 0.913, "EVAR")
    full = Published("AST", "full", 0.887, "the paper")
    ours = table.rows([RECORD])

    shown = table.with_published(ours, {(RECORD.task, RECORD.split_rule): (linear, full)})

    assert [(row.checkpoint, row.theirs) for row in shown] == [("runs/demo", False), ("M2D", True)]
    text = table.markdown(shown)
    assert "M2D (theirs)" in text and "M2D: EVAR" in text and "AST" not in text


def test_lapes_departures_are_labelled():
    (row,) = table.rows([replace(RECORD, split_rule="lape_legacy: one fold")])

    text = table.markdown([row])

    assert "lape_legacy: one fold" in text
    assert "the epoch is chosen on test" in text


def test_a_bootstrap_over_speakers_is_wider_than_over_clips():
    # Ten speakers, each all right or all wrong: the clips tell no more than the speakers.
    right = np.repeat(np.arange(10) % 2, 20)
    part = Predictions(
        tuple(map(str, range(200))),
        np.zeros(200, np.int64),
        np.stack([right, 1 - right], axis=1).astype(float),
        tuple(f"speaker {clip // 20}" for clip in range(200)),
        ("",) * 200,
    )

    speakers, clips = (table.resampled([[part]], by) for by in ("speaker", "clip"))

    assert speakers[0] < 0.25 and speakers[1] > 0.75
    # By hand: a clip's deviation 0.5 over the root of 200, times 1.96.
    assert clips == pytest.approx((0.431, 0.569), abs=0.012)
    assert table.resampled([[part]], "speaker") == speakers


@pytest.mark.parametrize("kind", ["single", "multi", "number"])
@pytest.mark.parametrize("by", ["speaker", "clip"])
def test_a_bootstrap_is_the_quantiles_of_replicated_samples(kind: str, by: str):
    random = np.random.default_rng(3)
    scores = random.normal(size=(120, 6)).round(1).astype(np.float32)  # some are equal
    if kind == "single":
        targets = np.where(random.random(120) < 0.5, scores.argmax(1), random.integers(0, 6, 120))
    elif kind == "multi":
        targets = scores + random.normal(size=(120, 6)) > [-1, 0, 1, 1.5, 3, 9]  # rare; nobody
    else:
        targets = scores[:, 0] + random.normal(size=120)
    part = Predictions(
        tuple(map(str, range(120))), targets, scores,
        tuple(f"speaker {place}" for place in random.integers(0, 15, 120)), ("",) * 120,
    )  # fmt: skip

    units = np.unique(np.array(part.groups(by)), return_inverse=True)[1]
    draw = np.random.default_rng(0)
    found = []
    for _ in range(50):
        chosen = draw.integers(0, units.max() + 1, units.max() + 1)
        rows = np.concatenate([np.flatnonzero(units == one) for one in chosen])
        found.append(next(iter(measured(targets[rows], scores[rows]).values())))

    by_hand = np.quantile(found, [0.025, 0.975])
    assert table.resampled([[part]], by, draws=50) == pytest.approx(by_hand, abs=1e-9)


def test_a_bootstrap_of_several_seeds_is_of_their_mean():
    # One seed has every clip right, the other none: on any draw their mean is a half.
    right, wrong = (
        Predictions(("a", "b", "c"), np.zeros(3, np.int64), np.eye(2)[[said] * 3], ("",) * 3, ())
        for said in (0, 1)
    )

    assert table.resampled([[right], [wrong]], "clip") == (0.5, 0.5)


def test_the_files_hold_the_same_rows(tmp_path):
    told = table.rows([RECORD, replace(RECORD, protocol="full", test=0.7)])

    table.write(tmp_path, told)

    assert [row["test"] for row in json.loads((tmp_path / "table.json").read_text())] == [0.6, 0.7]
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row["protocol"] for row in csv.DictReader(file)] == ["linear", "full"]
    assert "| esc50" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.png").read_bytes()[:4] == b"\x89PNG"
