"""Every task plug-in keeps the room's promises, on a miniature of what it reads."""

from dataclasses import is_dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslaudio import plugins
from sslaudio.data import shards
from sslaudio.data.corpora import folder
from sslaudio.tasks.base import PARTS, Task


def sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(400)), 8_000)


def speechcommands(root: Path) -> Path:
    parts = {"aaaaaaaa": None, "bbbbbbbb": "validation", "cccccccc": "testing"}
    for word in ("yes", "no", "visual"):
        for speaker, part in parts.items():
            sound(root / word / f"{speaker}_nohash_0.wav")
            if part:
                with (root / f"{part}_list.txt").open("a") as names:
                    names.write(f"{word}/{speaker}_nohash_0.wav\n")
    return root


def fsdd(root: Path) -> Path:
    for digit in (0, 7):
        for speaker in ("ada", "bob"):
            for take in range(8):
                sound(root / "recordings" / f"{digit}_{speaker}_{take}.wav")
    return root


def esc50(root: Path) -> Path:
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in (1, 2, 3):
        for target, category in ((0, "dog"), (10, "rain")):
            name = f"{fold}-{fold}{target}-A-{target}.wav"
            sound(root / "audio" / name)
            lines.append(f"{name},{fold},{target},{category},True,{fold}{target},A")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return root


def shards_(root: Path) -> Path:
    for label in ("hum", "buzz"):
        for clip in range(4):
            sound(root / "sounds" / label / f"{clip}.wav")
    clips = folder.build(folder.Config(label="parent"), root / "sounds")
    shards.build(clips, root / "shards", corpus="folder", jobs=1)
    return root / "shards"


MINIATURES = {
    "speechcommands": speechcommands,
    "fsdd": fsdd,
    "esc50": esc50,
    "shards": shards_,
}


@pytest.fixture(params=plugins.names("tasks"))
def built(request, tmp_path) -> tuple[str, Task]:
    name = request.param
    assert name in MINIATURES, f"write a miniature for task {name} in tests/contracts/test_tasks.py"
    module = plugins.load("tasks", name)
    return name, module.build(module.Config(), MINIATURES[name](tmp_path))


def test_a_task_bears_its_plugins_name(built):
    name, task = built

    assert task.name == name
    assert is_dataclass(plugins.load("tasks", name).Config)
    assert task.seconds > 0
    assert task.split_rule


def test_classes_are_sorted_and_targets_are_in_range(built):
    _, task = built

    assert list(task.classes) == sorted(set(task.classes))
    for fold in task.folds:
        for examples in fold.parts().values():
            assert {example.target for example in examples} <= set(range(len(task.classes)))


def test_no_clip_is_in_two_parts(built):
    _, task = built

    for fold in task.folds:
        keys = {part: [example.key for example in fold.parts()[part]] for part in PARTS}
        assert all(len(held) == len(set(held)) > 0 for held in keys.values())
        assert all(not set(keys[one]) & set(keys[other]) for one, other in combinations(PARTS, 2))


def test_folds_are_named_uniquely(built):
    _, task = built

    names = [fold.name for fold in task.folds]
    assert names
    assert len(names) == len(set(names))


def test_every_clip_can_be_heard(built):
    _, task = built

    waveform = task.folds[0].test[0].waveform(16_000)

    assert waveform.dtype == np.float32
    assert len(waveform) == 800


def test_building_again_gives_the_same_task(built, tmp_path):
    name, task = built
    module = plugins.load("tasks", name)

    root = tmp_path / "shards" if name == "shards" else tmp_path

    assert module.build(module.Config(), root) == task


def test_another_folder_is_refused_with_the_cure(tmp_path):
    for name in plugins.names("tasks"):
        module = plugins.load("tasks", name)
        with pytest.raises(ValueError, match=r"set --root|sslaudio shards build"):
            module.build(module.Config(), tmp_path / "absent")
