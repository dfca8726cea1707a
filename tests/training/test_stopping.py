"""A run that is asked to stop saves itself, says so by its exit status, and goes on later."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--config demo --data.batch 8 --data.clip_seconds 0.5 --training.warmup_steps 2 "
    "--training.log_every 1 --training.pictures_every 0 --backbone.drop_path 0.2"
).split()
OURS = [sys.executable, "-m", "sslaudio", "pretrain"]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
ENTRY = "sslaudio/pretrain.py"
FEW, MANY = "40", "100000"
"""Steps of a run that ends by itself, and of one that does not."""


def started(shards: Path, out: Path, steps: str, *words: str, by=OURS) -> subprocess.Popen:
    """A run in a process group of its own, after its first steps."""
    process = subprocess.Popen(
        [*by, *FLAGS, "--data.shards", str(shards), "--out", str(out), "--training.steps", steps,
         *words],
        cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process


def finish(shards: Path, out: Path, steps: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*OURS, *FLAGS, "--data.shards", str(shards), "--out", str(out), "--training.steps", steps,
         *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def saved(out: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in sorted(out.glob("checkpoints/step-*"))]


def weights(out: Path) -> dict[str, torch.Tensor]:
    newest = sorted(out.glob("checkpoints/step-*"))[-1]
    return {
        f"{file.name}/{name}": value
        for file in sorted(newest.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def wait_for_saved(out: Path) -> int:
    deadline = time.monotonic() + 60
    while not saved(out):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return saved(out)[-1]


def test_a_scheduler_that_signals_every_process_gets_a_saved_run_and_a_status_to_requeue_on(
    shards, tmp_path
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert finish(shards, whole, FEW).returncode == 0

    process = started(shards, cut, FEW, "--data.workers", "2")
    os.killpg(process.pid, signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    stopped_at = saved(cut)[-1]
    again = finish(shards, cut, FEW, "--resume", "auto")

    assert process.returncode == 75
    assert 2 <= stopped_at < int(FEW)
    assert f"asked to stop: saved at step {stopped_at} of {FEW}" in told and "--resume" in told
    assert "Traceback" not in told
    assert again.returncode == 0
    mine, theirs = weights(cut), weights(whole)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=["usr1", "ctrl-c"]
)
def test_other_signals_save_too(shards, tmp_path, number, status):
    process = started(shards, tmp_path / "run", MANY)

    process.send_signal(number)
    _, told = process.communicate(timeout=60)

    assert process.returncode == status
    assert f"saved at step {saved(tmp_path / 'run')[-1]} of {MANY}" in told


def test_a_run_whose_launcher_is_gone_saves_and_ends(shards, tmp_path):
    out = tmp_path / "orphan"
    process = started(shards, out, MANY, by=[*LAUNCH, "--num_processes", "1", ENTRY])

    process.kill()
    step = wait_for_saved(out)
    process.stderr.read()  # until the child, which has it too, is gone
    last = (out / "metrics.jsonl").read_text().splitlines()[-1]

    assert f'"step": {step},' in last


def test_two_processes_stop_at_the_same_step_though_one_was_asked(shards, tmp_path):
    out = tmp_path / "two"
    launch = [*LAUNCH, "--multi_gpu", "--num_processes", "2", ENTRY]
    process = started(shards, out, MANY, by=launch)
    ranks = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()

    os.kill(int(ranks[-1]), signal.SIGTERM)
    _, told = process.communicate(timeout=60)

    assert f"saved at step {saved(out)[-1]} of {MANY}" in told
    assert told.count("asked to stop") == 1
