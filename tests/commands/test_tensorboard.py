"""What TensorBoard's own server gives of a run, asked over HTTP."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import pytest

from sslaudio.cli import main
from sslaudio.data import synth

FLAGS = (
    "--data.batch 16 --data.clip_seconds 0.5 --backbone.patch 128 16 --training.warmup_steps 1 "
    "--training.log_every 2 --training.checkpoint_every 2 --training.pictures_every 2 "
    "--knn.every 2 --knn.clips 40 --knn.neighbours 5"
).split()
Ask = Callable[..., bytes]


@pytest.fixture(scope="module")
def logs(shards: Path, tmp_path_factory) -> Path:
    """A masked run that was resumed at step 4, and a contrastive one."""
    labelled = tmp_path_factory.mktemp("labelled") / "synth"
    synth.build(labelled, clips=100, seed=5)
    logs = tmp_path_factory.mktemp("runs")
    words = ["pretrain", "--config", "demo", "--data.shards", str(shards), *FLAGS]
    words += ["--knn.root", str(labelled), "--out"]
    assert main([*words, str(logs / "masked"), "--training.steps", "4"]) == 0
    assert main([*words, str(logs / "masked"), "--training.steps", "6", "--resume"]) == 0
    pairs = ["--objective", "contrastive", "--training.steps", "2"]
    assert main([*words, str(logs / "pairs"), *pairs]) == 0
    return logs


@pytest.fixture(scope="module")
def ask(logs: Path) -> Iterator[Ask]:
    """The answer of a server to a path and its query, once it knows both runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--logdir", str(logs), "--port", str(port), "--host", "127.0.0.1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *words, "--reload_interval", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def asked(path: str, **query: str) -> bytes:
        address = f"http://127.0.0.1:{port}/data/{path}?{urlencode(query)}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            return answer.read()

    def told() -> bool:
        try:
            return {"masked", "pairs"} <= set(json.loads(asked("plugin/scalars/tags")))
        except (urllib.error.URLError, ConnectionError):
            return False

    try:
        deadline = time.monotonic() + 120
        while not told():
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        yield asked
    finally:
        server.terminate()
        server.wait()


def test_every_scalar_of_metrics_is_served_with_its_values(logs, ask):
    lines = [json.loads(line) for line in (logs / "masked" / "metrics.jsonl").open()]
    names = {name for line in lines for name in line if name != "step"}

    assert set(json.loads(ask("plugin/scalars/tags"))["masked"]) == names
    assert {name.split("/")[0] for name in names} == {
        "objective", "training", "speed", "collapse", "probe", "data",
    }  # fmt: skip
    for name in ("objective/loss", "probe/knn", "training/learning_rate"):
        served = json.loads(ask("plugin/scalars/scalars", run="masked", tag=name))
        written = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for _, step, _ in served] == [step for step, _ in written]
        assert [value for *_, value in served] == pytest.approx([value for _, value in written])


def test_pictures_are_the_reconstruction_and_the_mask_or_both_views(ask):
    tags = json.loads(ask("plugin/images/tags"))

    assert set(tags["masked"]) == {"pictures/1_input", "pictures/2_seen", "pictures/3_rebuilt"}
    assert {"pictures/1_view", "pictures/2_other_view"} <= set(tags["pairs"])
    shown = json.loads(ask("plugin/images/images", run="masked", tag="pictures/2_seen", sample=0))
    assert [one["step"] for one in shown] == [1, 2, 4, 6]
    (blob,) = parse_qs(shown[-1]["query"])["blob_key"]
    assert ask("plugin/images/individualImage", blob_key=blob)[:4] == b"\x89PNG"


def test_recipe_and_environment_are_texts_of_an_item_a_line(ask):
    recipe, machine = (
        json.loads(ask("plugin/text/text", run="masked", tag=f"{name}/text_summary"))
        for name in ("recipe", "environment")
    )

    # The run was resumed once, so that each stands there twice.
    assert [one["step"] for one in recipe] == [0, 4]
    assert "mask_share: 0.6\n" in recipe[0]["text"] and "steps: 6\n" in recipe[1]["text"]
    assert re.search(r"torch +\d+\.\d+.*\n", machine[0]["text"])


def test_histograms_are_few_and_as_rare_as_pictures(ask):
    told = json.loads(ask("plugin/histograms/tags"))["masked"]
    served = json.loads(ask("plugin/histograms/histograms", run="masked", tag="embeddings/cosine"))

    assert sum(name.startswith("weights/") for name in told) == 8
    assert [step for _, step, _ in served] == [1, 2, 4, 6]
    lowest, highest = served[-1][2][0][0], served[-1][2][-1][1]
    assert -1.001 <= lowest < highest <= 1.001


def test_the_projector_has_the_first_and_the_newest_embeddings_once(logs, ask):
    assert set(json.loads(ask("plugin/projector/runs"))) == {"masked", "pairs"}
    listed = json.loads(ask("plugin/projector/info", run="masked"))["embeddings"]

    names = [one["tensorName"] for one in listed]
    assert names == [
        *("clips, step 1", "clips, step 4", "clips, step 6"),
        *("probe, step 0", "probe, step 4", "probe, step 6"),
    ]
    for name, clips, heading in (("clips", 16, b"clip\tshards"), ("probe", 10, b"class\tclip")):
        tensors = ask("plugin/projector/tensor", run="masked", name=f"{name}, step 6")
        rows = ask("plugin/projector/metadata", run="masked", name=f"{name}, step 6").splitlines()
        assert rows[0] == heading and len(rows) == clips + 1
        assert len(tensors) % (4 * clips) == 0  # float32
    sprite = ask("plugin/projector/sprite_image", run="masked", name="clips, step 6")
    assert sprite[:4] == b"\x89PNG"
