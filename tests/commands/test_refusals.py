"""What a verb refuses, in this process: exit 2, one line that names the cure, nothing harmed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslaudio.cli import main
from sslaudio.training.checkpoint import checkpoints, newest_whole

SMALL = ["--data.batch", "16", "--training.warmup_steps", "1", "--backbone.patch", "128", "16"]


@pytest.fixture(scope="module")
def kept_run(shards: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "kept"
    assert pretrain(shards, out, "--training.steps", "2", "--training.checkpoint_every", "1") == 0
    return out


@pytest.fixture
def run(kept_run: Path, tmp_path: Path) -> Path:
    """A run of two steps and two checkpoints that a test may harm."""
    return Path(shutil.copytree(kept_run, tmp_path / "run"))


def pretrain(shards: Path, out: Path, *words: str) -> int:
    given = ["--config", "demo", "--data.shards", str(shards), *SMALL, "--out", str(out)]
    return main(["pretrain", *given, *words])


def finetune(shards: Path, out: Path, *words: str) -> int:
    given = ["--task", "shards", "--root", str(shards), "--protocol", "linear"]
    return main(["finetune", *given, "--out", str(out), *words])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return told.strip().splitlines()[-1]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_finetuning_never_writes_into_a_run(run, shards, capsys):
    before = contents(run)

    assert finetune(shards, run, "--checkpoint", str(run)) == 2
    assert "holds a run already" in last_line(capsys)
    assert contents(run) == before


def test_a_finetuning_that_was_cut_short_is_begun_again(run, shards, tmp_path):
    out = tmp_path / "out"
    assert finetune(shards, out, "--checkpoint", str(run)) == 0
    (out / "results.json").unlink()

    assert finetune(shards, out, "--checkpoint", str(run)) == 0
    assert finetune(shards, out, "--checkpoint", str(run)) == 2


@pytest.mark.parametrize("name", ["./idea.py", "my-idea.v2", ".idea", "a..b"])
def test_a_path_is_no_plug_in(name, shards, tmp_path, capsys):
    assert pretrain(shards, tmp_path / "out", "--objective", name) == 2
    assert f"no {name!r} in objectives" in last_line(capsys)
    assert not (tmp_path / "out").exists()


def test_an_empty_section_of_a_recipe_is_its_defaults(shards, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("training:\n  # steps: 5\ndata:\n")
    words = ["pretrain", "--config", str(recipe), "--data.shards", str(shards), *SMALL]

    assert main([*words, "--out", str(tmp_path / "out"), "--training.steps", "0"]) == 0


def test_a_recipe_that_is_no_text_is_named(tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_bytes(b"data: \xff\xfe")

    assert main(["pretrain", "--config", str(recipe)]) == 2
    assert "mine.yaml is no text in UTF-8" in last_line(capsys)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--backbone.patch", "128"], "give 2 values"),
        (["--backbone.patch", "128", "300"], "make backbone.patch smaller"),
        (["--data.clip_seconds", "0.001"], "data.clip_seconds longer"),
        (["--config", "dem"], "did you mean demo"),
        (["--data.batch", "512"], "set data.batch to 70 or fewer"),
    ],
)
def test_settings_that_cannot_work_are_told_and_leave_nothing(
    flags, said, shards, tmp_path, capsys
):
    out = tmp_path / "out"
    given = {"--config": ["demo"], "--data.batch": ["16"], flags[0]: flags[1:]}
    words = [word for flag, values in given.items() for word in (flag, *values)]

    assert main(["pretrain", *words, "--data.shards", str(shards), "--out", str(out)]) == 2
    assert said in last_line(capsys)
    assert not out.exists()


@pytest.mark.parametrize("text", ["{}", "{", None])
def test_a_damaged_state_is_named_and_the_checkpoint_before_serves(text, run, shards, capsys):
    newest = checkpoints(run)[-1]
    state = newest / "state.json"
    state.unlink() if text is None else state.write_text(text)
    more = ["--resume", "auto", "--training.steps", "4", "--training.checkpoint_every", "1"]

    assert pretrain(shards, run, *more) == 0
    assert f"warning: {newest} is damaged (state.json" in capsys.readouterr().err
    assert newest_whole(run) == (run / "checkpoints" / "step-00000004", {})


@pytest.mark.parametrize("resume", [["--resume"], ["--resume", "auto"]])
def test_a_run_of_damaged_checkpoints_alone_is_not_begun_anew(resume, run, shards, capsys):
    for checkpoint in checkpoints(run):
        (checkpoint / "manifest.json").unlink()
    before = contents(run)

    assert pretrain(shards, run, *resume, "--training.steps", "4") == 2
    line = last_line(capsys)
    assert f"every checkpoint of {run} is damaged" in line and "--init" in line
    assert contents(run) == before


def test_altered_weights_of_a_checkpoint_are_named_by_those_who_take_them(run, shards, capsys):
    newest = checkpoints(run)[-1]
    flip(newest / "model.safetensors")
    out = run.with_name("out")

    assert finetune(shards, out, "--checkpoint", str(newest)) == 2
    assert f"{newest} is damaged (model.safetensors has another SHA-256" in last_line(capsys)
    assert pretrain(shards, run.with_name("more"), "--init", str(newest)) == 2
    assert f"give {run}, or another" in last_line(capsys)
    flip(newest / "model.safetensors")
    flip(newest / "optimiser.safetensors")
    assert finetune(shards, out, "--checkpoint", str(newest)) == 0


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_run_does_not_go_back(run, shards, capsys):
    recipe = (run / "recipe.yaml").read_bytes()
    back = ["--resume", "--training.steps", "1", "--training.checkpoint_every", "1"]

    assert pretrain(shards, run, *back) == 2
    assert "set training.steps to 2 or more" in last_line(capsys)
    assert (run / "recipe.yaml").read_bytes() == recipe


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("backbone", None, "its backbone is no dict"),
        ("clip_frames", "x", "its clip_frames is no int"),
        ("format", 77, "is of format 77"),
    ],
)
def test_a_config_of_wrong_content_is_named(key, value, said, run, shards, tmp_path, capsys):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, key: value}))

    assert finetune(shards, tmp_path / "out", "--checkpoint", str(run)) == 2
    line = last_line(capsys)
    assert said in line and str(run / "config.json") in line


def test_damaged_weights_never_cost_the_whole_run(run, shards, tmp_path, capsys):
    (run / "model.safetensors").write_bytes(b"torn")

    assert finetune(shards, tmp_path / "out", "--checkpoint", str(run)) == 2
    line = last_line(capsys)
    assert f"give one of {run / 'checkpoints'}" in line and "delete" not in line
    newest = checkpoints(run)[-1]
    assert finetune(shards, tmp_path / "out", "--checkpoint", str(newest)) == 0


def test_weights_of_another_size_name_the_key(run, shards, tmp_path, capsys):
    words = ["--checkpoint", str(run), "--backbone.size", "tiny"]

    assert finetune(shards, tmp_path / "out", *words) == 2
    assert "backbone.size" in last_line(capsys)


def test_a_batch_larger_than_the_training_part_is_refused(shards, tmp_path, capsys):
    words = ["--adapter", "full", "--training.batch", "71", "--backbone.patch", "128", "16"]
    given = ["finetune", "--task", "shards", "--root", str(shards), *words]

    assert main([*given, "--out", str(tmp_path / "out")]) == 2
    assert "set training.batch" in last_line(capsys)


def test_without_lists_the_hash_is_told_even_where_it_leaves_nothing(run, tmp_path, capsys):
    root = tmp_path / "speech_commands"
    for word in ("yes", "no"):
        (root / word).mkdir(parents=True)
        soundfile.write(root / word / "0a7c2a8d_nohash_0.wav", np.zeros(16_000), 16_000)
    words = ["--task", "speechcommands", "--root", str(root), "--checkpoint", str(run)]

    assert main(["finetune", *words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "warning: " in told and "hash" in told
    assert "split lists" in told


def test_a_run_of_several_folds_serves_by_its_best_and_each_by_name(run, shards, tmp_path, capsys):
    root = tmp_path / "fsdd" / "recordings"
    root.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for speaker in ("ada", "bob", "eve"):
        for digit in range(3):
            for take in range(12):
                noise = 0.1 * generator.normal(size=4_000)
                soundfile.write(root / f"{digit}_{speaker}_{take}.wav", noise, 8_000)
    out = tmp_path / "out"
    words = ["--task", "fsdd", "--task.split", "leave-one-speaker-out", "--root", str(root.parent)]
    given = ["finetune", *words, "--protocol", "linear", "--checkpoint", str(run)]

    assert main([*given, "--out", str(out)]) == 0
    records = json.loads((out / "results.json").read_text())
    best = max(records, key=lambda record: record["validation"])["fold"]
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (out / f"fold-{best}" / name).read_bytes()
    (out / "config.json").unlink()
    embed = ["embed", "--checkpoint", str(out), "--out", str(tmp_path / "e.npz"), str(root)]
    assert main(embed) == 2
    assert "give one of fold-ada, fold-bob, fold-eve" in last_line(capsys)
