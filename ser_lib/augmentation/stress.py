"""What befalls a recording on its way, to put a trained model to: changes as in `augment`, and the list `STRESS`."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from ser_lib import audio
from ser_lib.audio import decoding
from ser_lib.audio.quality import frame_power
from ser_lib.augmentation.changes import Change, Gain, Noise, Telephone, known, to_length

CODED_RATE = 48_000  # hertz; what MP3 and Opus both take


@dataclass(frozen=True)
class Clip(Change):
    """Cut off whatever exceeds a share of the peak, as an overdriven input does.

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
    """A pause at the end: noise at the level of the clip's quietest frames.

    Examples
    --------
    >>> longer = Silence(2)(np.ones(16_000, np.float32), 16_000, np.random.default_rng(0))
    >>> len(longer) / 16_000  # seconds
    3.0
    """

    seconds: float
    label = "{seconds:g} s of silence at the end"

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        floor = np.sqrt(np.percentile(frame_power(y, rate), 5)).astype(np.float32)
        pause = rng.standard_normal(int(self.seconds * rate), dtype=np.float32) * floor
        return np.concatenate([y, pause])


@dataclass(frozen=True)
class Half(Change):
    """One half of the clip.

    Examples
    --------
    >>> Half("second")(np.arange(4, dtype=np.float32), 16_000, np.random.default_rng(0))
    array([2., 3.], dtype=float32)
    """

    which: str = "first"  # or "second"
    label = "{which} half"

    def __post_init__(self) -> None:
        known(self.which, ("first", "second"), "half")

    def __call__(self, y: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        middle = len(y) // 2
        return (y[:middle] if self.which == "first" else y[middle:]).copy()


@dataclass(frozen=True)
class Codec(Change):
    """Encoded at 48 kHz and decoded again, in memory; the container tells the delay, which is taken out.

    Opus lies in WebM, as browsers record it.

    Examples
    --------
    >>> y = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    >>> heard = Codec("mp3", 64)(y, 16_000, np.random.default_rng(0))
    >>> len(heard), round(float(np.corrcoef(y, heard)[0, 1]), 1)  # neither longer nor later
    (16000, 1.0)
    """

    codec: str  # "mp3" or "opus"
    kbps: int  # kilobits a second, 1000 bits each

    def __post_init__(self) -> None:
        known(self.codec, ("mp3", "opus"), "codec")

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
        heard, back = decoding.decode(file.getvalue(), name=self.name)
        return to_length(audio.resample(audio.mix_down(heard), back, rate), len(y))


# What notebook 06 puts a model to.
STRESS: tuple[Change, ...] = (
    *(Noise(snr_db, kind) for kind in ("white", "babble") for snr_db in (20, 10, 5)),
    Gain(20), Gain(-20), Clip(0.5), Clip(0.2), Telephone(), Codec("mp3", 64), Codec("opus", 24),
    Silence(2), Half(),
)  # fmt: skip
