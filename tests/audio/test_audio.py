"""audio: whatever a user has to hand becomes one form, and what cannot is refused by name."""

from __future__ import annotations

import io
import re
import struct
import tempfile
from base64 import b64decode
from pathlib import Path

import av
import librosa
import numpy as np
import psutil
import pytest
import soundfile
from synth import speech

from ser_lib import audio
from ser_lib.audio import Audio, AudioConfig, content_hash, decoding, load, resample, trim
from ser_lib.audio.clip import clean
from ser_lib.audio.decoding import decode
from ser_lib.errors import AudioError

RATE = 16_000
WHOLE = AudioConfig(trim_db=None)
CLIP = speech("happy", 1)
CLEAN = clean(CLIP, RATE, RATE)  # what is left of it without rumble

# format, subtype, rate, the correlation with the original that is asked for
SOUNDFILE_FORMATS = [
    ("wav", "PCM_U8", RATE, 0.99),
    ("wav", "PCM_16", RATE, 0.99999),
    ("wav", "PCM_24", RATE, 0.99999),
    ("wav", "PCM_32", RATE, 0.99999),
    ("wav", "FLOAT", RATE, 0.99999),
    ("wav", "DOUBLE", RATE, 0.99999),
    ("wav", "ULAW", RATE, 0.99),
    ("wav", "PCM_16", 8_000, 0.8),  # loses what is above 4 kHz
    ("wav", "PCM_16", 22_050, 0.999),
    ("wav", "PCM_16", 44_100, 0.999),
    ("wav", "PCM_24", 96_000, 0.999),
    ("flac", "PCM_16", RATE, 0.99999),
    ("flac", "PCM_24", 48_000, 0.999),
    ("aiff", "PCM_16", RATE, 0.99999),
    ("ogg", "VORBIS", RATE, 0.97),
    ("ogg", "OPUS", RATE, 0.9),
    ("mp3", "MPEG_LAYER_III", 44_100, 0.95),
    ("mp3", "MPEG_LAYER_III", RATE, 0.95),
]
FFMPEG_FORMATS = [
    ("m4a", "ipod", "aac"),
    ("mp4", "mp4", "aac"),
    ("webm", "webm", "libopus"),
    ("mka", "matroska", "aac"),
]


def with_soundfile(samples: np.ndarray, rate: int, format_: str, subtype: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=format_.upper(), subtype=subtype)
    return out.getvalue()


