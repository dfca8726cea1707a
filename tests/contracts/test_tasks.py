"""Every task plug-in keeps the room's promises, on a miniature of what it reads."""

from dataclasses import is_dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from miniatures import make, sounds

from sslaudio import plugins
from sslaudio.data import shards
from sslaudio.data.corpora import folder
from sslaudio.tasks.base import PARTS, Task, classes_of


def shards_(root: Path) -> Path:
    for label in ("hum", "buzz"):
        sounds(root, *(f"sounds/{label}/{clip}.wav" for clip in range(4)))
    clips = folder.build(folder.Config(label="parent"), root / "sounds")
    shards.build(clips, root / "shards", corpus="folder", jobs=1)
    return root / "shards"


def csv_(root: Path) -> Path:
    names = [f"{label}{clip}.wav" for label in ("hum", "buzz") for clip in range(4)]
    sounds(root, *names)
    lines = ["path,label", *(f"{name},{name[:3]}" for name in names)]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


OWN = {"shards": shards_, "csv": csv_}
"""Tasks that read no corpus of one name: what makes a miniature for them."""


def miniature(name: str, root: Path) -> Path:
    if name in OWN:
        return OWN[name](root)
    return make(plugins.load("tasks", name).CORPUS, root)


@pytest.fixture(params=plugins.names("tasks"))
def built(request, tmp_path) -> tuple[str, Task]:
    name = request.param
    module = plugins.load("tasks", name)
    return name, module.build(module.Config(), miniature(name, tmp_path))


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
            told = {target for example in examples for target in classes_of(example.target)}
            assert told <= set(range(len(task.classes)))


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
    assert len(waveform) >= 800


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


def test_shards_of_a_corpus_give_the_same_task(built, tmp_path, tmp_path_factory):
    name, task = built
    module = plugins.load("tasks", name)
    if module.CORPUS is None:
        pytest.skip("reads what it is given")
    corpus = plugins.load("corpora", module.CORPUS)
    out = tmp_path_factory.mktemp("shards") / "made"
    clips = corpus.build(corpus.Config(), tmp_path)

    shards.build(clips, out, corpus=module.CORPUS, jobs=1)

    from_shards = module.build(module.Config(), out)
    assert from_shards.classes == task.classes
    for fold, other in zip(task.folds, from_shards.folds, strict=True):
        for part in PARTS:
            told = [(one.key, one.target) for one in fold.parts()[part]]
            assert sorted(told) == sorted((one.key, one.target) for one in other.parts()[part])
    assert len(from_shards.folds[0].test[0].waveform(16_000)) >= 800
