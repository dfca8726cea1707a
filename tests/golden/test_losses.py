"""A change that is not meant to change numbers leaves ``losses.json`` alone.

One that is meant to writes it anew, and its commit says why:

    python tests/golden/losses.py tests/golden/losses.json
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sslaudio import plugins

FOLDER = Path(__file__).parent
WRITTEN = json.loads((FOLDER / "losses.json").read_text())
STEPS = 20


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[float]]:
    """Of a process of its own: accelerate knows one precision a process."""
    file = tmp_path_factory.mktemp("golden") / "losses.json"
    subprocess.run([sys.executable, FOLDER / "losses.py", file], check=True)
    return json.loads(file.read_text())


def test_every_objective_is_written_down_on_every_backbone():
    backbones = plugins.names("backbones")
    cases = [f"{o} on {b}" for o in plugins.names("objectives") for b in backbones]
    assert list(WRITTEN) == cases


@pytest.mark.parametrize("case", WRITTEN)
def test_losses_are_those_written_down(case, found):
    assert len(found[case]) == STEPS
    assert found[case] == pytest.approx(WRITTEN[case], rel=1e-5)