def with_ffmpeg(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    """Encode (n_channels, n_samples) or mono samples as a browser or telephone would."""
    samples = np.atleast_2d(samples).astype(np.float32)
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        layout = "mono" if len(samples) == 1 else "stereo"
        stream = file.add_stream(codec, rate=rate, layout=layout, bit_rate=96_000)
        size = stream.codec_context.frame_size or 960
        form = stream.codec_context.format.name
        to_codec = av.AudioResampler(format=form, layout=layout, rate=rate, frame_size=size)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = rate
        for part in [*to_codec.resample(frame), *to_codec.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return out.getvalue()


def likeness(x: np.ndarray, y: np.ndarray, shift: int = 4_000) -> float:
    """Correlation at the best alignment within `shift` samples: a codec may delay."""
    n = len(x) + len(y)
    cross = np.fft.irfft(np.fft.rfft(x, n) * np.conj(np.fft.rfft(y, n)), n)
    cross = np.concatenate([cross[-shift:], cross[:shift]])
    return float(cross.max() / np.sqrt(np.square(x).sum() * np.square(y).sum()))


# --- formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format_", "subtype", "rate", "asked"), SOUNDFILE_FORMATS)
def test_formats_of_soundfile(format_, subtype, rate, asked, tmp_path):
    written = with_soundfile(resample(CLIP, RATE, rate), rate, format_, subtype)
    path = tmp_path / f"clip.{format_}"
    path.write_bytes(written)
    with path.open("rb") as file:
        clips = [load(path, WHOLE), load(str(path), WHOLE), load(written, WHOLE), load(file, WHOLE)]
    for clip in clips:
        assert (clip.samples.dtype, clip.samples.ndim, clip.sample_rate) == (np.float32, 1, RATE)
        assert clip.channels == 1
        assert clip.duration_s == pytest.approx(1.2, abs=0.12)  # an MP3 has its padding
        np.testing.assert_array_equal(clip.samples, clips[0].samples)
    assert likeness(clips[0].samples, CLEAN) > asked
    if format_ != "ogg" or subtype != "OPUS":  # Opus states 48 kHz whatever it was given
        assert clips[0].source_rate == rate


@pytest.mark.parametrize(("suffix", "container", "codec"), FFMPEG_FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_formats_of_ffmpeg(suffix, container, codec, channels, tmp_path):
    loud = resample(CLIP, RATE, 48_000)
    written = with_ffmpeg(np.stack([loud] * channels), 48_000, container, codec)
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(written)
    with path.open("rb") as file:
        clips = [load(path, WHOLE), load(written, WHOLE), load(file, WHOLE)]
    for clip in clips:
        assert (clip.samples.dtype, clip.sample_rate, clip.source_rate, clip.channels) == (
            np.float32, RATE, 48_000, channels,
        )  # fmt: skip
        assert clip.duration_s == pytest.approx(1.2, abs=0.1)
        assert np.abs(clip.samples).max() == pytest.approx(np.abs(CLIP).max(), rel=0.25)
        assert likeness(clip.samples, CLIP) > 0.95


def test_the_suffix_is_not_trusted(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(with_ffmpeg(resample(CLIP, RATE, 48_000), 48_000, "webm", "libopus"))
    assert likeness(load(path, WHOLE).samples, CLIP) > 0.95


def test_only_the_sound_of_a_video_is_read(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as file:
        pictures, sound = file.add_stream("mpeg4", rate=10), file.add_stream("aac", rate=RATE)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        for _ in range(12):
            file.mux(
                pictures.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24"))
            )
        file.mux(pictures.encode(None))
        for start in range(0, len(CLIP) - 1024, 1024):
            frame = av.AudioFrame.from_ndarray(CLIP[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    assert likeness(load(path, WHOLE).samples, CLIP) > 0.95


# --- one form --------------------------------------------------------------------------------------


def test_stereo_is_averaged():
    other = speech("sad", 2)
    wav = with_soundfile(np.stack([CLIP, other], axis=1), RATE, "wav", "FLOAT")
    clip = load(wav, WHOLE)
    assert clip.channels == 2
    np.testing.assert_allclose(clip.samples, clean((CLIP + other) / 2, RATE, RATE), atol=1e-6)


def test_one_silent_channel_does_not_silence_the_clip():
    wav = with_soundfile(np.stack([CLIP, 0 * CLIP], axis=1), RATE, "wav", "FLOAT")
    np.testing.assert_allclose(load(wav, WHOLE).samples, CLEAN / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone_and_its_length(rate):
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    out = resample(tone, rate, RATE)
    expected = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert out.dtype == np.float32
    assert len(out) == RATE
    np.testing.assert_allclose(out[800:-800], expected[800:-800], atol=2e-3)


def test_resampling_does_not_fold_high_tones_back():
    tone = np.sin(2 * np.pi * 15_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(resample(tone, 48_000, RATE)[800:-800]).max() < 1e-3


def test_the_rate_asked_for_is_given():
    clip = load(with_soundfile(CLIP, RATE, "wav", "PCM_16"), AudioConfig(sample_rate=22_050, trim_db=None))
    assert (clip.sample_rate, clip.source_rate) == (22_050, RATE)
    assert len(clip.samples) == pytest.approx(len(CLIP) * 22_050 / RATE, abs=1)


@pytest.mark.parametrize(
    ("before", "after"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.7), (1.0, 1.0), (0.013, 0.029)]
)
def test_trim_drops_silence_and_keeps_the_sound(before, after):
    sound = CLIP[1_600:-1_600]
    padded = np.concatenate([np.zeros(int(before * RATE)), sound, np.zeros(int(after * RATE))]).astype(
        np.float32
    )
    kept = trim(padded)
    assert np.abs(kept).max() == np.abs(sound).max()
    assert likeness(kept, sound) > 0.9999  # at most 40 dB below is lost
    assert abs(len(kept) - len(sound)) < 4 * 512
    _, (start, end) = librosa.effects.trim(padded, top_db=40, frame_length=1024, hop_length=512)
    mine = (kept.__array_interface__["data"][0] - padded.__array_interface__["data"][0]) // 4
    assert abs(mine - start) <= 1024
    assert abs(mine + len(kept) - end) <= 1024


def test_trim_keeps_pauses_inside_and_a_last_short_frame():
    pause = np.zeros(2 * RATE, np.float32)
    sound = CLIP[1_600:-1_600]
    assert len(trim(np.concatenate([sound, pause, sound]))) > 2 * RATE + 2 * len(sound) - 4 * 512
    tone = np.sin(np.arange(RATE + 100)).astype(np.float32)
    assert len(trim(tone)) == len(tone)


def test_trim_can_be_turned_off():
    padded = np.pad(CLIP, RATE)
    assert trim(padded, WHOLE) is padded


def test_a_long_clip_is_not_cut():
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(6 * RATE)).astype(np.float32)
    clip = load(with_soundfile(sound, RATE, "wav", "FLOAT"))
    np.testing.assert_allclose(clip.samples, clean(sound, RATE, RATE), atol=1e-6)
    assert clip.duration_s == 6.0


def test_quiet_speech_is_accepted_and_loud_float_files_are_kept_as_they_are():
    quiet = CLIP * (2e-4 / np.abs(CLIP).max())
    kept = load(with_soundfile(quiet, RATE, "wav", "FLOAT"), WHOLE).samples
    np.testing.assert_allclose(kept, CLEAN * (2e-4 / np.abs(CLIP).max()), atol=1e-8)
    loud = CLIP * (3.0 / np.abs(CLIP).max())
    kept = load(with_soundfile(loud, RATE, "wav", "FLOAT"), WHOLE).samples
    np.testing.assert_allclose(kept, CLEAN * (3.0 / np.abs(CLIP).max()), atol=1e-5)


def _shown(clip: Audio) -> tuple[str, np.ndarray, int]:
    """The text of a clip in a notebook, and the sound that the player there has."""
    html = clip._repr_html_()
    samples, rate = soundfile.read(
        io.BytesIO(b64decode(html.split("data:audio/wav;base64,")[1].split('"')[0]))
    )
    return html, samples, rate


def test_an_audio_shows_itself_in_a_notebook():
    html, samples, rate = _shown(Audio(CLIP, RATE, "a<b>.wav", 1.2, 48_000, 2))
    assert "a&lt;b&gt;.wav: 1.20 s, 48000 Hz, 2 channel(s); " in html
    assert f"as loaded {len(CLIP) / RATE:.2f} s at {RATE} Hz</p>" in html
    assert "<audio controls" in html
    assert rate == RATE
    np.testing.assert_allclose(samples, CLIP, atol=2**-15)


def test_of_a_long_clip_a_notebook_embeds_ten_seconds():
    html, samples, _ = _shown(Audio(np.tile(CLIP, 30), RATE, "long.wav", 30.0, RATE, 1))
    assert len(samples) == 10 * RATE
    assert ", the first 10 s here</p>" in html
    assert len(html) < 450_000


@pytest.mark.parametrize("factor", [0.01, 1.0])
def test_the_waveform_is_as_high_as_the_sound_is_loud(factor):
    """Silence, then a tone: whatever its level, the second half fills the height and the first is flat."""
    tone = np.sin(np.arange(2400, dtype=np.float32)) * factor
    html, _, _ = _shown(Audio(np.concatenate([0 * tone, tone]), RATE, "a.wav", 0.3, RATE, 1))
    heights = [float(height) for height in re.findall(r"M\d+ -([\d.]+)v", html)]
    assert len(heights) == 240
    assert max(heights[:120]) == 0
    assert min(heights[120:]) > 0.95


@pytest.mark.parametrize("n_samples", [0, 1, 100])
def test_a_clip_of_few_samples_shows_itself_too(n_samples):
    html, samples, _ = _shown(Audio(np.zeros(n_samples, np.float32), RATE, "a.wav", 0.0, RATE, 1))
    assert len(samples) == n_samples
    assert "nan" not in html


# --- content hash ----------------------------------------------------------------------------------


def test_content_hash_is_of_the_samples_not_of_the_file():
    whole = np.round(CLIP * 2**15).astype(np.int16)  # encoders do not all round floats alike
    hashes = {
        load(with_soundfile(whole, RATE, format_, subtype)).audio_sha256
        for format_, subtype in (("wav", "PCM_16"), ("flac", "PCM_16"), ("aiff", "PCM_16"))
    }
    assert len(hashes) == 1
    samples, rate = decode(with_soundfile(whole, RATE, "wav", "PCM_16"))
    assert hashes == {content_hash(samples[:, 0], rate)}
    changed = samples[:, 0].copy()
    changed[100] += 2**-15
    assert content_hash(changed, rate) not in hashes
    assert content_hash(samples[:, 0], 8_000) not in hashes


def test_content_hash_golden():
    """`content_hash(np.arange(4, dtype="f4") / 4, 16_000)`: a change makes every cached row stale."""
    ramp = np.arange(4, dtype=np.float32) / 4
    assert content_hash(ramp, RATE) == "a4e5ad56bdd1d5e9843b33c137256d9cd6d8bbdcc107d6730fc860961c2c71cb"


# --- refusals --------------------------------------------------------------------------------------


def wav(samples: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> bytes:
    return with_soundfile(samples, rate, "wav", subtype)


def silent_video() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            file.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24"))
            )
        file.mux(stream.encode(None))
    return out.getvalue()


def click_in_silence() -> np.ndarray:
    out = np.zeros(RATE, np.float32)
    out[8_000:8_400] = CLIP[5_000:5_400]
    return out


def with_rate(rate: int) -> bytes:
    """A WAV whose header claims `rate` hertz."""
    out = bytearray(wav(CLIP, subtype="PCM_16"))
    out[24:28] = struct.pack("<I", rate)
    return bytes(out)


NAN, INF = CLIP.copy(), CLIP.copy()
NAN[99], INF[99] = np.nan, np.inf
NOT_AUDIO = "not audio, or damaged; WAV, FLAC, OGG, MP3, M4A and WebM are read"
M4A = with_ffmpeg(resample(CLIP, RATE, 48_000), 48_000, "ipod", "aac")
WEBM = with_ffmpeg(resample(CLIP, RATE, 48_000), 48_000, "webm", "libopus")
REFUSALS = {
    "short.wav": (wav(CLIP[:640]), r"short\.wav: 0\.04 s of audio; at least 0\.3 s is needed"),
    "silent.wav": (wav(0 * CLIP), r"silent\.wav: silent \(peak below -80 dB\)"),
    "hiss.wav": (wav(CLIP * 1e-5), r"hiss\.wav: silent"),
    "click.wav": (wav(click_in_silence()), r"click\.wav: 0\.\d\d s of sound between silences; at least 0\.3 s"),
    "nan.wav": (wav(NAN), r"nan\.wav: some samples are not numbers \(NaN or infinite\)"),
    "inf.wav": (wav(INF), r"inf\.wav: some samples are not numbers"),
    "down.wav": (wav(-np.abs(CLIP) * 1000), r"down\.wav: samples reach [\d.e+]+, full scale is 1"),
    "int.wav": (wav(CLIP * 2**15), r"int\.wav: samples reach [\d.e+]+, full scale is 1; divide"),
    "zero.wav": (b"", r"zero\.wav: empty file \(0 bytes\)"),
    "none.wav": (wav(CLIP[:0]), r"none\.wav: no audio samples in the file"),
    "text.wav": (b"A letter, not a recording.\n" * 80, rf"text\.wav: {NOT_AUDIO}"),
    "noise.mp3": (np.random.default_rng(0).bytes(40_000), r"noise\.mp3: "),
    "page.webm": (b"<!doctype html><title>404</title>", rf"page\.webm: {NOT_AUDIO}"),
    "photo.wav": (b"\x89PNG\r\n\x1a\n" + bytes(200), r"photo\.wav: no"),
    "header.wav": (wav(CLIP)[:30], rf"header\.wav: {NOT_AUDIO}"),
    "half.m4a": (M4A[: len(M4A) // 2], r"half\.m4a: "),
    "half.flac": (with_soundfile(CLIP, RATE, "flac", "PCM_16")[:60], r"half\.flac: "),
    "slow.wav": (with_rate(100), r"slow\.wav: sample rate 100 Hz; 4000 to 384000 Hz is read"),
    "fast.wav": (with_rate(1_000_000), r"fast\.wav: sample rate 1000000 Hz"),
    "film.mp4": (silent_video(), r"film\.mp4: no audio track in the file; export it as WAV"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_file_and_the_fault(name, tmp_path):
    content, message = REFUSALS[name]
    path = tmp_path / name
    path.write_bytes(content)
    for source in (path, content, io.BytesIO(content)):
        with pytest.raises(AudioError, match=message):
            load(source, name=name)
    with pytest.raises(AudioError, match=message):
        load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        load(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="a folder, not a recording"):
        load(tmp_path)


def test_a_nameless_source_is_called_audio():
    with pytest.raises(AudioError, match=r"^audio: empty file"):
        load(b"")


def test_refusals_leave_no_memory_behind():
    """libsndfile keeps 6 kB of every OGG file whose headers are damaged."""
    ogg = bytearray(with_soundfile(CLIP, RATE, "ogg", "VORBIS"))
    ogg[200:400] = bytes(200)  # within the setup header
    memory = []
    for i in range(1001):
        with pytest.raises(AudioError):
            decode(bytes(ogg))
        if i % 500 == 0:
            memory.append(psutil.Process().memory_info().rss)
    assert memory[2] - memory[1] < 1_000_000


def test_an_unknown_codec_is_refused():
    with pytest.raises(AudioError, match=rf"new\.webm: {NOT_AUDIO}"):
        load(WEBM.replace(b"A_OPUS", b"A_OPUX"), name="new.webm")


def test_a_text_that_names_other_files_opens_none_of_them(tmp_path, monkeypatch):
    """FFmpeg reads playlists and session descriptions; an upload must not reach files or the network."""
    monkeypatch.chdir(tmp_path)
    Path("clip.wav").write_bytes(wav(CLIP))
    with pytest.raises(AudioError, match=rf"^audio: {NOT_AUDIO}"):
        load(b"ffconcat version 1.0\nfile clip.wav\n")


def test_a_click_alone_is_silence():
    click = np.zeros(RATE + 100, np.float32)
    click[-50] = 0.5
    with pytest.raises(AudioError, match="silent"):
        load(wav(click))


@pytest.mark.parametrize("kind", [tempfile.SpooledTemporaryFile, tempfile.TemporaryFile])
def test_nameless_file_objects(kind):
    """What Flask hands over as an upload's stream has a `name` that is no text."""
    with kind() as file:
        file.write(wav(CLIP))
        file.seek(0)
        assert load(file, WHOLE).name == "audio"


def test_a_truncated_wav_gives_what_is_there_or_is_refused():
    """A recording cut short by a full disk: nothing is made up."""
    whole = wav(CLIP, subtype="PCM_16")
    kept = load(whole[: len(whole) // 2], WHOLE)
    n = len(kept.samples)
    assert n <= len(CLIP) // 2
    np.testing.assert_allclose(kept.samples, clean(CLIP[:n], RATE, RATE), atol=1e-3)
    assert "the header says 1.2 s, the file holds 0.6 s" in kept.notes[0]
    with pytest.raises(AudioError, match=r"cut\.wav: 0\.0\d s of audio"):
        load(whole[:2_000], name="cut.wav")


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("ipod", "aac")])
def test_a_long_recording_is_refused_before_it_is_decoded(container, codec, monkeypatch):
    """MAX_S is lowered, and nothing is decoded of a file thirty times as long."""
    monkeypatch.setattr(decoding, "MAX_S", 2.0)
    sound = np.tile(CLIP, 50)
    written = (
        with_soundfile(sound, RATE, "wav", "PCM_16")
        if container == "wav"
        else with_ffmpeg(sound, RATE, container, codec)
    )
    decoded = []
    to_float = av.AudioResampler
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames=-1, **kw: decoded.append(frames) or read(self, frames, **kw),
    )

    class Counting:
        def __init__(self, **kw):
            self.inner = to_float(**kw)

        def resample(self, frame):
            decoded.append(frame.samples)
            return self.inner.resample(frame)

    monkeypatch.setattr(av, "AudioResampler", Counting)
    with pytest.raises(AudioError, match=r"long: longer than 2 s; cut it into shorter clips"):
        load(written, name="long")
    assert not decoded


def test_of_a_long_recording_that_does_not_tell_its_length_little_is_decoded(monkeypatch):
    class Pipe(io.BytesIO):  # as a browser writes: no way back to fill in the duration
        seekable = lambda self: False  # noqa: E731

        def seek(self, *_):
            raise OSError("not seekable")

    pipe, sound = Pipe(), np.tile(CLIP, 50)
    with av.open(pipe, "w", format="webm") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(resample(sound, RATE, 48_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode()])
    monkeypatch.setattr(decoding, "MAX_S", 2.0)
    lengths = []
    with pytest.raises(AudioError, match=r"long: longer than 2 s"):
        lengths.extend(len(part) for part, _ in decoding.blocks(pipe.getvalue(), name="long"))
    assert 1.9 * 48_000 < sum(lengths) <= 2 * 48_000


@pytest.mark.parametrize("kind", ["wav", "m4a"])
def test_a_stream_is_the_clip_in_parts(kind):
    sound = np.tile(CLIP, 20)
    written = (
        with_soundfile(sound, RATE, "wav", "FLOAT")
        if kind == "wav"
        else with_ffmpeg(sound, 48_000, "ipod", "aac")
    )
    parts = list(audio.stream(written, AudioConfig(8_000), seconds=1.0))
    whole = resample(audio.mix_down(decode(written)[0]), decode(written)[1], 8_000)
    together = np.concatenate(parts)
    assert len(parts) > 10
    assert abs(len(together) - len(whole)) <= 1
    n = min(len(together), len(whole))
    np.testing.assert_allclose(together[:n], whole[:n], atol=1e-4)


def test_a_recording_damaged_half_way_is_an_error_after_its_good_part():
    flac = with_soundfile(np.tile(CLIP, 20), RATE, "flac", "PCM_16")
    parts = []
    with pytest.raises(AudioError, match="damaged"):
        parts.extend(decoding.blocks(flac[: len(flac) // 2] + b"x" * 999, seconds=0.5))
    assert parts


def test_a_clip_of_exactly_the_maximum_is_read(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_S", 1.0)
    assert load(wav(CLIP[:RATE]), WHOLE).duration_s == 1.0
    with pytest.raises(AudioError, match="longer than 1 s"):
        load(wav(CLIP[: RATE + 1]), WHOLE)


# --- real recordings -------------------------------------------------------------------------------


def test_real_clips_lose_silence_only(ravdess: Path):
    for path in sorted(ravdess.glob("Actor_0[12]/*-01-01-0[12].*"))[:8]:
        clip, whole = load(path), load(path, WHOLE)
        assert clip.source_rate == 48_000
        assert 0.8 < len(clip.samples) / RATE <= whole.duration_s <= 5.3
        lost = np.square(whole.samples).sum() - np.square(clip.samples).sum()
        assert lost < 1e-3 * np.square(whole.samples).sum()
