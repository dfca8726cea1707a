"""Matrices that a power spectrum is multiplied by: mel triangles, and cosines for cepstra.

In:  a front end's numbers: sample rate, FFT length, band edges, counts.
Out: float32 matrices of FFT lines (or mel bands) by rows of the picture, and the centres of bands.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LIFTER = 22.0
"""Period of Kaldi's lifter in coefficients: the 11th is raised twelvefold, the 22nd not at all."""


def kaldi_bank(
    bins: int, sample_rate: int, fft_samples: int, f_min_hz: float, f_max_hz: float
) -> Float[Tensor, "lines bins"]:
    """Triangles, equally wide in mel and straight in mel, that sum FFT lines to mel bins.

    At 128 bins, 512 lines and 16 kHz one low triangle falls between two lines and stays empty;
    AST's weights know it so, and so do we.

    Source: Kaldi's mel scale, 1127 ln(1 + f / 700); the line at Nyquist is left out as there.
    In float32 as Kaldi and torchaudio compute it: near a triangle's foot the rounding of the
    scale shows, and a bank from float64 gives log-mels up to 0.005 off theirs.
    """
    lines = fft_samples // 2
    low, step = _kaldi_steps(bins, f_min_hz, f_max_hz)
    band = torch.arange(bins)
    left, centre, right = (low + (band + edge) * step for edge in (0.0, 1.0, 2.0))
    hertz = (sample_rate / fft_samples) * torch.arange(lines)
    mel = (1127.0 * (1.0 + hertz / 700.0).log())[:, None]
    triangles = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
    return torch.nn.functional.pad(triangles.clamp(min=0.0), (0, 0, 0, 1))


def kaldi_centres(bins: int, f_min_hz: float, f_max_hz: float) -> Float[Tensor, " bins"]:
    """Hertz at which each triangle of :func:`kaldi_bank` is 1."""
    low, step = _kaldi_steps(bins, f_min_hz, f_max_hz)
    mel = low + torch.arange(1, bins + 1, dtype=torch.float64) * step
    return (700.0 * torch.expm1(mel / 1127.0)).float()


def _kaldi_steps(bins: int, f_min_hz: float, f_max_hz: float) -> tuple[float, float]:
    """Lower edge of the lowest band in Kaldi's mel, and from one centre to the next."""
    low, high = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (f_min_hz, f_max_hz))
    return low, (high - low) / (bins + 1)


def slaney_bank(
    bins: int, sample_rate: int, fft_samples: int, f_min_hz: float, f_max_hz: float
) -> Float[Tensor, "lines bins"]:
    """Triangles, equally wide in mel but straight in hertz, each of area 1 in hertz.

    Source: Slaney's Auditory Toolbox (1998), as ``librosa.filters.mel`` computes it.
    """
    edges = _slaney_edges(bins, f_min_hz, f_max_hz)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    lines = fft_samples // 2 + 1
    hertz = (sample_rate / fft_samples * torch.arange(lines, dtype=torch.float64))[:, None]
    rise, fall = (hertz - left) / (centre - left), (right - hertz) / (right - centre)
    return (torch.minimum(rise, fall).clamp(min=0.0) * (2.0 / (right - left))).float()


def slaney_centres(bins: int, f_min_hz: float, f_max_hz: float) -> Float[Tensor, " bins"]:
    """Hertz at which each triangle of :func:`slaney_bank` is highest."""
    return _slaney_edges(bins, f_min_hz, f_max_hz)[1:-1].float()


def _slaney_edges(bins: int, f_min_hz: float, f_max_hz: float) -> Float[Tensor, " edges"]:
    """Hertz where triangles begin, peak and end: ``bins + 2`` of them, float64.

    The scale is straight to 1 kHz (15 mel), then 27 mel are a factor of 6.4.
    """

    def to_mel(hertz: float) -> float:
        return 0.015 * hertz if hertz < 1000 else 15.0 + 27.0 * math.log(hertz / 1000, 6.4)

    mel = torch.linspace(to_mel(f_min_hz), to_mel(f_max_hz), bins + 2, dtype=torch.float64)
    return torch.where(mel < 15.0, mel / 0.015, 1000.0 * 6.4 ** ((mel - 15.0) / 27.0))


def cepstra(bins: int, coefficients: int) -> Float[Tensor, "bins coefficients"]:
    """Orthonormal cosines (DCT-II) of log-mels, liftered; the first column gives C0.

    Source: Kaldi's compute-mfcc-feats as ``torchaudio.compliance.kaldi.mfcc`` computes it without
    htk_compat (which would put C0 last and scale it by the root of 2); so C0 is a constant
    ``1 / sqrt(bins)`` of every band and is not liftered. In float32 as torchaudio: a log-mel is
    -16 in silence and the lifter twelvefold, so the rounding of the cosines shows.
    """
    order = torch.arange(coefficients, dtype=torch.float32)
    middle = torch.arange(bins, dtype=torch.float32)[:, None] + 0.5
    cosines = math.sqrt(2.0 / bins) * torch.cos(math.pi / bins * middle * order)
    cosines[:, 0] = math.sqrt(1.0 / bins)
    return cosines * (1.0 + LIFTER / 2 * torch.sin(math.pi * order / LIFTER))
