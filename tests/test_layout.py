"""The package's own shape: names that would break launching, plug-ins that show themselves."""

import sys
from dataclasses import is_dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from sslaudio import plugins
from sslaudio.config import field_docstrings

PACKAGE = Path(plugins.__file__).parent
OWN = {"sslaudio", "tests", "benchmarks"}


def test_no_room_is_named_like_a_module_of_the_library_or_of_a_dependency():
    # `accelerate launch sslaudio/pretrain.py` puts sslaudio/ first on sys.path.
    names = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_")}

    taken = set(sys.stdlib_module_names) | (set(packages_distributions()) - OWN)

    assert not names & taken


@pytest.mark.parametrize(
    ("room", "name"), [(room, name) for room in plugins.ROOMS for name in plugins.names(room)]
)
def test_every_plugin_documents_every_field(room: str, name: str):
    config = plugins.load(room, name).Config

    assert is_dataclass(config)
    assert config.__dataclass_params__.frozen
    assert set(field_docstrings(config)) >= set(config.__dataclass_fields__)


def test_a_plugin_that_lacks_a_part_is_told_what():
    with pytest.raises(ValueError, match="lacks Config and build"):
        plugins.load("objectives", "json.decoder")
