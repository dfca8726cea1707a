"""A run that is stopped and resumed goes on to the same bits; two processes equal one."""

import json
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
    "--data.batch 8 --data.clip_seconds 0.5 --training.log_every 1 --training.checkpoint_every 3 "
    "--training.warmup_steps 2 --training.pictures_every 0 --features.mel_bins 32 "
    "--backbone.drop_path 0.2 --augments spec_mask"
).split()


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "synth"
    run("shards", "synth", "--out", str(folder), "--clips", "100")
    return folder


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sslaudio", *words]


def run(*words: str) -> str:
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def pretrain(shards: Path, out: Path, steps: int, *words: str) -> str:
    return run(
        "pretrain", "--config", "demo", "--data.shards", str(shards), "--out", str(out),
        "--training.steps", str(steps), *FLAGS, *words,
    )  # fmt: skip


def losses(out: Path) -> list[tuple[int, float]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["objective/loss"]) for line in map(json.loads, lines)]


def last(out: Path) -> dict[str, torch.Tensor]:
    folder = sorted((out / "checkpoints").glob("step-*"))[-1]
    return {
        f"{file.name}/{name}": value
        for file in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def assert_same_bits(one: Path, other: Path) -> None:
    mine, theirs = last(one), last(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert losses(one) == losses(other)


@pytest.fixture(scope="module")
def untouched(shards: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "untouched"
    pretrain(shards, out, 8)
    return out


def test_a_run_resumed_after_a_kill_ends_with_the_same_bits(shards, untouched, tmp_path):
    out = tmp_path / "killed"
    words = command(
        "pretrain", "--config", "demo", "--data.shards", str(shards), "--out", str(out),
        "--training.steps", "8", *FLAGS,
    )  # fmt: skip
    process = subprocess.Popen(words, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "step-00000003").is_dir():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    pretrain(shards, out, 8, "--resume", "auto", "--data.workers", "1")

    assert_same_bits(untouched, out)


def test_two_processes_equal_one_at_the_same_batch(shards, tmp_path):
    same = ["--backbone.drop_path=0", "--training.precision", "fp32", "--training.steps", "4"]
    flags = [*FLAGS[: FLAGS.index("--backbone.drop_path")], "--augments", "mixup", *same]
    files = ["--config", "configs/pretrain/demo.yaml", "--data.shards", str(shards), "--out"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]

    for count in (1, 2):
        entry = [*launch, "--num_processes", "2", "sslaudio/pretrain.py"]
        words = command("pretrain") if count == 1 else entry
        done = subprocess.run(
            [*words, *files, str(tmp_path / str(count)), *flags],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)


def test_a_run_is_not_overwritten_and_a_changed_recipe_not_resumed(shards, untouched):
    words = ["pretrain", "--config", "demo", "--data.shards", str(shards)]
    words += ["--out", str(untouched), *FLAGS]

    again = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, check=False)
    other = subprocess.run(
        command(*words, "--resume", "--objective.mask_share", "0.3"),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert again.returncode == 2 and "holds a run already; add --resume" in again.stderr
    assert other.returncode == 2 and "objective differs from what" in other.stderr
    assert len(other.stderr.strip().splitlines()[-1:]) == 1
