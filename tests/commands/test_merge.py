"""`sslaudio weights merge`: an adapter folded into its base says what it said beside it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from miniatures import make
from safetensors.torch import load_file, save_file

import sslaudio
from sslaudio.cli import main
from sslaudio.data import synth


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A tiny pretrained run and a corpus."""
    folder = tmp_path_factory.mktemp("made")
    synth.build(folder / "synth", clips=100, seed=0)
    run(
        "pretrain", "--config", "demo", "--data.shards", folder / "synth", "--training.steps", 1,
        "--data.batch", 4, "--backbone.dim", 16, "--backbone.heads", 2, "--backbone.depth", 2,
        "--out", folder / "tiny",
    )  # fmt: skip
    make("fsdd", folder / "digits")
    return folder


def run(*words: object) -> int:
    return main(list(map(str, words)))


def adapted(made: Path, protocol: str, out: Path) -> Path:
    words = ["--task", "fsdd", "--root", made / "digits", "--checkpoint", made / "tiny"]
    words += ["--training.epochs", 2, "--training.batch", 4, "--training.learning_rate", 0.05]
    assert run("finetune", *words, "--protocol", protocol, "--out", out) == 0
    return out


@pytest.mark.parametrize("protocol", ["lora", "bitfit"])
def test_a_merged_run_says_the_same_and_needs_no_base(made, tmp_path, protocol, monkeypatch):
    few = adapted(made, protocol, tmp_path / "few")
    sound = torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0)) / 10
    before = sslaudio.load_classifier(few)(sound)

    assert run("weights", "merge", "--checkpoint", few, "--out", tmp_path / "whole") == 0

    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert "base" not in config and config["merged"]["adapter"]["name"] == protocol
    plain = load_file(made / "tiny" / "model.safetensors")
    names = set(load_file(tmp_path / "whole" / "model.safetensors"))
    assert {name for name in names if name.startswith("backbone.")} == set(plain)
    (made / "tiny").rename(made / "away")
    try:
        after = sslaudio.load_classifier(tmp_path / "whole")(sound)
    finally:
        (made / "away").rename(made / "tiny")
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    unadapted = sslaudio.load(made / "tiny")(sound)
    assert not torch.allclose(sslaudio.load(tmp_path / "whole")(sound), unadapted, atol=1e-4)


def test_a_merged_run_can_be_adapted_again(made, tmp_path):
    few = adapted(made, "lora", tmp_path / "few")

    # Started from, an adapted run is merged on the way.
    words = ["--task", "fsdd", "--root", made / "digits", "--checkpoint", few]
    assert run("finetune", *words, "--protocol", "linear", "--out", tmp_path / "line") == 0

    sound = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(1)) / 10
    ours, theirs = sslaudio.load(tmp_path / "line")(sound), sslaudio.load(few)(sound)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("protocol", "told"), [("prompt", "prompt"), ("full", "holds all its weights already")]
)
def test_what_cannot_be_merged_says_so(made, tmp_path, capsys, protocol, told):
    few = adapted(made, protocol, tmp_path / "few")
    capsys.readouterr()

    assert run("weights", "merge", "--checkpoint", few, "--out", tmp_path / "whole") == 2

    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line
    assert not (tmp_path / "whole").exists()


def test_a_run_of_folds_moved_with_its_base_still_finds_it(made, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(made / "tiny", home / "tiny")
    make("esc50", tmp_path / "sounds")
    words = ["--task", "esc50", "--root", tmp_path / "sounds", "--checkpoint", home / "tiny"]
    words += ["--training.epochs", 1, "--training.batch", 2, "--protocol", "bitfit"]
    assert run("finetune", *words, "--out", home / "tuned") == 0
    home.rename(tmp_path / "moved")

    for place in ("tuned", "tuned/fold-1"):
        assert sslaudio.load_classifier(tmp_path / "moved" / place).classes == ("dog", "rain")


def test_a_cut_run_does_not_go_on_from_other_weights(made, tmp_path, capsys):
    other, out = tmp_path / "other", tmp_path / "out"
    shutil.copytree(made / "tiny", other)
    weights = load_file(other / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, other / "model.safetensors")
    make("esc50", tmp_path / "sounds")
    words = ["--task", "esc50", "--root", tmp_path / "sounds", "--protocol", "knn", "--out", out]
    assert run("finetune", *words, "--checkpoint", made / "tiny") == 0
    (out / "results.json").unlink()
    next((out / "fold-3").glob("record-*.json")).unlink()
    capsys.readouterr()

    assert run("finetune", *words, "--checkpoint", other) == 2
    assert "other settings, weights or clips" in capsys.readouterr().err
    assert run("finetune", *words, "--checkpoint", made / "tiny") == 0
    assert len(json.loads((out / "results.json").read_text())) == 3
