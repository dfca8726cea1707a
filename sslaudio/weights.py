"""The verb ``sslaudio weights``: others' weights in, as a RUN like any other, and ours out.

    sslaudio weights import --from hf MIT/ast-finetuned-audioset-10-10-0.4593 --out runs/ast
    sslaudio weights export --to hf --checkpoint runs/ast --out ast-hf
    sslaudio weights merge --checkpoint RUN2 --out RUN3     an adapter folded into its base

What a source does not tell is assumed and said; a leaf of features or backbone sets it otherwise.
"""

import argparse
import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from sslaudio import config as configs
from sslaudio import models, plugins
from sslaudio import recipe as recipes
from sslaudio.backbones import ast
from sslaudio.backbones.patches import Cutter
from sslaudio.backbones.pretrained import files, gong, hf, timm
from sslaudio.backbones.pretrained.base import Asked, Head, Pretrained
from sslaudio.features import front_end
from sslaudio.training import runs, storage
from sslaudio.training.environment import environment
from sslaudio.training.report import say, speak

SOURCES = {
    "hf": "a folder of ASTModel or ASTForAudioClassification with its extractor, or a hub name",
    "ast": "AST's .pth (also a fine-tuned SSAST's)",
    "ssast": "SSAST's pretrained .pth, by patches or frames, with its heads",
    "timm": "a model name of timm, a file or folder of its weights, or a hub name",
}
"""What ``--from`` may be, and what SOURCE is then."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own verbs and their flags."""
    verbs = parser.add_subparsers(dest="weights_verb", required=True, metavar="VERB")
    into = verbs.add_parser(
        "import",
        help="make a RUN of weights from elsewhere; nothing is unpickled",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="SOURCE is, for --from\n"
        + "\n".join(f"  {name:6s}{text}" for name, text in SOURCES.items())
        + "\n\nLeaves of features and backbone may follow SOURCE, where it does not tell or to\n"
        "have it otherwise: --backbone.stride 10 10, --backbone.positions resized,\n"
        "--backbone.pooling cls mean, --features.legacy_frames 998, --features.mean -4.27.",
    )
    into.add_argument("--from", dest="kind", choices=SOURCES, required=True, help="whose layout")
    into.add_argument("source", metavar="SOURCE", help="see below")
    into.add_argument("--out", type=Path, required=True, metavar="RUN", help="a new folder")
    into.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="names of the head's classes in order: one a line, or AudioSet's "
        "class_labels_indices.csv (else the model's own, or numbers)",
    )
    width = into.add_mutually_exclusive_group()
    width.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="timm: width of the pictures that positions are laid out for (1024)",
    )
    width.add_argument(
        "--clip-seconds", type=float, metavar="S", help="timm: the same in seconds of sound"
    )
    out = verbs.add_parser(
        "export", help="write a RUN as other libraries read it", allow_abbrev=False
    )
    out.add_argument(
        "--to", choices=("hf",), required=True, help="Hugging Face's ASTForAudioClassification"
    )
    out.add_argument("--checkpoint", type=Path, required=True, metavar="RUN")
    out.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    whole = verbs.add_parser(
        "merge",
        help="fold an adapter into its base: one RUN that needs no other",
        allow_abbrev=False,
    )
    whole.add_argument("--checkpoint", type=Path, required=True, metavar="RUN")
    whole.add_argument("--out", type=Path, required=True, metavar="RUN2", help="a new folder")


