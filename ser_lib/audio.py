"""Whatever a user has to hand, decoded to one form.

Audio is mono float32 in [-1, 1] (full scale; a loud float file may exceed it), shape (n_samples,),
at `config.sample_rate` hertz, with the silence at both ends trimmed. Nothing else is cut.

soundfile (libsndfile) reads WAV, FLAC, OGG/Opus and MP3; PyAV (FFmpeg) reads the rest, among them
M4A/AAC and the WebM that browsers record. Training and serving call the same `load`.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ser_lib.errors import AudioError

Source = str | Path | bytes | BinaryIO
Change = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # see `ser_lib.augment`

MIN_S = 0.3  # seconds of sound; less holds no syllable
MAX_S = 600.0  # seconds; longer recordings are for windowed prediction
UNKNOWN = 2**48  # samples; what libsndfile says of a stream that does not tell its length is more
MAX_VALUES = 60_000_000  # samples times channels: ten minutes of 48 kHz stereo; a small file can claim more
SHOWN_S = 10.0  # seconds that a notebook embeds of a clip it shows
MIN_RATE, MAX_RATE = 4_000, 384_000  # hertz
SILENCE = 1e-4  # peak amplitude, -80 dB full scale
# FFmpeg's demuxers for recordings. Its playlist and session readers would open files and addresses
# that an upload names.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,wav,w64,aiff,caf,flac,ogg,mp3,aac,amr,asf,avi,mpeg,mpegts"
MAX_PEAK = 8.0  # float files: a higher peak means that the samples are not scaled to [-1, 1]


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
        Seconds, of the file as it came.
    source_rate, channels : int
        The file's own sample rate (hertz) and channel count.
    audio_sha256 : str
        `content_hash` of the file.
    """

    samples: np.ndarray
    sample_rate: int
    name: str
    duration_s: float
    source_rate: int
    channels: int
    audio_sha256: str = ""

    def _repr_html_(self) -> str:
        """A player with the first `SHOWN_S` seconds, and their waveform scaled to its peak."""
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
    source: Source,
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
        What messages call the clip; the path or "audio" if not given.
    change : callable, optional
        Applied at the file's own rate, before resampling and trimming; see `ser_lib.augment`.
    seed : int
        With the clip's content it decides what is random in `change`, whatever came before.

    Raises
    ------
    AudioError
        Not audio, damaged, silent, shorter than `MIN_S`, longer than `MAX_S`, samples that are
        not numbers or not scaled to [-1, 1], or a sample rate outside `MIN_RATE` to `MAX_RATE`.

    Examples
    --------
    >>> import io, numpy as np, soundfile
    >>> wav = io.BytesIO()
    >>> soundfile.write(wav, np.sin(np.arange(48_000) / 20), 48_000, format="WAV")
    >>> clip = load(wav.getvalue(), name="hum.wav")
    >>> clip.samples.shape, clip.samples.dtype.name, clip.source_rate
    ((16000,), 'float32', 48000)
    """
    name = name or name_of(source)
    return prepare(*decode(source, name=name), config, name=name, change=change, seed=seed)


def prepare(
    raw: np.ndarray,
    rate: int,
    config: AudioConfig = AudioConfig(),
    *,
    name: str,
    change: Change | None = None,
    seed: int = 0,
) -> Audio:
    """What `load` does after decoding; `raw` of shape (n_samples, n_channels) at `rate` hertz.

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
        found = len(samples) / config.sample_rate
        raise AudioError(f"{name}: {found:.2f} s of sound between silences; at least {MIN_S} s is needed")
    return Audio(samples, config.sample_rate, Path(name).name, duration, rate, raw.shape[1], content)


