"""Files of weights, read as tensors alone: safetensors, or what torch loads without unpickling.

In:  a file, a folder as ``save_pretrained`` writes it, or a name on the Hugging Face hub.
Out: names to tensors; which files they came from, with their SHA-256.
"""

import hashlib
import json
import pickle
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Of a folder, the better first; either may be cut up, with an index beside it."""
WRAPPINGS = ("model", "state_dict", "model_state_dict")
"""Keys under which training scripts keep the weights."""


TORN = (
    AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip
"""What torch answers a file with that it did not write."""


class Read(NamedTuple):
    """Weights with where they are from."""

    state: dict[str, Tensor]
    sha256: dict[str, str]
    """Of every file of weights, by its name."""


def read_file(path: Path) -> Read:
    """Read one file of weights.

    Raises:
        ValueError: it is absent, damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the path of a file of weights")
    state = _safe(path) if path.suffix == ".safetensors" else _torch(path)
    return Read(state, {path.name: sha256(path)})


def read_folder(folder: Path) -> Read:
    """Read the weights of a folder as ``save_pretrained`` writes it, whole or cut up.

    Raises:
        ValueError: there are none; says what was looked for.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return read_file(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = sorted(set(_index(index).values()))
            read = [read_file(folder / part) for part in parts]
            return Read(
                {key: value for one in read for key, value in one.state.items()},
                {key: value for one in read for key, value in one.sha256.items()},
            )
    looked = ", ".join([*WEIGHTS, *(f"{name}.index.json" for name in WEIGHTS)])
    raise ValueError(f"{folder} holds no weights: looked for {looked}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Raises:
        ValueError: it is absent or no JSON mapping.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} holds no {path.name}; it is part of the model") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no mapping of settings; copy it again")
    return content


def from_hub(name: str) -> Path:
    """The folder of a model on the Hugging Face hub, downloaded once: settings and weights.

    Raises:
        ValueError: there is no such model, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    for kinds in (["*.json", "*.safetensors"], ["*.json", "*.bin"]):
        try:
            folder = Path(snapshot_download(name, allow_patterns=kinds))
        except (OSError, ValueError) as error:
            told = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"{name} is no file or folder here and cannot be had from the Hugging Face hub "
                f"({told}); check the name, or download it where there is a network"
            ) from error
        if any(folder.glob(kinds[1])):
            return folder
    raise ValueError(f"the model {name} on the Hugging Face hub has no weights for PyTorch")


def is_hub_name(text: str) -> bool:
    """Whether ``text`` may be ``owner/model``."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None and not text.startswith(".")


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _safe(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again") from error


def _torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no file of tensors alone ({str(error).strip().partition('.')[0]}); nothing "
            f"is unpickled here: save its state dict where you trust it"
        ) from error
    except TORN as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} is damaged or no file of torch.save ({reason})") from error
    for key in WRAPPINGS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds a {type(content).__name__}, no state dict")
    return {str(name): value.detach() for name, value in content.items() if torch.is_tensor(value)}


def _index(path: Path) -> dict[str, str]:
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not all(_is_plain(name) for name in names.values()):
        raise ValueError(f"{path} has no weight_map of files beside it; copy it again")
    return names


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name
