"""Audio files of any format to samples as stored in the file, float32 of shape (n_samples, n_channels).

soundfile (libsndfile) reads WAV, FLAC and AIFF; PyAV (FFmpeg) reads the rest: MP3, OGG/Opus, M4A/AAC, and the
WebM that browsers record.
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ser_lib.errors import AudioError

Source = str | Path | bytes | bytearray | BinaryIO

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
SILENCE = 1e-4  # peak amplitude, -80 dB full scale
HEAD = 65_536  # bytes in which an MP3's own header is looked for
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


def decode(
    source: Source, *, name: str | None = None, notes: list[str] | None = None
) -> tuple[np.ndarray, int]:
    """Return the samples, float32 of shape (n_samples, n_channels), and the rate in hertz.

    Parameters
    ----------
    notes : list of str, optional
        Gets a sentence on each thing about the file that a user should know: a header with a wrong length, a
        second audio track, skipped damage.

    Raises
    ------
    AudioError
        As `blocks`.
    """
    parts = list(blocks(source, name=name, notes=notes))
    rate = parts[0][1]
    return parts[0][0] if len(parts) == 1 else np.concatenate([part for part, _ in parts]), rate


def blocks(
    source: Source, *, name: str | None = None, seconds: float | None = None, notes: list[str] | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the samples in parts of at most `seconds` (None: one part), each with the rate in hertz.

    What the file holds is read, even if its header states another length. A file that states more than `MAX_S` is
    refused before anything is decoded.

    Raises
    ------
    AudioError
        No such file, not audio, damaged, empty, longer than `MAX_S`, or a sample rate out of range.
    """
    name = name or name_of(source)
    notes = notes if notes is not None else []
    if isinstance(source, str | Path):
        source = readable(source, name)
    if isinstance(source, str):
        with open(source, "rb") as file:
            head = file.read(4)
    else:
        source = io.BytesIO(source if isinstance(source, bytes | bytearray) else source.read())
        head = bytes(source.getbuffer()[:4])
    if not head:
        raise AudioError(f"{name}: empty file (0 bytes); record or copy it again")
    if head == b"RIFF":
        source = _with_true_length(source)
    n_samples, rate = 0, 0
    # libsndfile leaks memory with each damaged OGG file, and reads joined MP3 files up to the end of the first
    mpeg = head[:3] == b"ID3" or (head[0] == 0xFF and head[1:2] >= b"\xe0")
    parts = (
        _with_ffmpeg(source, name, notes)
        if mpeg or head == b"OggS"
        else _with_soundfile(source, name, seconds, notes)
    )
    for part, rate in parts:
        n_samples += len(part)
        if n_samples > MAX_S * rate:
            raise _too_long(name)
        yield part, rate
    if not n_samples:
        raise AudioError(f"{name}: no audio samples in the file; record or export it again")


def _too_long(name: str) -> AudioError:
    return AudioError(f"{name}: longer than {MAX_S:.0f} s; cut it into shorter clips")


def _damaged(name: str) -> AudioError:
    return AudioError(f"{name}: not audio, or damaged; WAV, FLAC, OGG, MP3, M4A and WebM are read")


def _note_length(notes: list[str], claimed_s: float, found_s: float) -> None:
    """Note a header whose length differs by more than 1 % from that of the content."""
    if found_s and abs(claimed_s - found_s) > max(0.01 * found_s, 0.1):
        notes.append(f"the header says {claimed_s:.1f} s, the file holds {found_s:.1f} s: all of it was read")


# --- WAV, FLAC and others: libsndfile ----------------------------------------------------------------


def _with_soundfile(
    source: str | Path | io.BytesIO, name: str, seconds: float | None, notes: list[str]
) -> Iterator[tuple[np.ndarray, int]]:
    """As `blocks`; a file that libsndfile cannot open goes to FFmpeg."""
    import soundfile

    part, n_samples = None, 0
    try:
        with soundfile.SoundFile(source) as file:
            rate, claimed = file.samplerate, file.frames
            _check_rate(rate, name)
            if MAX_S * rate < claimed < UNKNOWN:
                raise _too_long(name)
            n = int(seconds * rate) if seconds else int(MAX_S * rate) + 1  # one more than allowed
            _check_size(min(claimed, n) * file.channels, name)
            while len(part := file.read(n, dtype="float32", always_2d=True)):
                n_samples += len(part)
                yield part, rate
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        if part is not None:
            raise _damaged(name) from error
        yield from _with_ffmpeg(source, name, notes)
        return
    claimed = getattr(source, "claimed_samples", claimed)
    if claimed < UNKNOWN:
        _note_length(notes, claimed / rate, n_samples / rate)


class _Wav(io.BytesIO):
    """A WAV file with a corrected header; `claimed_samples` are those of the header as it was."""

    claimed_samples: int


