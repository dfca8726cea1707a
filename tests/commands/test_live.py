"""Pretraining with a probe beside it: what it writes, what it leaves alone, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sslaudio.backbones.encoder import Encoder
from sslaudio.cli import main
from sslaudio.data import synth
from sslaudio.downstream import embed, live
from sslaudio.features import front_end
from sslaudio.plugins import load

SMALL = (
    "--data.batch 16 --data.clip_seconds 0.5 --training.warmup_steps 1 --training.log_every 2 "
    "--training.checkpoint_every 3 --training.pictures_every 0 --backbone.patch 128 16 "
    "--backbone.drop_path 0.2"
).split()
KNN = ["--knn.every", "2", "--knn.clips", "40", "--knn.neighbours", "5"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """A hundred labelled clips, other than those that are pretrained on."""
    folder = tmp_path_factory.mktemp("labelled") / "synth"
    synth.build(folder, clips=100, seed=5)
    return folder


def pretrain(shards: Path, out: Path, steps: int, *words: str) -> int:
    given = ["--config", "demo", "--data.shards", str(shards), *SMALL, "--out", str(out)]
    return main(["pretrain", *given, "--training.steps", str(steps), *words])


def lines(out: Path) -> list[dict[str, float]]:
    """Lines of metrics, without what the clock says."""
    read = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    timed = ("speed/", "probe/seconds")
    return [
        {name: value for name, value in line.items() if not name.startswith(timed)} for line in read
    ]


def checkpoint(out: Path, step: int) -> dict[str, torch.Tensor]:
    folder = out / "checkpoints" / f"step-{step:08d}"
    return {
        f"{file.name}/{name}": value
        for file in folder.glob("*.safetensors")
        for name, value in load_file(file).items()
    }


@pytest.fixture(scope="module")
def probed(shards: Path, labelled: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "probed"
    assert pretrain(shards, out, 5, *KNN, "--knn.root", str(labelled)) == 0
    return out


def test_it_is_taken_untrained_every_so_many_steps_and_at_the_end(probed: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    taken = [line for line in lines(probed) if "probe/knn" in line]
    board = EventAccumulator(str(probed))
    board.Reload()

    assert [line["step"] for line in taken] == [0, 2, 4, 5]
    assert all(0 <= line["probe/knn"] <= 1 for line in taken)
    # The ten validation clips are of ten classes.
    assert {line["probe/chance"] for line in taken} == {0.1}
    shown = board.Scalars("probe/knn")
    assert [one.step for one in shown] == [0, 2, 4, 5]
    assert (probed / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_has_the_same_bits_and_losses_without_it(probed, shards, tmp_path):
    assert pretrain(shards, tmp_path / "plain", 5) == 0

    one, other = checkpoint(probed, 5), checkpoint(tmp_path / "plain", 5)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [line for line in lines(probed) if "objective/loss" in line]
    assert losses == lines(tmp_path / "plain")
    assert (tmp_path / "plain" / "curve.png").is_file()


def test_a_resumed_run_writes_the_same_lines_and_knows_its_untrained_figure(
    probed, shards, labelled, tmp_path, capsys
):
    out = tmp_path / "cut"
    shutil.copytree(probed, out)
    shutil.rmtree(out / "checkpoints" / "step-00000005")
    words = [*KNN, "--knn.root", str(labelled), "--resume"]

    assert pretrain(shards, out, 5, *words) == 0

    assert lines(out) == lines(probed)
    told = capsys.readouterr().err
    untrained = f"untrained {lines(probed)[0]['probe/knn']:.1%}"
    assert f"at step 5 ({untrained}, chance 10.0%" in told


def test_a_run_begun_anew_for_want_of_a_checkpoint_has_one_step_0(
    probed, shards, labelled, tmp_path
):
    out = tmp_path / "early"
    shutil.copytree(probed, out)
    shutil.rmtree(out / "checkpoints")

    assert pretrain(shards, out, 5, *KNN, "--knn.root", str(labelled), "--resume", "auto") == 0

    assert lines(out) == lines(probed)


def test_a_resumed_run_may_probe_at_other_steps_but_not_on_other_clips(
    probed, shards, labelled, tmp_path, capsys
):
    out = tmp_path / "more"
    shutil.copytree(probed, out)
    root = ["--knn.root", str(labelled), "--resume"]

    assert pretrain(shards, out, 7, *KNN, *root, "--knn.task.seed", "1") == 2
    assert "knn.task.seed was 0" in capsys.readouterr().err.splitlines()[-1]
    often = [word if word != "2" else "1" for word in KNN]
    assert pretrain(shards, out, 7, *often, *root) == 0
    assert [line["step"] for line in lines(out) if "probe/knn" in line] == [0, 2, 4, 5, 6, 7]


def test_a_probe_may_join_a_run_that_had_none(shards, labelled, tmp_path, capsys):
    assert pretrain(shards, tmp_path / "run", 1) == 0
    more = [*KNN, "--knn.root", str(labelled), "--resume"]

    assert pretrain(shards, tmp_path / "run", 2, *more) == 0

    told = capsys.readouterr().err
    assert "at step 2 (chance 10.0%" in told and "untrained" not in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--knn.every", "2"], "no labelled set to probe with; name its folder with knn.root"),
        (["--knn.every", "-1"], "knn.every is -1; it is at least 0"),
        (["--knn.every", "2", "--knn.root", "nowhere"], "knn.root nowhere is no folder"),
        (["--knn.every", "2", "--knn.root", "{}", "--knn.neighbours", "71"],
         "knn.neighbours is 71, but the probe has 70 training clips; set it to 70 or fewer"),
        (["--knn.every", "2", "--knn.root", "{}", "--knn.task", "esc50"],
         "knn.task esc50 in knn.root"),
        (["--knn.clips", "0"], "knn.clips is 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_probed_is_refused_before_training(
    shards, labelled, tmp_path, capsys, words, said
):
    status = pretrain(shards, tmp_path / "never", 2, *[word.format(labelled) for word in words])

    assert status == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "never" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["ast", "mast"])
def test_it_leaves_modes_generators_and_gradients_as_they_were(labelled, tmp_path, name: str):
    features = front_end.Config(mean=-7.0, std=3.0)
    chosen = load("backbones", name)
    backbone = chosen.build(chosen.Config(), features.bins, 96).train()
    backbone.norm.eval()
    encoder = Encoder(front_end.FrontEnd(features), backbone, ("mean",), None, 96)
    config = live.Config(every=1, root=labelled, clips=20, neighbours=3)
    probe = live.Probe(config, encoder, steps=1, first="untrained", aloud=True)
    drawn, modes = torch.get_rng_state(), [part.training for part in backbone.modules()]

    score = probe.score()

    assert probe.score() == score
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [part.training for part in backbone.modules()] == modes
    backbone(torch.randn(2, 128, 96), torch.tensor([96, 60])).patches.sum().backward()


def test_test_clips_are_never_read(shards, labelled, tmp_path, monkeypatch):
    tasks = load("tasks", "shards")
    tested = {example.key for example in tasks.build(tasks.Config(), labelled).folds[0].test}
    read: list[str] = []

    def decoded(examples, rate):
        read.extend(example.key for example in examples)
        return embed.decode_examples(examples, rate)

    monkeypatch.setattr(live, "decode_examples", decoded)
    assert pretrain(shards, tmp_path / "run", 0, *KNN, "--knn.root", str(labelled)) == 0

    assert tested and read and not tested & set(read)


def test_the_choice_is_balanced_and_hangs_on_keys_alone(labelled):
    tasks = load("tasks", "shards")
    train = tasks.build(tasks.Config(), labelled).folds[0].train

    chosen = live.balanced(train, 25)
    again = live.balanced(train[::-1], 25)

    per_class = [sum(example.target == target for example in chosen) for target in range(10)]
    assert len(chosen) == 25 and set(per_class) == {2, 3}
    assert {example.key for example in again} == {example.key for example in chosen}
    assert live.balanced(train, 1_000) == train
