"""Weights of timm's models: found by name, file or folder; what they are is told by their names."""

import difflib
from pathlib import Path

from sslaudio.backbones.pretrained import deit, files, mvit
from sslaudio.backbones.pretrained.base import Asked, Pretrained, State, demand


def read(source: str) -> files.Read:
    """Weights of ``source``: a file, a folder, ``owner/model`` on the hub, or timm's model name.

    Raises:
        ValueError: none of these is there; says what was looked for.
    """
    path = Path(source)
    if path.is_file():
        return files.read_file(path)
    if path.is_dir():
        return files.read_folder(path)
    if path.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        raise ValueError(f"there is no file {path}; give the path of a file of weights")
    return files.read_folder(files.from_hub(_hub_name(source)))


def convert(state: State, asked: Asked, source: str) -> Pretrained:
    """The backbone that these weights are of.

    Raises:
        ValueError: they are of none that we have.
    """
    if any(name.startswith("stages.") for name in state):
        return mvit.convert(state, asked, source)
    demand(state, ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight"), "timm", source)
    return deit.convert(state, asked, source)


def _hub_name(source: str) -> str:
    name = source.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if files.is_hub_name(name):
        return name
    import timm

    known = timm.get_pretrained_cfg(name) if timm.is_model(name.partition(".")[0]) else None
    if known is None or not known.hf_hub_id:
        near = difflib.get_close_matches(
            name, timm.list_models(["*deit*", "mvitv2*"]) or [name], n=1, cutoff=0
        )
        raise ValueError(
            f"{source} is no file, folder, owner/model of the Hugging Face hub or model of timm; "
            f"did you mean {near[0]}?"
        )
    return str(known.hf_hub_id)
