"""Vision transformers of timm to AST: DeiT with its distillation token, and plain ViT.

Source: Gong et al. 2021 (AST, arXiv:2104.01778), section 2.2, and its code,
src/models/ast_models.py: colours summed, the tokens before the patches and their positions kept,
the square of positions fitted to the log-mel's grid.
"""

from math import isqrt

from torch import Tensor

from sslaudio.backbones.patches import Cutter
from sslaudio.backbones.positions import Rule, fit
from sslaudio.backbones.pretrained.base import (
    AUDIOSET,
    Asked,
    Pretrained,
    State,
    encoder_weights,
    pair,
    prefix_weights,
    statistics_note,
    vit_fields,
)

STRIDE = (10, 10)
"""AST's."""
TOKENS = ("cls_token", "dist_token")
IMAGENET_HEADS = ("head.", "head_dist.", "pre_logits.")


def convert(state: State, asked: Asked, source: str) -> Pretrained:
    """AST with the weights of a ViT or DeiT.

    Args:
        state: timm's names.
        asked: of the backbone, stride, positions and heads are read; of the features, bins and
            width.
        source: for messages.

    Raises:
        ValueError: the model has parts that AST lacks, or its positions are no square.
    """
    weights = encoder_weights(state)
    tokens = [state[name] for name in TOKENS if name in state]
    known = {*weights, *TOKENS, "pos_embed"}
    strange = [name for name in state if name not in known and not name.startswith(IMAGENET_HEADS)]
    if strange or "pos_embed" not in state or not tokens:
        what = f"has {strange[0]!r}" if strange else "lacks cls_token or pos_embed"
        raise ValueError(
            f"{source} {what}, which AST does not fit; give a DeiT with distillation token or a "
            f"plain ViT, such as deit_base_distilled_patch16_384"
        )
    colours = weights["patch_embed.proj.weight"]
    weights["patch_embed.proj.weight"] = colours.sum(dim=1, keepdim=True)
    weights |= prefix_weights(tokens, state["pos_embed"])
    fields = vit_fields(weights, asked.backbone.get("heads"))
    stride = pair(asked.backbone.get("stride", STRIDE) or fields["patch"])
    rule: Rule = asked.backbone.get("positions", "legacy_cut")
    bins = asked.bins
    frames = asked.width
    square = _square(state["pos_embed"].float(), len(tokens), source)
    grid = Cutter(pair(fields["patch"]), stride, bins).grid(frames)
    weights["positions.table"] = fit(square, grid, rule)
    mean, std = AUDIOSET
    side = len(square)
    return Pretrained(
        weights,
        {**fields, "stride": list(stride), "positions": rule, "pooling": ["cls"]},
        {"mean": mean, "std": 2 * std, "pad": "masked"},
        frames,
        notes=(
            f"colours are summed; positions of {side} by {side} serve {grid.rows} by "
            f"{grid.columns} (backbone.positions {rule})",
            *statistics_note("AudioSet's, as AST sets them", asked),
            "ImageNet's classes are left out",
        ),
    )


def _square(positions: Tensor, tokens: int, source: str) -> Tensor:
    """Positions of the patches as [side, side, dim]."""
    count = positions.shape[1] - tokens
    side = isqrt(max(0, count))
    if side * side != count or not side:
        raise ValueError(
            f"{source} has {positions.shape[1]} positions for {tokens} tokens and a square of "
            f"patches, which {count} are not; give a model of one square image size"
        )
    return positions[0, tokens:].unflatten(0, (side, side))