def main(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Do what the verb says; gives the exit status."""
    speak()
    out = arguments.out
    runs.check_out(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"--out {out} is there already and not empty; give another")
    if arguments.weights_verb == "import":
        return _import(arguments, flags)
    if flags:
        verb = f"weights {arguments.weights_verb}"
        raise ValueError(f"{verb} takes no {flags[0]}; see sslaudio {verb} --help")
    if arguments.weights_verb == "merge":
        return _merge(arguments.checkpoint, out)
    return _export(arguments.checkpoint, out)


class Found(NamedTuple):
    """Imported weights and the files they are from."""

    pretrained: Pretrained
    sha256: dict[str, str]


def _import(arguments: argparse.Namespace, flags: list[str]) -> int:
    asked = _asked(arguments, flags)
    found = READERS[arguments.kind](arguments.source, asked)
    pretrained = found.pretrained
    config = models.model_config(_model(pretrained, asked), pretrained.clip_frames, {})
    encoder = models.build_encoder(config)
    models.fill_backbone(encoder.backbone, _named("backbone", pretrained.weights), arguments.source)
    weights = _named("backbone", encoder.backbone.state_dict()) | pretrained.objective_weights
    notes = list(pretrained.notes)
    there = configs.build(front_end.Config, pretrained.features, "features").bins
    if encoder.backbone.bins != there:
        notes.append(
            f"pictures have {encoder.backbone.bins} rows, and the weights and statistics were made "
            f"on {there}: positions are resized, mean and deviation may not fit"
        )
    classes: tuple[str, ...] = ()
    head = pretrained.head
    if head is not None and head.weights["weight"].shape[1] != encoder.dim:
        notes.append(
            f"the head is left out: it takes {head.weights['weight'].shape[1]} numbers, and "
            f"backbone.pooling {' '.join(encoder.pooling)} gives {encoder.dim}"
        )
        head = None
    if head is not None:
        classes, told = _classes(arguments.classes, pretrained.classes, len(head.weights["bias"]))
        notes += told
        weights |= _named("head", head.weights)
        config |= {"classes": list(classes), "head": {"norm_eps": head.norm_eps}}
    elif arguments.classes is not None:
        raise ValueError(f"--classes {arguments.classes}, but there is no head; leave it out")
    if pretrained.objective is not None:
        config["objective"] = pretrained.objective
        heads = sorted({name.split(".")[0] for name in pretrained.objective_weights})
        notes.append(f"pretraining's heads {', '.join(heads)}: pretrain --init takes them")
    config["provenance"] = {
        "from": arguments.kind,
        "source": arguments.source,
        "sha256": found.sha256,
        **environment(),
    }
    runs.save_weights(arguments.out, weights, config)
    for note in notes:
        say(note)
    millions = sum(weight.numel() for weight in encoder.backbone.parameters()) / 1e6
    say(
        f"done: {arguments.out}, {config['backbone']['name']} of {millions:.2f} M weights, "
        f"pictures of {encoder.backbone.bins} by {pretrained.clip_frames}, "
        f"pad {config['features']['pad']}, embeddings of {encoder.dim}"
        f"{f', {len(classes)} classes' if classes else ''}\n"
        f"  use: sslaudio embed --checkpoint {arguments.out} --out FILE.npz PATH"
    )
    return 0


def _asked(arguments: argparse.Namespace, flags: list[str]) -> Asked:
    """What the flags set, and nothing else."""
    name = _backbone_of(flags)
    given = configs.parse_flags(flags, recipes.Model, {"features": {}, "backbone": {"name": name}})
    said = dict(given["backbone"])
    name = said.pop("name")
    backbone = configs.typed(plugins.load("backbones", name).Config, said, "backbone")
    for key in ("patch", "stride", "stem_patch", "stem_stride"):
        if backbone.get(key) is not None and min(backbone[key]) < 1:
            raise ValueError(f"backbone.{key} is {backbone[key]}; both are at least 1")
    if name != "ast" or any(flag.partition("=")[0] == "--backbone" for flag in flags):
        backbone["name"] = name
    frames = arguments.frames
    aside = ("pad", "legacy_frames", "mean", "std")
    shown = {key: value for key, value in given["features"].items() if key not in aside}
    features = configs.build(front_end.Config, shown, "features")
    if arguments.clip_seconds is not None:
        if not 0 < arguments.clip_seconds < 86_400:
            raise ValueError(
                f"--clip-seconds is {arguments.clip_seconds:g}; it is above 0, and at most a day"
            )
        frames = features.frames(round(arguments.clip_seconds * features.sample_rate))
    if frames is not None and arguments.kind != "timm":
        raise ValueError(
            f"--frames and --clip-seconds are of --from timm; weights of {arguments.kind} have a "
            f"width of their own (--features.legacy_frames N says it where it cannot be told)"
        )
    if frames is not None and frames < 1:
        raise ValueError(f"--frames is {frames}; it is at least 1")
    return Asked(backbone, given["features"], features.bins, frames)


def _backbone_of(flags: list[str]) -> str:
    """The backbone whose leaves the flags are: AST, but for those that it has not."""
    words = (flag.partition("=")[0] for flag in flags)
    leaves = {word.removeprefix("--backbone.") for word in words if word.startswith("--backbone.")}
    for name in ("ast", *plugins.names("backbones")):
        if leaves <= set(dict(configs.leaves_of(plugins.load("backbones", name).Config, {}))):
            return name
    return "ast"


def _hf(source: str, asked: Asked) -> Found:
    read, settings, extractor = hf.read(source)
    return Found(hf.convert(read.state, settings, extractor, source), read.sha256)


def _pth(convert: Callable[..., Pretrained]) -> Callable[[str, Asked], Found]:
    def found(source: str, asked: Asked) -> Found:
        read = files.read_file(Path(source))
        return Found(convert(read.state, asked, source), read.sha256)

    return found


def _timm(source: str, asked: Asked) -> Found:
    read = timm.read(source)
    return Found(timm.convert(read.state, asked, source), read.sha256)


READERS = {"hf": _hf, "ast": _pth(gong.ast), "ssast": _pth(gong.ssast), "timm": _timm}


def _model(pretrained: Pretrained, asked: Asked) -> recipes.Model:
    """Front end and backbone of the source, what was asked for on top.

    Raises:
        ValueError: the source's statistics are asked to serve another kind of picture.
    """
    name = pretrained.backbone["name"]
    if asked.backbone.get("name", name) != name:
        raise ValueError(f"--backbone is {asked.backbone['name']}, but these weights are of {name}")
    if "size" in asked.backbone and "dim" in pretrained.backbone:
        raise ValueError(
            f"backbone.size is {asked.backbone['size']}, but the weights are of no named size: "
            f"{pretrained.backbone['dim']} wide, {pretrained.backbone['depth']} blocks; "
            f"leave it out"
        )
    features = recipes.features_over(pretrained.features, asked.features)
    backbone = {**pretrained.backbone, **asked.backbone}
    model = configs.build(recipes.Model, {"features": features, "backbone": backbone})
    if model.features.kind != "kaldi" and not {"mean", "std"} <= set(asked.features):
        raise ValueError(
            f"features.kind is {model.features.kind}, but mean and deviation are of kind kaldi; "
            f"set features.mean and features.std too (sslaudio stats measures them)"
        )
    return model


def _named(room: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{room}.{name}": value for name, value in weights.items()}


def _classes(
    file: Path | None, own: tuple[str, ...], count: int
) -> tuple[tuple[str, ...], list[str]]:
    """Names of ``count`` classes, and what to say of them."""
    if file is None:
        told = [] if own else [f"{count} classes are named by number; --classes FILE names them"]
        return own or tuple(map(str, range(count))), told
    names = read_classes(file)
    if len(names) != count:
        raise ValueError(f"{file} names {len(names)} classes, but the head has {count}")
    return names, []


def read_classes(file: Path) -> tuple[str, ...]:
    """Class names, one a line, or the ``display_name`` of a table with ``index``.

    Raises:
        ValueError: the file is absent, or a name stands there twice.
    """
    if not file.is_file():
        raise ValueError(f"there is no file --classes {file}")
    lines = file.read_text(encoding="utf-8").splitlines()
    if lines and {"index", "display_name"} <= set(next(csv.reader(lines[:1]))):
        rows = sorted(csv.DictReader(lines), key=lambda row: int(row["index"]))
        names = tuple(row["display_name"] for row in rows)
    else:
        names = tuple(line.strip() for line in lines if line.strip())
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{file} names {sorted(twice)[0]!r} twice; give every class its own name")
    return names


def _merge(run: Path, out: Path) -> int:
    """Write an adapted RUN as one that holds all its weights."""
    config = runs.read_config(run)
    if "base" not in config:
        raise ValueError(
            f"{run} holds all its weights already: only runs of adapters (lora, bitfit) are merged"
        )
    weights = models.backbone_weights(run)
    kept = {key: value for key, value in config.items() if key not in ("base", "adapter")}
    runs.save_weights(out, weights, {**kept, "merged": {"adapter": config["adapter"]}})
    say(f"done: {out}, {config['adapter']['name']} folded into its base")
    return 0


def _export(run: Path, out: Path) -> int:
    config, weights = runs.read_config(run), models.backbone_weights(run)
    model = configs.build(
        recipes.Model, {key: config[key] for key in ("features", "backbone")}, str(run)
    )
    _check_fits(model, run)
    backbone: ast.Config = model.backbone.config
    features = model.features
    encoder = models.build_encoder(config)
    models.fill_backbone(encoder.backbone, weights, str(run))
    cutter: Cutter = encoder.backbone.cutter
    clip_frames = features.legacy_frames or config["clip_frames"]
    frames = _length(cutter, clip_frames)
    head, why = _head(config, weights, backbone)
    classes = tuple(config["classes"]) if head else None
    tensors = hf.weights_out(
        encoder.backbone.state_dict(), backbone, cutter.grid(clip_frames), head
    )
    assert features.mean is not None and features.std is not None
    extractor = hf.extractor_out(
        features.mean, features.std, features.bins, frames, features.sample_rate
    )
    storage.save_tensors(out / files.WEIGHTS[0], tensors, {"format": "pt"})
    storage.write_json(out / hf.EXTRACTOR, extractor)
    storage.write_json(out / hf.SETTINGS, hf.settings_out(backbone, features.bins, frames, classes))
    for note in [*why, *_differences(model, head, clip_frames, frames)]:
        say(f"warning: {note}")
    name = "ASTForAudioClassification" if head else "ASTModel"
    say(f"done: {out}, for transformers.{name}.from_pretrained and ASTFeatureExtractor")
    return 0


def _check_fits(model: recipes.Model, run: Path) -> None:
    """Refuse what Hugging Face's classes cannot say.

    Raises:
        ValueError: names the setting.
    """
    if model.backbone.name != "ast":
        raise ValueError(
            f"{run} holds backbone {model.backbone.name}; Hugging Face's class is AST alone"
        )
    backbone: ast.Config = model.backbone.config
    if backbone.patch[0] != backbone.patch[1]:
        raise ValueError(
            f"{run} has backbone.patch {backbone.patch[0]} {backbone.patch[1]}; Hugging Face's AST "
            f"has square patches alone"
        )
    if backbone.prefix_tokens != 2:
        raise ValueError(
            f"{run} has backbone.prefix_tokens {backbone.prefix_tokens}; Hugging Face's AST has 2, "
            f"cls and distillation"
        )
    features = model.features
    if features.mean is None:
        raise ValueError(f"{run} has no features.mean and features.std; its config.json is damaged")
    rate = features.sample_rate
    theirs = {
        "kind": "kaldi",
        "window_samples": rate * 25 // 1000,
        "hop_samples": rate * 10 // 1000,
        "f_min_hz": 20.0,
        "f_max_hz": rate / 2,
        "preemphasis": 0.97,
    }
    ours = {"kind": features.kind, "hop_samples": features.hop_samples}
    ours |= features.settings._asdict()
    for key, value in theirs.items():
        if ours[key] != value:
            raise ValueError(
                f"{run} has features.{key} {ours[key]}; Hugging Face's extractor has {value}, and "
                f"only mel_bins, mean and deviation may be set there"
            )


def _length(cutter: Cutter, frames: int) -> int:
    """Frames of the pictures that a convolution cuts into as many columns as we do."""
    if cutter.stride[1] < cutter.patch[1] or cutter.whole_only:
        return max(frames, cutter.patch[1])
    return cutter.patch[1] + (cutter.columns(frames) - 1) * cutter.stride[1]


def _head(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], backbone: ast.Config
) -> tuple[Head | None, list[str]]:
    """The head as Hugging Face's class has it, or why there is none."""
    own = {
        name.removeprefix("head."): value
        for name, value in weights.items()
        if name.startswith("head.")
    }
    if not own:
        return None, []
    if "norm.weight" not in own:
        reason = "it has no layer norm, and theirs always has"
    elif backbone.pooling != ("cls",) or backbone.pooled_block is not None:
        reason = f"it reads backbone.pooling {' '.join(backbone.pooling)}, and theirs cls alone"
    else:
        return Head(own, config["head"]["norm_eps"]), []
    return None, [f"the head is left out: {reason}"]


def _differences(
    model: recipes.Model, head: Head | None, clip_frames: int, frames: int
) -> list[str]:
    """What Hugging Face's classes will compute otherwise."""
    backbone: ast.Config = model.backbone.config
    told = []
    if model.features.pad == "masked":
        told.append(
            f"features.pad is masked here; Hugging Face cuts every clip to {frames} frames or pads "
            f"it, and attends the padding: clips of other lengths get other outputs there"
        )
    if frames != clip_frames:
        told.append(f"max_length is {frames}, so that whole patches fill it")
    if backbone.pooling != ("cls",) or backbone.pooled_block is not None:
        block = f" of block {backbone.pooled_block}" if backbone.pooled_block else ""
        told.append(
            f"an embedding is backbone.pooling {' '.join(backbone.pooling)}{block} here; their "
            f"pooler_output is the mean of the two tokens after the last block"
        )
    if head and head.norm_eps != backbone.norm_eps:
        told.append(
            f"the head's norm adds {head.norm_eps:g} to a variance here; they have one "
            f"layer_norm_eps, {backbone.norm_eps:g}"
        )
    return told
