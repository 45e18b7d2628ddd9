"""Recordings in one form, the same in training and serving.

Audio is mono float32 in [-1, 1] (full scale; a loud float file may exceed it), shape (n_samples,),
at `config.sample_rate` hertz, with the silence at both ends trimmed. What nobody hears is removed, in training
and serving alike: a DC offset, rumble below the voice, and clicks of a few samples.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ser_lib.audio import decoding, quality
from ser_lib.errors import AudioError

Change = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # see `ser_lib.augmentation.changes`

MIN_S = 0.3  # seconds of sound; less holds no syllable
SHOWN_S = 10.0  # seconds of a clip that a notebook embeds
LOW_HZ, HIGH_HZ = (
    30.0,
    60.0,
)  # nothing below the first passes, everything above the second; voices start near 65
PAD_S = 0.2  # seconds by which a clip is continued at both ends, so that filters do not ring there
CLICK_DB = 25.0  # decibels by which a click of at most 2 ms exceeds the 20 ms before and after it
CLICKS = 30  # in a second; more are the sound itself
INVERTED_DB = 10.0  # decibels that are lost in mixing two channels, of which one must be inverted
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
    notes : tuple of str
        What is odd about the file: a wrong length in the header, several tracks, an inverted channel.
    """

    samples: np.ndarray
    sample_rate: int
    name: str
    duration_s: float
    source_rate: int
    channels: int
    audio_sha256: str = ""
    quality: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
    """Decode, mix down, clean, resample and trim one clip.

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
    notes: list[str] = []
    raw, rate = decoding.decode(source, name=name, notes=notes)
    return prepare(raw, rate, config, name=name, change=change, seed=seed, notes=notes)


def prepare(
    raw: np.ndarray,
    rate: int,
    config: AudioConfig = AudioConfig(),
    *,
    name: str,
    change: Change | None = None,
    seed: int = 0,
    notes: Sequence[str] = (),
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
    if not np.isfinite(raw).all():
        raise AudioError(f"{name}: some samples are not numbers (NaN or infinite); export the clip again")
    mono = mix_down(raw)
    if raw.shape[1] > 1 and not np.array_equal(mono, raw.mean(axis=1, dtype=np.float32)):
        notes = [*notes, "the channels cancel each other out (one is inverted): the louder one was used"]
    if (peak := float(np.abs(mono).max())) > MAX_PEAK:
        raise AudioError(f"{name}: samples reach {peak:.3g}, full scale is 1; divide by the integer range")
    content = content_hash(mono, rate)
    if change is not None:
        mono = change(mono, rate, np.random.default_rng([seed, int(content, 16)]))
    whole = clean(mono, rate, config.sample_rate)
    if max(whole.max(), -whole.min()) < decoding.SILENCE:
        raise AudioError(f"{name}: silent (peak below -80 dB); check the microphone or the export")
    samples = trim(whole, config)
    if len(samples) < MIN_S * config.sample_rate:
        sound_s = len(samples) / config.sample_rate
        raise AudioError(f"{name}: {sound_s:.2f} s of sound between silences; at least {MIN_S} s is needed")
    channels = raw.shape[1]
    measured = quality.describe(mono, rate, whole, samples, config.sample_rate, channels=channels)
    return Audio(
        samples,
        config.sample_rate,
        Path(name).name,
        duration,
        rate,
        channels,
        content,
        measured,
        tuple(notes),
    )


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
    """Average the channels, or take the loudest where they cancel each other out; (n_samples,), float32.

    Examples
    --------
    >>> mix_down(np.array([[0.25, 0.75], [0.5, -0.5]]))
    array([0.5, 0. ], dtype=float32)
    >>> mix_down(np.array([[0.5, -0.5], [-0.25, 0.25]]))
    array([ 0.5 , -0.25], dtype=float32)
    """
    if samples.shape[1] == 1:
        return samples[:, 0]
    mono = samples.mean(axis=1, dtype=np.float32)
    power = np.square(samples).mean(axis=0)
    if np.square(mono).mean() < power.max() * 10 ** (-INVERTED_DB / 10) / samples.shape[1]:
        return np.ascontiguousarray(samples[:, power.argmax()], np.float32)
    return mono


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


def clean(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Remove clicks, a DC offset and rumble, and change the sample rate; (n_samples,) float32 to float32.

    The high-pass filter has no delay and a raised-cosine edge from `LOW_HZ` to `HIGH_HZ`.

    Examples
    --------
    >>> time = np.arange(48_000) / 48_000
    >>> tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    >>> rumble = (0.2 + np.sin(2 * np.pi * 8 * time)).astype(np.float32)
    >>> bool(np.abs(clean(tone + rumble, 48_000, 16_000) - clean(tone, 48_000, 16_000)).max() < 1e-3)
    True
    """
    import scipy.fft

    pad = round(PAD_S * rate)
    wide = np.pad(without_clicks(samples, rate), pad, mode="reflect", reflect_type="odd")
    wide = resample(np.asarray(wide, np.float32), rate, target)
    n = scipy.fft.next_fast_len(len(wide), real=True)
    spectrum = scipy.fft.rfft(np.pad(wide, (0, n - len(wide)), mode="edge"))
    hertz = np.arange(int(HIGH_HZ * n / target) + 1, dtype=np.float32) * target / n
    edge = np.clip((hertz - LOW_HZ) / (HIGH_HZ - LOW_HZ), 0, 1)
    spectrum[: len(hertz)] *= 0.5 - 0.5 * np.cos(np.pi * edge)
    wide = scipy.fft.irfft(spectrum, n)
    start = round(pad * target / rate)
    return wide[start : start + round(len(samples) * target / rate)]


