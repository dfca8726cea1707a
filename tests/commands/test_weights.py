"""``sslaudio weights``: in and out, against transformers itself, on real clips."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import sslaudio
from sslaudio.cli import main
from sslaudio.data.decode import decode
from sslaudio.training.checkpoint import checkpoints

RATE = 16_000
SMALL = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "max_length": 200, "num_labels": 5,
}  # fmt: skip


def hugging_face(folder: Path, classifies: bool = True, **settings) -> Path:
    """What transformers itself saves of a random model and its extractor."""
    config = transformers.ASTConfig(**{**SMALL, **settings})
    torch.manual_seed(3)
    kind = transformers.ASTForAudioClassification if classifies else transformers.ASTModel
    model = kind(config)
    for name, weight in model.named_parameters():  # a fresh start is too tame to show mistakes
        torch.nn.init.normal_(weight, mean=float("norm.weight" in name), std=0.3)
    model.save_pretrained(folder)
    transformers.ASTFeatureExtractor(
        max_length=config.max_length, num_mel_bins=config.num_mel_bins, mean=-5.1, std=3.3
    ).save_pretrained(folder)
    return folder


def bring(source: Path, out: Path, *words: str, kind: str = "hf") -> Path:
    given = ["weights", "import", "--from", kind, source, "--out", out, *words]
    assert main([str(word) for word in given]) == 0
    return out


def take(run: Path, out: Path) -> Path:
    assert (
        main(["weights", "export", "--to", "hf", "--checkpoint", str(run), "--out", str(out)]) == 0
    )
    return out


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    return hugging_face(tmp_path_factory.mktemp("hf") / "classifier")


@pytest.fixture(scope="module")
def run(classifier: Path, tmp_path_factory) -> Path:
    return bring(classifier, tmp_path_factory.mktemp("runs") / "classifier")


@pytest.fixture(scope="module")
def clips(real_sound: Path) -> list[np.ndarray]:
    """Real clips of 0.2 to 5 s."""
    patterns = {"fsdd": "*.flac", "speech_commands": "*/*.flac", "esc10": "*.ogg"}
    files = [
        file
        for corpus, pattern in patterns.items()
        for file in sorted((real_sound / corpus).rglob(pattern.rpartition("/")[2]))[:2]
    ]
    found = [decode(file, RATE) for file in files]
    lengths = {len(clip) for clip in found}
    assert min(lengths) < RATE and max(lengths) > 4 * RATE
    return [*found, found[-1][: 200 * 160 + 240], found[-1][:400]]


def theirs(folder: Path, clip: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, pooled output and logits of transformers."""
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    model = transformers.ASTForAudioClassification.from_pretrained(folder).eval()
    features = extractor(clip, sampling_rate=RATE, return_tensors="pt").input_values
    with torch.no_grad():
        pooled = model.audio_spectrogram_transformer(features).pooler_output
        return features[0].T, pooled[0], model(features).logits[0]


def ours(run: Path, clip: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sound = torch.from_numpy(clip)[None]
    encoder, scores = sslaudio.load(run), sslaudio.load_classifier(run)
    with torch.no_grad():
        pictures, _ = encoder.front_end(sound, torch.tensor([len(clip)]))
        return pictures[0], encoder(sound, RATE)[0], scores(sound, RATE)[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"frequency_stride": 12, "time_stride": 9, "max_length": 128},
        {"frequency_stride": 16, "time_stride": 20, "max_length": 150},  # frames left over
        {"hidden_size": 32, "num_attention_heads": 2, "qkv_bias": False, "num_mel_bins": 64},
        {"layer_norm_eps": 1e-3, "patch_size": 8, "frequency_stride": 9, "time_stride": 8},
    ],
)
def test_features_pooled_output_and_logits_are_theirs_and_the_way_back_is_the_same(
    settings, clips, tmp_path
):
    folder = hugging_face(tmp_path / "hf", **settings)
    run = bring(folder, tmp_path / "run")
    back = take(run, tmp_path / "back")

    for clip in clips:
        for made, expected in zip(ours(run, clip), theirs(folder, clip), strict=True):
            assert expected.abs().max() > 0.3  # silence too makes a picture and scores
            torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)
    before, after = (load_file(each / "model.safetensors") for each in (folder, back))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name in ("config.json", "preprocessor_config.json"):
        before, after = (json.loads((each / name).read_text()) for each in (folder, back))
        told = {"dtype", "torch_dtype", "transformers_version"}
        assert {key: after.get(key) for key in before.keys() - told} == {
            key: value for key, value in before.items() if key not in told
        }


