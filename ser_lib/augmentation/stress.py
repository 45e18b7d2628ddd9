"""Distortions for robustness tests: more changes as in `changes`, and the list `STRESS`."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ser_lib import audio
from ser_lib.audio import decoding
from ser_lib.audio.quality import frame_power
from ser_lib.augmentation.changes import Change, Gain, Noise, Telephone, check_choice, to_length

CODED_RATE = 48_000  # hertz; both MP3 and Opus accept it


@dataclass(frozen=True)
class Clip(Change):
    """Clip at a share of the peak, as an overdriven input does.

    Examples
    --------
    >>> Clip(0.5)(np.array([0.2, -1.0, 0.8], np.float32), 16_000, np.random.default_rng(0))
    array([ 0.2, -0.5,  0.5], dtype=float32)
    """

    share: float  # of the clip's peak amplitude, 0 to 1
    label = "clipped at {share:.0%} of the peak"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        limit = np.float32(self.share) * np.abs(y).max()
        return np.clip(y, -limit, limit)


@dataclass(frozen=True)
class Silence(Change):
    """A pause at the end: noise at the level of the clip's quietest frames."""

    seconds: float
    label = "{seconds:g} s of silence at the end"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        floor = np.sqrt(np.percentile(frame_power(y, rate), 5)).astype(np.float32)
        pause = rng.standard_normal(int(self.seconds * rate), dtype=np.float32) * floor
        return np.concatenate([y, pause])


@dataclass(frozen=True)
class Half(Change):
    """One half of the clip."""

    which: str = "first"  # or "second"
    label = "{which} half"

    def __post_init__(self) -> None:
        check_choice(self.which, ("first", "second"), "half")

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        middle = len(y) // 2
        return (y[:middle] if self.which == "first" else y[middle:]).copy()


@dataclass(frozen=True)
class Codec(Change):
    """Encode at 48 kHz and decode again, in memory, without the codec's delay.

    Opus is put into WebM, as browsers record it.

    Examples
    --------
    >>> y = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    >>> decoded = Codec("mp3", 64)(y, 16_000, np.random.default_rng(0))
    >>> len(decoded), round(float(np.corrcoef(y, decoded)[0, 1]), 1)  # neither longer nor later
    (16000, 1.0)
    """

    codec: str  # "mp3" or "opus"
    kbps: int  # 1000 bits per second

    def __post_init__(self) -> None:
        check_choice(self.codec, ("mp3", "opus"), "codec")

    @property
    def name(self) -> str:
        return f"{'MP3' if self.codec == 'mp3' else 'Opus'} {self.kbps} kb/s"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        import av

        encoder, container = {"mp3": ("libmp3lame", "mp3"), "opus": ("libopus", "webm")}[self.codec]
        file = io.BytesIO()
        with av.open(file, "w", format=container) as out:
            stream: Any = out.add_stream(encoder, rate=CODED_RATE, layout="mono")
            stream.bit_rate = 1000 * self.kbps
            samples = np.ascontiguousarray(audio.resample(y, rate, CODED_RATE)[None])
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = CODED_RATE
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        decoded, decoded_rate = decoding.decode(file.getvalue(), name=self.name)
        return to_length(audio.resample(audio.mix_down(decoded), decoded_rate, rate), len(y))


