"""``sslaudio predict`` and ``embed --per-frame`` as they are typed, on runs fine-tuned before."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import sslaudio
from sslaudio.cli import main
from sslaudio.data.decode import decode

RATE = 16_000


def call(*words) -> int:
    return main([str(word) for word in words])


def finetuned(shards: Path, out: Path, seed: int, *flags) -> Path:
    status = call(
        "finetune", "--task", "shards", "--root", shards, "--protocol", "linear", "--out", out,
        "--backbone.patch", "64", "8", "--features.mel_bins", "64", "--training.seed", seed, *flags,
    )  # fmt: skip
    assert status == 0
    return out


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory) -> Path:
    return finetuned(shards, tmp_path_factory.mktemp("runs") / "one", 0)


@pytest.fixture(scope="module")
def other(run) -> Path:
    """The same classes by another head."""
    from safetensors.torch import load_file, save_file

    out = run.with_name("other")
    out.mkdir()
    weights = load_file(run / "model.safetensors")
    weights["head.weight"] = weights["head.weight"].flip(0).contiguous()
    save_file(weights, out / "model.safetensors")
    (out / "config.json").write_text((run / "config.json").read_text())
    return out


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for name, seconds in (("long", 3.2), ("second", 1.0), ("short", 0.004)):
        noise = 0.1 * np.random.default_rng(len(name)).standard_normal(int(seconds * RATE))
        soundfile.write(folder / f"{name}.wav", noise, RATE)
    return folder


def shares_by_hand(run: Path, file: Path, start: float = 0.0, end: float | None = None):
    classifier = sslaudio.load_classifier(run)
    waveform = torch.from_numpy(decode(file, RATE))
    waveform = waveform[round(start * RATE) : None if end is None else round(end * RATE)]
    with torch.inference_mode():
        return classifier.shares(classifier(waveform[None]))[0].numpy()


def test_top_classes_are_told_and_everything_is_written(run, sounds, tmp_path, capsys):
    files = {name: tmp_path / f"all.{name}" for name in ("json", "csv")}
    status = call(
        "predict", "--checkpoint", run, sounds, "--top", "2", "--json", files["json"],
        "--csv", files["csv"], "--plot", tmp_path / "plots",
    )  # fmt: skip

    told = capsys.readouterr()
    head, _, *lines = told.out.splitlines()
    assert status == 0
    assert head.split() == ["file", "start", "end", "class", "1", "share", "class", "2", "share"]
    # Windows of a second every half second, the last one where the file ends, and their mean.
    assert [line.split()[1:3] for line in lines[:6]] == [
        ["0.00", "1.00"], ["0.50", "1.50"], ["1.00", "2.00"], ["1.50", "2.50"], ["2.20", "3.20"],
        ["mean", lines[5].split()[2]],
    ]  # fmt: skip
    assert [Path(line.split()[0]).name for line in lines[5:]] == [
        "long.wav", "second.wav", "short.wav",
    ]  # fmt: skip
    assert "predicting" in told.err and f"drawn: {tmp_path / 'plots' / 'long.png'}" in told.err
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["long.png"]

    written = json.loads(files["json"].read_text())
    classes = written["classes"]
    assert classes == json.loads((run / "config.json").read_text())["classes"]
    long, second, _ = written["files"]
    for window in long["windows"]:
        by_hand = shares_by_hand(run, sounds / "long.wav", window["start"], window["end"])
        assert window["shares"] == pytest.approx(by_hand.tolist(), abs=1e-5)
        assert sum(window["shares"]) == pytest.approx(1.0)
    mean = np.mean([window["shares"] for window in long["windows"]], axis=0)
    assert long["shares"] == pytest.approx(mean.tolist())
    best = np.argmax(second["shares"])
    assert f"{classes[best]}  " in lines[6] and f"{max(second['shares']):.3f}" in lines[6]

    rows = list(csv.DictReader(files["csv"].open()))
    assert [row["part"] for row in rows] == ["window"] * 5 + ["file"] * 3
    assert [float(rows[-2][name]) for name in classes] == pytest.approx(second["shares"])


def test_several_runs_say_their_mean_wherever_the_sounds_stand(run, other, sounds, tmp_path):
    file, out = sounds / "second.wav", tmp_path / "all.json"

    assert call("predict", "--checkpoint", run, other, file, "--json", out) == 0
    assert call("predict", file, "--json", tmp_path / "b.json", "--checkpoint", run, other) == 0

    written, second = (json.loads(path.read_text()) for path in (out, tmp_path / "b.json"))
    by_hand = (shares_by_hand(run, file) + shares_by_hand(other, file)) / 2
    assert written["files"][0]["shares"] == pytest.approx(by_hand.tolist(), abs=1e-5)
    assert written == second and written["checkpoints"] == [str(run), str(other)]


def test_a_window_and_a_hop_may_be_given(run, sounds, capsys):
    assert call("predict", "--checkpoint", run, "--window", 2, "--hop", 0.6, sounds) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:3] for line in lines[2:5]] == [
        ["0.00", "2.00"], ["0.60", "2.60"], ["1.20", "3.20"],
    ]  # fmt: skip


def test_unreadable_files_are_listed_and_the_rest_told(run, sounds, tmp_path, capsys):
    broken = tmp_path / "broken.wav"
    broken.write_text("no sound")
    out = tmp_path / "all.json"

    status = call(
        "predict", "--checkpoint", run, broken, sounds / "second.wav", tmp_path / "no.wav",
        "--json", out,
    )  # fmt: skip

    told = capsys.readouterr()
    assert status == 1 and "second.wav" in told.out and "broken" not in told.out
    assert f"cannot read {broken}: cannot be decoded" in told.err
    assert f"cannot read {tmp_path / 'no.wav'}: missing" in told.err
    assert "2 of 3 not read" in told.err
    assert [one["file"] for one in json.loads(out.read_text())["not_read"]] == [
        str(broken), str(tmp_path / "no.wav"),
    ]  # fmt: skip


def test_bad_input_is_one_line_and_exit_2(run, sounds, tmp_path, capsys):
    headless, renamed = tmp_path / "headless", tmp_path / "renamed"
    config = json.loads((run / "config.json").read_text())
    changes = {headless: {"classes": []}, renamed: {"classes": ["odd", *config["classes"][1:]]}}
    for folder, change in changes.items():
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        (folder / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    cases = {
        "has no head that tells classes apart": ["--checkpoint", headless, sounds],
        "one alone knows": ["--checkpoint", run, renamed, sounds],
        "is no run": ["--checkpoint", sounds, sounds],
        "does not exist": ["--checkpoint", tmp_path / "absent", sounds],
        "no sound; name": ["--checkpoint", run],
        "the hop is 3 s and the window 1 s": ["--checkpoint", run, sounds, "--hop", "3"],
        "and the window inf s": ["--checkpoint", run, sounds, "--window", "inf", "--hop", "1"],
        "--top is 0": ["--checkpoint", run, sounds, "--top", "0"],
        "--threshold marks classes": ["--checkpoint", run, sounds, "--threshold", "0.2"],
        "cannot write --json": ["--checkpoint", run, sounds, "--json", tmp_path],
        "cannot draw into --plot": ["--checkpoint", run, sounds, "--plot", run / "config.json"],
    }

    for said, words in cases.items():
        status = call("predict", *words)
        told = capsys.readouterr()
        assert status == 2 and not told.out, (said, told)
        assert said in told.err and len(told.err.strip().splitlines()) == 1, (said, told.err)


def test_embed_per_frame_writes_rows_offsets_and_times(run, sounds, tmp_path, capsys):
    out, clips = tmp_path / "frames.npz", tmp_path / "clips.npz"
    absent = tmp_path / "absent.wav"

    assert call("embed", "--per-frame", "--checkpoint", run, "--out", out, sounds, absent) == 1
    told = capsys.readouterr().err
    assert f"cannot read {absent}: missing" in told and "1 of 4 not read" in told
    assert call("embed", "--checkpoint", run, "--out", clips, sounds) == 0

    with np.load(out) as stored, np.load(clips) as pooled:
        keys, offsets, times = (stored[name] for name in ("keys", "offsets", "times"))
        assert keys.tolist() == pooled["keys"].tolist() and keys.dtype.kind == "U"
        # Patches 8 frames wide: 318, 98 and 1 frames.
        assert np.diff(offsets).tolist() == [40, 13, 1]
        assert times.shape == (54, 2) and (times[:, 0] < times[:, 1]).all()
        assert times[40:42].tolist() == pytest.approx(np.array([[0, 0.095], [0.08, 0.175]]))
        dim = sslaudio.load(run).backbone.dim
        assert stored["embeddings"].shape == (54, dim)
