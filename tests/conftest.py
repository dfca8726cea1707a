"""What tests share: real sound where it is there, small shards, shapes checked at run time."""

import os
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

# Of several workers each keeps to a core: threads that share busy cores wait for one another.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

# Annotated shapes are checked in every call that a test makes in this process.
install_import_hook(
    [
        "sslaudio.features",
        "sslaudio.augments",
        "sslaudio.backbones",
        "sslaudio.objectives",
        "sslaudio.adapters",
    ],
    "beartype.beartype",
)

# The same examples in every run of continuous integration; new ones at a desk.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")

REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_sound() -> Path:
    """Folder of the three real corpora; the test is skipped where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"needs the real corpora in {REAL}")
    return REAL


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """A hundred synthetic clips."""
    from sslaudio.data import synth  # not above: what is imported before the hook is not checked

    folder = tmp_path_factory.mktemp("shards") / "synth"
    synth.build(folder, clips=100)
    return folder


@pytest.fixture(scope="session")
def small_encoder():
    """Makes a micro encoder for pictures of 64 bins, lively enough to show mistakes."""
    import torch

    from sslaudio import plugins
    from sslaudio.backbones.encoder import Encoder
    from sslaudio.features.front_end import Config, FrontEnd

    def make(name: str, pooled_block: int | None = None, **settings) -> Encoder:
        torch.manual_seed(0)
        module = plugins.load("backbones", name)
        patch = {"patch": (64, 4)} if name == "ast" else {}
        backbone = module.build(module.Config(**patch, **settings), 64, 96)
        for part, weight in backbone.named_parameters():
            norm = "norm" in part and part.endswith("weight")
            torch.nn.init.normal_(weight, mean=float(norm), std=0.1)
        front_end = FrontEnd(Config(mel_bins=64), -5.0, 4.0)
        return Encoder(front_end, backbone, ("mean", "slices2"), pooled_block, 96).eval()

    return make
