"""The README's first command, without its install: `make demo` on synthetic and on real sound."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def demo(runs: Path, *words: str) -> dict[str, float]:
    """Test accuracies that the demo prints, by where the weights came from."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "benchmarks/demo.sh", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": path, "RUNS": str(runs)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tensorboard --logdir" in done.stdout
    found = re.findall(r"from (pretrained|random) weights\s+([\d.]+)%", done.stdout)
    return {name: float(score) for name, score in found}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_shows_what_pretraining_gives(tmp_path: Path):
    scores = demo(tmp_path)

    assert scores["pretrained"] >= 95
    assert scores["pretrained"] >= scores["random"] + 5


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_runs_on_real_sound(real_sound: Path, tmp_path: Path):
    scores = demo(tmp_path, str(real_sound))

    assert scores["pretrained"] > 30 and scores["random"] > 20  # ten words: chance is 10


def test_the_demo_refuses_a_folder_without_corpora(tmp_path: Path):
    done = subprocess.run(
        ["bash", "benchmarks/demo.sh", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 2 and "there is no speech_commands" in done.stderr
