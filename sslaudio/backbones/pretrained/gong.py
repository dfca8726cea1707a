"""The ``.pth`` files of AST and SSAST as their authors publish them.

Both are state dicts of a ``DataParallel``: names start with ``module.``, those of the vision
transformer with ``v.``; ``mlp_head`` is a classifier's, ``cpredlayer`` and ``gpredlayer`` are
SSAST's heads. Sizes of grid and pictures are not told, but for SSAST's.

Source: YuanGongND/ast, src/models/ast_models.py and src/run.py (mean and deviation);
YuanGongND/ssast, src/models/ast_models.py.
"""

from typing import Any

from torch import Tensor

from sslaudio.backbones.pretrained.base import (
    AUDIOSET,
    ESC50,
    SHARED,
    SPEECH_COMMANDS,
    Asked,
    Head,
    Pretrained,
    State,
    demand,
    encoder_weights,
    pair,
    places,
    prefix_weights,
    statistics_note,
    vit_fields,
)

Pair = tuple[int, int]
STRIDES = (10, 12, 14, 16)
"""That AST was published with, alike on both axes."""
FRAMES = {1024: AUDIOSET, 512: ESC50, 128: SPEECH_COMMANDS}
"""Widths that AST was published with, and the statistics that go with each."""
CLASSES = {527: AUDIOSET, 50: ESC50, 35: SPEECH_COMMANDS}
"""Classes that AST was published with, and the statistics that go with them."""
CORPORA = {AUDIOSET: "AudioSet", ESC50: "ESC-50", SPEECH_COMMANDS: "Speech Commands"}
NORM_EPS, HEAD_NORM_EPS = 1e-6, 1e-5
UNUSED = ("v.head.", "v.head_dist.")
"""ImageNet's heads, which AST keeps and never uses."""
VIT = ("v.cls_token", "v.pos_embed", "v.patch_embed.proj.weight", "v.blocks.0.attn.qkv.weight")


def ast(state: State, asked: Asked, source: str) -> Pretrained:
    """AST's ``.pth``, or that of a fine-tuned SSAST, which is laid out alike.

    Args:
        state: with or without ``module.`` before the names.
        asked: of the backbone, stride and heads are read; of the features, bins,
            ``legacy_frames``, mean and std.
        source: for messages.

    Raises:
        ValueError: these are no such weights, or stride and width cannot be told from them.
    """
    state = _bare(state)
    demand(state, VIT, "ast", source)
    if "cpredlayer.0.weight" in state:
        raise ValueError(f"{source} holds SSAST's heads (cpredlayer); import it with --from ssast")
    weights = _vit(state)
    fields = vit_fields(weights, asked.backbone.get("heads"))
    patch, bins = pair(fields["patch"]), asked.bins
    count = state["v.pos_embed"].shape[1] - fields["prefix_tokens"]
    stride, frames = _laid(count, patch, bins, asked, source)
    head = _head(state)
    mean, std, told = _statistics(frames, head)
    by_frames = patch[0] == bins
    notes = [f"{count} positions: stride {stride[0]} {stride[1]}, pictures of {frames} frames"]
    notes += statistics_note(told, asked)
    if by_frames:
        notes.append("patches as high as the picture are SSAST's: pooled by mean, as it fine-tunes")
    return Pretrained(
        _with_positions(weights, state, patch[1], stride[1], frames),
        {
            **fields,
            "stride": list(stride),
            "whole_patches": True,
            "norm_eps": NORM_EPS,
            "positions": "legacy_cut",
            "pooling": ["mean"] if by_frames else ["cls"],
        },
        _features(mean, std, bins, frames),
        frames,
        head,
        notes=(*notes, *_left(state, ("mlp_head.",))),
    )