def name_of(source: Source) -> str:
    """The path, or the file object's name if it is text (a temporary file's is None or a number)."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", None)
    return str(name) if isinstance(name, str | Path) else "audio"


def decode(source: Source, *, name: str | None = None) -> tuple[np.ndarray, int]:
    """Return the samples as they are in the file, float32 of shape (n_samples, n_channels), and the rate.

    Raises
    ------
    AudioError
        As `blocks`.
    """
    parts = list(blocks(source, name=name))
    rate = parts[0][1]
    return parts[0][0] if len(parts) == 1 else np.concatenate([part for part, _ in parts]), rate


def blocks(
    source: Source, *, name: str | None = None, seconds: float | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """The samples as they are in the file, in parts of at most `seconds` (None: in one), each with the rate.

    What says that it is longer than `MAX_S` is refused before anything is decoded.

    Raises
    ------
    AudioError
        Not found, not audio, damaged, empty, longer than `MAX_S`, or an absurd sample rate.
    """
    name = name or name_of(source)
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise AudioError(f"{name}: no such file")
        with open(source, "rb") as file:
            head = file.read(4)
    else:
        source = io.BytesIO(source if isinstance(source, bytes) else source.read())
        head = bytes(source.getbuffer()[:4])
    if not head:
        raise AudioError(f"{name}: empty file (0 bytes); record or copy it again")
    n_samples = 0
    # libsndfile keeps some memory of each damaged OGG file for ever
    parts = _with_ffmpeg(source, name) if head == b"OggS" else _with_soundfile(source, name, seconds)
    for part, rate in parts:
        n_samples += len(part)
        if n_samples > MAX_S * rate:
            raise _too_long(name)
        yield part, rate
    if not n_samples:
        raise AudioError(f"{name}: no audio samples in the file; record or export it again")


def _too_long(name: str) -> AudioError:
    return AudioError(f"{name}: longer than {MAX_S:.0f} s; cut it into shorter clips")


def _with_soundfile(
    source: str | Path | io.BytesIO, name: str, seconds: float | None
) -> Iterator[tuple[np.ndarray, int]]:
    """As `blocks`; what libsndfile does not know, or not to its end, is left to FFmpeg."""
    import soundfile

    part = None
    try:
        with soundfile.SoundFile(source) as file:
            rate = file.samplerate
            _check_rate(rate, name)
            if MAX_S * rate < file.frames < UNKNOWN:
                raise _too_long(name)
            n = int(seconds * rate) if seconds else int(MAX_S * rate) + 1  # one more than is allowed
            _check_size(min(file.frames, n) * file.channels, name)
            while len(part := file.read(n, dtype="float32", always_2d=True)):
                yield part, rate
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        if part is not None:
            raise _damaged(name) from error
        yield from _with_ffmpeg(source, name)


def _damaged(name: str) -> AudioError:
    return AudioError(f"{name}: not audio, or damaged; WAV, FLAC, OGG, MP3, M4A and WebM are read")


def _with_ffmpeg(source: str | Path | io.BytesIO, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """As `blocks`, in the parts that the codec has."""
    import av

    if isinstance(source, io.BytesIO):
        source.seek(0)
    try:
        opened = source if isinstance(source, io.BytesIO) else str(source)
        with av.open(opened, options={"format_whitelist": CONTAINERS}) as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: no audio track in the file; export it as WAV, FLAC, MP3 or M4A")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise ValueError("no decoder for the audio track")
            rate, n_samples = stream.sample_rate, 0
            _check_rate(rate, name)
            if (container.duration or 0) > MAX_S * av.time_base:
                raise _too_long(name)
            # "flt", not "fltp": PyAV reads astray where a file claims more than eight channels in planes
            to_float = av.AudioResampler(format="flt", rate=rate)
            for frame in container.decode(audio=0):
                n_samples += frame.samples
                _check_size(n_samples * stream.channels, name)
                for part in to_float.resample(frame):
                    yield part.to_ndarray().reshape(-1, part.layout.nb_channels), rate
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise _damaged(name) from error


def stream(
    source: Source, config: AudioConfig = AudioConfig(), *, name: str | None = None, seconds: float = 5.0
) -> Iterator[np.ndarray]:
    """Mono parts of a recording of any length at `config.sample_rate`, untrimmed, in little memory.

    Raises
    ------
    AudioError
        As `blocks`.
    """
    import soxr

    resampler = None
    for part, rate in blocks(source, name=name, seconds=seconds):
        resampler = resampler or soxr.ResampleStream(rate, config.sample_rate, 1, "float32", "HQ")
        yield resampler.resample_chunk(np.ascontiguousarray(mix_down(part)))
    if resampler:
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def _check_rate(rate: int, name: str) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name}: sample rate {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz is read, export it at 16000 or more"
        )


def _check_size(values: float, name: str) -> None:
    if values > MAX_VALUES:
        raise AudioError(
            f"{name}: too many samples or channels to hold in memory; export it at 48 kHz or less"
        )


def mix_down(samples: np.ndarray) -> np.ndarray:
    """Mean over channels: (n_samples, n_channels) to (n_samples,), float32."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def content_hash(samples: np.ndarray, rate: int) -> str:
    """SHA-256 of mixed-down samples, shape (n_samples,), and their rate: the same for a WAV and its FLAC copy."""
    digest = sha256(rate.to_bytes(4, "little"))
    digest.update(np.ascontiguousarray(samples, dtype="<f4"))
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
    """
    if config.trim_db is None or not len(samples):
        return samples
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    power = np.square(padded).mean(axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-config.trim_db / 10))
    return samples[loud[0] * frame : (loud[-1] + 1) * frame]
