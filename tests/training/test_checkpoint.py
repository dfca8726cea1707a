"""A checkpoint is whole or named, the last whole ones stay on a full disk too; one run a folder."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from sslaudio.cli import main
from sslaudio.training.checkpoint import checkpoints, load_step, newest_whole, save_step, step_of
from sslaudio.training.loop import Config
from sslaudio.training.report import Report
from sslaudio.training.runs import WEIGHTS, held
from sslaudio.training.storage import DiskFullError

ROOT = Path(__file__).parents[2]
FILES = ("augments.safetensors", "manifest.json", "model.safetensors", "optimiser.safetensors",
         "state.json")  # fmt: skip
FLAGS = (
    "--data.batch 8 --data.clip_seconds 0.5 --training.log_every 1 --training.checkpoint_every 2 "
    "--training.warmup_steps 2 --training.pictures_every 0 --backbone.patch 128 16"
).split()


def parts(width: int = 2) -> tuple[nn.Module, torch.optim.Optimizer, nn.Module]:
    """A module, its optimiser after a step, and augments that remember."""
    torch.manual_seed(0)
    module, augments = nn.Linear(width, width), nn.BatchNorm1d(2, affine=False)
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, width)).sum().backward()
    optimiser.step()
    return module, optimiser, augments


def save(run: Path, step: int, keep: int = 2, forever_every: int = 0, width: int = 2) -> Path:
    module, optimiser, augments = parts(width)
    state = {"position": 8 * step}
    return save_step(run, step, module, optimiser, state, keep, augments, forever_every)


def steps(run: Path) -> list[int]:
    return [step_of(place) for place in checkpoints(run)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def alter(file: Path, at: int, by: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= by
    file.write_bytes(content)


def test_a_manifest_tells_size_and_sha256_of_every_file(tmp_path):
    place = save(tmp_path, 3)

    told = json.loads((place / "manifest.json").read_text())

    assert told["step"] == 3 and sorted([*told["files"], "manifest.json"]) == sorted(FILES)
    assert names(place) == sorted(FILES)
    for name, one in told["files"].items():
        content = (place / name).read_bytes()
        assert one == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "two"
    save(run, 3)
    save(run, 6)
    return run


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(FILES),
    share=st.floats(0, 1, exclude_max=True),
    by=st.integers(1, 255),
    torn=st.booleans(),
)
def test_a_torn_file_or_an_altered_byte_is_named_and_the_one_before_used(
    two, tmp_path, name, share, by, torn
):
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(two, run)
    first, second = checkpoints(run)
    content = (second / name).read_bytes()
    at = int(share * len(content))
    if torn:
        (second / name).write_bytes(content[:at])
    else:
        alter(second / name, at, by)

    whole, damaged = newest_whole(run)

    assert whole == first and list(damaged) == [second]
    # A byte of the manifest may be one of a file's name or sum: then that file is named.
    assert damaged[second].split()[0] == name or name == "manifest.json"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda place: (place / "state.json").unlink(), "state.json is missing"),
        (
            lambda place: (place / "manifest.json").unlink(),
            "manifest.json is missing: torn, or written by an earlier version",
        ),
        (lambda place: (place / "manifest.json").write_text("[]"), "manifest.json lists no files"),
        (
            lambda place: [file.unlink() for file in place.iterdir()],
            "manifest.json is missing: torn, or written by an earlier version",
        ),
        (
            lambda place: (place / "manifest.json").write_text('{"files": {}, "format": 9}'),
            "manifest.json is of format 9, and this version reads 1",
        ),
        (
            lambda place: shutil.copytree(
                place.with_name("step-00000003"), place, dirs_exist_ok=True
            ),
            "manifest.json was altered, or is of another step",
        ),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_told(harm, said, two, tmp_path):
    run = Path(shutil.copytree(two, tmp_path / "run"))
    first, second = checkpoints(run)
    harm(second)

    assert newest_whole(run) == (first, {second: said})


def test_a_file_that_the_system_hides_in_a_folder_is_no_damage(two, tmp_path):
    run = Path(shutil.copytree(two, tmp_path / "run"))
    (checkpoints(run)[-1] / ".DS_Store").write_text("")

    assert newest_whole(run) == (checkpoints(run)[-1], {})


def test_the_newest_and_every_nth_stay(tmp_path):
    for step in range(1, 10):
        save(tmp_path, step, keep=2, forever_every=3)

    assert steps(tmp_path) == [3, 6, 8, 9]


def test_nths_that_are_no_checkpoints_are_refused():
    with pytest.raises(ValueError, match=r"checkpoint_forever_every is 750; .*_every, 500"):
        Config(checkpoint_every=500, checkpoint_forever_every=750)


def test_a_damaged_checkpoint_takes_no_whole_ones_place(tmp_path):
    save(tmp_path, 1)
    alter(save(tmp_path, 2) / "model.safetensors", -1)

    save(tmp_path, 3)
    assert steps(tmp_path) == [1, 2, 3]
    save(tmp_path, 4)
    assert steps(tmp_path) == [3, 4]


def test_damaged_ones_of_later_steps_stay_until_their_step_comes(tmp_path):
    save(tmp_path, 3)
    alter(save(tmp_path, 6) / "model.safetensors", -1)

    for step in (4, 5):
        save(tmp_path, step)
        assert newest_whole(tmp_path)[0] == tmp_path / "checkpoints" / f"step-{step:08d}"
        assert 6 in steps(tmp_path)
    save(tmp_path, 6)

    assert steps(tmp_path) == [5, 6] and newest_whole(tmp_path)[1] == {}


def test_what_a_kill_left_of_a_checkpoint_is_no_checkpoint_and_goes(tmp_path):
    remains = Path(shutil.copytree(save(tmp_path, 3), tmp_path / "checkpoints/.step-6.partial"))

    assert steps(tmp_path) == [3]
    save(tmp_path, 9)
    assert steps(tmp_path) == [3, 9] and not remains.exists()


def test_a_whole_checkpoint_is_not_written_twice(tmp_path):
    before = (save(tmp_path, 3) / "state.json").stat().st_ino

    after = (save(tmp_path, 3) / "state.json").stat().st_ino

    assert after == before


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own: gives its folder; ``resize`` it by mounting it again."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_checkpoint_that_does_not_fit_leaves_those_before_it_whole(small_disk):
    save(small_disk, 3)
    free = shutil.disk_usage(small_disk).free

    # By hand: 1001 x 1000 weights and their two moments of 4 bytes, beside a few small ones.
    with pytest.raises(DiskFullError, match=r"step-00000006 could not .* takes 12\.0 MB, and 4\."):
        save(small_disk, 6, width=1000)

    assert newest_whole(small_disk) == (small_disk / "checkpoints" / "step-00000003", {})
    assert shutil.disk_usage(small_disk).free == free
    module, optimiser, augments = parts()
    assert load_step(checkpoints(small_disk)[0], module, optimiser, augments)["position"] == 24


def test_a_line_that_does_not_fit_is_no_torn_line(small_disk):
    report = Report(small_disk, 9, 0, aloud=True)
    report.log(1, {"objective/loss": 2.0})
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(bytes(4096))

    with pytest.raises(DiskFullError, match=r"could not be written, the disk is full: it takes"):
        for step in range(2, 100):  # until the blocks that are there are full
            report.log(step, {"objective/loss": 1.0, "objective/more": 0.123456789})
    report.close()

    lines = (small_disk / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert all(line.endswith("}\n") for line in lines)
    assert [json.loads(line)["step"] for line in lines] == list(range(1, len(lines) + 1))


def test_what_was_told_before_a_kill_is_in_the_files(tmp_path):
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sslaudio.training.report import Report\n"
        "report = Report(Path(sys.argv[1]), 9, 0, aloud=True)\n"
        "for step in range(1, 6): report.log(step, {'objective/loss': float(step)})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=False)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())

    assert done.returncode == -signal.SIGKILL
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [one.step for one in events.Scalars("objective/loss")] == [1, 2, 3, 4, 5]


def test_a_resumed_run_hides_what_tensorboard_was_told_of_steps_taken_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, value in ((0, 1.0), (2, 2.0)):
        report = Report(tmp_path, 9, start, aloud=True)
        for step in range(start + 1, 5):
            report.log(step, {"objective/loss": value})
        report.close()

    told = [(one.step, one.value) for one in EventAccumulator(str(tmp_path)).Reload().Scalars(
        "objective/loss")]  # fmt: skip
    assert told == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def pretrain(shards: Path, out: Path, *words: str) -> int:
    given = ["--config", "demo", "--data.shards", str(shards), "--training.steps", "6", *FLAGS]
    return main(["pretrain", *given, "--out", str(out), *words])


@pytest.fixture(scope="module")
def untouched(shards, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "untouched"
    assert pretrain(shards, out) == 0
    return out


def assert_same_bits(one: Path, other: Path) -> None:
    mine, theirs = (newest_whole(run)[0] for run in (one, other))
    assert mine.name == theirs.name
    for name in ("model.safetensors", "optimiser.safetensors"):
        first, second = load_file(mine / name), load_file(theirs / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert (mine / "state.json").read_bytes() == (theirs / "state.json").read_bytes()
    assert losses(one) == losses(other)


def losses(run: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["objective/loss"]) for line in lines]


def test_a_run_whose_newest_checkpoint_is_torn_ends_with_the_same_bits(
    shards, untouched, tmp_path, capsys
):
    run = Path(shutil.copytree(untouched, tmp_path / "run"))
    optimiser = run / "checkpoints" / "step-00000006" / "optimiser.safetensors"
    os.truncate(optimiser, 1000)

    # What stays may be set otherwise in a run that goes on.
    flags = ["--training.checkpoints_kept", "1", "--training.checkpoint_forever_every", "4"]
    assert pretrain(shards, run, "--resume", "auto", *flags) == 0

    assert steps(run) == [4, 6]
    told = capsys.readouterr().err
    assert f"warning: {optimiser.parent} is damaged (optimiser.safetensors has 1000 by" in told
    assert "the one before, step 4, is used, and step 6 is written anew" in told
    assert_same_bits(untouched, run)
    own, kept = (load_file(path / "model.safetensors") for path in (run, optimiser.parent))
    assert all(torch.equal(value, kept[name]) for name, value in own.items())


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(
    shards, untouched, small_disk, capsys
):
    # The first checkpoint and the model fit, the second checkpoint beside them does not.
    files = [*(untouched / "checkpoints" / "step-00000004").iterdir(), untouched / WEIGHTS]
    resize(small_disk, str(round(1.5 * sum(file.stat().st_size for file in files))))
    run = small_disk / "run"

    assert pretrain(shards, run) == 2
    told = capsys.readouterr().err
    line = told.strip().splitlines()[-1]
    first = run / "checkpoints" / "step-00000002"
    assert re.search(r"step-00000004 could not be written, the disk is full: it takes", line)
    assert f"the last whole checkpoint is step 2 in {first}" in line and "--resume" in line
    assert "Traceback" not in told and line.startswith("sslaudio: ")
    assert newest_whole(run) == (first, {}) and names(run / "checkpoints") == [first.name]

    assert pretrain(shards, run, "--resume") == 2  # as full as it was
    resize(small_disk, "200m")
    assert pretrain(shards, run, "--resume") == 0
    assert_same_bits(untouched, run)


def test_a_disk_with_no_room_for_a_recipe_is_told(shards, small_disk, capsys):
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(bytes(4096))

    assert pretrain(shards, small_disk / "run") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the disk is full" in line and "there is no checkpoint yet" in line


@pytest.fixture
def holder(tmp_path):
    """A live process that holds ``tmp_path / "run"``, with a child as a loader's worker is one."""
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from sslaudio.training.runs import held\n"
        "with held(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child: print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "run")], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


def test_a_live_runs_folder_is_refused_untouched_by_its_holders_name(
    holder, shards, untouched, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("sslaudio.pretrain.PATIENCE_SECONDS", 0.2)
    run = Path(shutil.copytree(untouched, tmp_path / "run", dirs_exist_ok=True))
    before = {path: path.stat().st_mtime_ns for path in (run, *run.rglob("*"))}

    for resume in ([], ["--resume"], ["--resume", "auto"]):
        assert pretrain(shards, run, *resume) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"process {holder.pid} on {socket.gethostname()} is writing into {run}" in line

    assert {path: path.stat().st_mtime_ns for path in (run, *run.rglob("*"))} == before


def test_a_killed_run_holds_nothing_though_its_workers_live(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / ".lock").read_text()

    with held(tmp_path / "run"):
        assert f"process {os.getpid()} " in (tmp_path / "run" / ".lock").read_text()
    assert names(tmp_path / "run") == []


def test_what_was_refused_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="bad"), held(tmp_path / "runs" / "new"):
        raise ValueError("bad")

    assert names(tmp_path) == []
