"""Audio files of any format to samples as stored in the file, float32 of shape (n_samples, n_channels).

soundfile (libsndfile) reads WAV, FLAC and MP3; PyAV (FFmpeg) reads the rest: OGG/Opus, M4A/AAC, and the
WebM that browsers record.
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ser_lib.errors import AudioError

Source = str | Path | bytes | BinaryIO

# What is taken from a folder. A file of any other name is tried if it is named itself.
SUFFIXES = (
    ".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".webm",
    ".3g2", ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".amr", ".asf", ".au", ".avi", ".awb", ".caf", ".m2ts",
    ".m4b", ".m4r", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp4", ".mpeg", ".mpg", ".mts", ".oga", ".ogv",
    ".qt", ".rf64", ".snd", ".sph", ".spx", ".voc", ".vob", ".w64", ".wave", ".weba", ".wma", ".wmv",
)  # fmt: skip

MAX_S = 600.0  # seconds
UNKNOWN = 2**48  # samples; libsndfile reports more than this for a stream of unknown length
MAX_VALUES = 60_000_000  # samples times channels: ten minutes of 48 kHz stereo; a small file can claim more
MAX_BYTES = 500_000_000  # of a pipe: 60 million values of 8 bytes, and their header
MIN_RATE, MAX_RATE = 4_000, 384_000  # hertz
# FFmpeg's demuxers for recordings. Its playlist readers would open files and addresses named in an upload.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,wav,w64,aiff,caf,flac,ogg,mp3,aac,amr,asf,avi,mpeg,mpegts"


def recordings(folder: str | Path) -> Iterator[Path]:
    """Yield the audio files of a folder and its subfolders, and subfolders that cannot be read, in no order."""
    return (path for path in walk(folder) if _is_recording(path))


def walk(folder: str | Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, linked ones too, each folder once; hidden files are left out.

    A folder that cannot be read is yielded itself.
    """
    seen = set()
    errors: list[OSError] = []
    tree = os.walk(folder, followlinks=True, onerror=errors.append) if os.path.isdir(folder) else ()
    for place, folders, names in tree:
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above, or a second link to one
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort(key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        yield from (Path(place, name) for name in names if not name.startswith("."))
    yield from (Path(error.filename) for error in errors)


def other_files(folder: str | Path) -> dict[str, int]:
    """Count the files of a folder that are not taken for recordings, by suffix, the most frequent first."""
    counts = Counter(path.suffix.lower() or path.name for path in walk(folder) if not _is_recording(path))
    return dict(counts.most_common())


def other_files_text(counts: Mapping[str, int], shown: int = 5) -> str:
    """Return the result of `other_files` in words.

    Examples
    --------
    >>> other_files_text({".txt": 2, ".pdf": 1})
    '3 other file(s) left out: .txt (2), .pdf (1)'
    """
    kinds = [f"{suffix} ({n})" for suffix, n in counts.items()]
    more = ", …" if len(kinds) > shown else ""
    return f"{sum(counts.values())} other file(s) left out: {', '.join(kinds[:shown])}{more}"


def _is_recording(path: Path) -> bool:
    """Whether it is to be tried: a pipe is not; a broken link and a folder that cannot be read are, to be reported."""
    return path.is_dir() or (path.suffix.lower() in SUFFIXES and (path.is_file() or not path.exists()))


def readable(path: str | Path, name: str) -> str | bytes:
    """Return a path that soundfile and FFmpeg open, or the content where they cannot.

    A pipe is read once. A name that is not UTF-8 is no text for either of the two.
    """
    if os.path.isdir(path):
        raise AudioError(f"{name}: a folder, not a recording; give one of its files")
    if not os.path.exists(path):
        raise AudioError(f"{name}: no such file")
    path = os.path.join(os.getcwd(), path)  # FFmpeg takes `12:30.ogg` for an address, but not `/…/12:30.ogg`
    if os.path.isfile(path) and not re.search("[\ud800-\udfff]", path):
        return path
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise AudioError(f"{name}: more than {MAX_BYTES // 10**6} MB; cut it into shorter clips")
    return content


def name_of(source: Source) -> str:
    """The path, or the file object's name if it is text (a temporary file's is None or a number), or "audio"."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", None)
    return str(name) if isinstance(name, str | Path) else "audio"


def decode(source: Source, *, name: str | None = None) -> tuple[np.ndarray, int]:
    """Return the samples, float32 of shape (n_samples, n_channels), and the rate in hertz.

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
    """Yield the samples in parts of at most `seconds` (None: one part), each with the rate in hertz.

    A file whose header claims more than `MAX_S` is refused before anything is decoded.

    Raises
    ------
    AudioError
        No such file, not audio, damaged, empty, longer than `MAX_S`, or a sample rate out of range.
    """
    name = name or name_of(source)
    if isinstance(source, str | Path):
        source = readable(source, name)
    if isinstance(source, str):
        with open(source, "rb") as file:
            head = file.read(4)
    else:
        source = io.BytesIO(source if isinstance(source, bytes) else source.read())
        head = bytes(source.getbuffer()[:4])
    if not head:
        raise AudioError(f"{name}: empty file (0 bytes); record or copy it again")
    n_samples = 0
    # libsndfile leaks memory with each damaged OGG file
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
    """As `blocks`; a file that libsndfile cannot open goes to FFmpeg."""
    import soundfile

    part = None
    try:
        with soundfile.SoundFile(source) as file:
            rate = file.samplerate
            _check_rate(rate, name)
            if MAX_S * rate < file.frames < UNKNOWN:
                raise _too_long(name)
            n = int(seconds * rate) if seconds else int(MAX_S * rate) + 1  # one more than allowed
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
    """As `blocks`, in parts of the codec's size."""
    import av

    if isinstance(source, io.BytesIO):
        source.seek(0)
    try:
        opened = source if isinstance(source, io.BytesIO) else str(source)
        with av.open(opened, "r", options={"format_whitelist": CONTAINERS}) as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: no audio track in the file; export it as WAV, FLAC, MP3 or M4A")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise ValueError("no decoder for the audio track")
            rate, n_samples = stream.sample_rate, 0
            _check_rate(rate, name)
            if (container.duration or 0) > MAX_S * av.time_base:
                raise _too_long(name)
            # "flt", not "fltp": PyAV reads beyond its memory if a file claims more than eight planar channels
            to_float = av.AudioResampler(format="flt", rate=rate)
            for frame in container.decode(audio=0):
                n_samples += frame.samples
                _check_size(n_samples * stream.channels, name)
                for part in to_float.resample(frame):
                    yield part.to_ndarray().reshape(-1, part.layout.nb_channels), rate
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise _damaged(name) from error


def _check_rate(rate: int, name: str) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name}: sample rate {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz is read, export it at 16000 Hz or more"
        )


def _check_size(values: float, name: str) -> None:
    if values > MAX_VALUES:
        raise AudioError(
            f"{name}: too many samples or channels to hold in memory; export it at 48 kHz or less"
        )
