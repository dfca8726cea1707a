"""Waveform to picture: the one room that speaks of hertz and samples.

In:  mono float32 waveforms in [-1, 1], ``sample_rate`` samples a second, and their lengths.
Out: log-mels, log-power lines or cepstra standardised to mean 0 and deviation 1, one column every
     ``hop_samples``, and how many columns of each picture are attended.

Rooms to the right (augments, backbones, objectives) count bins and frames only.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.features import filters

FLOOR = torch.finfo(torch.float32).eps
"""Smallest energy before the logarithm, whose log is -15.94: in kinds kaldi and mfcc the least that
an energy can be, as in Kaldi; in kinds librosa and spectrogram added to it, as in BYOL-A's code."""

_FRAMES_AT_ONCE = 256
"""Frames, of one clip or several, that are worked on together by each thread of a CPU: more push
what lies between waveform and picture out of the cache, and cost up to four times the time."""
_FRAMES_AT_ONCE_ELSEWHERE = 1 << 16
"""On a GPU: more cost memory on long files."""


class Settings(NamedTuple):
    """What hangs on the kind, every value in force; 0 where the kind has no such thing."""

    window_samples: int
    mel_bins: int
    coefficients: int
    f_min_hz: float
    f_max_hz: float
    preemphasis: float


KINDS = {
    "kaldi": Settings(400, 128, 0, 20.0, 8_000.0, 0.97),
    "librosa": Settings(1024, 128, 0, 60.0, 7_800.0, 0.0),
    "spectrogram": Settings(512, 0, 0, 0.0, 8_000.0, 0.0),
    "mfcc": Settings(400, 40, 32, 20.0, 8_000.0, 0.97),
}
"""What a kind takes where the recipe sets nothing."""


