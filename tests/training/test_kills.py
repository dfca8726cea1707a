"""A run killed at any moment, as often as one likes, ends as one that was never touched."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sslaudio.data.indexed import ShardStream
from sslaudio.data.stream import Config

ROOT = Path(__file__).parents[2]
MARK = "SSLAUDIO_TEST_RUN"
"""In the environment of all processes of a run, by which they are found."""
FLAGS = (
    "--config demo --data.batch 8 --data.clip_seconds 0.3 --training.log_every 1 "
    "--training.checkpoint_every 2 --training.warmup_steps 5 --training.pictures_every 20 "
    "--augments mixup --augments.mixup.partner bank --augments.mixup.bank_clips 20"
).split()
CONTRASTIVE = "--objective contrastive --objective.queue 20 --backbone.drop_path 0.2".split()


@dataclass
class Training:
    """A run that is started again and again."""

    shards: Path
    out: Path
    steps: int
    processes: int = 1
    flags: list[str] = field(default_factory=list)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, *words: str) -> subprocess.Popen:
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes"]
        launch += [str(self.processes)] + ["--multi_gpu"] * (self.processes > 1)
        with (self.out.parent / f"{self.out.name}.log").open("a") as log:
            process = subprocess.Popen(
                [*launch, "--main_process_port", "0", "sslaudio/pretrain.py", *FLAGS, *self.flags,
                 "--data.shards", self.shards, "--out", self.out, "--training.steps",
                 str(self.steps), "--resume", "auto", *words],
                cwd=ROOT, env={**os.environ, MARK: self.mark}, start_new_session=True,
                stdout=log, stderr=log,
            )  # fmt: skip
        if self.processes == 1:  # on one core, so that it has one thread wherever this runs
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        return process

    def finish(self, *words: str) -> None:
        assert self.start(*words).wait() == 0, self.said()

    def said(self) -> str:
        return self.out.with_name(f"{self.out.name}.log").read_text()

    def lines(self) -> list[dict]:
        """Metrics without what tells the time; a line that is half written is left out."""
        metrics = self.out / "metrics.jsonl"
        text = metrics.read_text() if metrics.is_file() else ""
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [{k: v for k, v in one.items() if not k.startswith("speed/")} for one in found]

    def alive(self) -> list[int]:
        """All its processes: launchers, ranks, loader workers."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                mine = f"{MARK}={self.mark}\0".encode() in (folder / "environ").read_bytes()
                dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:  # it has ended meanwhile
                continue
            found += [int(folder.name)] * (mine and not dead)
        return found

    def kill(self, everything: bool, launcher: subprocess.Popen) -> None:
        """End the launcher's process group, or every process there is, without a warning."""
        # A launcher of several starts each in a group of its own: those have to notice.
        os.killpg(launcher.pid, signal.SIGKILL)
        for process in self.alive() if everything else ():
            os.kill(process, signal.SIGKILL)
        launcher.wait()

    def kill_often(self, times: int, seed: int) -> None:
        """Start and kill: while it starts, in its steps, while it writes."""
        chance = random.Random(seed)
        for number in range(times):
            reach = min(len(self.lines()) + chance.randint(0, 6), self.steps - 4)
            written = self.written()
            launcher = self.start("--data.workers", str(chance.choice([0, 0, 1, 2])))
            if number % 4 == 3:
                time.sleep(chance.uniform(0, 6))
            else:
                self.wait_for(written, reach, launcher)
                time.sleep(chance.uniform(0, 0.1))
            assert launcher.poll() is None, self.said()
            self.kill(chance.random() < 0.5, launcher)

    def wait_for(self, written: int, steps: int, launcher: subprocess.Popen) -> None:
        """Wait until metrics that were ``written`` then are written anew, and have ``steps``."""
        deadline = time.monotonic() + 120
        while self.written() == written or len(self.lines()) < steps:
            assert time.monotonic() < deadline and launcher.poll() is None, self.said()
            time.sleep(0.01)

    def written(self) -> int:
        """When the metrics were."""
        metrics = self.out / "metrics.jsonl"
        return metrics.stat().st_mtime_ns if metrics.is_file() else 0

    def last(self) -> dict[str, torch.Tensor | str]:
        """All of the last checkpoint."""
        folder = max((self.out / "checkpoints").glob("step-*"))
        tensors = {
            f"{file.name}/{name}": value
            for file in sorted(folder.glob("*.safetensors"))
            for name, value in load_file(file).items()
        }
        return {**tensors, "state": (folder / "state.json").read_text()}


