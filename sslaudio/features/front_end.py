"""Waveform to log-mel picture: the one room that speaks of hertz and samples.

In:  mono float32 waveforms in [-1, 1], ``sample_rate`` samples a second, and their lengths.
Out: log-mel energies standardised to mean 0 and deviation 1, one column every ``hop_samples``,
     and how many columns of each picture are sound.

Rooms to the right (augments, backbones, objectives) count mel bins and frames only.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

FLOOR = torch.finfo(torch.float32).eps
"""Smallest energy before the logarithm, as Kaldi's: log-mels end at -15.94."""

_CLIPS_AT_ONCE = 8
_FRAMES_AT_ONCE = 4096
"""More clips at once push the frames out of the cache and cost three times the time (torch on two
cores); more frames at once cost memory on long files."""


@dataclass(frozen=True)
class Config:
    """How sound becomes a picture.

    Source: Gong et al. 2021 (AST, arXiv:2104.01778), section 2.1: 128 bins, 25 ms window, 10 ms
    hop. The paper says Hamming; its code (src/dataloader.py), and so we, use Hann. Everything
    else as Kaldi's fbank, which that code calls.
    """

    sample_rate: int = 16_000
    """Hz. A shard at another rate is refused; resample when you write shards."""
    window_samples: int = 400
    """Length of one analysis window: 25 ms at 16 kHz."""
    hop_samples: int = 160
    """Step from one frame to the next: 10 ms at 16 kHz."""
    mel_bins: int = 128
    """Rows of the picture, low frequency first."""
    f_min_hz: float = 20.0
    """Lower edge of the lowest mel band."""
    f_max_hz: float = 8_000.0
    """Upper edge of the highest mel band; at most half the sample rate."""
    preemphasis: float = 0.97
    """Share of the previous sample taken off each sample of a window."""
    mean: float | None = None
    """Mean log-mel that is taken off; unset: measured on whole clips of the training split, 4,096
    of them at most, and kept in the run."""
    std: float | None = None
    """Deviation that is divided by; unset: measured together with the mean."""
    pad: Literal["masked"] = "masked"
    """What padding is: never attended, pooled or averaged; a clip's positions are its own."""

    def __post_init__(self) -> None:
        nyquist = self.sample_rate / 2
        if not 0 <= self.f_min_hz < self.f_max_hz <= nyquist:
            raise ValueError(
                f"features.f_min_hz is {self.f_min_hz:g} and features.f_max_hz {self.f_max_hz:g}; "
                f"they must rise from 0 to at most {nyquist:g} Hz, half of features.sample_rate"
            )
        for key in ("window_samples", "hop_samples", "mel_bins"):
            if getattr(self, key) < 1:
                raise ValueError(f"features.{key} is {getattr(self, key)}; it must be at least 1")
        if (self.mean is None) != (self.std is None):
            raise ValueError("features.mean and features.std go together: set both or neither")
        if self.std is not None and self.std <= 0:
            raise ValueError(f"features.std is {self.std:g}; a deviation is above 0")

    @property
    def fft_samples(self) -> int:
        """The window's length rounded up to a power of two, as Kaldi does."""
        return 1 << (self.window_samples - 1).bit_length()

    def frames(self, samples: int) -> int:
        """Columns in the picture of ``samples`` of sound: whole windows, and at least one."""
        return max(1, 1 + (samples - self.window_samples) // self.hop_samples)


class FrontEnd(nn.Module):
    """Batched log-mel front end, always in float32, on the device of its input.

    Without statistics (``mean`` and ``std``) it gives plain log-mels, which is what
    :mod:`sslaudio.features.stats` measures.

    Source: Kaldi's fbank as ``torchaudio.compliance.kaldi.fbank`` computes it with AST's settings
    (htk_compat, use_energy off, Hann, no dither, snip_edges), one clip at a time; here batched.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, config: Config, mean: float | None = None, std: float | None = None) -> None:
        super().__init__()
        self.config = config
        self.mean = config.mean if config.mean is not None else mean
        self.std = config.std if config.std is not None else std
        window = torch.hann_window(config.window_samples, periodic=False)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("bank", mel_bank(config), persistent=False)

    @property
    def sample_rate(self) -> int:
        """Hz that the waveforms must have."""
        return self.config.sample_rate

    def lengths(self, samples: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Columns of sound in clips of so many samples; a clip under one window has one."""
        windows = (samples - self.config.window_samples).div(
            self.config.hop_samples, rounding_mode="floor"
        )
        return (windows + 1).clamp(min=1)

    def forward(
        self, waveforms: Float[Tensor, "clips samples"], lengths: Int[Tensor, " clips"]
    ) -> tuple[Float[Tensor, "clips bins frames"], Int[Tensor, " clips"]]:
        """Turn waveforms into standardised pictures.

        Args:
            waveforms: samples in [-1, 1], padded on the right with anything.
            lengths: samples of each clip that are sound.

        Returns:
            The pictures, padded columns set to 0 (the mean), and the columns that are sound.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            samples = torch.arange(waveforms.shape[1], device=waveforms.device)
            waveforms = waveforms.float().masked_fill(samples >= lengths[:, None], 0.0)
            short = self.config.window_samples - waveforms.shape[1]
            if short > 0:
                waveforms = nn.functional.pad(waveforms, (0, short))
            windows = waveforms.unfold(1, self.config.window_samples, self.config.hop_samples)
            mel = torch.cat(
                [
                    torch.cat([self._logmel(few) for few in part.split(_FRAMES_AT_ONCE, 1)], 2)
                    for part in windows.split(_CLIPS_AT_ONCE)
                ]
            )
            if self.mean is not None and self.std is not None:
                mel = (mel - self.mean) / self.std
        frames = self.lengths(lengths)
        columns = torch.arange(mel.shape[2], device=mel.device)
        return mel.masked_fill((columns >= frames[:, None])[:, None], 0.0), frames

    def _logmel(
        self, windows: Float[Tensor, "clips frames samples"]
    ) -> Float[Tensor, "clips bins frames"]:
        windows = windows - windows.mean(dim=2, keepdim=True)
        earlier = torch.cat([windows[..., :1], windows[..., :-1]], dim=2)
        windows = (windows - self.config.preemphasis * earlier) * self.window
        spectrum = torch.fft.rfft(windows, n=self.config.fft_samples)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.bank).clamp(min=FLOOR).log().transpose(1, 2)


def mel_bank(config: Config) -> Float[Tensor, "lines bins"]:
    """Triangles, equally wide in mel, that sum FFT lines to mel bins.

    At 128 bins, 512 lines and 16 kHz one low triangle falls between two lines and stays empty;
    AST's weights know it so, and so do we.

    Source: Kaldi's mel scale, 1127 ln(1 + f / 700); the line at Nyquist is left out as there.
    In float32 as Kaldi and torchaudio compute it: near a triangle's foot the rounding of the
    scale shows, and a bank from float64 gives log-mels up to 0.005 off theirs.
    """
    lines = config.fft_samples // 2
    low = 1127.0 * math.log(1.0 + config.f_min_hz / 700.0)
    high = 1127.0 * math.log(1.0 + config.f_max_hz / 700.0)
    step = (high - low) / (config.mel_bins + 1)
    bins = torch.arange(config.mel_bins)
    left, centre, right = (low + (bins + edge) * step for edge in (0.0, 1.0, 2.0))
    hertz = (config.sample_rate / config.fft_samples) * torch.arange(lines)
    mel = (1127.0 * (1.0 + hertz / 700.0).log())[:, None]
    triangles = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
    return nn.functional.pad(triangles.clamp(min=0.0), (0, 0, 0, 1))
