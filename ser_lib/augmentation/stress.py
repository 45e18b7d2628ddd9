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

# The test conditions of notebook 06.
STRESS: tuple[Change, ...] = (
    Noise(20), Noise(10), Noise(5), Noise(20, "babble"), Noise(10, "babble"), Noise(5, "babble"),
    Gain(20), Gain(-20), Clip(0.5), Clip(0.2), Telephone(), Codec("mp3", 64), Codec("opus", 24),
    Silence(2), Half(),
)  # fmt: skip
