"""Which files of a folder are taken, and names and pipes that need care."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from synth import speech

from ser_lib.audio import decoding
from ser_lib.errors import AudioError

RATE = 48_000  # hertz; every codec here has it
CLIP = speech("happy", 1, rate=RATE)

# By suffix: the format of libsndfile, or FFmpeg's container and codec.
WRITTEN: dict[str, str | tuple[str, str]] = {
    ".aif": "AIFF", ".aifc": "AIFF", ".aiff": "AIFF", ".au": "AU", ".caf": "CAF", ".flac": "FLAC", ".mp3": "MP3",
    ".ogg": "OGG", ".rf64": "RF64", ".snd": "AU", ".sph": "NIST", ".voc": "VOC", ".w64": "W64", ".wav": "WAV",
    ".wave": "WAV",
    ".3g2": ("3g2", "aac"), ".3gp": ("3gp", "aac"), ".aac": ("adts", "aac"), ".asf": ("asf", "wmav2"),
    ".avi": ("avi", "pcm_s16le"), ".m2ts": ("mpegts", "aac"), ".m4a": ("ipod", "alac"), ".m4b": ("mp4", "aac"),
    ".m4r": ("mp4", "aac"), ".m4v": ("mp4", "aac"), ".mka": ("matroska", "libopus"), ".mkv": ("matroska", "aac"),
    ".mov": ("mov", "aac"), ".mp2": ("mp2", "mp2"), ".mp4": ("mp4", "aac"), ".mpeg": ("mpeg", "mp2"),
    ".mpg": ("mpeg", "mp2"), ".mts": ("mpegts", "aac"), ".oga": ("ogg", "libopus"), ".ogv": ("ogg", "libopus"),
    ".opus": ("ogg", "libopus"), ".qt": ("mov", "aac"), ".vob": ("vob", "mp2"), ".weba": ("webm", "libopus"),
    ".webm": ("webm", "libopus"), ".wma": ("asf", "wmav2"), ".wmv": ("asf", "wmav2"),
}  # fmt: skip
NO_ENCODER = {".amr", ".awb", ".spx"}


def encode(path: Path, container: str, codec: str) -> None:
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=RATE)
        stream.layout = "mono"
        stream.bit_rate = 64_000
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(CLIP[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        fit = av.AudioResampler(
            stream.codec_context.format, "mono", RATE, stream.codec_context.frame_size or 1024
        )
        for part in [*fit.resample(frame), *fit.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))


def write(path: Path) -> Path:
    how = WRITTEN[path.suffix.lower()]
    if isinstance(how, str):
        soundfile.write(path, CLIP, RATE, format=how)
    else:
        encode(path, *how)
    return path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in decoding.recordings(folder))


def test_each_suffix_is_tried():
    assert set(decoding.SUFFIXES) == set(WRITTEN) | NO_ENCODER


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_is_taken_from_a_folder_can_be_read(suffix, tmp_path):
    path = write(tmp_path / f"a{suffix.upper()}")
    assert list(decoding.recordings(tmp_path)) == [path]
    samples, rate = decoding.decode(path)
    assert len(samples) / rate == pytest.approx(len(CLIP) / RATE, abs=0.15)
    assert np.std(samples) == pytest.approx(np.std(CLIP), rel=0.1)


@pytest.mark.parametrize(("suffix", "magic"), [(".amr", b"#!AMR\n"), (".awb", b"#!AMR-WB\n")])
def test_voice_memos_can_be_read(suffix, magic, tmp_path):
    """Fifty frames of the lowest mode, 20 ms each."""
    size = 12 if suffix == ".amr" else 17
    path = tmp_path / f"memo{suffix}"
    path.write_bytes(magic + 50 * (b"\x04" + bytes(range(1, size + 1))))
    assert list(decoding.recordings(tmp_path)) == [path]
    samples, rate = decoding.decode(path)
    assert len(samples) / rate == pytest.approx(1, abs=0.05)


def test_a_phones_memo(tmp_path):
    folder = os.environ.get("SER_CASES_DIR")
    if not folder:
        pytest.skip("SER_CASES_DIR is not set: give it the folder of the cases to run this test")
    samples, rate = decoding.decode(Path(folder) / "audio" / "amr.3gp")
    assert len(samples) / rate == pytest.approx(3.9, abs=0.1)


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    (folder / "own").mkdir(parents=True)
    (elsewhere / "deep").mkdir(parents=True)
    for path in (folder / "own" / "a.wav", elsewhere / "deep" / "b.wav"):
        path.touch()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder / "own")
    (elsewhere / "loop").symlink_to(folder)
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    assert names(folder) == ["gone.wav", "linked/deep/b.wav", "own/a.wav"]


def test_other_files_are_counted(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.wav", "b.txt", "more/c.TXT", "README", "._a.wav"):
        (tmp_path / name).touch()
    assert decoding.other_files(tmp_path) == {".txt": 2, "README": 1}
    many = {f".{n}": 1 for n in range(7)}
    assert decoding.other_files_text(many) == (
        "7 other file(s) left out: .0 (1), .1 (1), .2 (1), .3 (1), .4 (1), …"
    )


def test_a_folder_that_cannot_be_read_is_not_skipped(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.wav").touch()
    scandir = os.scandir

    def refuse(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path) == ["a.wav", "closed"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize(
    "name", [b"12:30.ogg", b"http:x.webm", b"caf\xe9.wav", b"caf\xe9.webm", b"-x.webm", b"a\nb.wav"]
)
def test_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    os.replace(write(Path(f"plain{path.suffix}")), path)
    for each in (path, tmp_path / path, *decoding.recordings(".")):
        samples, rate = decoding.decode(each)
        assert len(samples) / rate == pytest.approx(1.2, abs=0.1)


@pytest.mark.parametrize("name", ["a\0b.wav", f"{'x' * 5000}.wav", "~nosuchuser/a.wav"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(AudioError, match="no such file"):
        decoding.decode(name)
    assert list(decoding.recordings(name)) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("suffix", [".wav", ".m4a"])
def test_pipes_are_read_if_named_and_not_opened_in_folders(suffix, tmp_path, monkeypatch):
    content = write(tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").unlink()
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    assert names(tmp_path) == []
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    samples, rate = decoding.decode(pipe)
    writer.join()
    assert len(samples) / rate == pytest.approx(1.2, abs=0.1)
    monkeypatch.setattr(decoding, "MAX_BYTES", 1_000_000)
    with pytest.raises(AudioError, match="/dev/zero: more than 1 MB; cut it"):
        decoding.decode("/dev/zero")
