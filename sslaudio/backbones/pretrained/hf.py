"""Hugging Face's ``ASTModel`` and ``ASTForAudioClassification``, in and out, without transformers.

In:  a folder with ``config.json``, ``preprocessor_config.json`` and weights, or a name on the hub.
Out: our weights and settings; and the other way, the same three.

Source: transformers' models/audio_spectrogram_transformer: its classes compute what AST computes,
with 1e-12 added to every variance and a fixed length, of which padding is attended.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslaudio.backbones.ast import Config
from sslaudio.backbones.base import Grid
from sslaudio.backbones.positions import fit
from sslaudio.backbones.pretrained import files
from sslaudio.backbones.pretrained.base import (
    AUDIOSET,
    HF_PREFIX,
    Head,
    Pretrained,
    State,
    demand,
    places,
    prefix_weights,
    vit_fields,
)

MODEL_TYPE = "audio-spectrogram-transformer"
SETTINGS, EXTRACTOR = "config.json", "preprocessor_config.json"
OUTER = {"embeddings.patch_embeddings.projection": "patch_embed.proj", "layernorm": "norm"}
BLOCK = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
QKV = ("query", "key", "value")
HEAD = {
    "classifier.layernorm.weight": "norm.weight",
    "classifier.layernorm.bias": "norm.bias",
    "classifier.dense.weight": "weight",
    "classifier.dense.bias": "bias",
}
NEWER = {
    r"^layers\.(\d+)\.": r"encoder.layer.\1.",
    r"\.attention\.q_proj\.": ".attention.attention.query.",
    r"\.attention\.k_proj\.": ".attention.attention.key.",
    r"\.attention\.v_proj\.": ".attention.attention.value.",
    r"\.attention\.o_proj\.": ".attention.output.dense.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}
"""Names that transformers 5 has in memory, and those it saves under, as 4 does."""
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "patch_size": 16,
    "qkv_bias": True,
    "frequency_stride": 10,
    "time_stride": 10,
    "max_length": 1024,
    "num_mel_bins": 128,
}
"""What ``ASTConfig`` takes where ``config.json`` is silent."""
EXTRACTOR_DEFAULTS: dict[str, Any] = {
    "sampling_rate": 16_000,
    "num_mel_bins": 128,
    "max_length": 1024,
    "do_normalize": True,
    "mean": AUDIOSET[0],
    "std": AUDIOSET[1],
}
"""What ``ASTFeatureExtractor`` takes where its file is silent."""


def read(source: str) -> tuple[files.Read, dict[str, Any], dict[str, Any] | None]:
    """Weights, settings and the extractor's of a folder or a name on the hub.

    Raises:
        ValueError: something is missing; says what was looked for.
    """
    path = Path(source)
    if path.is_file():
        raise ValueError(
            f"{source} is a file; --from hf takes a folder with {SETTINGS}, {EXTRACTOR} and "
            f"{files.WEIGHTS[0]}, or a name on the hub (.pth files: --from ast, ssast or timm)"
        )
    if not path.is_dir():
        if not files.is_hub_name(source):
            raise ValueError(f"there is no folder {source}, and it is no owner/model of the hub")
        path = files.from_hub(source)
    settings = files.read_json(path / SETTINGS)
    if settings.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"{path / SETTINGS} is of model_type {settings.get('model_type')!r}; --from hf takes "
            f"{MODEL_TYPE!r}, which ASTModel and ASTForAudioClassification save"
        )
    there = (path / EXTRACTOR).is_file()
    return files.read_folder(path), settings, files.read_json(path / EXTRACTOR) if there else None


def convert(
    state: State,
    settings: Mapping[str, Any],
    extractor: Mapping[str, Any] | None,
    source: str,
) -> Pretrained:
    """Our AST with these weights.

    Args:
        state: as ``save_pretrained`` of either class writes it.
        settings: of ``config.json``.
        extractor: of ``preprocessor_config.json``; None where there is none.
        source: for messages.

    Raises:
        ValueError: a weight is missing, or something is set that AST has not.
    """
    state = {_older(name.removeprefix(HF_PREFIX)): value for name, value in state.items()}
    told = {**DEFAULTS, **{key: value for key, value in settings.items() if value is not None}}
    heard_by = {**EXTRACTOR_DEFAULTS, "max_length": told["max_length"]}
    heard_by["num_mel_bins"] = told["num_mel_bins"]
    heard_by |= {key: value for key, value in (extractor or {}).items() if value is not None}
    patch = _patch(told, source)
    stride = (told["frequency_stride"], told["time_stride"])
    _check(told, heard_by, patch, stride, source)
    names = dict(_names(told["num_hidden_layers"], told["qkv_bias"]))
    wanted = [*names, "embeddings.cls_token", "embeddings.distillation_token"]
    demand(state, [*wanted, "embeddings.position_embeddings"], "hf", source)
    weights: dict[str, Tensor] = {}
    for theirs, ours in names.items():  # query, key, value follow one another
        value = state[theirs].float()
        weights[ours] = torch.cat([weights[ours], value]) if ours in weights else value
    tokens = [state["embeddings.cls_token"], state["embeddings.distillation_token"]]
    positions = state["embeddings.position_embeddings"]
    weights |= prefix_weights(tokens, positions)
    rows = (told["num_mel_bins"] - patch[0]) // stride[0] + 1
    weights["positions.table"] = positions[0, len(tokens) :].float().unflatten(0, (rows, -1))
    width = heard_by["max_length"]
    known = {*wanted, "embeddings.position_embeddings", *HEAD}
    head = {ours: state[theirs].float() for theirs, ours in HEAD.items() if theirs in state}
    return Pretrained(
        weights,
        {
            **vit_fields(weights, told["num_attention_heads"]),
            "stride": list(stride),
            "whole_patches": True,
            "norm_eps": told["layer_norm_eps"],
            "positions": "legacy_cut",
            "pooling": ["cls"],
        },
        _features(heard_by, width),
        width,
        Head(head, told["layer_norm_eps"]) if len(head) == len(HEAD) else None,
        _classes(told, len(head["bias"])) if len(head) == len(HEAD) else (),
        notes=tuple(_notes(state, known, extractor)),
    )


def _names(depth: int, qkv_bias: bool) -> Iterator[tuple[str, str]]:
    """Their names and ours, the tokens and positions aside; three of theirs make one ``qkv``."""
    for part in ("weight", "bias"):
        for theirs, ours in OUTER.items():
            yield f"{theirs}.{part}", f"{ours}.{part}"
        for block in range(depth):
            layer = f"encoder.layer.{block}"
            for theirs, ours in BLOCK.items():
                yield f"{layer}.{theirs}.{part}", f"blocks.{block}.{ours}.{part}"
            for third in QKV if part == "weight" or qkv_bias else ():
                name = f"{layer}.attention.attention.{third}.{part}"
                yield name, f"blocks.{block}.attn.qkv.{part}"


def _older(name: str) -> str:
    for newer, older in NEWER.items():
        name = re.sub(newer, older, name)
    return name


def _patch(told: Mapping[str, Any], source: str) -> tuple[int, int]:
    sizes = told["patch_size"] if isinstance(told["patch_size"], list) else [told["patch_size"]]
    if len(set(sizes)) != 1:
        raise ValueError(f"{source} has patch_size {sizes}; its class has square patches alone")
    return sizes[0], sizes[0]


def _check(
    told: Mapping[str, Any],
    heard_by: Mapping[str, Any],
    patch: tuple[int, int],
    stride: tuple[int, int],
    source: str,
) -> None:
    dim, heads = told["hidden_size"], told["num_attention_heads"]
    if told["hidden_act"] != "gelu":
        raise ValueError(
            f"{source} has hidden_act {told['hidden_act']!r}; our blocks have gelu alone"
        )
    if told.get("head_dim", dim // heads) * heads != dim:
        raise ValueError(f"{source} has head_dim {told['head_dim']}; ours is {dim} over {heads}")
    bins = told["num_mel_bins"]
    if heard_by["num_mel_bins"] != bins:
        raise ValueError(
            f"{source} does not fit together: {EXTRACTOR} has {heard_by['num_mel_bins']} mel bins, "
            f"{SETTINGS} {bins}"
        )
    grids = [places(bins, one["max_length"], patch, stride) for one in (told, heard_by)]
    if grids[0] != grids[1] or not grids[0]:
        raise ValueError(
            f"{source} does not fit together: max_length is {heard_by['max_length']} in "
            f"{EXTRACTOR} and {told['max_length']} in {SETTINGS}, {grids[1]} and {grids[0]} patches"
        )


def _features(heard_by: Mapping[str, Any], frames: int) -> dict[str, Any]:
    rate = heard_by["sampling_rate"]
    features = {
        "mel_bins": heard_by["num_mel_bins"],
        "mean": float(heard_by["mean"]) if heard_by["do_normalize"] else 0.0,
        "std": 2 * float(heard_by["std"]) if heard_by["do_normalize"] else 1.0,
        "pad": "legacy",
        "legacy_frames": frames,
    }
    if rate != 16_000:
        of_rate = {"window_samples": rate * 25 // 1000, "hop_samples": rate * 10 // 1000}
        features |= {"sample_rate": rate, **of_rate, "f_max_hz": rate / 2}
    return features


def _classes(told: Mapping[str, Any], count: int) -> tuple[str, ...]:
    names = {int(number): str(name) for number, name in told.get("id2label", {}).items()}
    return tuple(names.get(number, f"LABEL_{number}") for number in range(count))


def _notes(state: State, known: set[str], extractor: Mapping[str, Any] | None) -> Iterator[str]:
    if extractor is None:
        yield f"there is no {EXTRACTOR}: mean and deviation are AudioSet's, its class's defaults"
    rest = sorted(set(state) - known)
    if rest:
        yield f"left out: {', '.join(rest)}"


def weights_out(weights: State, config: Config, grid: Grid, head: Head | None) -> dict[str, Tensor]:
    """Our weights under their names: an ``ASTForAudioClassification``'s with a head, else an
    ``ASTModel``'s.

    Args:
        weights: of the backbone.
        config: the backbone's, with two tokens before the patches.
        grid: to fit the positions to.
        head: of a classifier; its norm is theirs.
    """
    prefix = HF_PREFIX if head else ""
    out: dict[str, Tensor] = {}
    for theirs, ours in _names(config.shape.depth, config.qkv_bias):
        third = next((n for n, one in enumerate(QKV) if f".attention.{one}." in theirs), None)
        value = weights[ours]
        out[prefix + theirs] = value if third is None else value.chunk(3)[third]
    tokens = weights["prefix"]
    for number, name in enumerate(("cls_token", "distillation_token")):
        out[f"{prefix}embeddings.{name}"] = tokens[:, number : number + 1]
    table = fit(weights["positions.table"], grid, config.positions).flatten(0, 1)[None]
    first = weights.get("prefix_positions", torch.zeros_like(tokens))
    out[f"{prefix}embeddings.position_embeddings"] = torch.cat([first, table], dim=1)
    if head:
        out |= {theirs: head.weights[ours] for theirs, ours in HEAD.items()}
    return {name: value.contiguous() for name, value in out.items()}


def settings_out(
    config: Config, bins: int, frames: int, classes: tuple[str, ...] | None
) -> dict[str, Any]:
    """The ``config.json`` for such weights.

    Args:
        config: the backbone's.
        bins: rows of the pictures.
        frames: their width.
        classes: of the head; None without one.
    """
    stride = config.stride or config.patch
    dim, heads, depth = config.shape
    settings = {
        "architectures": ["ASTModel" if classes is None else "ASTForAudioClassification"],
        "model_type": MODEL_TYPE,
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": round(dim * config.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": config.norm_eps,
        "patch_size": config.patch[0],
        "qkv_bias": config.qkv_bias,
        "frequency_stride": stride[0],
        "time_stride": stride[1],
        "max_length": frames,
        "num_mel_bins": bins,
        "torch_dtype": "float32",
    }
    if classes is not None:
        settings["id2label"] = {str(number): name for number, name in enumerate(classes)}
        settings["label2id"] = {name: number for number, name in enumerate(classes)}
    return settings


def extractor_out(
    mean: float, std: float, bins: int, frames: int, sample_rate: int
) -> dict[str, Any]:
    """The ``preprocessor_config.json`` for such pictures; ``std`` is what we divide by."""
    return {
        "feature_extractor_type": "ASTFeatureExtractor",
        "feature_size": 1,
        "do_normalize": True,
        "mean": mean,
        "std": std / 2,
        "max_length": frames,
        "num_mel_bins": bins,
        "sampling_rate": sample_rate,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
