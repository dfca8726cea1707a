"""What a run tells of clips that could not be heard, and of every epoch, in one process and two."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sslaudio.data.index import Index
from sslaudio.data.layout import OFFSETS

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--config demo --data.batch 8 --data.clip_seconds 0.5 --training.log_every 1 "
    "--training.checkpoint_every 4 --training.pictures_every 0 --training.precision fp32 "
    "--features.mean -10 --features.std 5 --knn.every 0 --data.corrupt_share 1"
).split()


@pytest.fixture(scope="module")
def damaged(shards, tmp_path_factory):
    """The synthetic shards with two training clips that have a wrong bit; and their keys."""
    copy = shutil.copytree(shards, tmp_path_factory.mktemp("damaged") / "synth")
    index, keys = Index.open(copy), []
    rows = np.fromfile(copy / index.shards[0].offsets_name, OFFSETS)
    training = np.flatnonzero(rows["marks"] & 255 == 1)[:2]
    tar = bytearray((copy / index.shards[0].name).read_bytes())
    for member in training:
        keys.append(index.clip(0, int(member)).key)
        tar[int(rows["audio_offset"][member]) + 600] ^= 1
    (copy / index.shards[0].name).write_bytes(tar)
    return copy, keys


def pretrain(folder: Path, out: Path, *words: str, processes: int = 1) -> str:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = str(place.getsockname()[1])
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    several = [*launch, "--num_processes", str(processes), "--main_process_port", port]
    done = subprocess.run(
        [*(several if processes > 1 else [sys.executable]), "sslaudio/pretrain.py", *FLAGS,
         "--data.shards", str(folder), "--out", str(out), *words],
        cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(out: Path) -> list[dict]:
    metrics = lines(out / "metrics.jsonl")
    names = ("step", "data/corrupt", "data/corrupt_checksum")
    return [
        {key: value for key, value in line.items() if key in names or key.startswith("data/synth")}
        for line in metrics
    ]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_corrupt_clips_are_counted_listed_and_told_at_the_epochs_end(damaged, tmp_path, processes):
    folder, keys = damaged
    out = tmp_path / "run"

    said = pretrain(folder, out, "--training.steps", "9", processes=processes)

    # 70 clips train: the epoch ends within step 9, whose last two clips are of the next one.
    last = told(out)[-1]
    assert last["data/synth_read"] == 68
    assert last["data/synth_expected"] == 70
    assert last["data/synth_corrupt"] == 2
    assert (
        last["data/corrupt"] == last["data/corrupt_checksum"] == len(lines(out / "corrupt.jsonl"))
    )
    listed = lines(out / "corrupt.jsonl")
    assert {one["key"] for one in listed} == set(keys)
    assert {one["kind"] for one in listed} == {"checksum"}
    assert all(one["shard"].startswith(str(folder)) and one["step"] <= 9 for one in listed)
    assert "epoch 0 ended at step 9: synth 68 of 70 clips, 2 corrupt" in said


def test_a_resumed_run_tells_of_the_whole_epoch(damaged, tmp_path):
    folder, _ = damaged
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    pretrain(folder, whole, "--training.steps", "9")

    pretrain(folder, stopped, "--training.steps", "6")
    pretrain(folder, stopped, "--training.steps", "9", "--resume")

    assert told(stopped) == told(whole)
    assert lines(stopped / "corrupt.jsonl") == lines(whole / "corrupt.jsonl")