def _with_true_length(source: str | Path | io.BytesIO) -> str | Path | io.BytesIO:
    """The WAV file, with the length of its data corrected if the header is wrong.

    A recorder that is interrupted leaves a length of 0; other programs write one that is too short or too
    long. After the data only further chunks may come: other bytes belong to the data.
    """
    content = bytearray(source.getbuffer() if isinstance(source, io.BytesIO) else Path(source).read_bytes())
    at, block, size = 12, 1, 0
    while at + 8 <= len(content):
        kind, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if kind == b"fmt ":
            block = max(
                1, int.from_bytes(content[at + 20 : at + 22], "little")
            )  # bytes a sample of all channels
        if kind == b"data":
            break
        at += 8 + size + size % 2
    else:
        return source
    start, rest = at + 8, len(content) - at - 8
    after = start + size + size % 2
    if size <= rest and (size or not rest) and (len(content) - after < 8 or _is_chunk(content, after)):
        return source
    wav = _Wav(content)
    wav.claimed_samples = (
        size // block if size < 0x7FFF_0000 else UNKNOWN
    )  # a stream does not know its length
    wav.getbuffer()[at + 4 : at + 8] = rest.to_bytes(4, "little")
    return wav


def _is_chunk(content: bytearray, at: int) -> bool:
    size = int.from_bytes(content[at + 4 : at + 8], "little")
    return (
        content[at : at + 4].isascii()
        and content[at : at + 4].decode("ascii").isprintable()
        and at + 8 + size <= len(content) + 1
    )


# --- all other formats: FFmpeg -------------------------------------------------------------------


def _with_ffmpeg(
    source: str | Path | io.BytesIO, name: str, notes: list[str]
) -> Iterator[tuple[np.ndarray, int]]:
    """As `blocks`, in parts of the codec's size."""
    import av

    try:
        with _opened(source) as container:
            tracks = len(container.streams.audio)
            kind = container.format.name
        if not tracks:
            raise AudioError(f"{name}: no audio track in the file; export it as WAV, FLAC, MP3 or M4A")
        track = 0
        if tracks > 1:
            track = next((i for i in range(tracks) if _has_sound(source, i, name)), 0)
            notes.append(
                f"{tracks} audio tracks: track {track + 1} was read"
                + (", since the ones before it are silent" if track else "")
            )
        with _opened(source) as container:
            stream = container.streams.audio[track]
            claimed_s = (
                _xing_seconds(source, stream.sample_rate)
                if kind == "mp3"
                else float((stream.duration or 0) * (stream.time_base or 0))
                or (container.duration or 0) / av.time_base
            )
            if claimed_s > MAX_S:
                raise _too_long(name)
            n_samples, rate = 0, 0
            for part, rate in _frames(container, track, name, notes):
                n_samples += len(part)
                yield part, rate
        if claimed_s and rate and kind not in ("ogg", "aac", "amr"):  # of these FFmpeg estimates it
            _note_length(notes, claimed_s, n_samples / rate)
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise _damaged(name) from error


def _opened(source: str | Path | io.BytesIO) -> Any:
    import av

    if isinstance(source, io.BytesIO):
        source.seek(0)
    opened = source if isinstance(source, io.BytesIO) else str(source)
    return av.open(opened, "r", options={"format_whitelist": CONTAINERS})


def _xing_seconds(source: str | Path | io.BytesIO, rate: int) -> float:
    """The length that an MP3 states, in the header introduced by the Xing encoder; 0 if it states none."""
    if isinstance(source, io.BytesIO):
        head = bytes(source.getbuffer()[:HEAD])
    else:
        with open(source, "rb") as file:
            head = file.read(HEAD)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or not head[at + 7 : at + 8] or not head[at + 7] & 1:
        return 0.0
    return int.from_bytes(head[at + 8 : at + 12], "big") * (1152 if rate >= 32_000 else 576) / max(rate, 1)


def _has_sound(source: str | Path | io.BytesIO, track: int, name: str) -> bool:
    with _opened(source) as container:
        return any(np.abs(part).max(initial=0) > SILENCE for part, _ in _frames(container, track, name, []))


def _frames(container: Any, track: int, name: str, notes: list[str]) -> Iterator[tuple[np.ndarray, int]]:
    """The decoded frames of a track; joined recordings of another rate or layout are converted to the first's."""
    import av

    stream = container.streams.audio[track]
    if stream.codec_context is None:
        raise ValueError("no decoder for the audio track")
    n_samples, n_packets, damaged = 0, 0, 0
    forms: list[tuple[int, str]] = []  # rate and layout of the recordings, one after another
    to_float: Any = None
    for packet in container.demux(stream):
        n_packets += 1
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            damaged += 1
            continue
        for frame in frames:
            form = (frame.sample_rate, frame.layout.name)
            if not forms:
                _check_rate(frame.sample_rate, name)
            if not forms or form != forms[-1]:
                forms.append(form)
                # "flt", not "fltp": PyAV reads beyond its memory if a file claims more than eight planar channels
                layout = forms[0][1] if len(forms) > 1 else None
                to_float = av.AudioResampler(format="flt", layout=layout, rate=forms[0][0])
            n_samples += frame.samples
            _check_size(n_samples * frame.layout.nb_channels, name)
            for part in to_float.resample(frame):
                yield part.to_ndarray().reshape(-1, part.layout.nb_channels), forms[0][0]
    if len(forms) > 1:
        kinds = " and ".join(f"{rate} Hz {layout}" for rate, layout in dict.fromkeys(forms))
        notes.append(f"joined recordings of {kinds}: all were read")
    if damaged > max(3, 0.05 * n_packets):
        raise ValueError(f"{damaged} of {n_packets} parts are damaged")
    if damaged > 0.02 * n_packets:  # joined MP3 files have a few parts without sound
        notes.append(f"{damaged} of {n_packets} parts of the file are damaged and were skipped")


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
