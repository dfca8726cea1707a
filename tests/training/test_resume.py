"""A run that is stopped and resumed goes on to the same bits; two processes equal one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--data.batch 8 --data.clip_seconds 0.5 --training.log_every 1 --training.checkpoint_every 3 "
    "--training.warmup_steps 2 --training.pictures_every 0 --backbone.drop_path 0.2 "
    "--augments mixup --augments.mixup.partner bank --augments.mixup.bank_clips 20"
).split()


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
        command(*words, "--resume", "--training.steps", "8", "--objective.mask_share", "0.3"),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert again.returncode == 2 and "holds a run already; add --resume" in again.stderr
    assert other.returncode == 2 and "objective.mask_share was 0.6" in other.stderr
    assert len(other.stderr.strip().splitlines()[-1:]) == 1


def test_a_launch_that_starts_fewer_processes_than_asked_is_refused(shards, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    done = subprocess.run(
        [*launch, "sslaudio/pretrain.py", "--config", "demo", "--data.shards", str(shards),
         "--out", str(tmp_path / "alone"), "--training.steps", "1", *FLAGS],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode != 0
    assert "2 processes were asked for and 1 answered" in done.stderr


def test_lines_of_metrics_are_the_same_whatever_the_log_interval_and_the_kill(shards, tmp_path):
    flags = ["--training.log_every", "4"]
    every = [word for word in FLAGS if word not in ("--training.log_every", "1")]
    words = ["pretrain", "--config", "demo", "--data.shards", str(shards), *every, *flags]
    run(*words, "--out", str(tmp_path / "whole"), "--training.steps", "6")
    run(*words, "--out", str(tmp_path / "cut"), "--training.steps", "6")
    later = tmp_path / "cut" / "checkpoints" / "step-00000006"
    for file in later.iterdir():
        file.unlink()
    later.rmdir()

    run(*words, "--out", str(tmp_path / "cut"), "--training.steps", "6", "--resume")

    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert [step for step, _ in losses(tmp_path / "cut")] == [3, 4, 6]


def test_a_cached_contrastive_run_resumes_to_the_same_bits(shards, tmp_path):
    # Pictures for the log are made again from a part: nothing of that may be remembered.
    flags = [
        *("--objective contrastive --objective.gradient_cache true --objective.queue 20").split(),
        *("--training.accumulation 2 --training.pictures_every 1").split(),
        *("--training.checkpoint_every 1 --training.checkpoints_kept 9").split(),
    ]
    same = [w for pair in zip(FLAGS[::2], FLAGS[1::2], strict=True) if pair[0] not in flags
            for w in pair]  # fmt: skip
    words = ["pretrain", "--config", "demo", "--data.shards", str(shards), *same, *flags]
    for name in ("whole", "cut"):
        run(*words, "--out", str(tmp_path / name), "--training.steps", "3")
    for step in (2, 3):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"step-0000000{step}")

    run(*words, "--out", str(tmp_path / "cut"), "--training.steps", "3", "--resume")

    assert_same_bits(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--training.seed", "7"], "training.seed was 0"),
        (["--data.clip_seconds", "0.4"], "data.clip_seconds was 0.5"),
        (["--training.steps", "2"], "training.steps is 2, but"),
    ],
)
def test_a_resumed_run_keeps_what_it_hangs_on(shards, untouched, words, said):
    flags = dict(zip(FLAGS[::2], FLAGS[1::2], strict=True))
    flags |= {words[0]: words[1]}
    spelled = [word for pair in flags.items() for word in pair]
    result = subprocess.run(
        command("pretrain", "--config", "demo", "--data.shards", str(shards), "--out",
                str(untouched), "--resume",
                *(spelled if "--training.steps" in flags else [*spelled, "--training.steps", "8"])),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert result.returncode == 2 and said in result.stderr