def test_transformers_loads_an_export_whole(run, classifier, clips, tmp_path):
    back = take(run, tmp_path / "back")

    _, info = transformers.ASTForAudioClassification.from_pretrained(back, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(theirs(back, clips[0])[2], theirs(classifier, clips[0])[2])
    auto = transformers.AutoFeatureExtractor.from_pretrained(back)
    assert isinstance(auto, transformers.ASTFeatureExtractor) and auto.std == 3.3


def test_a_model_without_a_head_goes_in_and_out(clips, tmp_path):
    folder = hugging_face(tmp_path / "hf", classifies=False)
    run = bring(folder, tmp_path / "run")
    back = take(run, tmp_path / "back")

    model, info = transformers.ASTModel.from_pretrained(back, output_loading_info=True)
    extractor = transformers.ASTFeatureExtractor.from_pretrained(back)
    features = extractor(clips[0], sampling_rate=RATE, return_tensors="pt").input_values
    with torch.no_grad():
        pooled = model(features).pooler_output
        made = sslaudio.load(run)(torch.from_numpy(clips[0])[None], RATE)
    torch.testing.assert_close(made, pooled, atol=1e-4, rtol=0)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    before, after = (load_file(each / "model.safetensors") for each in (folder, back))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ValueError, match="has no head.*sslaudio finetune"):
        sslaudio.load_classifier(run)


@pytest.mark.parametrize("layout", ["in parts", "as pytorch_model.bin", "as in memory"])
def test_weights_saved_otherwise_are_the_same(layout, classifier, run, tmp_path):
    folder = tmp_path / "hf"
    model = transformers.ASTForAudioClassification.from_pretrained(classifier)
    model.save_pretrained(folder, max_shard_size="10KB")
    if layout != "in parts":
        for file in folder.glob("model*"):
            file.unlink()
        saved = load_file(classifier / "model.safetensors")
        torch.save(
            model.state_dict() if layout == "as in memory" else saved, folder / "pytorch_model.bin"
        )
    transformers.ASTFeatureExtractor.from_pretrained(classifier).save_pretrained(folder)

    other = bring(folder, tmp_path / "run")

    one, two = (load_file(each / "model.safetensors") for each in (run, other))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_name_on_the_hub_is_downloaded(classifier, run, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        return str(classifier)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    other = bring(Path("MIT/ast"), tmp_path / "run")

    one, two = (load_file(each / "model.safetensors") for each in (run, other))
    assert asked == ["MIT/ast"] and all(torch.equal(one[name], two[name]) for name in one)


def original(folder: Path) -> dict[str, torch.Tensor]:
    """Hugging Face's weights under the names of AST's authors: the table of their converter."""
    saved = load_file(folder / "model.safetensors")
    of = "audio_spectrogram_transformer."
    made = {
        "module.v.cls_token": saved[f"{of}embeddings.cls_token"],
        "module.v.dist_token": saved[f"{of}embeddings.distillation_token"],
        "module.v.pos_embed": saved[f"{of}embeddings.position_embeddings"],
    }
    for part in ("weight", "bias"):
        patches = saved[f"{of}embeddings.patch_embeddings.projection.{part}"]
        made[f"module.v.patch_embed.proj.{part}"] = patches
        made[f"module.v.norm.{part}"] = saved[f"{of}layernorm.{part}"]
        made[f"module.mlp_head.0.{part}"] = saved[f"classifier.layernorm.{part}"]
        made[f"module.mlp_head.1.{part}"] = saved[f"classifier.dense.{part}"]
        for block in range(2):
            layer = f"{of}encoder.layer.{block}"
            names = {
                "norm1": "layernorm_before", "norm2": "layernorm_after",
                "attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense",
                "mlp.fc2": "output.dense",
            }  # fmt: skip
            for name, name_there in names.items():
                made[f"module.v.blocks.{block}.{name}.{part}"] = saved[
                    f"{layer}.{name_there}.{part}"
                ]
            made[f"module.v.blocks.{block}.attn.qkv.{part}"] = torch.cat(
                [
                    saved[f"{layer}.attention.attention.{n}.{part}"]
                    for n in ("query", "key", "value")
                ]
            )
        made[f"module.v.head.{part}"] = made[f"module.v.head_dist.{part}"] = torch.zeros(3)
    return made


def test_the_original_layout_gives_the_same_outputs(classifier, clips, tmp_path):
    torch.save(original(classifier), tmp_path / "ast.pth")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["dog", "cat", "cow", "hen", "pig"]))

    run = bring(
        tmp_path / "ast.pth", tmp_path / "run", "--classes", names, "--backbone.heads", "3",
        "--backbone.stride", "10", "10", "--features.legacy_frames", "200",
        "--features.mean", "-5.1", "--features.std", "6.6", kind="ast",
    )  # fmt: skip

    assert sslaudio.load_classifier(run).classes == ("dog", "cat", "cow", "hen", "pig")
    for clip in clips:
        for made, expected in zip(ours(run, clip), theirs(classifier, clip), strict=True):
            torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)  # though eps differ


