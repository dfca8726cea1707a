"""Linear maps in float32 at the full rate of AMD's processors.

torch multiplies float32 matrices with MKL, which on AMD's processors leaves the wider half of
AVX-512 unused; oneDNN, torch's other library, uses it and takes half the time
(benchmarks/backbones.py, fp32 rows). torch sends convolutions there, so that is what a map becomes.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn


def _is_amd_with_avx512() -> bool:
    told = Path("/proc/cpuinfo")
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not told.is_file():
        return False
    return "AuthenticAMD" in told.read_text(encoding="utf-8", errors="replace")


AMD_WITH_AVX512 = _is_amd_with_avx512()
"""Whether float32 maps go to oneDNN."""


def linear(
    tokens: Float[Tensor, "*batch dim"],
    weight: Float[Tensor, "dim_out dim"],
    bias: Float[Tensor, " dim_out"] | None,
) -> Float[Tensor, "*batch dim_out"]:
    """``torch.nn.functional.linear``, by the faster library."""
    if (
        not AMD_WITH_AVX512
        or not tokens.numel()
        or tokens.device.type != "cpu"
        or tokens.dtype != torch.float32
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
    ):
        return nn.functional.linear(tokens, weight, bias)
    row = tokens.reshape(1, 1, -1, tokens.shape[-1]).permute(0, 3, 1, 2)
    mapped = nn.functional.conv2d(row, weight[:, :, None, None], bias)
    return mapped.permute(0, 2, 3, 1).reshape(*tokens.shape[:-1], len(weight))


class Linear(nn.Linear):
    """``torch.nn.Linear``, by the faster library."""

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim_out"]:
        """Map the last axis."""
        return linear(tokens, self.weight, self.bias)
