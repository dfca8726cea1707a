"""Fine-tuning from the command line: every task, every protocol, and what a run then holds."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState
from miniatures import make, sounds
from safetensors.torch import load_file, save_file

import sslaudio
from sslaudio import plugins
from sslaudio.cli import main
from sslaudio.data import synth
from sslaudio.downstream.results import Record
from sslaudio.models import BASE
from sslaudio.tasks.base import Task

RECIPES = {
    "audioset": ("audioset_20k", "audioset_2m"),
    "csv": ("csv",),
    "esc50": ("esc50", "esc10"),
    "fsd50k": ("fsd50k",),
    "fsdd": ("fsdd",),
    "iemocap": ("iemocap",),
    "nsynth": ("nsynth",),
    "shards": (),
    "speechcommands": ("speechcommands", "speechcommands_v2_12", "speechcommands_v1_12"),
    "urbansound8k": ("urbansound8k",),
    "voxceleb1": ("voxceleb1",),
    "voxforge": ("voxforge",),
}
"""Committed recipes of every task of the room."""
PROTOCOLS = ("attentive", "bitfit", "bottleneck", "full", "knn", "linear", "lora", "prompt")
FEW = ("bitfit", "bottleneck", "lora", "prompt")
"""Protocols whose run holds what it learned, and not its base."""
QUICK = "--training.epochs 1 --training.batch 2 --training.average_from none".split()
MEASURES = "--adapter.dim 2".split(), "--adapter.rank 1".split(), "--adapter.count 1".split()
SMALLEST = dict(zip(("bottleneck", "lora", "prompt"), MEASURES, strict=True))
BF16 = 0.05
"""Scores are of order 1; a step of bfloat16 is 1/256 of that."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """So little work is done soonest by one; several wait for one another on busy cores."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sslaudio.training.launch.cores", lambda: 1)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], Path]:
    """Gives the small root of a task, laid out at first use; ``number`` is a table too."""
    place = tmp_path_factory.mktemp("roots")

    @cache
    def laid(name: str) -> Path:
        root = place / name
        if name == "shards":
            synth.build(root, clips=100)
            return root
        root.mkdir()
        if name in ("csv", "number"):
            table(root, name)
            return root
        make(plugins.load("tasks", name).CORPUS, root)
        if name == "speechcommands":
            more_words(root)
        return root

    return laid


