"""Recordings in one form, the same in training and serving.

Audio is mono float32 in [-1, 1] (full scale; a loud float file may exceed it), shape (n_samples,),
at `config.sample_rate` hertz, with the silence at both ends trimmed. Nothing else is cut.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from pathlib import Path

import numpy as np

from ser_lib.audio import decoding, quality
from ser_lib.errors import AudioError

Change = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # see `ser_lib.augmentation.changes`

MIN_S = 0.3  # seconds of sound; less holds no syllable
SHOWN_S = 10.0  # seconds of a clip that a notebook embeds
SILENCE = 1e-4  # peak amplitude, -80 dB full scale
MAX_PEAK = 8.0  # a higher peak in a float file means samples that are not scaled to [-1, 1]


@dataclass(frozen=True)
class AudioConfig:
    """How a waveform is prepared."""

    sample_rate: int = 16_000  # hertz
    trim_db: float | None = 40.0  # decibels below the loudest frame; None keeps the ends


@dataclass(frozen=True)
class Audio:
    """One clip, ready for `features.extract`.

    Attributes
    ----------
    samples : ndarray of float32, shape (n_samples,)
    sample_rate : int
        Hertz, of `samples`.
    name : str
        The file's name, for messages.
    duration_s : float
        Seconds, of the whole file.
    source_rate, channels : int
        The file's own sample rate (hertz) and channel count.
    audio_sha256 : str
        `content_hash` of the file.
    quality : dict
        From `quality.describe`, after any `change`.
    """

    samples: np.ndarray
    sample_rate: int
    name: str
    duration_s: float
    source_rate: int
    channels: int
    audio_sha256: str = ""
    quality: dict[str, float] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """Show a player and the waveform of the first `SHOWN_S` seconds, scaled to its peak."""
        import soundfile

        shown = self.samples[: int(SHOWN_S * self.sample_rate)]
        wav = io.BytesIO()
        soundfile.write(wav, shown, self.sample_rate, format="WAV", subtype="PCM_16")
        peaks = np.array([np.abs(part).max(initial=0) for part in np.array_split(shown, 240)])
        heights = peaks / (peaks.max() or 1)
        strokes = "".join(f"M{x} {-height:.2f}v{2 * height:.2f}" for x, height in enumerate(heights))
        cut = f", the first {SHOWN_S:.0f} s here" if len(shown) < len(self.samples) else ""
        return (
            f"<p>{escape(self.name)}: {self.duration_s:.2f} s, {self.source_rate} Hz, {self.channels} channel(s); "
            f"as loaded {len(self.samples) / self.sample_rate:.2f} s at {self.sample_rate} Hz{cut}</p>"
            '<svg viewBox="0 -1 240 2" preserveAspectRatio="none" role="img" aria-label="waveform" '
            'style="display: block; width: 100%; max-width: 30rem; height: 4rem">'
            f'<path d="{strokes}" stroke="currentColor"/></svg>'
            '<audio controls style="width: 100%; max-width: 30rem" '
            f'src="data:audio/wav;base64,{b64encode(wav.getvalue()).decode()}"></audio>'
        )


def load(
    source: decoding.Source,
    config: AudioConfig = AudioConfig(),
    *,
    name: str | None = None,
    change: Change | None = None,
    seed: int = 0,
) -> Audio:
    """Decode, mix down, resample and trim one clip.

    Parameters
    ----------
    source : path, bytes or binary file object
    name : str, optional
        The clip's name in messages; by default the path, or "audio".
    change : callable, optional
        Applied at the file's own rate, before resampling and trimming; see `ser_lib.augmentation.changes`.
    seed : int
        Seeds the generator of `change`, together with the clip's content.

    Raises
    ------
    AudioError
        Not audio, damaged, silent, shorter than `MIN_S`, longer than `decoding.MAX_S`, samples that
        are not numbers or not scaled to [-1, 1], or a sample rate out of range.

    Examples
    --------
    >>> import io, numpy as np, soundfile
    >>> wav = io.BytesIO()
    >>> soundfile.write(wav, np.sin(np.arange(48_000) / 20), 48_000, format="WAV")
    >>> clip = load(wav.getvalue(), name="hum.wav")
    >>> clip.samples.shape, clip.samples.dtype.name, clip.source_rate
    ((16000,), 'float32', 48000)
    """
    name = name or decoding.name_of(source)
    return prepare(*decoding.decode(source, name=name), config, name=name, change=change, seed=seed)


def prepare(
    raw: np.ndarray,
    rate: int,
    config: AudioConfig = AudioConfig(),
    *,
    name: str,
    change: Change | None = None,
    seed: int = 0,
) -> Audio:
    """Do what `load` does after decoding; `raw` has shape (n_samples, n_channels), at `rate` hertz.

    Raises
    ------
    AudioError
        As `load`.
    """
    duration = len(raw) / rate
    if duration < MIN_S:
        raise AudioError(f"{name}: {duration:.2f} s of audio; at least {MIN_S} s is needed")
    mono = mix_down(raw)
    peak = float(max(mono.max(), -mono.min()))
    if not np.isfinite(peak):
        raise AudioError(f"{name}: some samples are not numbers (NaN or infinite); export the clip again")
    if peak < SILENCE:
        raise AudioError(f"{name}: silent (peak below -80 dB); check the microphone or the export")
    if peak > MAX_PEAK:
        raise AudioError(f"{name}: samples reach {peak:.3g}, full scale is 1; divide by the integer range")
    content = content_hash(mono, rate)
    if change is not None:
        mono = change(mono, rate, np.random.default_rng([seed, int(content, 16)]))
    samples = trim(resample(mono, rate, config.sample_rate), config)
    if len(samples) < MIN_S * config.sample_rate:
        sound_s = len(samples) / config.sample_rate
        raise AudioError(f"{name}: {sound_s:.2f} s of sound between silences; at least {MIN_S} s is needed")
    channels = raw.shape[1]
    measured = quality.describe(mono, rate, samples, config.sample_rate, channels=channels)
    return Audio(samples, config.sample_rate, Path(name).name, duration, rate, channels, content, measured)


def stream(
    source: decoding.Source,
    config: AudioConfig = AudioConfig(),
    *,
    name: str | None = None,
    seconds: float = 5.0,
) -> Iterator[np.ndarray]:
    """Yield mono parts of a recording at `config.sample_rate`, untrimmed, in little memory.

    Raises
    ------
    AudioError
        As `decoding.blocks`.
    """
    import soxr

    resampler = None
    for part, rate in decoding.blocks(source, name=name, seconds=seconds):
        resampler = resampler or soxr.ResampleStream(rate, config.sample_rate, 1, "float32", "HQ")
        yield resampler.resample_chunk(np.ascontiguousarray(mix_down(part)))
    if resampler:
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def mix_down(samples: np.ndarray) -> np.ndarray:
    """Average the channels: (n_samples, n_channels) to (n_samples,), float32."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def content_hash(samples: np.ndarray, rate: int) -> str:
    """SHA-256 of mono samples, shape (n_samples,), and their rate: the same for a WAV and its FLAC copy."""
    digest = sha256(rate.to_bytes(4, "little"))
    digest.update(np.ascontiguousarray(samples, dtype="<f4").data)
    return digest.hexdigest()


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Change the sample rate with soxr, high quality; (n_samples,) float32 to float32."""
    if rate == target:
        return samples
    import soxr

    return soxr.resample(samples, rate, target, quality="HQ")


def trim(samples: np.ndarray, config: AudioConfig = AudioConfig(), *, frame: int = 512) -> np.ndarray:
    """Drop the leading and trailing frames that are `config.trim_db` below the loudest frame.

    Frames of `frame` samples do not overlap; the result is a view of `samples`.

    Examples
    --------
    >>> trim(np.repeat([0.0, 0.5, 0.0, 0.5, 0.0], 512)).shape  # the pause inside stays
    (1536,)
    """
    if config.trim_db is None or not len(samples):
        return samples
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    power = np.square(padded).mean(axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-config.trim_db / 10))
    return samples[loud[0] * frame : (loud[-1] + 1) * frame]
