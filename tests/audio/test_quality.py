"""quality: measures and warnings on clips with known faults."""

from __future__ import annotations

import numpy as np
import pytest
from synth import speech

from ser_lib import audio, augmentation
from ser_lib.audio import quality

RATE = 48_000
RNG = np.random.default_rng(0)


def measure(samples: np.ndarray, rate: int = RATE) -> dict:
    raw = samples.reshape(len(samples), -1).astype(np.float32)
    return audio.prepare(raw, rate, name="clip").quality


@pytest.fixture(scope="module")
def hiss() -> np.ndarray:
    """Two seconds of noise at -20 dB up to 24 kHz: nothing is wrong with it."""
    return 0.1 * RNG.standard_normal(2 * RATE).astype(np.float32)


def test_a_clean_clip(hiss):
    measured = measure(hiss)
    assert measured["loudness_db"] == pytest.approx(-24.8, abs=0.3)  # at 16 kHz, a third of the noise is left
    assert measured["clipped"] < 1e-4
    assert measured["silence"] == 0
    assert measured["bandwidth_hz"] == pytest.approx(8000, abs=100)
    assert (measured["duration_s"], measured["sample_rate"], measured["channels"]) == (2.0, RATE, 1)
    assert quality.warnings(measured) == []


def test_a_gain_moves_the_loudness_alone(hiss):
    loud, soft = measure(hiss), measure(0.01 * hiss)
    assert soft == loud | {"loudness_db": pytest.approx(loud["loudness_db"] - 40, abs=0.11)}
    assert [text.split(" (")[0] for text in quality.warnings(soft)] == ["very quiet"]


def test_stereo_is_reported(hiss):
    assert measure(np.stack([hiss, hiss], axis=1)) == measure(hiss) | {"channels": 2}


@pytest.mark.parametrize("gain", [1, 0.01])
def test_cut_off_peaks_are_counted_at_any_level(hiss, gain):
    limit = np.quantile(np.abs(hiss), 0.9)
    cut = gain * np.clip(hiss, -limit, limit)
    share = (np.abs(cut[1:]) == np.abs(cut).max()) & (np.abs(cut[:-1]) == np.abs(cut).max())
    assert measure(cut)["clipped"] == pytest.approx(share.mean(), abs=1e-3)
    assert any(text.startswith("clipped") for text in quality.warnings(measure(cut)))


def test_silence_is_a_share_of_the_time(hiss):
    padded = np.concatenate([np.zeros(3 * RATE, np.float32), hiss, np.zeros(5 * RATE, np.float32)])
    measured = measure(padded)
    assert measured["silence"] == pytest.approx(0.8, abs=0.01)
    assert measured["loudness_db"] == pytest.approx(measure(hiss)["loudness_db"], abs=0.11)
    assert quality.warnings(measured) == ["most of this is silence (80%)"]


def test_a_telephone_is_narrow(hiss):
    measured = measure(augmentation.Telephone()(hiss, RATE, RNG))
    assert 3400 < measured["bandwidth_hz"] < 4100
    assert [text.split(" (")[0] for text in quality.warnings(measured)] == ["narrow band"]


def test_long_and_strange_clips_get_a_warning(hiss):
    measured = measure(np.tile(hiss, 6)) | {"distance": 2.0}
    assert [text.split(" ")[0] for text in quality.warnings(measured)] == ["long", "unlike"]


def test_real_studio_clips_raise_no_warning(ravdess):
    paths = sorted(ravdess.rglob("03-01-0[1-8]-01-01-01-*.flac"))[::11]
    assert len(paths) > 10
    for path in paths:
        measured = audio.load(path).quality
        assert measured["bandwidth_hz"] > 7000
        assert measured["clipped"] < 1e-4
        assert set(text.split(" (")[0] for text in quality.warnings(measured)) <= {"very quiet"}


def test_speech_is_louder_than_its_pauses():
    clip = speech("angry", 1, rate=RATE)
    whole = 20 * np.log10(np.sqrt(np.square(clip).mean()))
    assert measure(clip)["loudness_db"] > whole