def table(root: Path, kind: str) -> None:
    """Tones, named by their label or told by their level; the parts are in the table."""
    lines = ["path,label,split"]
    for clip in range(18):
        level, label = (clip // 3) / 5, ("hum", "buzz")[clip // 3 % 2]
        name = f"{label}{clip}.wav"
        if kind == "csv":
            sounds(root, name)
        else:
            noise = np.random.default_rng(clip).standard_normal(1_600)
            soundfile.write(root / name, 10 ** (2 * level - 3) * noise.clip(-3, 3), 8_000)
        told = label if kind == "csv" else f"{level:.1f}"
        lines.append(f"{name},{told},{('train', 'validation', 'test')[clip % 3]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def more_words(root: Path) -> None:
    """A word that version 1 has and does not ask for, and noise of two seconds."""
    for speaker in ("aaaaaaaa", "bbbbbbbb", "cccccccc"):
        sounds(root, f"bed/{speaker}_nohash_0.wav")
    for part, speaker in (("validation", "bbbbbbbb"), ("testing", "cccccccc")):
        with (root / f"{part}_list.txt").open("a") as names:
            names.write(f"bed/{speaker}_nohash_0.wav\n")
    sounds(root, "_background_noise_/hum.wav", seconds=4)


@pytest.fixture(scope="module")
def pretrained(made, tmp_path_factory) -> Path:
    """A RUN of a few thousand weights, after two steps on synthetic sound."""
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    size = "--backbone.dim 64 --backbone.heads 2 --backbone.depth 2 --backbone.patch 128 4"
    short = "--data.batch 8 --data.clip_seconds 0.2 --training.steps 2 --training.warmup_steps 1"
    given = ["--config", "demo", "--data.shards", str(made("shards")), "--out", str(out)]
    assert main(["pretrain", *given, *size.split(), *short.split(), "--knn.every", "0"]) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    return out


def finetune(run: Path, root: Path, out: Path, *words: str) -> list[dict]:
    """Records of a finished run."""
    given = ["--root", str(root), "--checkpoint", str(run), "--out", str(out)]
    assert main(["finetune", *words, *given]) == 0
    return json.loads((out / "results.json").read_text())


def task_of(out: Path, root: Path) -> Task:
    told = json.loads((out / "config.json").read_text())["task"]
    module = plugins.load("tasks", told.pop("name"))
    return module.build(module.Config(**told), root)


def check_run(out: Path, root: Path, records: list[dict], protocol: str) -> None:
    """What a finished run promises, whatever it was asked."""
    task = task_of(out, root)
    needed = {"task", "protocol", "metric", "split_rule", "fold", "seed", "validation", "test",
              "clips", "checkpoint", "trainable", "seconds", "notes"}  # fmt: skip
    assert [record["fold"] for record in records] == [fold.name for fold in task.folds]
    for record, fold in zip(records, task.folds, strict=True):
        assert needed <= set(record) == {field.name for field in fields(Record)}
        assert (record["task"], record["protocol"]) == (task.name, protocol)
        assert record["metric"] == task.metric and record["clips"] == fold.clips()
        least = -np.inf if task.kind == "number" else 0
        assert least <= record["validation"] <= 1 and least <= record["test"] <= 1
        assert record["figures"][task.metric] == record["test"]
        folder = out / f"fold-{fold.name}" if len(task.folds) > 1 else out
        check_model(folder, task, fold.test, protocol)


def check_model(run: Path, task: Task, test, protocol: str) -> None:
    """The model says of sound what the run wrote down of it."""
    classes = json.loads((run / "config.json").read_text())["classes"]
    assert classes == sorted(classes) == list(task.classes)
    classifier = sslaudio.load_classifier(run)
    sound = [torch.from_numpy(one.waveform(classifier.sample_rate)) for one in test]
    with torch.inference_mode():
        said = torch.cat([classifier(one[None]) for one in sound]).numpy()
    with np.load(run / "predictions.npz") as written:
        assert written["keys"].tolist() == [one.key for one in test]
        scores = written["scores"]
        np.testing.assert_array_equal(written["targets"], task.targets(test))
    assert classifier.classes == tuple(classes) and scores.shape == (len(test), said.shape[1])
    if protocol == "linear" and task.kind != "number":
        said, scores = same_line(said), same_line(scores)
    tolerance = 1e-3 if protocol in ("linear", "knn") else BF16
    np.testing.assert_allclose(said, scores, rtol=tolerance, atol=tolerance)


def same_line(scores: np.ndarray) -> np.ndarray:
    """Scores of a line may be many: what they have to agree in is relative to the largest."""
    return scores / max(1.0, np.abs(scores).max())


def test_there_is_a_recipe_for_every_task_but_ones_own_shards():
    assert set(RECIPES) == set(plugins.names("tasks"))
    assert [name for name, recipes in RECIPES.items() if not recipes] == ["shards"]
    assert set(PROTOCOLS) == set(plugins.names("adapters"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_task_is_probed(name, made, pretrained, tmp_path):
    records = finetune(
        pretrained, made(name), tmp_path / "run", "--task", name, "--protocol", "linear"
    )

    check_run(tmp_path / "run", made(name), records, "linear")
    weights, base = (load_file(run / "model.safetensors") for run in (tmp_path / "run", pretrained))
    there = {name for name in base if name.startswith("backbone.")}
    assert all(torch.equal(base[name], weights[name]) for name in there)


@pytest.mark.parametrize("recipe", [one for recipes in RECIPES.values() for one in recipes])
def test_every_task_is_learned_by_its_recipe(recipe, made, pretrained, tmp_path):
    name = next(name for name, recipes in RECIPES.items() if recipe in recipes)

    records = finetune(pretrained, made(name), tmp_path / "run", "--config", recipe, *QUICK)

    check_run(tmp_path / "run", made(name), records, "full")
    weights, base = (load_file(run / "model.safetensors") for run in (tmp_path / "run", pretrained))
    assert any(not torch.equal(base[name], weights[name]) for name in base if name in weights)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("ast_audioset_20k", "audioset"),
        ("ast_audioset_2m", "audioset"),
        ("ast_esc50", "esc50"),
        ("ast_speechcommands", "speechcommands"),
        ("ssast_audioset_20k", "audioset"),
        ("ssast_esc50", "esc50"),
        ("ssast_speechcommands", "speechcommands"),
    ],
)
def test_a_published_recipe_learns_at_a_small_size(recipe, name, made, tmp_path):
    small = "--backbone.dim 16 --backbone.heads 2 --backbone.depth 1".split()
    words = ["--config", recipe, "--root", str(made(name)), "--out", str(tmp_path / "run")]

    assert main(["finetune", *words, *small, *QUICK]) == 0

    records = json.loads((tmp_path / "run" / "results.json").read_text())
    check_run(tmp_path / "run", made(name), records, "full")


def like_gongs(path: Path, kind: str, patch: tuple[int, int], places: int) -> Path:
    """AST's or SSAST's ``.pth``, 32 wide, of one block."""
    shapes = {
        "v.cls_token": (1, 1, 32), "v.dist_token": (1, 1, 32), "v.pos_embed": (1, 2 + places, 32),
        "v.patch_embed.proj.weight": (32, 1, *patch), "v.norm.weight": (32,),
        "v.blocks.0.attn.qkv.weight": (96, 32), "v.blocks.0.attn.proj.weight": (32, 32),
        "v.blocks.0.mlp.fc1.weight": (128, 32), "v.blocks.0.mlp.fc2.weight": (32, 128),
        "v.blocks.0.norm1.weight": (32,), "v.blocks.0.norm2.weight": (32,),
    }  # fmt: skip
    if kind == "ast":
        shapes |= {"mlp_head.0.weight": (32,), "mlp_head.1.weight": (527, 32)}
    else:
        shapes |= {f"{head}predlayer.0.weight": (32, 32) for head in "cg"}
        shapes |= {f"{head}predlayer.2.weight": (256, 32) for head in "cg"}
        shapes |= {"mask_embed": (1, 1, 32)}
    biases = {f"{name[:-6]}bias": shape[:1] for name, shape in shapes.items() if "weight" in name}
    state = {f"module.{name}": 0.2 * torch.randn(size) for name, size in (shapes | biases).items()}
    if kind == "ssast":
        for name, size in (("f", 128), ("t", 1024)):
            number = torch.nn.Parameter(torch.tensor(size), requires_grad=False)
            state[f"module.p_input_{name}dim"] = number
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("recipe", "name", "kind", "patch", "places"),
    [  # 12 by 101 places of stride 10; 8 by 64 without overlap; 512 frames of two columns
        ("ast_esc50", "esc50", "ast", (16, 16), 1212),
        ("ssast_audioset_20k", "audioset", "ssast", (16, 16), 512),
        ("ssast_esc50", "esc50", "ssast", (16, 16), 512),
        ("ssast_speechcommands", "speechcommands", "ssast", (128, 2), 512),
    ],
)
def test_weights_of_the_published_layout_fit_the_published_recipe(
    recipe, name, kind, patch, places, made, tmp_path
):
    source, run = like_gongs(tmp_path / "theirs.pth", kind, patch, places), tmp_path / "theirs"
    words = ["--from", kind, str(source), "--out", str(run), "--backbone.heads", "2"]
    assert main(["weights", "import", *words]) == 0

    records = finetune(run, made(name), tmp_path / "run", "--config", recipe, *QUICK)

    check_run(tmp_path / "run", made(name), records, "full")
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert told["features"]["legacy_frames"] == {"esc50": 512, "speechcommands": 128}.get(
        name, 1024
    )


@pytest.mark.parametrize("recipe", ["ast_audioset_20k", "ast_audioset_2m", "ast_speechcommands"])
def test_imagenets_weights_fit_the_published_recipe(recipe, made, tmp_path):
    import timm

    model = timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False, depth=1)
    save_file(model.state_dict(), tmp_path / "deit.safetensors")
    frames = {"ast_speechcommands": "128"}.get(recipe, "1024")
    words = ["--from", "timm", str(tmp_path / "deit.safetensors"), "--frames", frames]
    assert main(["weights", "import", *words, "--out", str(tmp_path / "deit")]) == 0
    name = recipe.split("_")[1]

    words = ["--config", recipe, "--backbone.size", "tiny", *QUICK]
    records = finetune(tmp_path / "deit", made(name), tmp_path / "run", *words)

    check_run(tmp_path / "run", made(name), records, "full")