def test_audiosets_table_names_the_classes(classifier, tmp_path):
    torch.save(original(classifier), tmp_path / "ast.pth")
    table = tmp_path / "class_labels_indices.csv"
    rows = ['1,/m/2,"Male speech, man speaking"', "0,/m/1,Speech", "2,a,A", "3,b,B", "4,c,C"]
    table.write_text("\n".join(["index,mid,display_name", *rows]))
    flags = ["--backbone.heads", "3", "--backbone.stride", "10", "10"]
    flags += ["--features.legacy_frames", "200"]

    run = bring(tmp_path / "ast.pth", tmp_path / "run", *flags, "--classes", table, kind="ast")
    plain = bring(tmp_path / "ast.pth", tmp_path / "plain", *flags, kind="ast")

    assert sslaudio.load_classifier(run).classes[:2] == ("Speech", "Male speech, man speaking")
    assert sslaudio.load_classifier(plain).classes == ("0", "1", "2", "3", "4")


def test_a_run_says_where_it_is_from(run, classifier):
    import hashlib

    config = json.loads((run / "config.json").read_text())

    told = hashlib.sha256((classifier / "model.safetensors").read_bytes()).hexdigest()
    assert config["provenance"]["sha256"] == {"model.safetensors": told}
    assert config["provenance"]["from"] == "hf"
    assert config["provenance"]["source"] == str(classifier)
    assert config["classes"] == [f"LABEL_{number}" for number in range(5)]
    assert config["features"]["pad"] == "legacy" and config["features"]["legacy_frames"] == 200
    assert config["features"]["std"] == 6.6 and config["clip_frames"] == 200


def test_embed_says_which_files_are_cut(run, real_sound, tmp_path, capsys):
    long = sorted((real_sound / "esc10").rglob("*.ogg"))[0]
    short = sorted((real_sound / "fsdd").rglob("*.flac"))[0]
    words = ["embed", "--checkpoint", run, "--out", tmp_path / "e.npz", long, short]

    assert main([str(word) for word in words]) == 0

    told = capsys.readouterr().err
    assert f"only the beginning is embedded of {long}" in told and str(short) not in told
    assert "1 of 2 are longer than the 200 frames" in told
    with np.load(tmp_path / "e.npz") as stored:
        expected = theirs_pooled(run, decode(long, RATE))
        np.testing.assert_allclose(stored["embeddings"][0], expected, atol=1e-4)


