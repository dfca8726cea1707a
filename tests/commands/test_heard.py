"""A score on recordings that pretraining heard says so, and only such a score."""

import json

import pytest
from miniatures import fsdd

from sslaudio.cli import main


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run on the training takes of a small FSDD, which all its speakers have."""
    folder = tmp_path_factory.mktemp("heard")
    root, shards, run = folder / "root", folder / "shards", folder / "run"
    fsdd.make(root)
    build = f"shards build --corpus fsdd --root {root} --out {shards} --jobs 1"
    assert main(build.split()) == 0
    short = (
        "--config demo --data.batch 8 --data.clip_seconds 0.2 --training.steps 0 --knn.every 0 "
        f"--data.shards {shards} --out {run}"
    )
    assert main(["pretrain", *short.split()]) == 0
    return root, run


@pytest.mark.parametrize(
    ("split", "heard"), [("published", False), ("leave-one-speaker-out", True)]
)
def test_recordings_that_pretraining_heard_are_told(pretrained, tmp_path, split, heard):
    root, run = pretrained

    status = main(
        ["finetune", "--task", "fsdd", "--task.split", split, "--root", str(root),
         "--checkpoint", str(run), "--protocol", "knn", "--out", str(tmp_path / "out")]
    )  # fmt: skip

    assert status == 0
    records = json.loads((tmp_path / "out" / "results.json").read_text())
    notes = [[note for note in record["notes"] if "heard" in note] for record in records]
    # A speaker left out has 18 clips, of takes 0 to 7 and 10: 0 to 4 test, the others trained.
    expected = ["pretraining heard 8 of the 18 test recordings, unlabelled"] if heard else []
    assert notes == [expected] * (2 if heard else 1)
