"""Changes to a waveform that keep its emotion: data augmentation for training. `stress` has test distortions.

A change takes a waveform (mono float32, shape (n_samples,)), its sample rate in hertz and a random generator, and
returns a new, finite float32 waveform at the same rate. Its length may differ, and samples may exceed full scale.
Changes are frozen dataclasses: `name` is for figures, and the `repr` is part of the cache key of feature tables.
`audio.load(path, change=Speed(1.1))` applies one at the file's own rate, with a generator seeded by the clip, so
that Noise(20) and Noise(10) are the same noise at two levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.fft

from ser_lib import audio
from ser_lib.audio.quality import active_level
from ser_lib.errors import SerError
from ser_lib.features import lld

BAND = 8_000.0  # hertz; noise ends here, so that an SNR means the same at every sample rate
TALKERS = 6  # in the babble


class Change:
    """Base class of all changes."""

    label: ClassVar[str]  # the name, with the parameters in braces

    @property
    def name(self) -> str:
        return self.label.format(**vars(self))

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError


def _filter(y: np.ndarray, rate: int, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Filter without delay; `gain` maps hertz to amplitude."""
    n = scipy.fft.next_fast_len(len(y) + rate // 10, real=True)
    response = gain(scipy.fft.rfftfreq(n, 1 / rate)).astype(np.float32)
    return scipy.fft.irfft(scipy.fft.rfft(y, n) * response, n)[: len(y)]


def to_length(y: np.ndarray, n: int) -> np.ndarray:
    """Cut or zero-pad to `n` samples."""
    return np.pad(y[:n], (0, max(0, n - len(y))))


def check_choice(value: str, choices: tuple[str, ...], what: str) -> None:
    """Raise SerError, with the valid choices, unless `value` is one of them."""
    if value not in choices:
        raise SerError(f"{what} {value!r} is unknown; choose one of {', '.join(choices)}")


@dataclass(frozen=True)
class Speed(Change):
    """Faster or slower by resampling: tempo, pitch and formants together.

    Examples
    --------
    >>> faster = Speed(1.25)
    >>> faster.name, faster(np.zeros(16_000, np.float32), 16_000, np.random.default_rng(0)).shape
    ('speed ×1.25', (12800,))
    """

    factor: float  # above 1: faster and higher
    label = "speed ×{factor:.2f}"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        import soxr

        return soxr.resample(y, rate * self.factor, rate, quality="HQ")


@dataclass(frozen=True)
class Pitch(Change):
    """Higher or lower at the same duration; the formants move too.

    The clip is stretched by WSOLA (Verhelst & Roelands 1993), then resampled. A phase vocoder would lose level
    and blur the pulses.
    """

    semitones: float
    label = "pitch {semitones:+g} semitones"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        factor = 2 ** (self.semitones / 12)
        return to_length(Speed(factor)(_stretch(y, rate, factor), rate, rng), len(y))


def _stretch(y: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """Stretch by `factor` at the same pitch: overlapping pieces, each where it fits best."""
    hop = int(0.015 * rate)  # samples; half a piece
    reach = int(0.01 * rate)  # samples that a piece may move from its place; half a period of 50 Hz
    pieces = int(len(y) * factor / hop) + 2
    padded = np.pad(y, (hop + reach, int(3 * hop / factor) + 3 * hop + reach)).astype(np.float64)
    energy = np.concatenate([[0], np.cumsum(np.square(padded))])
    out = np.zeros((pieces + 1) * hop)
    window = lld.hann(2 * hop)
    # of places that fit equally well, as in silence, the nearest is taken
    far = 1e-3 * np.abs(np.linspace(-1, 1, 2 * reach + 1))
    start = reach
    for i in range(pieces):
        if i:
            low = round(i * hop / factor)
            follows = padded[start + hop : start + 3 * hop]  # the piece that would follow without stretching
            alike = np.correlate(padded[low : low + 2 * (reach + hop)], follows)
            ends = np.arange(low, low + len(alike))
            both = (energy[ends + 2 * hop] - energy[ends]) * np.square(follows).sum()
            alike /= np.sqrt(np.maximum(both, lld.FLOOR**2))
            start = low + int((alike - far).argmax())
        out[i * hop : (i + 2) * hop] += window * padded[start : start + 2 * hop]
    return out[hop:].astype(np.float32)


@dataclass(frozen=True)
class Noise(Change):
    """Noise from 0 to 8 kHz at a level relative to that of the active speech.

    `white` is flat. `babble` is noise with the clip's long-term spectrum and the modulation of six talkers at
    2.5 to 5.5 syllables per second; it contains no voices. One noise is enough for all talkers, because
    independent noises add up to one whose power is the sum of theirs.

    Examples
    --------
    >>> y = np.sin(np.arange(16_000, dtype=np.float32) / 20)
    >>> noise = Noise(10, "babble")(y, 16_000, np.random.default_rng(0)) - y
    >>> round(float(20 * np.log10(y.std() / noise.std())), 1)  # decibels
    10.0
    """

    snr_db: float  # decibels, active speech over noise
    kind: str = "white"  # or "babble"
    label = "{kind} noise {snr_db:g} dB"

    def __post_init__(self) -> None:
        check_choice(self.kind, ("white", "babble"), "noise")

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal(len(y), dtype=np.float32)
        shape = np.ones(2)
        if self.kind == "babble":
            tempo = rng.uniform(2.5, 5.5, (TALKERS, 1))  # syllables per second
            cycles = tempo * np.arange(len(y)) / rate + rng.uniform(0, 1, (TALKERS, 1))
            syllables = np.maximum(np.sin(2 * np.pi * cycles), 0)
            noise *= np.sqrt(np.square(syllables).sum(axis=0)).astype(np.float32)
            n = int(0.016 * rate)
            shape = np.sqrt(np.square(lld.magnitudes(y, n_fft=n, hop=n // 2)).mean(axis=0))
        bins = np.linspace(0, rate / 2, len(shape))
        noise = _filter(noise, rate, lambda hertz: np.interp(hertz, bins, shape) * (hertz < BAND))
        level = active_level(y, rate) * 10 ** (-self.snr_db / 20)
        power = max(np.square(noise).mean(), np.finfo(np.float32).tiny)  # babble of silence is silence
        return y + noise * np.float32(level / np.sqrt(power))


@dataclass(frozen=True)
class Tilt(Change):
    """A brighter or darker microphone: a sloping gain, 0 dB at 1 kHz, constant below 50 Hz and above 16 kHz."""

    db_per_octave: float  # above 0: brighter
    label = "tilt {db_per_octave:+g} dB/octave"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        octaves = self.db_per_octave / 20
        return _filter(y, rate, lambda hertz: 10 ** (octaves * np.log2(np.clip(hertz, 50, 16_000) / 1000)))


@dataclass(frozen=True)
class Gain(Change):
    """Louder or softer, without clipping at full scale; for that see `stress.Clip`."""

    db: float
    label = "gain {db:+g} dB"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        return y * np.float32(10 ** (self.db / 20))


@dataclass(frozen=True)
class Telephone(Change):
    """A narrow-band line: 300 to 3400 Hz (-3 dB), sampled at 8 kHz."""

    label = "telephone"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        from scipy.signal import butter, sosfilt

        line = butter(6, (300, 3400), "bandpass", fs=8_000, output="sos").astype(np.float32)
        received = sosfilt(line, audio.resample(y, rate, 8_000))
        return to_length(audio.resample(received, 8_000, rate), len(y))


@dataclass(frozen=True)
class Room(Change):
    """Reverberation: the direct sound and, 2.5 ms later, noise that decays equally at all frequencies.

    The noise is drawn anew for each clip, and the tail after the end of the clip is cut off.
    Source: Moorer (1979), About this reverberation business.
    """

    rt60_s: float  # seconds until the reverberation has fallen by 60 dB
    drr_db: float  # decibels, direct over reverberant energy
    label = "room {rt60_s:g} s, {drr_db:+g} dB direct"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        from scipy.signal import oaconvolve

        time = np.arange(1, int(self.rt60_s * rate) + 1) / rate
        echo = rng.standard_normal(len(time), dtype=np.float32)
        echo *= (10 ** (-3 * time / self.rt60_s) * (time > 0.0025)).astype(np.float32)
        echo *= np.float32(10 ** (-self.drr_db / 20) / np.sqrt(np.square(echo).sum()))
        return oaconvolve(y, np.concatenate([np.ones(1, np.float32), echo]))[: len(y)]


@dataclass(frozen=True)
class Chain(Change):
    """Several changes, one after the other."""

    changes: tuple[Change, ...]

    @property
    def name(self) -> str:
        return " + ".join(change.name for change in self.changes)

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        for change in self.changes:
            y = change(y, rate, rng)
        return y


@dataclass(frozen=True)
class Microphone(Change):
    """Another microphone in another place, drawn at random for each clip.

    A spectral tilt, a room (for half of the clips), white or babble noise (for most), a telephone line (for a few)
    and a gain.
    """

    take: int = 0  # each take draws different values
    label = "another microphone, take {take}"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        rng = rng.spawn(self.take + 1)[self.take]
        room, noise, line = rng.random(3)
        changes: list[Change] = [Tilt(rng.uniform(-3, 3))]
        if room < 0.5:
            changes.append(Room(rng.uniform(0.15, 0.5), rng.uniform(0, 10)))
        if noise < 0.7:
            changes.append(Noise(rng.uniform(5, 30), "white" if noise < 0.35 else "babble"))
        if line < 0.15:
            changes.append(Telephone())
        return Chain((*changes, Gain(rng.uniform(-20, 10))))(y, rate, rng)


SPEEDS: tuple[Change, ...] = (Speed(0.88), Speed(1.12))  # other voices: tempo, pitch and formants by 12 %
TRAINING: tuple[Change, ...] = (*SPEEDS, Microphone())  # the augmented copies of the served model
TUTORIALS: tuple[Change, ...] = (Noise(30), Pitch(1), Speed(1.1))  # the usual copies in tutorials