def ssast(state: State, asked: Asked, source: str) -> Pretrained:
    """SSAST's pretrained ``.pth``, by patches or by frames, with the heads of its two losses.

    Raises:
        ValueError: these are no such weights.
    """
    state = _bare(state)
    if "cpredlayer.0.weight" not in state and VIT[2] in state:
        raise ValueError(
            f"{source} holds no cpredlayer, SSAST's head: it is AST's or a fine-tuned SSAST; "
            f"import it with --from ast (a fine-tuned SSAST by patches: --backbone.pooling mean)"
        )
    heads = [f"{layer}.{part}" for layer in HEADS for part in ("0.weight", "2.weight")]
    wanted = (*VIT, "mask_embed", *heads, "p_input_fdim", "p_input_tdim")
    demand(state, wanted, "ssast", source)
    bins, frames = int(state["p_input_fdim"]), int(state["p_input_tdim"])
    weights = _vit(state)
    weights["mask_token"] = state["mask_embed"].float()
    fields = vit_fields(weights, asked.backbone.get("heads"))
    patch = pair(fields["patch"])
    mean, std = AUDIOSET
    known = ("mask_embed", "p_input_", *(f"{layer}." for layer in HEADS))
    return Pretrained(
        _with_positions(weights, state, patch[1], patch[1], frames),
        {
            **fields,
            "stride": list(patch),
            "whole_patches": True,
            "norm_eps": NORM_EPS,
            "positions": "legacy_cut",
            "pooling": ["mean"],
        },
        _features(mean, std, bins, frames),
        frames,
        objective={
            "name": "masked_patch",
            "head_dim": len(state["cpredlayer.0.weight"]),
            "activation": "relu",
            "targets": "dataset",
        },
        objective_weights={
            f"{ours}.{layer}.{part}": state[f"{theirs}.{number}.{part}"].float()
            for theirs, ours in HEADS.items()
            for number, layer in ((0, "fc1"), (2, "fc2"))
            for part in ("weight", "bias")
        },
        notes=(*statistics_note("AudioSet's", asked), *_left(state, known)),
    )


HEADS = {"cpredlayer": "tell", "gpredlayer": "rebuild"}
"""SSAST's heads and the objective's: of the contrastive loss, and of the squared error."""


def _bare(state: State) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in state.items()}


def _vit(state: State) -> dict[str, Tensor]:
    own = {name.removeprefix("v."): value for name, value in state.items() if name[:2] == "v."}
    tokens = [own[name] for name in ("cls_token", "dist_token") if name in own]
    return {**encoder_weights(own), **prefix_weights(tokens, own["pos_embed"])}


def _with_positions(
    weights: dict[str, Tensor], state: State, patch: int, stride: int, frames: int
) -> dict[str, Tensor]:
    columns = (frames - patch) // stride + 1
    table = state["v.pos_embed"][0, weights["prefix"].shape[1] :].float()
    return {**weights, "positions.table": table.unflatten(0, (-1, columns))}


def _laid(count: int, patch: Pair, bins: int, asked: Asked, source: str) -> tuple[Pair, int]:
    """Stride and frames of a grid of ``count`` places."""
    usual = [(step, step) for step in STRIDES] if patch == (16, 16) else [patch, (patch[0], 1)]
    if "stride" in asked.backbone:
        usual = [pair(asked.backbone["stride"] or patch)]
    width = asked.features.get("legacy_frames")
    fitting = [
        (step, frames)
        for step in usual
        for frames in ([width] if width else FRAMES)
        if places(bins, frames, patch, step) == count
    ]
    if not fitting:
        tried = [f"{step[0]} {step[1]}" for step in usual]
        raise ValueError(
            f"{source} has {count} positions, which no grid of {bins} bins has with stride "
            f"{' or '.join(tried)} and {width or '1024, 512 or 128'} frames; say what it was "
            f"trained with: --backbone.stride BINS FRAMES --features.legacy_frames N"
        )
    return fitting[0]


def _statistics(frames: int, head: Head | None) -> tuple[float, float, str]:
    """Mean and deviation that go with the classes, else with the width; and what to say."""
    classes = len(head.weights["bias"]) if head else None
    if classes in CLASSES:
        chosen, why = CLASSES[classes], f"for {classes} classes"
    else:
        chosen, why = FRAMES.get(frames, AUDIOSET), f"for {frames} frames"
    return *chosen, f"{CORPORA[chosen]}'s, {why}"


def _head(state: State) -> Head | None:
    names = {"0.weight": "norm.weight", "0.bias": "norm.bias", "1.weight": "weight"}
    names["1.bias"] = "bias"
    if not all(f"mlp_head.{theirs}" in state for theirs in names):
        return None
    return Head(
        {ours: state[f"mlp_head.{theirs}"].float() for theirs, ours in names.items()},
        HEAD_NORM_EPS,
    )


def _features(mean: float, std: float, bins: int, frames: int) -> dict[str, Any]:
    return {
        "mel_bins": bins,
        "mean": mean,
        "std": 2 * std,
        "pad": "legacy",
        "legacy_frames": frames,
    }


def _left(state: State, known: tuple[str, ...]) -> list[str]:
    """What to say of weights that have no place."""
    aside = ("v.cls_token", "v.dist_token", "v.pos_embed", *known, *UNUSED)
    rest = [
        name
        for name in state
        if not SHARED.fullmatch(name.removeprefix("v.")) and not name.startswith(aside)
    ]
    notes = ["ImageNet's unused heads are left out"] if any(map(_is_unused, state)) else []
    return notes + ([f"left out: {', '.join(sorted(rest))}"] if rest else [])


def _is_unused(name: str) -> bool:
    return name.startswith(UNUSED)