def theirs_pooled(run: Path, clip: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return sslaudio.load(run)(torch.from_numpy(clip[: 200 * RATE // 100 + 240])[None])[
            0
        ].numpy()


@pytest.mark.parametrize("protocol", ["linear", "full"])
def test_an_import_is_fine_tuned_and_the_head_is_the_tasks(protocol, run, shards, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["finetune", "--task", "shards", "--root", shards, "--checkpoint", run, "--out", out]
    how = ["--protocol", protocol, "--training.epochs", "1"]

    assert main([str(word) for word in [*words, *how]]) == 0

    config = json.loads((out / "config.json").read_text())
    scores = sslaudio.load_classifier(out)
    assert config["head"] == {"kind": "linear"} and len(scores.classes) == 10
    sound = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weights = load_file(out / "model.safetensors")
        expected = sslaudio.load(out)(sound) @ weights["head.weight"].T + weights["head.bias"]
        torch.testing.assert_close(scores(sound), expected, atol=1e-4, rtol=1e-4)
    capsys.readouterr()
    back = take(out, tmp_path / "back")
    assert "the head is left out: it has no layer norm" in capsys.readouterr().err
    saved = json.loads((back / "config.json").read_text())
    assert saved["architectures"] == ["ASTModel"] and "id2label" not in saved
    transformers.ASTModel.from_pretrained(back)


PRETRAIN = ["--data.batch", "16", "--training.warmup_steps", "1", "--training.steps", "1"]


def test_an_import_is_pretrained_on_with_its_own_front_end(run, shards, tmp_path, capsys):
    words = ["pretrain", "--init", run, "--data.shards", shards, *PRETRAIN]
    given = [str(word) for word in words]
    out, other = tmp_path / "out", tmp_path / "other"

    assert main([*given, "--out", str(out)]) == 2  # overlapping patches would give away the hidden
    assert "set backbone.stride to none" in capsys.readouterr().err
    assert main([*given, "--out", str(out), "--backbone.stride", "none"]) == 0

    one, two = (json.loads((each / "config.json").read_text()) for each in (run, out))
    assert one["features"] == two["features"] and two["clip_frames"] == 200
    assert two["backbone"] == {**one["backbone"], "stride": None}
    flags = ["--backbone.stride", "none", "--features.pad", "masked", "--training.steps", "0"]
    at = given.index("--training.steps")
    assert main([*given[:at], *flags, "--out", str(other)]) == 0
    masked = json.loads((other / "config.json").read_text())
    assert masked["features"] == {**one["features"], "pad": "masked", "legacy_frames": None}
    before, after = (load_file(each / "model.safetensors") for each in (run, other))
    same = [name for name in after if name != "backbone.positions.table"]
    assert all(torch.equal(before[name], after[name]) for name in same)
    assert checkpoints(out)


def test_ssasts_heads_come_along_where_the_objective_fits(shards, tmp_path, capsys):
    run = bring(
        ssast_like(tmp_path / "ssast.pth"), tmp_path / "run", "--backbone.heads", "2", kind="ssast"
    )
    words = ["pretrain", "--init", run, "--data.shards", shards, *PRETRAIN[:4], "--training.steps",
             "0", "--out"]  # fmt: skip
    given = [str(word) for word in words]
    before = load_file(run / "model.safetensors")
    assert before["tell.fc1.weight"].shape == (32, 32)

    assert main([*given, str(tmp_path / "other")]) == 0
    told = capsys.readouterr().err
    assert "rebuild, tell are left out, objective.head_dim is 256 here and 32 there" in told
    fits = ["--objective.head_dim", "32", "--objective.activation", "relu"]
    at = given.index("--training.steps")
    assert main([*given[:at], *fits, *given[at:], str(tmp_path / "by_patch")]) == 0
    assert "add --objective.targets dataset to take them" in capsys.readouterr().err
    fits += ["--objective.targets", "dataset"]
    fits += ["--training.steps", "1", "--training.learning_rate", "1e-30"]
    assert main([*given[:at], *fits, "--out", str(tmp_path / "fits")]) == 0
    assert "rebuild, tell come along" in capsys.readouterr().err
    after = load_file(checkpoints(tmp_path / "fits")[-1] / "model.safetensors")
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=1e-6)
    embed = ["embed", "--checkpoint", run, "--out", tmp_path / "e.npz", sound_file(tmp_path)]
    assert main([str(word) for word in embed]) == 0


def ssast_like(path: Path) -> Path:
    """SSAST by patches, 32 wide, one block, pictures of 64 frames: as its authors save it."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "v.cls_token": (1, 1, 32), "v.dist_token": (1, 1, 32), "v.pos_embed": (1, 34, 32),
        "v.patch_embed.proj.weight": (32, 1, 16, 16), "mask_embed": (1, 1, 32),
        "v.blocks.0.attn.qkv.weight": (96, 32), "v.blocks.0.attn.proj.weight": (32, 32),
        "v.blocks.0.mlp.fc1.weight": (128, 32), "v.blocks.0.mlp.fc2.weight": (32, 128),
        "v.blocks.0.norm1.weight": (32,), "v.blocks.0.norm2.weight": (32,), "v.norm.weight": (32,),
        "cpredlayer.0.weight": (32, 32), "cpredlayer.2.weight": (256, 32),
        "gpredlayer.0.weight": (32, 32), "gpredlayer.2.weight": (256, 32),
    }  # fmt: skip
    biases = {
        name[:-6] + "bias": shape[:1] for name, shape in shapes.items() if name[-6:] == "weight"
    }
    state = {
        f"module.{name}": 0.2 * torch.randn(shape, generator=generator)
        for name, shape in {**shapes, **biases}.items()
    }
    for name, size in (("f", 128), ("t", 64)):
        number = torch.nn.Parameter(torch.tensor(size), requires_grad=False)
        state[f"module.p_input_{name}dim"] = number
    torch.save(state, path)
    return path


def sound_file(folder: Path) -> Path:
    import soundfile

    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE // 2)
    soundfile.write(folder / "noise.wav", noise, RATE)
    return folder / "noise.wav"


def test_a_timm_model_becomes_a_run(tmp_path, capsys):
    import timm

    model = timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False, depth=1)
    save_file(model.state_dict(), tmp_path / "deit.safetensors")

    run = bring(
        tmp_path / "deit.safetensors", tmp_path / "run", "--clip-seconds", "1",
        "--backbone.pooling", "cls", "mean", kind="timm",
    )  # fmt: skip

    encoder = sslaudio.load(run)
    assert encoder.dim == 2 * 192 and encoder.backbone.positions.grid == (12, 9)
    assert encoder.front_end.config.pad == "masked"
    assert "positions of 14 by 14 serve 12 by 9" in capsys.readouterr().err
    with torch.no_grad():
        assert torch.isfinite(encoder(torch.randn(1, RATE), RATE)).all()
    capsys.readouterr()
    take(run, tmp_path / "back")
    told = capsys.readouterr().err
    assert "features.pad is masked here" in told and "pooling cls mean here" in told


def refused(words: list[object], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def changed(folder: Path, name: str, key: str, value: object) -> None:
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, key: value}))


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("config.json", "model_type", "vit", "is of model_type 'vit'"),
        ("config.json", "hidden_act", "relu", "hidden_act 'relu'"),
        ("config.json", "max_length", 300, "does not fit together: max_length is 200"),
        ("config.json", "num_hidden_layers", 3, "looked for 'encoder.layer.2"),
        ("preprocessor_config.json", "num_mel_bins", 64, "has 64 mel bins, config.json 128"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(
    name, key, value, said, classifier, tmp_path, capsys
):
    folder = tmp_path / "hf"
    folder.mkdir()
    for file in classifier.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    changed(folder, name, key, value)
    capsys.readouterr()

    refused(["weights", "import", "--from", "hf", folder, "--out", tmp_path / "run"], said, capsys)
    assert not (tmp_path / "run").exists()


Case = Callable[[Path, Path, Path], list[object]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (lambda hf, run, new: ["import", "--from", "hf", hf, "--out", run], "is there already"),
        (lambda hf, run, new: ["import", "--from", "ast", hf / "model.safetensors", "--out", new],
         "it looks like --from hf"),
        (lambda hf, run, new: ["import", "--from", "timm", hf / "model.safetensors", "--out", new],
         "it looks like --from hf"),
        (lambda hf, run, new: ["import", "--from", "hf", hf / "model.safetensors", "--out", new],
         "takes a folder with config.json"),
        (lambda hf, run, new: ["import", "--from", "hf", hf.parent, "--out", new],
         "holds no config.json"),
        (lambda hf, run, new: ["import", "--from", "ast", new / "no.pth", "--out", new],
         "there is no file"),
        (lambda hf, run, new: ["import", "--from", "hf", hf, "--out", new, "--frames", "100"],
         "are of --from timm"),
        (lambda hf, run, new: ["import", "--from", "hf", hf, "--out", new, "--classes", new],
         "there is no file --classes"),
        (lambda hf, run, new: ["import", "--from", "hf", hf, "--out", new, "--backbone.hads", "3"],
         "did you mean backbone.heads"),
        (lambda hf, run, new: ["import", "--from", "hf", hf, "--out", new, "--backbone.dim", "48"],
         "does not fit this model"),
        (lambda hf, run, new: ["import", "--from", "hf", hf, "--out", new, "--features.kind",
                               "librosa"], "set features.mean and features.std"),
        (lambda hf, run, new: ["import", "--from", "torch", hf, "--out", new], "choose from"),
        (lambda hf, run, new: ["export", "--to", "hf", "--checkpoint", hf / "no", "--out", new],
         "does not exist"),
        (lambda hf, run, new: ["export", "--to", "hf", "--checkpoint", run, "--out", hf],
         "is there already"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(words: Case, said, classifier, run, tmp_path, capsys):
    capsys.readouterr()
    given = ["weights", *words(classifier, run, tmp_path / "new")]
    try:
        refused(given, said, capsys)
    except SystemExit as exit:  # the parser's own
        assert exit.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("room", "key", "value", "said"),
    [
        ("features", "f_min_hz", 60.0, "features.f_min_hz 60.0"),
        ("features", "hop_samples", 100, "features.hop_samples 100"),
        ("features", "kind", "librosa", "features.kind librosa"),
        ("backbone", "patch", [16, 8], "backbone.patch 16 8"),
        ("backbone", "prefix_tokens", 1, "backbone.prefix_tokens 1"),
    ],
)
def test_what_their_classes_cannot_say_is_refused(room, key, value, said, run, tmp_path, capsys):
    other = tmp_path / "run"
    other.mkdir()
    for file in run.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((run / "config.json").read_text())
    changed(other, "config.json", room, {**config[room], key: value})
    words = ["weights", "export", "--to", "hf", "--checkpoint", other, "--out", tmp_path / "new"]
    capsys.readouterr()

    refused(words, said, capsys)


def test_a_run_of_ours_goes_out_with_the_same_tokens_for_clips_of_its_length(
    shards, tmp_path, capsys
):
    run = tmp_path / "run"
    words = ["pretrain", "--config", "demo", "--data.shards", shards, "--training.steps", "0"]
    asts = ["--backbone.patch", "16", "16", "--backbone.prefix_tokens", "2"]
    words += [*asts, "--backbone.pooling", "cls", "--out", run]
    assert main([str(word) for word in words]) == 0
    capsys.readouterr()

    back = take(run, tmp_path / "back")

    told = capsys.readouterr().err
    assert "features.pad is masked here" in told and "cuts every clip to 96 frames" in told
    clip = 0.1 * np.random.default_rng(0).standard_normal(240 + 96 * 160).astype("f4")
    extractor = transformers.ASTFeatureExtractor.from_pretrained(back)
    features = extractor(clip, sampling_rate=RATE, return_tensors="pt").input_values
    with torch.no_grad():
        expected = transformers.ASTModel.from_pretrained(back)(features).pooler_output
        made = sslaudio.load(run)(torch.from_numpy(clip)[None])
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)


def test_nothing_is_written_into_an_imported_run(run, shards, capsys):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    pretrain = ["pretrain", "--config", "demo", "--data.shards", shards, "--out", run]
    finetune = ["finetune", "--task", "shards", "--root", shards, "--checkpoint", run, "--out", run]

    for words in (pretrain, finetune):
        assert main([str(word) for word in words]) == 2
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backbone.stride", "0", "0"], "backbone.stride is (0, 0); both are at least 1"),
        (["--backbone.stride", "10"], "backbone.stride is [10]: give 2 values"),
        (["--backbone.stride", "a", "b"], "backbone.stride is ['a', 'b']"),
        (["--backbone.key_stride", "x"], "backbone.key_stride is 'x'"),  # MAST's, by its name
        (["--clip-seconds", "inf"], "--clip-seconds is inf; it is above 0"),
        (["--features.sample_rate", "0"], "features.sample_rate is 0 Hz; it is above 0"),
    ],
)
def test_a_leaf_that_cannot_be_is_refused_before_weights_are_read(words, said, tmp_path, capsys):
    given = ["weights", "import", "--from", "timm", "absent", "--out", tmp_path / "run", *words]

    refused(given, said, capsys)


def test_a_size_that_the_weights_are_not_of_is_refused(classifier, tmp_path, capsys):
    given = ["weights", "import", "--from", "hf", classifier, "--out", tmp_path / "run"]

    refused([*given, "--backbone.size", "tiny"], "backbone.size is tiny, but the weights", capsys)


def test_rows_that_the_weights_were_not_made_on_are_said(classifier, tmp_path, capsys):
    bring(classifier, tmp_path / "run", "--features.mel_bins", "64")

    assert "pictures have 64 rows, and the weights and statistics" in capsys.readouterr().err
