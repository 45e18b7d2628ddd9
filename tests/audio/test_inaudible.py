"""What nobody hears changes no answer, and what is no speech gets none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from synth import speech
from test_bundle import wav

from ser_lib import audio
from ser_lib.audio import decoding, quality
from ser_lib.augmentation.stress import INAUDIBLE
from ser_lib.errors import AudioError
from ser_lib.serving import bundle

RATE = 16_000
RNG = np.random.default_rng(0)
# The largest shift of a probability, by what is changed: a gain is a feature, and dither and hum are sounds.
BOUNDS = {
    "rumble of 20 Hz as loud as the speech": 0.05,
    "dither of 16 bits": 0.15, "1 dB louder": 0.05, "44.1 kHz and back": 0.1, "mains hum 45 dB below the speech": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def clips(request) -> list[tuple[np.ndarray, int]]:
    """Eight clips of RAVDESS where it is, else synthesised ones."""
    try:
        folder = request.getfixturevalue("ravdess")
    except pytest.skip.Exception:
        return [(speech(name, i), RATE) for i, name in enumerate(("happy", "sad", "calm", "fearful"))]
    paths = sorted(folder.rglob("03-01-0[1-8]-01-01-01-1[34].*"))[::2]
    return [(audio.mix_down(raw), rate) for raw, rate in map(decoding.decode, paths)]


@pytest.mark.parametrize("change", INAUDIBLE, ids=lambda change: change.name)
def test_a_change_that_nobody_hears_moves_no_probability(clips, change):
    model = bundle.load()

    def probabilities(samples: np.ndarray, rate: int) -> np.ndarray:
        clip = audio.prepare(samples[:, None], rate, name="clip")
        return np.array(list(model.answer(clip, check_voice=False)["probabilities"].values()))

    for samples, rate in clips:
        moved = probabilities(change(samples, rate, RNG), rate) - probabilities(samples, rate)
        assert np.abs(moved).max() <= BOUNDS.get(change.name, 0.02)


# --- no speech ------------------------------------------------------------------------------------

TIME = np.arange(3 * RATE) / RATE


def colour(exponent: float) -> np.ndarray:
    """Three seconds of noise whose power falls with frequency to this power."""
    spectrum = np.fft.rfft(RNG.standard_normal(len(TIME)))
    return np.fft.irfft(spectrum * np.maximum(np.fft.rfftfreq(len(TIME), 1 / RATE), 20) ** (-exponent / 2))


def pluck(hertz: float) -> np.ndarray:
    """A plucked string (Karplus and Strong 1983)."""
    period = int(RATE / hertz)
    burst, loop = np.zeros(len(TIME)), np.zeros(period + 2)
    burst[:period] = RNG.uniform(-1, 1, period)
    loop[0], loop[period:] = 1, -0.498
    return lfilter([1], loop, burst)


NO_SPEECH = {
    "tone": np.sin(2 * np.pi * 440 * TIME),
    "chirp": np.sin(2 * np.pi * (100 * TIME + 800 * TIME**2)),
    "chord": sum(np.sin(2 * np.pi * 220 * ratio * TIME) for ratio in (1, 1.25, 1.5)),
    "string": pluck(196),
    "white noise": colour(0),
    "pink noise": colour(1),
    "brown noise": colour(2),
    "blue noise": colour(-1),
    "violet noise": colour(-2),
    "hum": sum(np.sin(2 * np.pi * 50 * k * TIME) / k for k in range(1, 8)),
    "pulses": (np.diff(np.floor(120 * TIME), prepend=0) > 0).astype(float),
}


@pytest.mark.parametrize("kind", NO_SPEECH)
def test_no_speech_gets_no_emotion(kind):
    sound = 0.3 * NO_SPEECH[kind] / np.abs(NO_SPEECH[kind]).max()
    answer = bundle.load().predict(wav(sound.astype(np.float32)))
    assert (answer["emotion"], answer["confidence"], answer["abstained"]) == (None, None, True)
    assert answer["reason"].startswith("No speech found")


@pytest.mark.parametrize("noise_db", [None, -10])
def test_speech_is_found(ravdess, emodb, noise_db):
    paths = [*sorted(ravdess.rglob("*.flac"))[::20], *sorted(emodb.rglob("*.flac"))[::10]]
    missed = 0
    for path in paths:
        raw, rate = decoding.decode(path)
        mono = audio.mix_down(raw)
        if noise_db:
            level = quality.active_level(mono, rate) * 10 ** (noise_db / 20)
            mono = mono + level * RNG.standard_normal(len(mono)).astype(np.float32)
        clip = audio.prepare(mono[:, None], rate, name=path.name)
        missed += quality.voice(clip.samples, clip.sample_rate)["speech_s"] < quality.VOICE_LEAST_S
    assert missed <= 0.01 * len(paths)


# --- files whose header is wrong ------------------------------------------------------------------


def header(length: int) -> bytes:
    """A WAV of one second whose header states another length of the data, in bytes."""
    content = bytearray(wav(speech("happy", 1)[:RATE]))
    at = content.index(b"data")
    content[at + 4 : at + 8] = length.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize(
    ("length", "stated"), [(0, "0.0 s"), (8_000, "0.2 s"), (320_000, "10.0 s"), (0xFFFFFFFF, None)]
)
def test_the_content_counts_and_not_the_header(length, stated):
    clip = audio.load(header(length))
    assert clip.duration_s == pytest.approx(1.0, abs=0.01)
    expected = [f"the header says {stated}, the file holds 1.0 s: all of it was read"] if stated else []
    assert list(clip.notes) == expected


def test_an_inverted_channel_does_not_silence_the_other():
    left = speech("happy", 1)
    both = audio.prepare(np.stack([left, -left], axis=1), RATE, name="clip")
    one = audio.prepare(left[:, None], RATE, name="clip")
    np.testing.assert_allclose(both.samples, one.samples, atol=1e-6)
    assert both.notes == ("the channels cancel each other out (one is inverted): the louder one was used",)


def test_a_constant_is_silence():
    with pytest.raises(AudioError, match="silent"):
        audio.prepare(np.full((RATE, 1), 0.2, np.float32), RATE, name="clip")
