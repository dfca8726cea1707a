"""Processes of one run: on one machine or several, started by a launcher or by hand, ending as one.

Every test here starts real processes over gloo.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sslaudio.data.indexed import ShardStream
from sslaudio.data.stream import Config

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
FLAGS = (
    "--config demo --data.batch 8 --data.clip_seconds 0.5 --training.log_every 1 "
    "--training.checkpoint_every 3 --training.pictures_every 0 --training.precision fp32 "
    "--features.mean -10 --features.std 5"
).split()
SECONDS = 30
"""In which everything has ended that one process's end is to end."""


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def start(
    words: list[str],
    shards: Path,
    out: Path,
    steps: int,
    core: int | None = None,
    **environment: str,
):
    """Start a run; on one core, so that it has one thread, where ``core`` is given."""
    cores = os.sched_getaffinity(0)
    held = cores if core is None else {sorted(cores)[core % len(cores)]}
    process = subprocess.Popen(
        [*words, *FLAGS, "--data.shards", str(shards), "--out", str(out), "--training.steps",
         str(steps)],
        cwd=ROOT, env={**os.environ, **environment}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    os.sched_setaffinity(process.pid, held)
    return process


def start_two(shards: Path, out: Path, steps: int, *words: str):
    launch = [*LAUNCH, "--num_processes", "2", "--main_process_port", str(free_port())]
    return start([*launch, "sslaudio/pretrain.py", *words], shards, out, steps)


def losses(out: Path) -> list[float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["objective/loss"] for line in lines]


def ranks_of(launcher: int) -> dict[int, int]:
    """Process ids of the launcher's children, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            words = (folder / "environ").read_bytes().decode().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if int(parent) == launcher:
            found |= {int(word[5:]): int(folder.name) for word in words if word[:5] == "RANK="}
    return found


def wait_for_step(out: Path, step: int) -> None:
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while not metrics.is_file() or f'"step": {step},' not in metrics.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory) -> list[float]:
    """Losses of four steps in one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    told, _ = start([sys.executable, "sslaudio/pretrain.py"], shards, out, 4, core=0).communicate()
    assert "done:" in told, told
    return losses(out)


def test_two_machines_train_as_one_process_does(shards, alone, tmp_path):
    port = str(free_port())
    machines = [
        start(
            [*LAUNCH, "--num_machines", "2", "--num_processes", "2", "--machine_rank", rank,
             "--main_process_ip", "127.0.0.1", "--main_process_port", port,
             "--rdzv_backend", "static", "sslaudio/pretrain.py"],
            shards, tmp_path / "run", 4, core=int(rank),
        )
        for rank in ("0", "1")
    ]  # fmt: skip

    told = [machine.communicate()[0] for machine in machines]

    assert [machine.returncode for machine in machines] == [0, 0], told
    assert losses(tmp_path / "run") == pytest.approx(alone, rel=1e-4)
    assert "done:" in told[0] and "step" not in told[1]


@pytest.mark.slow
def test_processes_started_by_hand_train_as_one_does(shards, alone, tmp_path):
    # As `srun` starts them: the variables are all they are told.
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    shared["MASTER_PORT"] = str(free_port())
    processes = [
        start([sys.executable, "sslaudio/pretrain.py"], shards, tmp_path / "run", 4,
              RANK=rank, LOCAL_RANK=rank, **shared)
        for rank in ("0", "1")
    ]  # fmt: skip

    told = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], told
    assert losses(tmp_path / "run") == pytest.approx(alone, rel=1e-4)
    assert told[1] == ""


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_takes_the_other_down_with_one_line(shards, tmp_path, victim):
    out = tmp_path / "run"
    launcher = start_two(shards, out, 100_000)
    wait_for_step(out, 4)
    children = ranks_of(launcher.pid)

    os.kill(children[victim], signal.SIGKILL)
    told, _ = launcher.communicate(timeout=SECONDS)

    said = [line for line in told.splitlines() if line.startswith("sslaudio:")]
    assert len(said) == 1, told
    assert f"lost process {victim} of 0 to 1 on {socket.gethostname()} after step" in said[0]
    assert f"go on from {out}/checkpoints/step-" in said[0]
    assert launcher.returncode != 0
    assert not any(Path(f"/proc/{child}").exists() for child in children.values())


def test_a_fault_of_one_process_is_said_once_and_ends_both(shards, tmp_path):
    # The first clip that the second process reads in the second step.
    config = Config(shards=(str(shards),), batch=8, clip_seconds=0.5)
    stream = ShardStream(config, sample_rate=16_000, seed=0, rank=1, ranks=2)
    place = stream.plan.locate(stream.positions(0, 1)[:1])
    shard, selection = int(place.shard[0]), stream.selections[0]
    clip = selection.index.clip(shard, int(selection.members(shard)[place.nth[0]]))
    tar = sorted(shards.glob("*.tar"))[shard]
    copy = tmp_path / "shards"
    copy.mkdir()
    for file in shards.iterdir():
        data = file.read_bytes()
        at = data.find(clip.audio) if file == tar else None
        if at is not None:
            data = data[: at + 600] + bytes([data[at + 600] ^ 1]) + data[at + 601 :]
        (copy / file.name).write_bytes(data)

    strict = ("--data.corrupt_in_a_row", "1")
    launcher = start_two(copy, tmp_path / "run", 100_000, *strict)
    told, _ = launcher.communicate(timeout=120)

    said = [line for line in told.splitlines() if line.startswith("sslaudio:")]
    assert len(said) == 1 and f"the last is {clip.key} of" in said[0], told
    assert "Traceback" not in told.partition("sslaudio:")[0]
    assert launcher.returncode != 0


def test_a_fault_that_all_processes_find_is_said_once(shards, tmp_path):
    launcher = start_two(shards, tmp_path / "run", -1)

    told, _ = launcher.communicate(timeout=120)

    said = [line for line in told.splitlines() if line.startswith("sslaudio:")]
    assert said == ["sslaudio: training.steps is -1; it is at least 0"]
