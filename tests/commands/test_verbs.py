"""Whole commands: what a user types, what comes back, and one line for bad input."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import sslaudio
from sslaudio.cli import main

ROOT = Path(__file__).parents[2]
SMALL = ["--data.batch", "16", "--training.steps", "2", "--training.warmup_steps", "1"]


def call(*words: object) -> tuple[int, str]:
    """A command's status and all it says, in this process: a start takes seconds."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(list(map(str, words)))
    return status, said.getvalue()


def done(*words: object) -> str:
    status, said = call(*words)
    assert status == 0, said
    return said


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "synth"
    done("shards", "synth", "--out", folder, "--clips", "100")
    return folder


@pytest.fixture(scope="module")
def pretrained(shards: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    done("pretrain", "--config", "demo", "--data.shards", shards, "--out", out, *SMALL)
    return out


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for number, seconds in enumerate((0.1, 1.0, 2.5)):
        noise = 0.1 * np.random.default_rng(number).standard_normal(int(seconds * 22_050))
        soundfile.write(folder / f"{number}.wav", noise, 22_050)
    return folder


def test_a_run_holds_all_that_is_promised(pretrained: Path):
    names = {path.name for path in pretrained.iterdir()}

    assert names >= {
        "recipe.yaml",
        "config.json",
        "model.safetensors",
        "metrics.jsonl",
        "checkpoints",
    }
    assert any(name.startswith("events.out.tfevents") for name in names)
    line = json.loads((pretrained / "metrics.jsonl").read_text().splitlines()[-1])
    assert {
        "objective/loss", "objective/info_nce", "objective/squared_error", "objective/accuracy",
        "objective/chance", "objective/spread", "training/learning_rate",
        "training/gradient_norm", "speed/clips_a_second", "speed/waiting_share",
    } <= line.keys()  # fmt: skip


def test_tensorboard_holds_scalars_and_pictures(pretrained: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(pretrained))
    board.Reload()

    assert "objective/loss" in board.Tags()["scalars"]
    assert set(board.Tags()["images"]) >= {
        "pictures/1_input", "pictures/2_seen", "pictures/3_rebuilt",
    }  # fmt: skip


def test_embed_writes_paths_and_vectors_that_python_gives_too(pretrained, sounds, tmp_path):
    out = tmp_path / "embeddings.npz"
    done("embed", "--checkpoint", pretrained, "--out", out, sounds)

    with np.load(out) as stored:
        keys, embeddings = stored["keys"], stored["embeddings"]
    encoder = sslaudio.load(pretrained)

    assert [Path(key).name for key in keys] == ["0.wav", "1.wav", "2.wav"]
    assert keys.dtype.kind == "U" and embeddings.dtype == np.float32
    assert embeddings.shape == (3, encoder.dim)
    samples, rate = soundfile.read(sounds / "1.wav", dtype="float32")
    with torch.inference_mode():
        direct = encoder(torch.from_numpy(samples)[None], rate)
    np.testing.assert_allclose(direct[0].numpy(), embeddings[1], atol=1e-4)


def test_embed_lists_what_it_cannot_read_and_writes_the_rest(pretrained, sounds, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_text("no sound")
    out = tmp_path / "embeddings.npz"

    status, told = call("embed", "--checkpoint", pretrained, "--out", out, sounds, broken)

    assert status == 1 and "broken.wav" in told
    with np.load(out) as stored:
        assert len(stored["keys"]) == 3


def test_a_checkpoint_of_a_run_serves_like_the_run(pretrained, sounds, tmp_path):
    step = sorted((pretrained / "checkpoints").iterdir())[-1]
    for name, source in (("run", pretrained), ("step", step)):
        done("embed", "--checkpoint", source, "--out", tmp_path / f"{name}.npz", sounds)

    with np.load(tmp_path / "run.npz") as run, np.load(tmp_path / "step.npz") as of_step:
        np.testing.assert_array_equal(run["embeddings"], of_step["embeddings"])


def test_no_steps_write_a_run_of_random_weights(shards, sounds, tmp_path):
    flags = ["--config", "demo", "--data.shards", shards, "--training.steps", "0"]
    done("pretrain", *flags, "--out", tmp_path / "zero")
    done("pretrain", *flags, "--out", tmp_path / "other", "--training.seed", "1")
    done("embed", "--checkpoint", tmp_path / "zero", "--out", tmp_path / "zero.npz", sounds)

    zero, other = (load_file(tmp_path / name / "model.safetensors") for name in ("zero", "other"))
    assert not torch.equal(
        zero["backbone.patch_embed.proj.weight"], other["backbone.patch_embed.proj.weight"]
    )


@pytest.mark.parametrize("protocol", ["linear", "full"])
def test_finetune_writes_model_recipe_labels_and_results(
    pretrained, shards, sounds, tmp_path, protocol
):
    out = tmp_path / protocol
    done(
        "finetune", "--task", "shards", "--root", shards, "--checkpoint", pretrained, "--protocol",
        protocol, "--out", out, "--training.epochs", "2",
    )  # fmt: skip

    (record,) = json.loads((out / "results.json").read_text())
    config = json.loads((out / "config.json").read_text())
    assert record["protocol"] == protocol and record["metric"] == "accuracy"
    assert 0 <= record["test"] <= 1 and record["clips"] == {
        "train": 70,
        "validation": 10,
        "test": 20,
    }
    assert len(config["classes"]) == 10 and config["classes"] == sorted(config["classes"])
    weights = load_file(out / "model.safetensors")
    before = load_file(pretrained / "model.safetensors")
    moved = [name for name in before if not torch.equal(before[name], weights[name])]
    # A probe never touches the encoder; full fine-tuning moves it.
    assert bool(moved) == (protocol == "full")
    assert (out / "recipe.yaml").is_file() and len(weights["head.bias"]) == 10
    done("embed", "--checkpoint", out, "--out", tmp_path / "e.npz", sounds)


def test_stats_print_a_recipes_yaml(shards: Path):
    import yaml

    printed = yaml.safe_load(done("stats", shards))["features"]

    assert -16 < printed["mean"] < 5 and 0 < printed["std"] < 10


def test_bad_input_is_one_line_and_exit_2(shards, pretrained, sounds, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text((pretrained / "config.json").read_text())
    weights = load_file(pretrained / "model.safetensors")
    weights["backbone.norm.weight"] = torch.zeros(7)
    save_file(weights, damaged / "model.safetensors")
    base = ["pretrain", "--config", "demo", "--out", tmp_path / "never"]
    cases = {
        "did you mean training.steps": [*base, "--training.stps", "3"],
        "did you mean 'masked_patch'": [*base, "--objective", "masked_patsch"],
        "there is no folder": [*base, "--data.shards", tmp_path / "absent"],
        "set data.batch to 70 or fewer": [*base, "--data.shards", shards, "--data.batch", "512"],
        "features.sample_rate": [*base, "--data.shards", shards, "--features.sample_rate", "22050"],
        "there is no recipe nowhere": ["pretrain", "--config", "nowhere"],
        "is no run": ["embed", "--checkpoint", sounds, "--out", tmp_path / "e.npz", sounds],
        "norm.weight is (7,) there and (128,) here": [
            "embed", "--checkpoint", damaged, "--out", tmp_path / "e.npz", sounds,
        ],
        "no task": ["finetune", "--root", shards],
        "did you mean 'speechcommands'": ["finetune", "--task", "speechcomands", "--root", shards],
        "where is the corpus fsdd? give --root": ["finetune", "--task", "fsdd"],
        "did you mean embed": ["embedd"],
        "did you mean 'lora'": [
            "finetune", "--task", "fsdd", "--protocol", "lorra", "--root", shards,
        ],
    }  # fmt: skip

    for said, words in cases.items():
        status, told = call(*words)
        lines = [line for line in told.strip().splitlines() if "process(es) on" not in line]
        assert status == 2, (words, told)
        assert said in lines[-1] and len(lines) == 1, (said, told)


def test_the_launcher_runs_the_entry_from_a_bare_checkout(shards, tmp_path):
    out = tmp_path / "launched"
    result = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1",
            "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
            "sslaudio/pretrain.py", "--config", "configs/pretrain/demo.yaml", "--data.shards",
            str(shards), "--out", str(out), *SMALL,
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert (out / "model.safetensors").is_file()


def test_init_starts_from_weights_and_statistics_of_a_run(pretrained, shards, tmp_path):
    out = tmp_path / "started"
    done("pretrain", "--config", "demo", "--data.shards", shards, "--init", pretrained, "--out",
         out, "--training.steps", "0", "--training.seed", "5")  # fmt: skip

    before, after = (load_file(run / "model.safetensors") for run in (pretrained, out))
    configs = [json.loads((run / "config.json").read_text()) for run in (pretrained, out)]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert configs[0]["features"] == configs[1]["features"]
    assert configs[1]["provenance"]["init"] == str(pretrained)


def test_a_run_without_a_checkpoint_goes_on_with_its_own_recipe(shards, tmp_path):
    out = tmp_path / "early"
    done("pretrain", "--config", "demo", "--data.shards", shards, "--out", out, *SMALL,
         "--objective.mask_share", "0.4")  # fmt: skip
    for step in (out / "checkpoints").iterdir():
        for file in step.iterdir():
            file.unlink()
        step.rmdir()

    done("pretrain", "--out", out, "--resume", "auto")

    assert "mask_share: 0.4" in (out / "recipe.yaml").read_text()


def test_a_checkpoint_that_is_not_there_is_told(pretrained, sounds, tmp_path):
    for wrong in (pretrained / "checkpoints" / "step-00000999", pretrained / "no" / "such"):
        status, told = call("embed", "--checkpoint", wrong, "--out", tmp_path / "e.npz", sounds)

        assert status == 2 and "does not exist" in told
