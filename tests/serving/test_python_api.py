"""What `predict` takes in Python: paths, bytes, files, arrays; anything else is a TypeError that says so."""

from __future__ import annotations

import io
from collections import UserString
from contextlib import ExitStack

import numpy as np
import pytest
import soundfile
from synth import speech
from test_bundle import save_tiny, wav

import ser_lib
from ser_lib.errors import AudioError
from ser_lib.serving import bundle

CLIP, NEUTRAL = wav(speech("sad", 1)), wav(speech("neutral", 1))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("api") / "tiny.json"
    save_tiny(path)
    return bundle.load(path)


@pytest.fixture(params=["str", "path", "bytes", "bytearray", "memoryview", "file", "stream", "ndarray"])
def given(request, tmp_path):
    """Function that gives the content of a WAV file in one of the forms, and the sample rate that goes with it."""

    def give(content: bytes):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.wav"
        path.write_bytes(content)
        form = {"str": str(path), "path": path, "bytes": content, "bytearray": bytearray(content)}
        form |= {
            "memoryview": memoryview(content),
            "stream": io.BytesIO(content),
            "ndarray": soundfile.read(path)[0],
        }
        if request.param == "file":
            form["file"] = stack.enter_context(path.open("rb"))
        rate = 16_000 if request.param == "ndarray" else None
        return form[request.param], rate

    with ExitStack() as stack:
        yield give


def test_every_form_gives_the_same_answer(tiny, given):
    source, rate = given(CLIP)
    answer = tiny.predict(source, sample_rate=rate)
    assert answer == tiny.predict(CLIP)
    source, rate = given(CLIP)
    assert list(tiny.timeline(source, rate)) == list(tiny.timeline(CLIP))


def test_one_reference_works_like_a_list_of_one(tiny, given):
    one, rate = given(NEUTRAL)
    answer = tiny.predict(CLIP, references=one, sample_rate=rate)
    assert answer == tiny.predict(CLIP, references=[NEUTRAL]) != tiny.predict(CLIP)
    assert tiny.predict(CLIP, references=None) == tiny.predict(CLIP)
    assert tiny.predict(CLIP, references=iter([NEUTRAL])) == answer


def test_the_shipped_model_takes_them_too(tmp_path):
    (tmp_path / "clip.wav").write_bytes(CLIP)
    samples, rate = soundfile.read(tmp_path / "clip.wav")
    expected = ser_lib.predict(str(tmp_path / "clip.wav"))
    assert ser_lib.predict(samples, rate) == ser_lib.predict(samples, sample_rate=float(rate)) == expected
    assert ser_lib.predict(bytearray(CLIP), references=NEUTRAL) == ser_lib.predict(CLIP, references=[NEUTRAL])


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "int64", "float16", "float64"])
def test_integers_are_scaled_by_their_range(tiny, kind):
    """The same sound in each type of number, in as many channels."""
    y = np.clip(3 * speech("happy", 2), -0.99, 0.99)
    if kind.startswith("float"):
        samples = y.astype(kind)
        expected = samples.astype(np.float32)
    else:
        full = 2.0 ** (8 * np.dtype(kind).itemsize - 1)
        numbers = np.round(y.astype(float) * full) + 0.0  # integers have no -0.0
        samples = (numbers + full * (kind == "uint8")).astype(kind)
        expected = (numbers / full).astype(np.float32)
    answer = tiny.predict(samples, 16_000)
    file = io.BytesIO()
    soundfile.write(file, expected, 16_000, format="WAV", subtype="FLOAT")
    assert answer == tiny.predict(file.getvalue())
    stereo = tiny.predict(np.stack([samples, samples], axis=1), 16_000)
    assert stereo["probabilities"] == answer["probabilities"]


@pytest.mark.parametrize(
    ("source", "rate", "message"),
    [
        (None, None, "NoneType is no recording; give a path, the bytes of a file"),
        (3.5, None, "float is no recording"),
        ([0.0, 0.1], 16_000, "list is no recording"),
        (UserString("clip.wav"), None, "UserString is no recording"),
        (io.StringIO("text"), None, "a file opened as text is no recording; give .* a file opened with 'rb'"),
        (np.zeros(16_000), None, "an array with sample_rate None; give .* with its sample_rate"),
        (np.zeros(16_000), "16000", "an array with sample_rate '16000'"),
        (np.zeros(16_000), float("nan"), "an array with sample_rate nan"),
        (np.zeros((2, 16_000)), 16_000, r"an array of float64, shape \(2, 16000\); give .*\(n_samples, n_channels\)"),
        (np.zeros((9, 9, 9)), 16_000, "shape"),
        (np.float32(1), 16_000, "float32 is no recording"),
        (np.zeros(16_000, complex), 16_000, "an array of complex128"),
        (np.array(["a"]), 16_000, "an array of <U1"),
    ],
)  # fmt: skip
def test_anything_else_is_a_type_error_that_says_what_is_accepted(tiny, source, rate, message):
    with pytest.raises(TypeError, match=message):
        tiny.predict(source, *([rate] if isinstance(source, np.ndarray) else []))
    if not isinstance(source, list | UserString | None):
        with pytest.raises(TypeError, match=message):
            tiny.predict(
                CLIP, references=[source], sample_rate=rate if isinstance(source, np.ndarray) else None
            )


def test_a_rate_without_an_array_is_refused(tiny):
    with pytest.raises(TypeError, match="sample_rate goes with an array; a file has its own"):
        tiny.predict(CLIP, 16_000)
    with pytest.raises(TypeError, match="references: int is no recording"):
        tiny.predict(CLIP, references=5)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(16_000), 0, "0 Hz"),
        (np.ones(16_000), 10, "sample rate 10 Hz"),
        (np.zeros(0), 16_000, "audio: "),
        (np.zeros(16_000), 16_000, "audio: silent"),
        (np.full(16_000, np.nan), 16_000, "not numbers"),
        (30_000 * np.sin(np.arange(16_000.0)), 16_000, "full scale is 1"),
    ],
)
def test_an_array_that_is_no_clip_is_an_audio_error(tiny, samples, rate, message):
    with pytest.raises(AudioError, match=message):
        tiny.predict(samples, rate)
