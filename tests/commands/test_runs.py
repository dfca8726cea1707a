"""`sslaudio runs` and `sslaudio doctor`: what they print and write."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sslaudio.cli import main
from sslaudio.downstream.results import Record

ROOT = Path(__file__).parents[2]
RECORD = Record(
    "fsdd", "linear", "accuracy", "speakers", "published", 0, 0.8, 0.75, {}, None, 10, 90.0
)


def write_run(folder: Path, *lines: dict[str, float], kept: int | None = None, **rooms) -> Path:
    """A pretraining run of 40 steps by hand, ten clips a step."""
    training = {"steps": 40, "learning_rate": 0.001, **rooms.pop("training", {})}
    recipe = {"data": {"batch": 10}, "training": training, **rooms}
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    if lines:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
    if kept is not None:
        (folder / "checkpoints" / f"step-{kept:08d}").mkdir(parents=True)
    return folder


def told(step: int, loss: float, **scalars: float) -> dict[str, float]:
    return {"step": step, "objective/loss": loss, "speed/clips_a_second": 5.0, **scalars}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Runs in every state."""
    runs = tmp_path / "runs"
    probe = {"probe/knn": 0.5, "probe/seconds": 20.0}
    write_run(runs / "a", told(20, 3.0, **probe), told(40, 2.0), kept=40)
    rate = {"learning_rate": 0.01}
    write_run(runs / "deep" / "b", told(20, 1.5), kept=20, training=rate)
    write_run(runs / "c")
    (runs / "deep" / "b" / "metrics.jsonl").open("a").write('{"step": 40, "objec')
    (runs / "torn").mkdir()
    (runs / "torn" / "recipe.yaml").write_text("training: [")
    tuned = write_run(runs / "tuned", task={"name": "fsdd"})
    (tuned / "results.json").write_text(json.dumps([vars(RECORD)]))
    return runs


def written(folder: Path, tmp_path: Path, *words: str) -> list[dict]:
    """Rows of the JSON that the verb writes, in its order."""
    assert main(["runs", str(folder), "--json", str(tmp_path / "rows.json"), *words]) == 0
    return json.loads((tmp_path / "rows.json").read_text())


def test_each_run_is_told_with_its_state_and_its_score(folder, tmp_path):
    rows = {row["run"]: row for row in written(folder, tmp_path)}

    assert {name: row["state"] for name, row in rows.items()} == {
        "a": "finished", "deep/b": "stopped", "c": "empty", "torn": "damaged", "tuned": "finished",
    }  # fmt: skip
    a, b, tuned = rows["a"], rows["deep/b"], rows["tuned"]
    assert (a["step"], a["steps"], a["loss"]) == (40, 40, 2.0)
    assert (a["score"], a["of"]) == (0.5, "kNN at 20")
    # By hand: 40 steps of 10 clips at 5 clips a second, and a probe of 20 s.
    assert a["minutes"] == pytest.approx((80 + 20) / 60, abs=0.01)
    assert (b["step"], b["loss"], b["score"]) == (20, 1.5, None)
    assert (tuned["kind"], tuned["score"], tuned["of"]) == ("finetune", 0.75, "fsdd linear")
    assert tuned["minutes"] == 1.5
    assert "torn/recipe.yaml is no valid YAML" in rows["torn"]["trouble"]


