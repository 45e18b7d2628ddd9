"""Changes to a waveform that keep its label: copies for training folds. What else befalls recordings is in `stress`.

A change is called with a waveform (mono float32, shape (n_samples,)), its sample rate in hertz and a
random generator. It returns a new waveform at the same rate: float32, finite, of another length where
that is its nature. Samples may exceed full scale, since floats do not clip. Changes are frozen and can
be pickled; `name` is for a figure or a table, and the `repr` names a change in the cache of feature
tables. `audio.load(path, change=Speed(1.1))` applies one at the file's own rate; the generator is seeded
by the clip, so that Noise(20) and Noise(10) are the same noise at two levels.
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
VOICES = 6  # talkers in the babble


class Change:
    """What all changes have in common."""

    label: ClassVar[str]  # the name, with the parameters to be filled in

    @property
    def name(self) -> str:
        return self.label.format(**vars(self))

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError


def _filter(y: np.ndarray, rate: int, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Filter without delay by an amplitude gain that is a function of hertz."""
    n = scipy.fft.next_fast_len(len(y) + rate // 10, real=True)
    response = gain(scipy.fft.rfftfreq(n, 1 / rate)).astype(np.float32)
    return scipy.fft.irfft(scipy.fft.rfft(y, n) * response, n)[: len(y)]


def to_length(y: np.ndarray, n: int) -> np.ndarray:
    """Cut, or padded with zeros, to `n` samples."""
    return np.pad(y[:n], (0, max(0, n - len(y))))


def known(value: str, choices: tuple[str, ...], what: str) -> None:
    """Refuse a word that is none of the choices.

    Raises
    ------
    SerError
        Lists them.
    """
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

    The clip is stretched by overlapping pieces where they fit best, then resampled.
    Source: Verhelst & Roelands (1993), WSOLA. A phase vocoder would lose level and blur the pulses.

    Examples
    --------
    >>> from ser_lib.features.pitch import pitch
    >>> y = np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000).astype(np.float32)
    >>> higher = Pitch(12)(y, 16_000, np.random.default_rng(0))
    >>> len(higher), round(float(np.median(pitch(higher, rate=16_000, hop=160)[0])))  # hertz
    (16000, 400)
    """

    semitones: float
    label = "pitch {semitones:+g} semitones"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        factor = 2 ** (self.semitones / 12)
        return to_length(Speed(factor)(_stretch(y, rate, factor), rate, rng), len(y))


def _stretch(y: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """Longer by `factor` at the same pitch."""
    hop = int(0.015 * rate)  # samples; half a piece
    reach = int(0.01 * rate)  # samples; how far a piece may be from its place, half a period of 50 Hz
    pieces = int(len(y) * factor / hop) + 2
    padded = np.pad(y, (hop + reach, int(3 * hop / factor) + 3 * hop + reach)).astype(np.float64)
    energy = np.concatenate([[0], np.cumsum(np.square(padded))])
    out = np.zeros((pieces + 1) * hop)
    window = lld.hann(2 * hop)
    far = 1e-3 * np.abs(np.linspace(-1, 1, 2 * reach + 1))  # the nearest of equals, so in silence
    start = reach
    for i in range(pieces):
        if i:
            low = round(i * hop / factor)
            follows = padded[start + hop : start + 3 * hop]  # what would follow without a stretch
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

    `white` is flat. `babble` has the clip's own long-term spectrum and the modulation of six talkers of
    2.5 to 5.5 syllables a second. It is noise of that shape and holds no voices: a sum of independent
    noises, each with its own envelope, is one noise whose power is the sum of theirs.

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
        known(self.kind, ("white", "babble"), "noise")

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal(len(y), dtype=np.float32)
        shape = np.ones(2)
        if self.kind == "babble":
            tempo = rng.uniform(2.5, 5.5, (VOICES, 1))  # syllables a second
            cycles = tempo * np.arange(len(y)) / rate + rng.uniform(0, 1, (VOICES, 1))
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
    """A brighter or darker microphone: a gain that is 0 dB at 1 kHz and level below 50 Hz, above 16 kHz.

    Examples
    --------
    >>> y = np.sin(2 * np.pi * 2000 * np.arange(16_000) / 16_000).astype(np.float32)  # an octave above 1 kHz
    >>> darker = Tilt(-3)(y, 16_000, np.random.default_rng(0))
    >>> round(float(20 * np.log10(darker.std() / y.std())), 1)
    -3.0
    """

    db_per_octave: float  # above 0: brighter
    label = "tilt {db_per_octave:+g} dB/octave"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        octaves = self.db_per_octave / 20
        return _filter(y, rate, lambda hertz: 10 ** (octaves * np.log2(np.clip(hertz, 50, 16_000) / 1000)))


@dataclass(frozen=True)
class Gain(Change):
    """Louder or softer. Nothing is cut off at full scale; `stress.Clip` does that."""

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
        heard = sosfilt(line, audio.resample(y, rate, 8_000))
        return to_length(audio.resample(heard, 8_000, rate), len(y))


@dataclass(frozen=True)
class Room(Change):
    """Reverberation: the direct sound and, 2.5 ms later, noise that decays alike at all frequencies.

    Every clip gets a room of its own. The tail past the end of the clip is left out.
    Source: Moorer (1979), About this reverberation business.

    Examples
    --------
    >>> click = np.eye(1, 16_000, dtype=np.float32)[0]
    >>> heard = Room(0.3, 5)(click, 16_000, np.random.default_rng(0))
    >>> round(float(-10 * np.log10(np.square(heard[1:]).sum())), 1)  # decibels, the click over its echo
    5.0
    """

    rt60_s: float  # seconds in which the reverberation falls by 60 dB
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
    """The same speech as another device in another place would have it; all drawn anew for each clip.

    A room (for half of the clips), a colour of the microphone, white or babble noise (for most), a
    telephone line (for a few) and a level.

    Examples
    --------
    >>> y = np.sin(np.arange(16_000, dtype=np.float32) / 20)
    >>> a, again, b = (Microphone(take)(y, 16_000, np.random.default_rng(0)) for take in (0, 0, 1))
    >>> bool((a == again).all()), bool((a == b).all())
    (True, False)
    """

    take: int = 0  # another take is another draw
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


# Other voices for training folds: tempo, pitch and formants by an eighth, either way.
SPEEDS: tuple[Change, ...] = (Speed(0.88), Speed(1.12))

# What the served model is trained with, beside the clips as they were recorded.
TRAINING: tuple[Change, ...] = (*SPEEDS, Microphone())
TUTORIALS: tuple[Change, ...] = (Noise(30), Pitch(1), Speed(1.1))  # by which they multiply clips
