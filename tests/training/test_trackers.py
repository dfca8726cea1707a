"""Trackers that accelerate knows: refused by name, told every scalar, gone on with by a resume."""

import json
import math

import pytest

from sslaudio.cli import main
from sslaudio.data import synth
from sslaudio.training.trackers import KINDS, check_names

WORDS = (
    "--data.batch 16 --data.clip_seconds 0.5 --backbone.patch 128 16 --training.warmup_steps 1 "
    "--training.log_every 1 --training.checkpoint_every 2 --training.pictures_every 0"
).split()


def test_all_that_accelerate_knows_may_be_named():
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    assert set(KINDS) == set(LOGGER_TYPE_TO_CLASS) - {"tensorboard"}
    check_names(sorted(KINDS))


@pytest.mark.parametrize(
    ("name", "said"),
    [("wandv", "accelerate knows aim, clearml"), ("tensorboard", "every run writes anyway")],
)
def test_a_tracker_that_is_none_is_refused(name, said, capsys):
    assert main(["pretrain", "--config", "demo", "--training.trackers", name]) == 2
    assert said in capsys.readouterr().err


def test_a_tracker_that_is_not_installed_is_told_how_to_get(tmp_path, capsys, monkeypatch):
    from sslaudio.training import trackers

    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["tensorboard"])
    words = ["--training.trackers", "comet_ml", "--out", str(tmp_path / "out")]

    assert main(["pretrain", "--config", "demo", *words]) == 2
    assert "comet_ml, which is not installed: pip install comet-ml" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_goes_on_in_the_same_run_of_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    synth.build(tmp_path / "synth", clips=100)
    run = tmp_path / "run"
    words = ["pretrain", "--config", "demo", "--data.shards", str(tmp_path / "synth"), *WORDS]
    words += ["--training.trackers", "mlflow", "--out", str(run)]

    assert main([*words, "--training.steps", "2"]) == 0
    assert main([*words, "--training.steps", "3", "--resume"]) == 0

    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'sslaudio'")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.run_id == json.loads((run / "trackers.json").read_text())["mlflow"]
    assert tracked.info.run_name == "run" and tracked.data.params["objective.mask_share"] == "0.6"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    history = client.get_metric_history(tracked.info.run_id, "objective/loss")
    assert [one.step for one in history] == [line["step"] for line in lines] == [1, 2, 3]
    assert all(
        math.isclose(one.value, line["objective/loss"])
        for one, line in zip(history, lines, strict=True)
    )


def test_wandb_keeps_one_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    synth.build(tmp_path / "synth", clips=100)
    run = tmp_path / "run"
    words = ["pretrain", "--config", "demo", "--data.shards", str(tmp_path / "synth"), *WORDS]
    words += ["--training.trackers", "wandb", "--out", str(run)]

    for steps, more in (("2", []), ("3", ["--resume"])):
        assert main([*words, "--training.steps", steps, *more]) == 0

    kept = json.loads((run / "trackers.json").read_text())["wandb"]
    logs = sorted((run / "wandb").glob("offline-run-*"))
    assert logs and all(folder.name.endswith(f"-{kept}") for folder in logs)