@dataclass(frozen=True)
class Config:
    """How sound becomes a picture.

    Kinds: ``kaldi``, Kaldi's log-mel with AST's settings (Gong et al. 2021, arXiv:2104.01778,
    section 2.1; the paper says Hamming, its code, src/dataloader.py, and so we, use Hann);
    ``librosa``, librosa's log-mel with the settings of BYOL-A and LAPE (Niizumi et al. 2021,
    arXiv:2103.06695; FFT 1024, 60 to 7,800 Hz); ``spectrogram``, log-power of the FFT's lines,
    equally far apart in hertz; ``mfcc``, Kaldi's cepstra of its log-mels. In kinds librosa and
    spectrogram a window is centred on its column's time, with zeros before and behind the clip
    (librosa from 0.10 on; before, it mirrored), and the FFT is as long as the window.
    """

    kind: Literal["kaldi", "librosa", "spectrogram", "mfcc"] = "kaldi"
    """What the picture shows: log-mels as Kaldi's (AST) or librosa's (BYOL-A, LAPE), linear
    log-power lines, or Kaldi's cepstra. Settings below that are unset are those of the kind."""
    sample_rate: int = 16_000
    """Hz. A shard at another rate is refused; resample when you write shards."""
    window_samples: int | None = None
    """Length of one analysis window. Unset: the kind's, at 16 kHz: kaldi and mfcc 400 (25 ms),
    librosa 1024 (64 ms), spectrogram 512 (32 ms, 256 lines without Nyquist's: whole patches)."""
    hop_samples: int = 160
    """Step from one frame to the next: 10 ms at 16 kHz."""
    mel_bins: int | None = None
    """Mel bands, low frequency first: the picture's rows in kinds kaldi and librosa. Unset: the
    kind's: kaldi 128, librosa 128 (SS-MAST's; BYOL-A has 64), mfcc 40; spectrogram has none."""
    coefficients: int | None = None
    """Kind mfcc alone: cepstra that are kept, rows of the picture, C0 first. Unset: 32."""
    f_min_hz: float | None = None
    """Lower edge of the lowest mel band, or lowest line. Unset: the kind's: kaldi and mfcc 20,
    librosa 60, spectrogram 0."""
    f_max_hz: float | None = None
    """Upper edge of the highest mel band, or what all lines are below; at most half the sample
    rate. Unset: the kind's: librosa 7,800, the others 8,000."""
    preemphasis: float | None = None
    """Share of the previous sample taken off each sample of a window. Unset: kaldi and mfcc 0.97;
    librosa and spectrogram have none."""
    mean: float | None = None
    """Mean of the pictures' values, that is taken off; unset: measured on whole clips of the
    training split, 4,096 of them at most, and kept in the run."""
    std: float | None = None
    """Deviation that is divided by; unset: measured together with the mean. AST, SSAST and Hugging
    Face divide by twice the deviation they publish: for their weights, set it doubled."""
    pad: Literal["masked", "legacy"] = "masked"
    """What padding is. masked: never attended, pooled or averaged; a clip's positions are its own.
    legacy: every picture is legacy_frames wide and all of it attended, as AST, SSAST and Hugging
    Face weights were trained; longer clips keep their beginning, shorter ones end in raw zeros."""
    legacy_frames: int | None = None
    """Columns of every picture under pad legacy; AST on AudioSet 1024, ESC-50 512, Speech Commands
    128. Under pad masked it stays unset."""

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_numbers()
        self._check_pad()
        if (self.mean is None) != (self.std is None):
            raise ValueError("features.mean and features.std go together: set both or neither")
        if self.std is not None and self.std <= 0:
            raise ValueError(f"features.std is {self.std:g}; a deviation is above 0")

    def _check_kind(self) -> None:
        for key in ("mel_bins", "coefficients", "preemphasis"):
            having = [kind for kind, settings in KINDS.items() if getattr(settings, key)]
            if getattr(self, key) is not None and self.kind not in having:
                raise ValueError(
                    f"features.{key} is {getattr(self, key)}, but features.kind {self.kind} has "
                    f"none; leave it unset, or set features.kind to {' or '.join(having)}"
                )

    def _check_numbers(self) -> None:
        if self.sample_rate < 1:
            raise ValueError(
                f"features.sample_rate is {self.sample_rate} Hz; it is above 0 (usual: 16000)"
            )
        nyquist, settings = self.sample_rate / 2, self.settings
        if not 0 <= settings.f_min_hz < settings.f_max_hz <= nyquist:
            raise ValueError(
                f"features.f_min_hz is {settings.f_min_hz:g} and features.f_max_hz "
                f"{settings.f_max_hz:g}; they must rise from 0 to at most {nyquist:g} Hz, half of "
                f"features.sample_rate"
            )
        counts = {"hop_samples": self.hop_samples, "window_samples": settings.window_samples}
        for key in ("mel_bins", "coefficients"):
            if getattr(self, key) is not None:
                counts[key] = getattr(self, key)
        for key, count in counts.items():
            if count < 1:
                raise ValueError(f"features.{key} is {count}; it must be at least 1")
        if settings.coefficients > settings.mel_bins:
            raise ValueError(
                f"features.coefficients is {settings.coefficients}, but {settings.mel_bins} mel "
                f"bands have no more than {settings.mel_bins}; lower it, or raise features.mel_bins"
            )
        if self.kind == "spectrogram" and not self.lines:
            raise ValueError(
                f"no line of an FFT of features.window_samples {settings.window_samples} lies from "
                f"features.f_min_hz {settings.f_min_hz:g} to below features.f_max_hz "
                f"{settings.f_max_hz:g}; lines are {self.sample_rate / self.fft_samples:g} Hz "
                f"apart: move the edges, or lengthen the window"
            )

    def _check_pad(self) -> None:
        if self.pad == "legacy" and (self.legacy_frames is None or self.legacy_frames < 1):
            raise ValueError(
                f"features.pad is legacy and features.legacy_frames {self.legacy_frames}; set it "
                f"to the columns that the weights were trained with: AST on AudioSet 1024"
            )
        if self.pad == "masked" and self.legacy_frames is not None:
            raise ValueError(
                f"features.legacy_frames is {self.legacy_frames}, but under features.pad masked a "
                f"picture is as wide as its clip; leave it unset, or set features.pad to legacy"
            )

    @property
    def settings(self) -> Settings:
        """The values in force: those that are set, and the kind's for the others."""
        given = {key: getattr(self, key) for key in Settings._fields}
        return KINDS[self.kind]._replace(
            **{key: value for key, value in given.items() if value is not None}
        )

    @property
    def bins(self) -> int:
        """Rows of the picture."""
        if self.kind == "spectrogram":
            return len(self.lines)
        return self.settings.coefficients or self.settings.mel_bins

    @property
    def centred(self) -> bool:
        """Whether a window's middle, not its start, is at a whole number of hops."""
        return self.kind in ("librosa", "spectrogram")

    @property
    def fft_samples(self) -> int:
        """The window's length; in kinds kaldi and mfcc rounded up to a power of two, as Kaldi."""
        window = self.settings.window_samples
        return window if self.centred else 1 << (window - 1).bit_length()

    @property
    def lines(self) -> range:
        """Lines of the FFT from ``f_min_hz`` to below ``f_max_hz``: kind spectrogram's rows."""
        per_hertz = self.fft_samples / self.sample_rate
        return range(
            math.ceil(self.settings.f_min_hz * per_hertz),
            math.ceil(self.settings.f_max_hz * per_hertz),
        )

    @property
    def margin_samples(self) -> int:
        """Zeros before a clip, and as many behind it, so that windows are centred."""
        return self.settings.window_samples // 2 if self.centred else 0

    def frames(self, samples: int) -> int:
        """Columns in the picture of ``samples`` of sound: whole windows, and at least one.

        Under pad legacy: ``legacy_frames``, whatever the sound.
        """
        return self.legacy_frames or self._whole(samples)

    def samples(self, frames: int) -> int:
        """The least samples whose picture has so many columns of sound."""
        return max(
            1,
            (frames - 1) * self.hop_samples
            + self.settings.window_samples
            - 2 * self.margin_samples,
        )

    def stretch(self, first: int, last: int) -> tuple[int, int, int]:
        """Which samples of a clip show columns ``first`` to ``last`` (left out) of its picture.

        Returns:
            The first sample, the one behind the last, and how many columns the picture of these
            samples alone has before ``first``: those see zeros where the clip has sound.
        """
        before = min(first, -(-self.margin_samples // self.hop_samples))
        end = (last - 1) * self.hop_samples - self.margin_samples + self.settings.window_samples
        return (first - before) * self.hop_samples, max(1, end), before

    def cuts(self, samples: int) -> bool:
        """Whether the picture of ``samples`` of sound shows its beginning alone."""
        return self.legacy_frames is not None and self._whole(samples) > self.legacy_frames

    def _whole(self, samples: int) -> int:
        beyond = samples + 2 * self.margin_samples - self.settings.window_samples
        return max(1, 1 + beyond // self.hop_samples)


class FrontEnd(nn.Module):
    """Batched front end, always in float32, on the device of its input; gradients reach the sound.

    Without statistics (``mean`` and ``std``) it gives plain pictures, which is what
    :mod:`sslaudio.features.stats` measures.

    Source: kinds kaldi and mfcc as ``torchaudio.compliance.kaldi`` computes ``fbank`` and ``mfcc``
    with AST's settings (use_energy off, Hann, no dither, snip_edges), one clip at a time; kinds
    librosa and spectrogram as ``librosa.feature.melspectrogram`` and ``librosa.stft`` do, squared,
    and the logarithm with a floor added as in BYOL-A's code; here batched. librosa transforms in
    float64, and so do we: in float32 a line far under its clip's loudest is up to 0.02 off.
    """

    window: Tensor
    bank: Tensor | None
    cepstra: Tensor | None

    def __init__(self, config: Config, mean: float | None = None, std: float | None = None) -> None:
        super().__init__()
        self.config = config
        self.settings = config.settings
        self.mean = config.mean if config.mean is not None else mean
        self.std = config.std if config.std is not None else std
        self.register_buffer("window", _window(config), persistent=False)
        self.register_buffer("bank", _bank(config), persistent=False)
        self.register_buffer("cepstra", _cepstra(config), persistent=False)

    @property
    def sample_rate(self) -> int:
        """Hz that the waveforms must have."""
        return self.config.sample_rate

    def lengths(self, samples: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Columns to attend in clips of so many samples: those of sound, one at least.

        Under pad legacy: ``legacy_frames`` for every clip.
        """
        if self.config.legacy_frames is not None:
            return torch.full_like(samples, self.config.legacy_frames)
        return self._sounding(samples)

    def _sounding(self, samples: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        beyond = samples + 2 * self.config.margin_samples - self.settings.window_samples
        return (beyond.div(self.config.hop_samples, rounding_mode="floor") + 1).clamp(min=1)

    def seconds(self, columns: int) -> Float[Tensor, " columns"]:
        """Seconds from the clip's start to the middle of each of the first ``columns`` windows."""
        middle = self.settings.window_samples / 2 - self.config.margin_samples
        samples = torch.arange(columns, dtype=torch.float64) * self.config.hop_samples + middle
        return (samples / self.sample_rate).float()

    def hertz(self) -> Float[Tensor, " bins"]:
        """Hertz of each row: the peak of its mel band, or its line.

        Raises:
            ValueError: kind mfcc, whose rows are no frequencies.
        """
        kind, settings = self.config.kind, self.settings
        if kind == "mfcc":
            raise ValueError(
                "a row of features.kind mfcc is a cepstral coefficient and has no frequency; "
                "set features.kind to kaldi, librosa or spectrogram to see hertz"
            )
        if kind == "spectrogram":
            apart = self.sample_rate / self.config.fft_samples
            return torch.tensor([line * apart for line in self.config.lines])
        centres = filters.kaldi_centres if kind == "kaldi" else filters.slaney_centres
        return centres(settings.mel_bins, settings.f_min_hz, settings.f_max_hz)

    def forward(
        self, waveforms: Float[Tensor, "clips samples"], lengths: Int[Tensor, " clips"]
    ) -> tuple[Float[Tensor, "clips bins frames"], Int[Tensor, " clips"]]:
        """Turn waveforms into standardised pictures.

        Args:
            waveforms: samples in [-1, 1], padded on the right with anything.
            lengths: samples of each clip that are sound.

        Returns:
            The pictures, and the columns of each to attend. Under pad masked those are the columns
            of sound, and the others are 0 (the mean); under pad legacy all are attended, and those
            behind the sound are what a plain log-mel of 0 becomes.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            pictures = self._pictures(waveforms.float(), lengths)
            sounding = self._sounding(lengths)
            if self.config.legacy_frames is not None:
                missing = self.config.legacy_frames - pictures.shape[2]
                pictures = nn.functional.pad(_blanked(pictures, sounding), (0, max(0, missing)))
                return self._standardised(pictures), self.lengths(lengths)
            return _blanked(self._standardised(pictures), sounding), sounding

    def _standardised(
        self, pictures: Float[Tensor, "clips bins frames"]
    ) -> Float[Tensor, "clips bins frames"]:
        if self.mean is None or self.std is None:
            return pictures
        return (pictures - self.mean) / self.std

    def _pictures(
        self, waveforms: Float[Tensor, "clips samples"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips bins frames"]:
        """Plain pictures, at most ``legacy_frames`` wide; columns behind a clip hold anything."""
        samples = torch.arange(waveforms.shape[1], device=waveforms.device)
        waveforms = waveforms.masked_fill(samples >= lengths[:, None], 0.0)
        margin = self.config.margin_samples
        short = self.settings.window_samples - waveforms.shape[1] - 2 * margin
        if margin or short > 0:
            waveforms = nn.functional.pad(waveforms, (margin, margin + max(0, short)))
        windows = waveforms.unfold(1, self.settings.window_samples, self.config.hop_samples)
        windows = windows[:, : self.config.legacy_frames]
        frames = _frames_at_once(windows.device)
        clips = max(1, frames // windows.shape[1])
        return torch.cat(
            [
                torch.cat([self._columns(few) for few in part.split(frames, 1)], 2)
                for part in windows.split(clips)
            ]
        )

    def _columns(
        self, windows: Float[Tensor, "clips frames samples"]
    ) -> Float[Tensor, "clips bins frames"]:
        if not self.config.centred:
            windows = windows - windows.mean(dim=2, keepdim=True)
            earlier = torch.cat([windows[..., :1], windows[..., :-1]], dim=2)
            windows = windows - self.settings.preemphasis * earlier
        else:
            windows = windows.double()
        spectrum = torch.fft.rfft(windows * self.window, n=self.config.fft_samples)
        power = (spectrum.real.square() + spectrum.imag.square()).float()
        if self.bank is None:
            energies = power[..., self.config.lines.start : self.config.lines.stop]
        else:
            energies = power @ self.bank
        energies = energies + FLOOR if self.config.centred else energies.clamp(min=FLOOR)
        values = energies.log()
        return (values if self.cepstra is None else values @ self.cepstra).transpose(1, 2)


def _frames_at_once(device: torch.device) -> int:
    if device.type != "cpu":
        return _FRAMES_AT_ONCE_ELSEWHERE
    return _FRAMES_AT_ONCE * torch.get_num_threads()


def _blanked(
    pictures: Float[Tensor, "clips bins frames"], sounding: Int[Tensor, " clips"]
) -> Float[Tensor, "clips bins frames"]:
    """Columns behind each clip's sound set to 0."""
    columns = torch.arange(pictures.shape[2], device=pictures.device)
    return pictures.masked_fill((columns >= sounding[:, None])[:, None], 0.0)


def _window(config: Config) -> Float[Tensor, " samples"]:
    """Hann: symmetric, as Kaldi's, or periodic, as librosa's."""
    samples = config.settings.window_samples
    if config.centred:
        return torch.hann_window(samples, periodic=True, dtype=torch.float64)
    return torch.hann_window(samples, periodic=False)


def _bank(config: Config) -> Float[Tensor, "lines bins"] | None:
    """The mel triangles of the kind; kind spectrogram has none."""
    if config.kind == "spectrogram":
        return None
    settings = config.settings
    bank = filters.slaney_bank if config.kind == "librosa" else filters.kaldi_bank
    return bank(
        settings.mel_bins,
        config.sample_rate,
        config.fft_samples,
        settings.f_min_hz,
        settings.f_max_hz,
    )


def _cepstra(config: Config) -> Float[Tensor, "bins coefficients"] | None:
    if config.kind != "mfcc":
        return None
    return filters.cepstra(config.settings.mel_bins, config.settings.coefficients)