def same(one: torch.Tensor | str, other: torch.Tensor | str) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def assert_as_if_untouched(killed: Training, whole: Training) -> None:
    mine, theirs = killed.last(), whole.last()
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not same(mine[name], theirs[name])] == []
    assert [line["step"] for line in killed.lines()] == list(range(1, whole.steps + 1))
    assert killed.lines() == whole.lines()
    deadline = time.monotonic() + 20
    while killed.alive():
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.1)


def test_a_run_killed_twice_ends_with_the_same_bits(shards, tmp_path):
    whole = Training(shards, tmp_path / "whole", steps=24, flags=CONTRASTIVE)
    killed = Training(shards, tmp_path / "killed", steps=24, flags=CONTRASTIVE)
    whole.finish()

    killed.kill_often(2, seed=0)
    killed.finish("--data.workers", "1")

    assert_as_if_untouched(killed, whole)


def test_other_processes_go_on_with_the_clips_that_come_next(shards, tmp_path):
    # Masked patches are learned clip by clip: the losses tell which clips a step had.
    flags = ["--training.precision", "fp32"]
    whole = Training(shards, tmp_path / "whole", steps=12, flags=flags)
    other = Training(shards, tmp_path / "other", steps=12, flags=flags)
    whole.finish()
    shutil.copytree(whole.out, other.out)
    for checkpoint in sorted((other.out / "checkpoints").iterdir())[1:]:
        shutil.rmtree(checkpoint)
    assert [path.name for path in (other.out / "checkpoints").iterdir()] == ["step-00000010"]

    other.processes = 2
    other.finish("--training.accumulation", "2")

    assert [line["step"] for line in other.lines()] == list(range(1, 13))
    assert other.lines()[:10] == whole.lines()[:10]
    losses = [[line["objective/loss"] for line in one.lines()[10:]] for one in (whole, other)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert "processes were 1 and are 2" in other.said()
    assert "training.accumulation was 1 and is 2: the order of the clips goes on" in other.said()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_step_has_the_same_clips_whatever_processes_share_it(shards, accumulation):
    config = Config(shards=(str(shards),), batch=8, clip_seconds=0.3)

    def steps(start: int, stop: int, ranks: int, parts: int) -> list[list[str]]:
        """Keys of each step, those of a process after those of the one before."""
        found = [[] for _ in range(start, stop)]
        for rank in range(ranks):
            stream = ShardStream(
                config, sample_rate=16_000, seed=3, rank=rank, ranks=ranks, accumulation=parts
            )
            for number, batch in zip(
                range((stop - start) * parts), stream.batches(start * 8), strict=False
            ):
                found[number // parts] += batch.keys
        return [sorted(keys) for keys in found]

    untouched = steps(0, 20, ranks=1, parts=1)
    resumed = steps(0, 7, ranks=1, parts=1) + steps(7, 20, ranks=2, parts=accumulation)

    assert resumed == untouched
    # 70 clips: none comes again before all have come.
    assert len({key for keys in resumed[:8] for key in keys}) == 64


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_run_killed_twenty_times_ends_with_the_same_bits(
    shards, tmp_path, processes, accumulation
):
    flags = [*CONTRASTIVE, "--training.accumulation", str(accumulation)]
    whole = Training(shards, tmp_path / "whole", 200, processes, flags)
    killed = Training(shards, tmp_path / "killed", 200, processes, flags)
    whole.finish()

    killed.kill_often(20, seed=processes * 10 + accumulation)
    killed.finish()

    assert_as_if_untouched(killed, whole)
