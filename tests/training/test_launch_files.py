"""The files of docs/launch, run as they are; SLURM's and the cloud's commands have stand-ins."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ROOT / "docs" / "launch"
FLAGS = (
    "--data.batch 8 --data.clip_seconds 0.5 --training.log_every 1 --training.checkpoint_every 5 "
    "--training.pictures_every 0 --training.steps 40"
).split()
STEPS = list(range(1, 41))

SRUN = """#!/usr/bin/env bash
shift  # --wait=60
for ((n = 0; n < SLURM_NTASKS; n++)); do
    SLURM_PROCID=$n SLURM_LOCALID=$n "$@" &
done
worst=0
for ((n = 0; n < SLURM_NTASKS; n++)); do
    status=0
    wait -n || status=$?
    ((status == 0)) || kill $(jobs -p) 2>/dev/null
    ((status <= worst)) || worst=$status
done
exit $worst
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == requeue ]]; then echo "$2" >>"$REQUEUED"; else echo 127.0.0.1; fi
"""
AWS = """#!/usr/bin/env bash
from=${@: -2:1} to=${@: -1}
from=${from/s3:/$BUCKETS} to=${to/s3:/$BUCKETS}
[[ ! -e $BUCKETS/down || $from == *shards* ]] || exit 1
[[ -e $from ]] || exit 0  # as aws does: nothing to copy
[[ $* != *--delete* ]] || rm -rf "$to"
mkdir -p "$to" && cp -a "$from/." "$to"
"""


@pytest.fixture
def commands(tmp_path) -> str:
    """A PATH on which the stand-ins come first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("aws", AWS)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def start(file: str, log: Path, core: bool = False, **settings: object) -> subprocess.Popen:
    """Run a file of docs/launch; on one core, so that training has one thread, if ``core``."""
    told = {key: str(value) for key, value in settings.items()}
    with log.open("a") as out:
        process = subprocess.Popen(
            ["bash", str(FILES / file), *FLAGS],
            cwd=ROOT, env={**os.environ, "PYTHON": sys.executable, "CONFIG": "demo", **told},
            start_new_session=True, stdout=out, stderr=out,
        )  # fmt: skip
    if core:
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
    return process


def lines(run: Path) -> list[dict]:
    metrics = run / "metrics.jsonl"
    text = metrics.read_text() if metrics.is_file() else ""
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
    return [{k: v for k, v in one.items() if not k.startswith("speed/")} for one in found]


def wait_for_steps(run: Path, steps: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while len(lines(run)) < steps:
        assert time.monotonic() < deadline and process.poll() is None, log.read_text()
        time.sleep(0.02)


def trainings(run: Path) -> list[int]:
    """The processes that train a run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if words[0] == sys.executable and str(run) in words:
            found.append(int(folder.name))
    return found


@pytest.mark.parametrize("file", sorted(FILES.glob("*.s*")), ids=lambda file: file.name)
def test_a_file_is_a_sound_script(file):
    checks = [["bash", "-n"]]
    if shutil.which("shellcheck"):
        checks.append(["shellcheck"])

    for check in checks:
        done = subprocess.run([*check, str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_slurm_job_whose_time_is_up_queues_again_and_ends_as_one_that_had_time(
    shards, commands, tmp_path
):
    log, whole, cut = tmp_path / "log", tmp_path / "whole", tmp_path / "cut"
    job = {
        "SHARDS": shards, "RUN": cut, "PATH": commands, "REQUEUED": tmp_path / "requeued",
        "SLURM_JOB_NODELIST": "here", "SLURM_JOB_ID": os.getpid(), "SLURM_NTASKS": 2,
        "SLURM_NTASKS_PER_NODE": 2,
    }  # fmt: skip
    same = start("eight_gpus.sh", log, SHARDS=shards, RUN=whole, PROCESSES=2, PORT=29417)
    assert same.wait(timeout=200) == 0, log.read_text()

    first = start("slurm.sbatch", log, **job)
    wait_for_steps(cut, 7, first, log)
    for process in trainings(cut):
        os.kill(process, signal.SIGUSR1)
    assert first.wait(timeout=60) == 0, log.read_text()
    stopped_at = len(lines(cut))
    queued = (tmp_path / "requeued").read_text().split()
    second = start("slurm.sbatch", log, **job)
    assert second.wait(timeout=200) == 0, log.read_text()

    assert 7 <= stopped_at < len(STEPS) and queued == [str(os.getpid())]
    assert (tmp_path / "requeued").read_text().split() == queued
    assert [line["step"] for line in lines(cut)] == STEPS
    assert lines(cut) == lines(whole)


@pytest.mark.slow
def test_a_run_goes_on_where_a_machine_was_taken_away(shards, commands, tmp_path):
    log, buckets = tmp_path / "log", tmp_path / "buckets"
    shutil.copytree(shards, buckets / "mine" / "shards")
    cloud = {
        "PATH": commands, "BUCKETS": f"{buckets}/", "BUCKET_SHARDS": "s3://mine/shards",
        "BUCKET_RUN": "s3://mine/run",
    }  # fmt: skip
    machine = tmp_path / "machine"
    cloud |= {"SHARDS": machine / "shards", "RUN": machine / "run"}
    whole = start("one_gpu.sh", log, core=True, SHARDS=shards, RUN=tmp_path / "whole")
    assert whole.wait(timeout=200) == 0, log.read_text()

    first = start("spot.sh", log, core=True, **cloud)
    wait_for_steps(machine / "run", 7, first, log)
    first.terminate()
    status = first.wait(timeout=60)
    stopped_at = len(lines(machine / "run"))
    shutil.rmtree(machine)  # the next one has a new disk
    second = start("spot.sh", log, core=True, **cloud)
    assert second.wait(timeout=200) == 0, log.read_text()

    assert status == 75 and 7 <= stopped_at < len(STEPS)
    assert lines(machine / "run") == lines(tmp_path / "whole")
    assert (buckets / "mine/run/checkpoints/step-00000040/state.json").is_file()


def test_a_bucket_that_cannot_be_read_is_not_written_over(shards, commands, tmp_path):
    log, buckets = tmp_path / "log", tmp_path / "buckets"
    shutil.copytree(shards, buckets / "mine" / "shards")
    (buckets / "mine/run").mkdir()
    (buckets / "mine/run/recipe.yaml").write_text("an old run's")
    (buckets / "down").touch()
    cloud = {
        "PATH": commands, "BUCKETS": f"{buckets}/", "BUCKET_SHARDS": "s3://mine/shards",
        "BUCKET_RUN": "s3://mine/run", "SHARDS": tmp_path / "shards", "RUN": tmp_path / "run",
    }  # fmt: skip

    status = start("spot.sh", log, **cloud).wait(timeout=60)

    assert status == 1 and "cannot read s3://mine/run" in log.read_text()
    assert (buckets / "mine/run/recipe.yaml").read_text() == "an old run's"