@dataclass(frozen=True)
class Inaudible(Change):
    """A change that a listener does not notice, or hardly.

    Examples
    --------
    >>> Inaudible("offset of 2 %")(np.zeros(3, np.float32), 16_000, np.random.default_rng(0))
    array([0.02, 0.02, 0.02], dtype=float32)
    """

    label: ClassVar[str] = "{what}"
    what: str  # of INAUDIBLE

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        level = np.sqrt(np.square(y).mean())
        time = np.arange(len(y)) / rate
        match self.what:
            case "offset of 2 %":
                changed = y + 0.02
            case "offset as large as the speech":
                changed = y + level
            case "rumble of 8 Hz as loud as the speech":
                changed = y + 1.4 * level * np.sin(2 * np.pi * 8 * time)
            case "rumble of 20 Hz as loud as the speech":
                changed = y + 1.4 * level * np.sin(2 * np.pi * 20 * time)
            case "inverted polarity":
                changed = -y
            case "click of 5 samples before the speech":
                changed = y.copy()
                changed[rate // 100 : rate // 100 + 5] += np.abs(y).max() * np.array(
                    [1, -1, 1, -1, 1], np.float32
                )
            case "dither of 16 bits":
                changed = y + (rng.random(len(y)) - rng.random(len(y))) / 2**15
            case "1 dB louder":
                changed = y * 10 ** (1 / 20)
            case "half a second more silence":
                changed = np.concatenate([np.zeros(rate // 2), y, np.zeros(rate // 2)])
            case "44.1 kHz and back":
                changed = to_length(audio.resample(audio.resample(y, rate, 44_100), 44_100, rate), len(y))
            case _:  # mains hum 45 dB below the speech
                lines = sum(np.sin(2 * np.pi * 50 * k * time) / k for k in (1, 2, 3))
                changed = y + 0.86 * level * 10 ** (-45 / 20) * lines
        return np.asarray(changed, np.float32)


INAUDIBLE = tuple(
    Inaudible(what)
    for what in (
        "offset of 2 %", "offset as large as the speech", "rumble of 8 Hz as loud as the speech",
        "rumble of 20 Hz as loud as the speech", "inverted polarity", "click of 5 samples before the speech",
        "dither of 16 bits", "1 dB louder", "half a second more silence", "44.1 kHz and back",
        "mains hum 45 dB below the speech",
    )
)  # fmt: skip

# Sounds that are no speech, for the voice check.
NOT_SPEECH = (
    "tone", "vibrato", "chirp", "chord", "sawtooth chord", "plucked string", "guitar", "melody", "drums", "hum",
    "clicks", "pulses", "white noise", "pink noise", "brown noise", "blue noise", "violet noise",
    "noise in bursts",
)  # fmt: skip
NOISE_SLOPES = {"white": 0, "pink": -1, "brown": -2, "blue": 1, "violet": 2}  # of the power, over frequency


def not_speech(kind: str, rng: np.random.Generator, rate: int = 16_000) -> np.ndarray:
    """Synthesise two to five seconds of one of `NOT_SPEECH`; pitch, tempo and length are random.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The peak is 0.5.
    """
    n = int(rate * rng.uniform(2, 5))
    time = np.arange(n) / rate

    def sine(hertz: Any) -> np.ndarray:
        return np.sin(2 * np.pi * np.cumsum(np.full(n, hertz)) / rate)

    def notes(n_notes: int, sound: Any) -> np.ndarray:
        track = np.zeros(n)
        for start in rng.integers(0, n - rate // 4, n_notes):
            track[start:] += sound(n - start)
        return track

    def key(seconds: np.ndarray) -> np.ndarray:
        pitch = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12) * rng.choice([0.5, 1, 2])
        brightness = rng.uniform(1, 2)
        partials = sum(np.sin(2 * np.pi * pitch * k * seconds) / k**brightness for k in range(1, 6))
        return partials * np.exp(-3 * seconds) * (seconds < rng.uniform(0.15, 0.8))

    match kind:
        case "tone":
            y = sine(rng.uniform(80, 2000))
        case "vibrato":
            y = sine(rng.uniform(100, 800) * (1 + 0.03 * np.sin(2 * np.pi * rng.uniform(4, 7) * time)))
        case "chirp":
            y = sine(np.linspace(rng.uniform(80, 1000), rng.uniform(500, 6000), n))
        case "chord":
            root = rng.uniform(110, 440)
            y = np.sum([sine(root * k) / k for k in (1, 1.26, 1.5, 2, 2.52, 3)], axis=0)
        case "sawtooth chord":
            root = rng.uniform(110, 440)
            y = np.sum([(root * k * time) % 1 - 0.5 for k in (1, 1.2, 1.5)], axis=0)
        case "plucked string":
            y = _pluck(rng.uniform(80, 600), n, rng, rate)
        case "guitar":
            y = notes(n * 3 // rate, lambda left: _pluck(rng.uniform(82, 415), left, rng, rate))
        case "melody":
            y = notes(int(n / rate * rng.uniform(2, 6)), lambda left: key(np.arange(left) / rate))
        case "drums":
            y, beat = np.zeros(n), rate // 4
            for i, start in enumerate(range(0, n - beat, beat)):
                hit = np.arange(beat) / rate
                sound = rng.standard_normal(beat) if i % 2 else 2 * np.sin(2 * np.pi * 60 * hit)
                y[start : start + beat] = sound * np.exp(-hit * rng.uniform(15, 40))
        case "hum":
            mains = rng.choice([50, 60])
            y = np.sum(
                [np.sin(2 * np.pi * mains * k * time + rng.uniform(0, 6)) / k for k in range(1, 8)], axis=0
            )
        case "clicks":
            y = np.zeros(n)
            y[rng.integers(0, n, rng.integers(3, 60))] = 1
        case "pulses":
            y = np.diff(np.floor(rng.uniform(80, 300) * time), prepend=0)
        case "noise in bursts":
            y = rng.standard_normal(n) * (1 + np.sin(2 * np.pi * rng.uniform(2, 6) * time))
        case _:  # noise of a colour
            hertz = np.maximum(np.fft.rfftfreq(n, 1 / rate), 20)
            slope = NOISE_SLOPES[kind.split()[0]]
            y = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * hertz ** (slope / 2), n)
    return (0.5 * y / np.abs(y).max()).astype(np.float32)


def _pluck(hertz: float, n: int, rng: np.random.Generator, rate: int) -> np.ndarray:
    """A plucked string. Source: Karplus and Strong (1983)."""
    from scipy.signal import lfilter

    period = int(rate / hertz)
    burst = np.zeros(n)
    burst[:period] = rng.uniform(-1, 1, min(period, n))
    feedback = np.zeros(period + 2)
    feedback[[0, period, period + 1]] = 1, -0.498, -0.498
    return lfilter([1], feedback, burst)


# The test conditions of notebook 06.
STRESS: tuple[Change, ...] = (
    Noise(20), Noise(10), Noise(5), Noise(20, "babble"), Noise(10, "babble"), Noise(5, "babble"),
    Gain(20), Gain(-20), Clip(0.5), Clip(0.2), Telephone(), Codec("mp3", 64), Codec("opus", 24),
    Silence(2), Half(),
)  # fmt: skip