def test_ss_masts_recipe_takes_the_task_from_a_flag(made, pretrained, tmp_path):
    words = ["--config", "ssmast", "--task", "iemocap", *QUICK]

    records = finetune(pretrained, made("iemocap"), tmp_path / "run", *words)

    check_run(tmp_path / "run", made("iemocap"), records, "full")


@pytest.fixture(scope="module")
def adapted(made, pretrained, tmp_path_factory):
    """A run of a protocol on the shards; one each."""
    folder, kept = tmp_path_factory.mktemp("adapted"), {}

    def run(protocol: str, kind: str) -> tuple[Path, list[dict]]:
        if (protocol, kind) not in kept:
            out = folder / f"{protocol}-{kind}"
            task = {"number": "csv"}.get(kind, kind)
            quick = ["--training.epochs", "1", "--training.batch", "2"]
            if kind == "shards":
                quick = ["--training.epochs", "1", "--training.batch", "24"]
            words = ["--task", task, "--protocol", protocol, *SMALLEST.get(protocol, []), *quick]
            if protocol == "knn":
                words += ["--knn.neighbours", "2"]
            kept[protocol, kind] = out, finetune(pretrained, made(kind), out, *words)
        return kept[protocol, kind]

    return run


@pytest.mark.parametrize("kind", ["shards", "fsd50k", "number"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_answers_every_kind_of_question(protocol, kind, made, adapted):
    out, records = adapted(protocol, kind)

    check_run(out, made(kind), records, protocol)
    assert (records[0]["trainable"] == 0) == (protocol == "knn")
    assert records[0]["metric"] == {"shards": "accuracy", "fsd50k": "mAP", "number": "R2"}[kind]


@pytest.mark.parametrize("protocol", FEW)
def test_an_adapter_holds_few_weights_and_finds_its_base(protocol, adapted, pretrained):
    out, (record,) = adapted(protocol, "shards")

    size, base = ((run / "model.safetensors").stat().st_size for run in (out, pretrained))
    assert size < base / 4  # of this tiny base; AST base's are a fiftieth and less
    weights = load_file(out / "model.safetensors")
    own = [name for name in weights if name.startswith("backbone.")]
    head = sum(value.numel() for name, value in weights.items() if name.startswith("head."))
    held = sum(weights[name].numel() for name in own)
    assert held + head == record["trainable"]
    told = json.loads((out / "config.json").read_text())["base"]
    assert told["run"] == str(pretrained) and len(told["sha256"]) == 64
    assert held < 0.5 * sum(v.numel() for v in load_file(pretrained / "model.safetensors").values())


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name not in FEW])
def test_other_protocols_hold_all(protocol, adapted, pretrained, tmp_path):
    out, _ = adapted(protocol, "shards")

    moved = shutil.copytree(out, tmp_path / "elsewhere")
    (moved / "predictions.npz").unlink()

    assert "base" not in json.loads((moved / "config.json").read_text())
    assert sslaudio.load_classifier(moved).classes == sslaudio.load_classifier(out).classes