def test_a_run_that_is_written_to_is_running(folder, tmp_path):
    hold = (
        "import pathlib, sys; from sslaudio.training.runs import held\n"
        "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", hold, str(folder / "deep" / "b")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        held = {row["run"]: row["state"] for row in written(folder, tmp_path)}
        holder.stdin.close()
    free = {row["run"]: row["state"] for row in written(folder, tmp_path)}

    assert held["deep/b"] == "running" and free["deep/b"] == "stopped"


def test_only_settings_that_differ_stand_in_the_table(folder, tmp_path, capsys):
    assert main(["runs", str(folder), "--csv", str(tmp_path / "rows.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))

    assert lines[1].split() == [
        "run", "state", "step", "loss", "score", "of", "minutes", "learning_rate",
    ]  # fmt: skip
    assert lines[3].split() == [
        "a", "finished", "40/40", "2.000", "50.0", "kNN", "at", "20", "1.67", "0.001",
    ]  # fmt: skip
    assert any(line.startswith("damaged: torn: ") for line in lines)
    rates = {row["run"]: row["training.learning_rate"] for row in rows}
    assert rates == {"a": "0.001", "deep/b": "0.01", "c": "0.001", "torn": "", "tuned": "0.001"}


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("loss", ["deep/b", "a", "c", "torn", "tuned"]),  # the lowest first, the untold last
        ("score", ["tuned", "a", "c", "deep/b", "torn"]),  # the highest first
        ("training.learning_rate", ["a", "c", "tuned", "deep/b", "torn"]),
    ],
)
def test_runs_are_sorted_by_a_column_or_a_leaf(folder, tmp_path, column, order):
    assert [row["run"] for row in written(folder, tmp_path, "--sort", column)] == order


def test_plug_ins_in_a_list_are_compared_by_name_and_field(tmp_path, capsys):
    for name, deviations in (("one", 0.5), ("two", 0.25)):
        gain = {"name": "gain", "deviations": deviations}
        write_run(tmp_path / name, told(20, 3.0), augments=[gain, {"name": "mixup", "share": 0.4}])

    assert main(["runs", str(tmp_path)]) == 0

    head = capsys.readouterr().out.splitlines()[1].split()
    assert head[-2:] == ["minutes", "deviations"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent"], "is no folder"),
        (["."], "there is no run in"),
        (["runs", "--sort", "rate"], "give one of run, state, step"),
        (["runs", "--sort", "learning_rate"], "did you mean training.learning_rate?"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_line(
    words, said, folder, tmp_path, capsys, monkeypatch
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if words == ["."] else tmp_path)

    assert main(["runs", *words]) == 2
    assert said in capsys.readouterr().err


def test_real_runs_are_compared(shards, tmp_path, capsys):
    words = ["pretrain", "--config", "demo", "--data.shards", str(shards), "--data.batch", "16"]
    words += ["--backbone.patch", "128", "16", "--training.steps", "1", "--out"]
    for rate in ("0.001", "0.002"):
        assert main([*words, str(tmp_path / rate), "--training.learning_rate", rate]) == 0
    tune = ["finetune", "--task", "shards", "--root", str(shards), "--protocol", "linear"]
    given = ["--checkpoint", str(tmp_path / "0.001"), "--out", str(tmp_path / "tuned")]
    assert main([*tune, *given]) == 0
    capsys.readouterr()

    rows = {row["run"]: row for row in written(tmp_path, tmp_path)}

    assert set(rows) == {"0.001", "0.002", "tuned"}
    assert all(row["state"] == "finished" for row in rows.values())
    assert rows["0.002"]["step"] == rows["0.002"]["steps"] == 1 and rows["0.002"]["minutes"] >= 0
    records = json.loads((tmp_path / "tuned" / "results.json").read_text())
    assert rows["tuned"]["score"] == records[0]["test"]
    assert "learning_rate" in capsys.readouterr().out.splitlines()[1]


def test_the_doctor_tells_the_environment_and_nothing_secret(tmp_path):
    given = {"SSLAUDIO_TRACEBACK": "1", "WANDB_API_KEY": "hush", "OMP_NUM_THREADS": "1"}
    words = ["doctor", "--json", str(tmp_path / "told.json")]
    done = subprocess.run(
        [sys.executable, "-m", "sslaudio", *words],
        cwd=ROOT, env={**os.environ, **given}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = json.loads((tmp_path / "told.json").read_text())

    assert done.returncode == 0
    assert "hush" not in done.stdout + (tmp_path / "told.json").read_text()
    assert (
        told["variables"] | {"SSLAUDIO_TRACEBACK": "1", "OMP_NUM_THREADS": "1"}
        == (told["variables"])
    )
    assert told["packages"]["torch"] and told["system"]["cores usable"] >= 1
    assert told["trials"]["a training step in bf16"].startswith("works, ")
    assert told["trials"]["processes that talk (gloo)"].startswith("works, ")
    assert re.search(r"^troubles\n  ", done.stdout, re.MULTILINE)


def test_the_doctor_names_a_cure_for_what_is_amiss():
    from sslaudio import doctor

    told = doctor.sections()
    told["trials"]["FLAC"] = "fails: OSError: no libsndfile"
    told["packages"]["soxr"] = None
    told["packages"]["librosa"] = None  # an extra
    told["system"]["shared memory free, GB"] = 0.1

    troubles = list(doctor.troubles_of(told))

    assert "FLAC fails: OSError: no libsndfile; pip install --force-reinstall soundfile" in troubles
    assert "soxr is not installed; pip install soxr" in troubles
    assert any("--shm-size" in line and "data.workers to 0" in line for line in troubles)
    assert not any("librosa" in line for line in troubles)
