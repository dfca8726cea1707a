"""MViTv2 of timm to MAST: stages in one row, colours summed, stem and tables fitted to the picture.

Source: timm/models/mvitv2.py, whose names these are; Ghosh et al. 2022 (SS-MAST,
arXiv:2211.01515), section 2, whose encoder starts from them. Its code would put the 7 by 7 stem in
place of the 16 by 16 one as it is, with gaps between the patches; ours resizes it.
"""

import re
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sslaudio.backbones import mast
from sslaudio.backbones.positions import between, source
from sslaudio.backbones.pretrained.base import AUDIOSET, Asked, Pretrained, State, demand, pair

STEM = "patch_embed.proj.weight"
BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")
TABLE = re.compile(r"rel_pos_[hw]$")


def convert(state: State, asked: Asked, origin: str) -> Pretrained:
    """MAST with the weights of an MViTv2.

    Args:
        state: timm's names.
        asked: of the backbone, the stem and ``key_stride`` are read; of the features, bins and
            width.
        origin: for messages.

    Raises:
        ValueError: the model is none of MAST's sizes, or has parts that MAST lacks.
    """
    demand(state, (STEM, "stages.0.blocks.0.norm1.weight", "norm.weight"), "timm", origin)
    depths = _depths(state)
    fields = _fields(state, depths, asked, origin)
    bins = asked.bins
    frames = asked.width
    config = mast.Config(
        **{key: _plain(value) for key, value in fields.items() if key not in ("name", "pooling")}
    )
    here = mast.build(config, bins, frames).state_dict()
    weights = {
        _ours(name, depths): value.float()
        for name, value in state.items()
        if not name.startswith("head.")
    }
    _check(weights, here, origin)
    weights["stem.weight"] = resized_kernel(
        weights["stem.weight"].sum(dim=1, keepdim=True), config.stem_patch
    )
    weights |= {
        name: resized_table(value, len(here[name]))
        for name, value in weights.items()
        if name.endswith(".table")
    }
    weights["mask_token"] = torch.zeros(here["mask_token"].shape)
    mean, std = AUDIOSET
    return Pretrained(
        weights,
        fields,
        {"mean": mean, "std": std, "pad": "masked"},
        frames,
        notes=tuple(_notes(state, config, frames)),
    )


def _depths(state: State) -> list[int]:
    """Blocks of each stage."""
    found = [BLOCK.match(name) for name in state]
    places = {(int(one[1]), int(one[2])) for one in found if one}
    stages = 1 + max(stage for stage, _ in places)
    return [sum(stage == one for one, _ in places) for stage in range(stages)]


def _fields(state: State, depths: list[int], asked: Asked, origin: str) -> dict[str, Any]:
    """Fields of MAST's ``Config``."""
    dim = len(state[STEM])
    heads = dim // len(state["stages.0.blocks.0.attn.norm_q.weight"])
    shape = mast.Size(dim, heads, tuple(depths))
    sizes = {size: name for name, size in mast.SIZES.items()}
    if shape not in sizes or "cls_token" in state:
        cls = " and a cls token" if "cls_token" in state else ""
        raise ValueError(
            f"{origin} has a first dim of {dim}, {heads} heads, {'/'.join(map(str, depths))} "
            f"blocks{cls}; MAST has tiny (96, 1, 1/2/5/2), small (1/2/11/2) and base (2/3/16/3), "
            f"without cls: give mvitv2_tiny, mvitv2_small or mvitv2_base"
        )
    fields: dict[str, Any] = {
        "name": "mast",
        "size": sizes[shape],
        "expand": "mlp" if any("shortcut_proj_mlp" in name for name in state) else "attention",
        "mlp_ratio": len(state["stages.0.blocks.0.mlp.fc1.weight"]) / dim,
        "pooling": ["mean"],
    }
    for key in ("stem_patch", "stem_stride", "stem_padding"):
        if asked.backbone.get(key) is not None:
            fields[key] = list(pair(asked.backbone[key]))
    if asked.backbone.get("key_stride") is not None:
        fields["key_stride"] = int(asked.backbone["key_stride"])
    return fields


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _ours(name: str, depths: list[int]) -> str:
    """Our name: blocks counted through."""
    found = BLOCK.match(name)
    if found:
        block = sum(depths[: int(found[1])]) + int(found[2])
        name = f"blocks.{block}.{name[found.end() :]}"
    return TABLE.sub(lambda table: f"{table[0]}.table", name.replace("patch_embed.proj.", "stem."))


def _check(weights: State, here: State, origin: str) -> None:
    """Refuse weights that are not all of a MAST's, or more."""
    wanted = set(here) - {"mask_token"}
    for name in sorted(wanted ^ set(weights)):
        what = f"has {name!r}" if name in weights else f"lacks {name!r}"
        raise ValueError(
            f"{origin} {what}, which MAST {'has not' if name in weights else 'needs'}; give "
            f"mvitv2_tiny, mvitv2_small or mvitv2_base as timm saves them"
        )


def _notes(state: State, config: mast.Config, frames: int) -> list[str]:
    high, wide = state[STEM].shape[2:]
    stem = f"colours of the stem are summed; it is {high} by {wide}"
    if config.stem_patch != (high, wide):
        stem += f", resized to {config.stem_patch[0]} by {config.stem_patch[1]}"
    return [
        stem,
        f"tables of relative positions are resized to {frames} frames",
        "features.mean and features.std are AudioSet's: pictures of deviation 1, as ImageNet's",
        "ImageNet's classes are left out",
    ]


def resized_kernel(
    kernel: Float[Tensor, "dim colours high wide"], size: tuple[int, int]
) -> Float[Tensor, "dim colours high2 wide2"]:
    """A kernel for patches of another size, each axis by itself.

    To a patch that is stretched linearly to the new size it answers as before; where the new size
    is smaller, it answers to a patch as the old one does to that patch stretched. So a flat
    patch gets the same answer.

    Source of the first: Beyer et al. 2023 (FlexiViT, arXiv:2212.08013), section 3.4.
    """
    rows, columns = (_map(there, here) for there, here in zip(kernel.shape[2:], size, strict=True))
    return (rows @ kernel.double() @ columns.T).to(kernel.dtype)


def _map(there: int, here: int) -> Float[Tensor, "here there"]:
    if here < there:
        return _stretch(here, there).T
    return torch.linalg.pinv(_stretch(there, here).T)


def _stretch(there: int, here: int) -> Float[Tensor, "here there"]:
    """Linear interpolation as a matrix, outer borders on each other."""
    return resized_table(torch.eye(there, dtype=torch.float64), here)


def resized_table(
    table: Float[Tensor, "entries width"], entries: int
) -> Float[Tensor, "entries2 width"]:
    """A table of so many entries, linearly between those there are, as timm resizes its own.

    Source: ``checkpoint_filter_fn`` in timm/models/mvitv2.py, for pictures of another size.
    """
    count = torch.tensor([entries])
    return between(table, source(torch.arange(entries), count, len(table), "all").to(table))[0]
