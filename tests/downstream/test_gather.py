"""Two processes share a fold: every clip is scored once, and both end with one model."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import distributed

from sslaudio import plugins
from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream.gather import gathered, share
from sslaudio.downstream.supervised import Config, fit
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd
from sslaudio.tasks.base import PARTS, Example, Fold, Task

KEYS = ["e", "b", "d", "a", "c"]
HERTZ = (440.0, 1_760.0)
SETTINGS = {
    "full": {"mixup": "wave", "batch": 6},
    "attentive": {"epochs": 16, "learning_rate": 1e-2, "batch": 8},
}


def row(key: str) -> np.ndarray:
    """What is worked out of a clip."""
    return np.array([float(ord(key)), 1.0], np.float32)


def refused(keys: list[str], own: list[str]) -> str:
    """How rows that do not fit the keys are refused."""
    try:
        gathered(keys, own, [row(key) for key in own])
    except ValueError as error:
        return str(error)
    return ""


def rounds() -> dict[str, object]:
    """What this process gets of each thing that may happen."""
    own = share(KEYS)
    first = distributed.get_rank() == 0
    twice = own if first else [*own, KEYS[0]]  # the first one's clip, worked out by both
    return {
        "own": own,
        "all": gathered(KEYS, own, [row(key) for key in own]),
        "twice": gathered(KEYS, twice, [row(key) for key in twice]),
        "idle": gathered(KEYS, KEYS if first else [], [row(key) for key in KEYS if first]),
        "missing": refused(KEYS, own if first else own[:-1]),
        "extra": refused(KEYS, own if first else [*own, "z"]),
    }


def tones(folder: Path) -> Task:
    """Two pitches under noise: thirteen train, of which the last batch is too small; nine test."""
    generator = np.random.default_rng(0)
    parts = {}
    for part in PARTS:
        examples = []
        for index in range(13 if part == "train" else 9):
            times = np.arange(4_800) / 16_000 + generator.uniform(0, 6)
            tone = 0.2 * np.sin(2 * np.pi * HERTZ[index % 2] * times)
            path = folder / f"{part}-{index}.wav"
            soundfile.write(path, tone + 0.05 * generator.normal(size=4_800), 16_000)
            examples.append(Example(path.name, index % 2, path))
        parts[part] = tuple(examples)
    return Task("tones", ("high", "low"), 0.3, "by hand", (Fold("one", **parts),))


def learned(name: str, task: Task) -> dict[str, object]:
    """Weights and scores of a fit that all processes take part in."""
    torch.manual_seed(0)
    ast, room = plugins.load("backbones", "ast"), plugins.load("adapters", name)
    backbone = ast.build(ast.Config(patch=(64, 8), dim=32, heads=2, depth=2), 64, 30)
    encoder = Encoder(FrontEnd(Features(mel_bins=64), -8.0, 5.0), backbone, ("mean",), None, 30)
    told: list[float] = []
    settings = {"epochs": 8, "learning_rate": 2e-3, "kept_megabytes": 10, **SETTINGS[name]}
    result = fit(
        encoder,
        task,
        task.folds[0],
        room.build(room.Config()),
        [],
        Config(**settings),
        lambda _, values: told.append(values["loss"]),
    )
    return {
        "weights": dict(result.classifier.state_dict()),
        "scores": torch.from_numpy(result.test_scores),
        "figures": [result.validation, result.test, float(result.epoch)],
        "losses": told,
    }


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    task = Task(**torch.load(f"{folder}/task.pt", weights_only=False))
    made = {"rounds": rounds(), **{name: learned(name, task) for name in SETTINGS}}
    torch.save(made, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    return tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def both(task, tmp_path_factory) -> list[dict]:
    """What each of two processes came to."""
    folder = tmp_path_factory.mktemp("two")
    torch.save(vars(task), folder / "task.pt")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def test_one_process_answers_itself_in_the_order_of_the_keys():
    rows = gathered(KEYS, sorted(KEYS), [row(key) for key in sorted(KEYS)])

    assert rows.tolist() == [row(key).tolist() for key in KEYS]
    assert share(KEYS) == KEYS


@pytest.mark.parametrize(
    ("keys", "own", "said"),
    [
        (KEYS, KEYS[:-1], "4 clips were worked out of 5 (c is missing)"),
        (KEYS, [*KEYS, "z"], "6 clips were worked out of 5 (z is extra)"),
        ([*KEYS, "e"], KEYS, "5 clips were worked out of 6 (e is extra)"),
    ],
)
def test_a_clip_too_few_or_too_many_is_an_error(keys, own, said):
    assert said in refused(keys, own)


def test_keys_without_their_rows_are_an_error():
    with pytest.raises(ValueError, match="5 keys came with 1 rows"):
        gathered(KEYS, KEYS, [row("a")])


def test_every_clip_is_worked_out_once_and_given_to_both(both):
    first, second = (one["rounds"] for one in both)

    assert sorted(first["own"] + second["own"]) == sorted(KEYS)
    assert abs(len(first["own"]) - len(second["own"])) <= 1
    for made in (first, second):
        assert made["all"].tolist() == [row(key).tolist() for key in KEYS]


def test_what_both_worked_out_stands_there_once(both):
    for made in both:
        assert made["rounds"]["twice"].tolist() == [row(key).tolist() for key in KEYS]
        assert made["rounds"]["idle"].tolist() == [row(key).tolist() for key in KEYS]


def test_what_one_process_left_out_stops_both(both):
    for made in both:
        assert "4 clips were worked out of 5" in made["rounds"]["missing"]
        assert "z is extra" in made["rounds"]["extra"]


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_learn_and_end_with_one_model(both, task, name):
    first, second = (one[name] for one in both)

    validation, test, epoch = first["figures"]
    assert validation >= 0.85 and test >= 0.85 and epoch >= 1  # chance is a half
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key
    assert torch.equal(first["scores"], second["scores"])
    assert first["figures"] == second["figures"] and first["losses"] == second["losses"]
    assert len(first["scores"]) == 9


def test_a_head_without_batch_statistics_learns_as_in_one_process(both, task):
    alone, shared = learned("attentive", task), both[0]["attentive"]

    assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-3)
    for key, value in alone["weights"].items():
        assert torch.allclose(value, shared["weights"][key], atol=1e-3), key