def without_clicks(samples: np.ndarray, rate: int) -> np.ndarray:
    """Replace clicks by straight lines: bursts of at most 2 ms, far above the 20 ms before and after them.

    Speech has none: a voice repeats its pulses within 20 ms, and a plosive is followed by breath.

    Examples
    --------
    >>> quiet = np.random.default_rng(0).normal(0, 1e-3, 8_000).astype(np.float32)
    >>> clicked = quiet.copy()
    >>> clicked[4_000:4_005] += np.float32(0.5) * np.array([1, -1, 1, -1, 1], np.float32)
    >>> float(np.abs(without_clicks(clicked, 16_000)).max()) < 0.01
    True
    """
    n = max(1, rate // 1000)  # samples in a millisecond
    steps = np.diff(samples, prepend=samples[:1])  # a DC offset and rumble do not count
    power = np.square(steps[: len(steps) // n * n]).reshape(-1, n).sum(axis=1)
    near = sliding_window_view(np.pad(power, 20), 18).max(axis=1)  # of 18 ms
    around = np.maximum(
        near[: len(power)], near[-len(power) :]
    )  # from 20 to 3 ms before, from 3 to 20 ms after
    clicks = np.flatnonzero(power > np.maximum(around, 1e-8) * 10 ** (CLICK_DB / 10))
    if not 0 < len(clicks) <= CLICKS * len(samples) / rate:
        return samples
    bad = np.zeros(len(samples), bool)
    for i in clicks:
        bad[max(0, (i - 1) * n) : (i + 2) * n] = True
    good = np.flatnonzero(~bad)
    repaired = samples.copy()
    repaired[bad] = np.interp(np.flatnonzero(bad), good, samples[good])
    return repaired


def trim(samples: np.ndarray, config: AudioConfig = AudioConfig(), *, frame: int = 512) -> np.ndarray:
    """Drop the ends that are `config.trim_db` below the loudest `frame` samples in a row.

    The cuts depend on the sound alone, sample by sample, so more silence around it changes nothing. The result
    is a view of `samples`.

    Examples
    --------
    >>> trim(np.repeat([0.0, 0.5, 0.0, 0.5, 0.0], 512)).shape  # the pause inside stays
    (2558,)
    """
    if config.trim_db is None or len(samples) <= frame:
        return samples
    total = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    power = total[frame:] - total[:-frame]
    loud = np.flatnonzero(power >= power.max() * 10 ** (-config.trim_db / 10))
    return samples[loud[0] : loud[-1] + frame]
