"""`sslaudio finetune --ensemble`: the mean of what several runs say, fold by fold."""

import json
from pathlib import Path

import numpy as np
import pytest
from miniatures import make

from sslaudio.cli import main

SMALL = """--backbone.dim 16 --backbone.heads 2 --backbone.depth 1 --training.epochs 1
    --training.batch 2 --protocol linear""".split()


def run(*words: object) -> int:
    return main(list(map(str, words)))


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A corpus with three folds, and two runs on all of them."""
    folder = tmp_path_factory.mktemp("members")
    make("esc50", folder / "sounds")
    for seed in (0, 1):
        words = ["--task", "esc50", "--root", folder / "sounds", "--training.seed", seed]
        assert run("finetune", *words, *SMALL, "--out", folder / f"run{seed}") == 0
    return folder / "sounds", folder / "run0", folder / "run1"


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_mean_of_the_members_shares_is_scored(members, tmp_path):
    root, *runs = members

    words = ["--task", "esc50", "--root", root, "--ensemble", *runs]
    assert run("finetune", *words, "--out", tmp_path / "both") == 0

    records = json.loads((tmp_path / "both" / "results.json").read_text())
    assert [record["fold"] for record in records] == ["1", "2", "3"]
    for record in records:
        folds = [one / f"fold-{record['fold']}" for one in (*runs, tmp_path / "both")]
        one, other, both = (np.load(fold / "predictions.npz") for fold in folds)
        mean = (softmax(one["scores"]) + softmax(other["scores"])) / 2
        assert both["scores"] == pytest.approx(mean, abs=1e-4)
        assert record["test"] == np.mean(mean.argmax(axis=1) == both["targets"])
        assert record["protocol"] == "ensemble of 2" and record["trainable"] == 0


def test_a_member_of_other_classes_or_another_fold_is_refused(members, tmp_path, capsys):
    root, one, other = members
    make("fsdd", tmp_path / "digits")
    words = ["--task", "fsdd", "--root", tmp_path / "digits", "--ensemble", one, other]
    capsys.readouterr()

    assert run("finetune", *words, "--out", tmp_path / "digits-out") == 2
    assert "2 classes (dog, rain), but task fsdd has 2 (0, 7)" in capsys.readouterr().err

    words = ["--task", "esc50", "--root", root, "--ensemble", one / "fold-1", other / "fold-1"]
    assert run("finetune", *words, "--out", tmp_path / "sounds-out") == 2
    assert "its fold is 1) and would be tested on fold 2" in capsys.readouterr().err


def test_an_ensemble_takes_no_flags_of_training(members, tmp_path, capsys):
    root, *runs = members
    words = ["--task", "esc50", "--root", root, "--ensemble", *runs, "--out", tmp_path / "out"]

    assert run("finetune", *words, "--protocol", "lora", "--training.epochs", 3) == 2

    assert "leave out --protocol, --training.epochs" in capsys.readouterr().err
