"""Transformer blocks as kernels of their own: ``torch.compile``, block by block and in place.

In:  an objective before its first step.
Out: the same module; its blocks, a teacher's and a decoder's too, run as compiled code. Names in
     state dicts stay, and copies made later are plain.

Blocks that are alike share a graph, so that AST takes as long to compile as one of its blocks. What
is made once in a while, in other shapes (a probe, pictures for the log), runs :func:`plainly`.
"""

import os
import shutil
import sysconfig
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

GRAPHS = 256
"""Graphs that blocks may come to, each of MAST's its own: with and without gradients, each with and
without padding."""


def compile_blocks(module: nn.Module) -> None:
    """Have the blocks of every row of blocks within ``module`` compiled at their first call.

    Random numbers (drop-path) are drawn as without compilation.

    Raises:
        ValueError: this machine cannot compile.
    """
    _check_compiler()
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    for part in module.modules():
        blocks = getattr(part, "blocks", None)
        for block in blocks if isinstance(blocks, nn.ModuleList) else ():
            block.compile(dynamic=False, options={"fallback_random": True})


def plainly() -> AbstractContextManager[None]:
    """A context in which nothing that was compiled runs so, and nothing is compiled."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def _check_compiler() -> None:
    """Kernels for processors, and what starts those for GPUs, are built against Python."""
    named = os.environ.get("CXX")
    names = (named,) if named else ("g++", "clang++", "c++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = None
    if not any(shutil.which(name) for name in names):
        missing = f"C++ compiler ({', '.join(names)})"
    elif not header.is_file():
        missing = f"{header}, which the package python3-dev brings"
    if missing:
        raise ValueError(
            f"training.compile is true, but this machine has no {missing}; set training.compile "
            f"to false, or install it"
        )
