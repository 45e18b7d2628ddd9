"""quality: what a recording is like, on clips whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest
from synth import speech

from ser_lib import audio, augmentation
from ser_lib.audio import decoding, quality

RATE = 48_000
RNG = np.random.default_rng(0)


def heard(samples: np.ndarray, rate: int = RATE) -> dict:
    raw = samples.reshape(len(samples), -1).astype(np.float32)
    return quality.describe(raw, rate, audio.prepare(raw, rate, name="clip"))


@pytest.fixture(scope="module")
def hiss() -> np.ndarray:
    """Two seconds of noise at -20 dB up to 24 kHz: nothing is wrong with it."""
    return 0.1 * RNG.standard_normal(2 * RATE).astype(np.float32)


def test_a_clean_clip(hiss):
    found = heard(hiss)
    assert found["loudness_db"] == pytest.approx(-20, abs=0.2)
    assert found["clipped"] < 1e-4
    assert found["silence"] == 0
    assert found["bandwidth_hz"] == pytest.approx(8000, abs=100)
    assert (found["duration_s"], found["sample_rate"], found["channels"]) == (2.0, RATE, 1)
    assert quality.warnings(found) == []


def test_a_gain_moves_the_loudness_alone(hiss):
    loud, soft = heard(hiss), heard(0.01 * hiss)
    assert soft == loud | {"loudness_db": pytest.approx(loud["loudness_db"] - 40, abs=0.11)}
    assert [text.split(" (")[0] for text in quality.warnings(soft)] == ["very quiet"]


def test_stereo_is_told(hiss):
    assert heard(np.stack([hiss, hiss], axis=1)) == heard(hiss) | {"channels": 2}


@pytest.mark.parametrize("gain", [1, 0.01])
def test_cut_off_peaks_are_counted_at_any_level(hiss, gain):
    limit = np.quantile(np.abs(hiss), 0.9)
    cut = gain * np.clip(hiss, -limit, limit)
    share = (np.abs(cut[1:]) == np.abs(cut).max()) & (np.abs(cut[:-1]) == np.abs(cut).max())
    assert heard(cut)["clipped"] == pytest.approx(share.mean(), abs=1e-3)
    assert any(text.startswith("clipped") for text in quality.warnings(heard(cut)))


def test_silence_is_a_share_of_the_time(hiss):
    padded = np.concatenate([np.zeros(3 * RATE, np.float32), hiss, np.zeros(5 * RATE, np.float32)])
    found = heard(padded)
    assert found["silence"] == pytest.approx(0.8, abs=0.01)
    assert found["loudness_db"] == heard(hiss)["loudness_db"]
    assert quality.warnings(found) == ["most of this is silence (80%)"]


def test_a_telephone_is_narrow(hiss):
    found = heard(augmentation.Telephone()(hiss, RATE, RNG))
    assert 3400 < found["bandwidth_hz"] < 4100
    assert [text.split(" (")[0] for text in quality.warnings(found)] == ["narrow band"]


def test_long_and_strange_clips_are_told(hiss):
    found = heard(np.tile(hiss, 6)) | {"distance": 2.0}
    assert [text.split(" ")[0] for text in quality.warnings(found)] == ["long", "unlike"]


def test_real_studio_clips_raise_no_warning(ravdess):
    paths = sorted(ravdess.rglob("03-01-0[1-8]-01-01-01-*.flac"))[::11]
    assert len(paths) > 10
    for path in paths:
        raw, rate = decoding.decode(path)
        found = quality.describe(raw, rate, audio.prepare(raw, rate, name=path.name))
        assert found["bandwidth_hz"] > 7000
        assert found["clipped"] < 1e-4
        assert set(text.split(" (")[0] for text in quality.warnings(found)) <= {"very quiet"}


def test_speech_is_louder_than_its_pauses():
    clip = speech("angry", 1, rate=RATE)
    whole = 20 * np.log10(np.sqrt(np.square(clip).mean()))
    assert heard(clip)["loudness_db"] > whole
