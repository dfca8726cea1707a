"""Runs on every kind of picture, and runs of before there were kinds, in this process."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import sslaudio
from sslaudio.cli import main
from sslaudio.training.runs import read_config

SMALL = [
    "--data.batch", "16", "--data.clip_seconds", "1", "--backbone.patch", "32", "16",
    "--training.warmup_steps", "1", "--training.steps", "1",
]  # fmt: skip
BEFORE = {
    "sample_rate": 16_000,
    "window_samples": 400,
    "hop_samples": 160,
    "mel_bins": 128,
    "f_min_hz": 20.0,
    "f_max_hz": 8_000.0,
    "preemphasis": 0.97,
    "mean": None,
    "std": None,
    "pad": "masked",
}


@pytest.fixture(scope="module")
def kaldi_run(shards: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "kaldi"
    assert pretrain(shards, out) == 0
    return out


def pretrain(shards: Path, out: Path, *words: str) -> int:
    given = ["--config", "demo", "--data.shards", str(shards), *SMALL, "--out", str(out)]
    return main(["pretrain", *given, *words])


@pytest.mark.parametrize(
    ("words", "bins", "frames"),
    [  # of 1 s: 101 windows where they are centred, else 98
        (["--features.kind", "librosa"], 128, 101),
        (["--features.kind", "spectrogram"], 256, 101),
        (["--features.kind", "mfcc"], 32, 98),
        (["--features.pad", "legacy", "--features.legacy_frames", "128"], 128, 128),
    ],
)
def test_a_run_keeps_its_front_end(words, bins, frames, shards, tmp_path):
    assert pretrain(shards, tmp_path / "run", *words) == 0

    encoder = sslaudio.load(tmp_path / "run")
    stored = read_config(tmp_path / "run")
    assert encoder.backbone.bins == bins and stored["clip_frames"] == frames
    assert stored["features"][words[0].removeprefix("--features.")] == words[1]
    _, count = encoder.front_end(torch.zeros(1, 16_000), torch.tensor([16_000]))
    assert count.tolist() == [frames]


def test_a_run_of_before_there_were_kinds_goes_on_under_its_recipe(kaldi_run, shards, tmp_path):
    run = Path(shutil.copytree(kaldi_run, tmp_path / "run"))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "features": BEFORE}))

    assert pretrain(shards, run, "--resume") == 0
    assert pretrain(shards, run, "--resume", "--features.f_max_hz", "7000.0") == 2


def test_a_start_from_another_kind_measures_its_own_statistics(kaldi_run, shards, tmp_path):
    given = ["--init", str(kaldi_run), "--features.kind", "librosa"]

    assert pretrain(shards, tmp_path / "run", *given) == 0

    before, after = (read_config(run)["features"] for run in (kaldi_run, tmp_path / "run"))
    assert abs(before["mean"] - after["mean"]) > 0.1


def test_a_checkpoint_is_not_finetuned_on_another_kind(kaldi_run, shards, tmp_path, capsys):
    given = ["--task", "shards", "--root", str(shards), "--out", str(tmp_path / "out")]

    assert (
        main(["finetune", *given, "--checkpoint", str(kaldi_run), "--features.kind", "mfcc"]) == 2
    )

    told = capsys.readouterr().err
    assert "was trained on pictures of kind kaldi; leave it out" in told