def told_of_embed(run: Path, sound: Path, out: Path, capsys) -> list[str]:
    """The lines that one command says when it fails."""
    capsys.readouterr()
    assert main(["embed", "--checkpoint", str(run), "--out", str(out), str(sound)]) == 2
    return capsys.readouterr().err.strip().splitlines()


@pytest.mark.parametrize("protocol", FEW)
def test_a_base_that_is_gone_or_altered_is_one_line(
    protocol, made, pretrained, tmp_path, capsys, monkeypatch
):
    base = shutil.copytree(pretrained, tmp_path / "base")
    out, sound = tmp_path / "run", made("csv") / "hum0.wav"
    words = ["--task", "csv", "--protocol", protocol, *QUICK]
    finetune(base, made("csv"), out, *words)

    weights = load_file(base / "model.safetensors")
    weights["backbone.norm.weight"] += 1e-3
    save_file(weights, base / "model.safetensors")
    (altered,) = told_of_embed(out, sound, tmp_path / "e.npz", capsys)
    shutil.rmtree(base)
    (gone,) = told_of_embed(out, sound, tmp_path / "e.npz", capsys)

    assert "(other weights)" in altered and "(not there)" in gone
    for line in (altered, gone):
        assert f"{base}" in line and f"set ${BASE} to the run that has it" in line
    monkeypatch.setenv(BASE, str(pretrained))  # the cure that it names
    assert sslaudio.load_classifier(out).classes == ("buzz", "hum")
    embed = ["embed", "--checkpoint", str(out), "--out", str(tmp_path / "e.npz"), str(sound)]
    assert main(embed) == 0


def test_a_number_is_told_better_than_by_its_mean(made, pretrained, tmp_path):
    words = ["--task", "csv", "--protocol", "linear"]
    (record,) = finetune(pretrained, made("number"), tmp_path / "run", *words)

    assert record["test"] > 0.8 and record["figures"]["MAE"] < 0.15
