"""What tests of whole commands share."""

from pathlib import Path

import pytest

from sslaudio.data import synth


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """A hundred synthetic clips."""
    folder = tmp_path_factory.mktemp("shards") / "synth"
    synth.build(folder, clips=100)
    return folder
