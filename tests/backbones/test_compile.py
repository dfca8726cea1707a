"""torch.compile of every backbone, in a process of its own: run-time checks of shapes break it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sslaudio import plugins

ROOT = Path(plugins.__file__).parents[1]

STEP = """
import sys
import torch
from sslaudio import plugins
from sslaudio.augments.base import Draws
from sslaudio.backbones.drop import keep

name, backend, case = sys.argv[1:]
module = plugins.load("backbones", name)
torch.manual_seed(0)
backbone = module.build(module.Config(), 128, 98).train()
for part, weight in backbone.named_parameters():
    norm = "norm" in part and part.endswith("weight")
    torch.nn.init.normal_(weight, mean=float(norm), std=0.1)
compiled = torch.compile(backbone, backend=backend, fullgraph=True)


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(3, 128, 98, generator=generator)
    if case == "plain":
        return pictures, {}
    frames = torch.randint(10, 99, (3,), generator=generator)
    frames[0] = 98
    settings = {"frames": frames}
    if case != "lengths":
        grid = backbone.grid(98)
        settings["hidden"] = torch.rand(3, grid.rows * grid.columns, generator=generator) < 0.3
        settings["kept"] = keep(backbone, frames, 98, 0.5, Draws(generator, 0, 3, 3), case)
    return pictures.masked_fill(torch.arange(98) >= frames[:, None, None], 0.0), settings


def step(encode, pictures, settings):
    backbone.zero_grad()
    tokens = encode(pictures, **settings)
    sounding = tokens.patches[tokens.sound]
    sounding.sin().sum().backward()
    gradients = [weight.grad for weight in backbone.parameters() if weight.grad is not None]
    return sounding.detach(), torch.cat([gradient.flatten() for gradient in gradients]).clone()


for seed in range(3):
    made, asked = (step(encode, *batch(seed)) for encode in (compiled, backbone))
    torch._dynamo.config.error_on_recompile = True  # the same bucket: other values, same shapes
    for one, other in zip(made, asked):
        assert torch.isfinite(one).all()
        assert (one - other).norm() < 1e-4 * other.norm(), (seed, (one - other).abs().max())
"""


def run(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEP, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]


@pytest.mark.parametrize("name", plugins.names("backbones"))
def test_a_training_step_is_one_graph_that_serves_the_next_batch(name):
    run(name, "aot_eager", "columns")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", ["plain", "lengths", "both"])
@pytest.mark.parametrize("name", plugins.names("backbones"))
def test_a_compiled_training_step_is_the_plain_one(name, case):
    run(name, "inductor", case)
