"""Files of weights: nothing is unpickled, and what is wrong is told."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sslaudio.backbones.pretrained import files


class Trap:
    """Unpickling it leaves a file."""

    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def test_what_is_more_than_tensors_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.zeros(1), "more": Trap()}, tmp_path / "trap.pth")

    with pytest.raises(ValueError, match="nothing is unpickled"):
        files.read_file(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_parts_are_joined_by_their_index(tmp_path):
    parts = {"a-1.safetensors": {"one": torch.ones(2)}, "a-2.safetensors": {"two": torch.zeros(3)}}
    for name, tensors in parts.items():
        save_file(tensors, tmp_path / name)
    names = {key: name for name, tensors in parts.items() for key in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))

    read = files.read_folder(tmp_path)

    assert read.state.keys() == {"one", "two"} and read.sha256.keys() == parts.keys()


def test_an_index_reaches_no_file_elsewhere(tmp_path):
    names = {"weight_map": {"one": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(names))

    with pytest.raises(ValueError, match="files beside it"):
        files.read_folder(tmp_path)


@pytest.mark.parametrize("name", ["torn.pth", "torn.safetensors"])
def test_a_damaged_file_is_named(name, tmp_path):
    (tmp_path / name).write_bytes(b"torn")

    with pytest.raises(ValueError, match=name):
        files.read_file(tmp_path / name)


def test_a_folder_without_weights_tells_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"looked for model.safetensors, pytorch_model.bin"):
        files.read_folder(tmp_path)


def test_the_sum_is_sha256s(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the standard's own example, FIPS 180-2

    assert files.sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")
