"""The columns of each set, their values against librosa and NumPy, and refusals."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys

import librosa
import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose, assert_array_equal
from synth import speech

from ser_lib import ROOT, audio
from ser_lib.audio import Audio, AudioConfig
from ser_lib.audio.decoding import SUFFIXES
from ser_lib.errors import SerError
from ser_lib.features import COMPACT_S, FRAMES, SETS, FeatureConfig, extract, family, feature_names, lld, sets

RATE = 16_000
TIME = np.arange(RATE) / RATE
CLASSIC, COMPACT, FULL = (FeatureConfig(name) for name in ("classic", "compact", "full"))
ALL_SETS = pytest.mark.parametrize("config", [FeatureConfig(name) for name in SETS], ids=SETS)
SPOKEN = [("happy", 1), ("sad", 2), ("angry", 3), ("fearful", 4), ("neutral", 5)]


def clip_of(samples: np.ndarray, rate: int = RATE) -> Audio:
    samples = np.asarray(samples, np.float32)
    return Audio(samples, rate, "clip", len(samples) / rate, rate, 1)


def wav(samples: np.ndarray, subtype: str = "FLOAT") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format="WAV", subtype=subtype)
    return out.getvalue()


# --- columns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "low", "high"), [(CLASSIC, 180, 180), (COMPACT, 105, 105), (FULL, 400, 1500)]
)
def test_number_and_names_of_the_columns(config, low, high):
    names = feature_names(config)
    assert low <= len(names) <= high
    assert len(set(names)) == len(names)
    assert list(extract(clip_of(speech("calm", 2)), config)) == list(names)


def test_the_columns_of_classic_and_compact():
    def numbered(stem, n, suffix="_mean"):
        return [f"{stem}_{i:02d}{suffix}" for i in range(1, n + 1)]

    assert list(feature_names(CLASSIC)) == numbered("mfcc", 40) + numbered("chroma", 12) + numbered(
        "mel", 128
    )
    assert list(feature_names(COMPACT)) == (
        numbered("mfcc", 13) + numbered("mfcc", 13, "_std") + numbered("dmfcc", 13) + numbered("mel", 48)
        + [f"{name}_{how}" for name in ("centroid", "rolloff85", "zcr") for how in ("mean", "std")]
        + numbered("chroma", 12)
    )  # fmt: skip


@ALL_SETS
def test_every_column_has_a_family(config):
    """`family` calls unknown columns spectral, so only spectral columns may be unknown to it."""
    spectral = {"centroid", "bandwidth", "flatness", "entropy", "flux", "alpha", "hammarberg", "contrast"}
    spectral |= {"slope0to500", "slope500to1500", "rolloff25", "rolloff50", "rolloff85", "rolloff95"}
    for name in feature_names(config):
        assert (family(name) == "spectral") == (name.split("_")[0] in spectral), name


def test_the_full_set_has_every_family():
    families = {family(name) for name in feature_names(FULL)}
    assert families == {
        "mfcc",
        "mel",
        "chroma",
        "spectral",
        "pitch",
        "voice",
        "energy",
        "timing",
        "correlation",
    }


# --- values against librosa ------------------------------------------------------------------------


def assert_classic_is_librosa(y: np.ndarray) -> None:
    """`rtol` 1e-4: values keep 16 significant bits (8e-6) of float32 sums over 2048 samples.

    `atol`: MFCC are sums of 128 decibels that cancel; a mel band can be 1e-8 of the loudest.
    """
    row = np.array(list(extract(clip_of(y), CLASSIC).values()))
    mfcc = librosa.feature.mfcc(y=y, sr=RATE, n_mfcc=40).mean(axis=1)
    chroma = librosa.feature.chroma_stft(S=np.abs(librosa.stft(y)), sr=RATE, tuning=0).mean(axis=1)
    mel = librosa.feature.melspectrogram(y=y, sr=RATE).mean(axis=1)
    assert_allclose(row[:40], mfcc, rtol=1e-4, atol=1e-2)
    assert_allclose(row[40:52], chroma, rtol=1e-4, atol=1e-5)
    assert_allclose(row[52:], mel, rtol=1e-4, atol=1e-7 * mel.max())


@pytest.mark.parametrize(("emotion", "speaker"), SPOKEN)
def test_classic_equals_librosa(emotion, speaker):
    assert_classic_is_librosa(audio.trim(speech(emotion, speaker)))


@pytest.mark.parametrize("seconds", [0.3, 4.0])
def test_classic_equals_librosa_for_short_and_long_clips(seconds):
    assert_classic_is_librosa(np.resize(speech("surprised", 6), int(seconds * RATE)))


def test_classic_equals_librosa_on_real_speech(ravdess):
    clips = sorted(path for path in ravdess.rglob("03-01-*") if path.suffix in SUFFIXES)
    for path in clips[7 :: len(clips) // 3][:3]:
        assert_classic_is_librosa(audio.load(path).samples)


@pytest.mark.parametrize("seconds", [0.3, 1.7, 6.0])
def test_frames_equal_librosa(seconds):
    y = np.resize(speech("surprised", 6), int(seconds * RATE))
    power = np.abs(librosa.stft(y, n_fft=640, hop_length=320, center=False)) ** 2
    mel = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=RATE, n_mels=64), top_db=None).T
    mfcc = librosa.feature.mfcc(y=y, sr=RATE, n_mfcc=40, n_fft=4 * 372, hop_length=372).T
    for name, theirs in (("melpitch", mel), ("mfcc", mfcc)):
        row = np.array(list(extract(clip_of(y), FeatureConfig(name)).values())).reshape(FRAMES[name])
        n = min(len(theirs), len(row))  # what is longer is cut
        assert_allclose(row[:n, : theirs.shape[1]], theirs[:n], rtol=1e-3, atol=2e-2)
        assert np.isnan(row[n:]).all()


def test_frames_have_the_pitch_and_its_voicing():
    at = np.arange(2 * RATE) / RATE
    y = sum(np.sin(2 * np.pi * 220 * k * at) / k for k in range(1, 10)).astype(np.float32)
    row = np.array(list(extract(clip_of(0.1 * y), FeatureConfig("melpitch")).values()))
    pitch, voicing = row.reshape(FRAMES["melpitch"])[5:90, 64:].T
    assert_allclose(pitch, 36, atol=0.3)  # semitones above 27.5 Hz
    assert (voicing > 0.8).all()


def test_compact_equals_librosa():
    y = np.resize(speech("disgust", 4), 5 * RATE)
    row = np.array(list(extract(clip_of(y), COMPACT).values()))
    y = y[: int(COMPACT_S * RATE)]  # the rest is not used
    spectrum = np.abs(librosa.stft(y))
    mfcc = librosa.feature.mfcc(y=y, sr=RATE, n_mfcc=13)
    mel = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=RATE, n_mels=48))
    # 1e-5 on magnitudes and 1e-10 on powers keep silence finite
    centroid = librosa.feature.spectral_centroid(S=spectrum + 1e-5, sr=RATE)[0]
    rolloff = librosa.feature.spectral_rolloff(S=np.square(spectrum) + 1e-10, sr=RATE)[0]
    zcr = np.array([np.diff(np.signbit(part)).mean() for part in lld.frames(np.pad(y, 1024), 2048, 512)])
    expected = [
        *mfcc.mean(axis=1), *mfcc.std(axis=1), *np.gradient(mfcc, axis=1).mean(axis=1), *mel.mean(axis=1),
        centroid.mean(), centroid.std(), rolloff.mean(), rolloff.std(), zcr.mean(), zcr.std(),
        *librosa.feature.chroma_stft(S=spectrum, sr=RATE, tuning=0).mean(axis=1),
    ]  # fmt: skip
    assert_allclose(row, expected, rtol=2e-3, atol=2e-3)


def test_pitch_goes_on_between_voiced_frames():
    values, known = np.array([9, 2, 7, 7, 5, 9], np.float32), np.array([0, 1, 0, 0, 1, 0], bool)
    assert_allclose(sets._between(values, known), [2, 2, 3, 4, 5, 5])
    assert_allclose(sets._between(values, known & False), 0)


# --- values that are known -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hertz", "semitone"), [(110, 24), (220, 36), (440, 48), (27.5 * 2 ** (30.5 / 12), 30.5)]
)
def test_semitones_above_the_lowest_a(hertz, semitone):
    row = extract(clip_of(0.3 * np.sin(2 * np.pi * hertz * TIME)))
    for how in ("mean", "p05", "p50", "p95"):
        assert_allclose(row[f"f0_semitone_{how}"], semitone, atol=0.1)
    assert_allclose([row["f0_semitone_std"], row["f0_semitone_slope"]], 0, atol=0.1)


def test_the_pitch_slope_of_a_rising_voice():
    phase = 2 * np.pi * np.cumsum(150 * 2 ** (TIME / 2)) / RATE  # six semitones in a second
    row = extract(clip_of(sum(np.cos(k * phase) / k**2 for k in range(1, 10)) / 4))
    assert_allclose(row["f0_semitone_slope"], 6, atol=0.4)
    assert abs(row["f0_semitone_bend"]) < 0.3


def test_timing_of_bursts_and_pauses():
    """Four voiced bursts of 0.3 s, 0.2 s of silence between them: 1.8 s."""
    burst = 0.3 * np.sin(2 * np.pi * 200 * TIME[: int(0.3 * RATE)])
    pause = np.zeros(int(0.2 * RATE))
    y = np.concatenate([burst, pause, burst, pause, burst, pause, burst])
    row = extract(clip_of(y))
    frame = 0.025  # seconds; one that touches a burst belongs to it
    assert_allclose(row["time_duration"], 1.8, rtol=1e-4)
    assert_allclose(row["time_pause_share"], 0.6 / 1.8, atol=3 * frame / 1.8)
    assert_allclose(row["time_voiced_share"], 1.2 / 1.8, atol=4 * frame / 1.8)
    assert_allclose([row["time_pause_rate"], row["time_voiced_rate"]], [3 / 1.8, 4 / 1.8], rtol=1e-3)
    assert_allclose([row["time_pause_mean"], row["time_pause_max"]], 0.2, atol=frame)
    assert_allclose([row["time_voiced_mean"], row["time_voiced_max"]], 0.3, atol=frame)
    assert_allclose([row["time_pause_std"], row["time_voiced_std"]], 0, atol=frame / 2)


def test_a_hiss_is_unvoiced_but_no_pause():
    """0.4 s of voice, 0.2 s of noise as loud, 0.4 s of voice."""
    voice = 0.3 * np.sin(2 * np.pi * 200 * TIME[: int(0.4 * RATE)])
    hiss = 0.2 * np.random.default_rng(0).standard_normal(int(0.2 * RATE))
    row = extract(clip_of(np.concatenate([voice, hiss, voice])))
    assert row["time_pause_share"] == row["time_pause_max"] == 0
    assert_allclose([row["time_voiced_rate"], row["time_unvoiced_rate"]], [2, 1], rtol=1e-3)
    assert_allclose(row["time_unvoiced_max"], 0.2, atol=0.06)  # pitch frames are 64 ms


@pytest.mark.parametrize(("rate", "band"), [(1, 2), (3, 4), (6, 8), (12, 20)])
def test_rhythm_is_the_rate_of_the_level(rate, band):
    """The level in decibels goes up and down `rate` times a second."""
    level = 10 ** (0.5 * np.sin(2 * np.pi * rate * TIME))
    noise = np.random.default_rng(0).standard_normal(RATE)
    row = extract(clip_of(0.05 * level * noise))
    shares = {high: row[f"time_rhythm{high}hz"] for high in (2, 4, 8, 20)}
    assert max(shares, key=shares.get) == band
    assert_allclose(sum(shares.values()), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("n", "expected"), [(5, [0, 1, 2, 3, 4]), (3, [1, 2, 3]), (7, [0, 1, 2, 3, 4, 4, 4])]
)
def test_fit_takes_the_middle_or_repeats_the_last(n, expected):
    assert sets._fit(np.arange(5), n).tolist() == expected


def test_timing_without_a_pause():
    row = extract(clip_of(0.3 * np.sin(2 * np.pi * 200 * TIME)))
    assert row["time_pause_share"] == row["time_pause_rate"] == row["time_pause_max"] == 0
    assert row["time_voiced_share"] == 1
    assert_allclose(row["time_voiced_max"], 1, atol=0.03)


def test_a_small_golden_row():
    """Made by `extract(clip_of(speech("happy", 1)))`; a change here makes the shipped table stale."""
    golden = {
        "level_mean": -20.988,
        "alpha_bend": 10.217,
        "mfcc_05_p95": 6.2489,
        "mel_11_dmean": 5.6611,
        "mel_31_p05": -70.775,
        "time_duration": 1.2,
        "time_pause_share": 0.27119,
        "time_rhythm4hz": 0.30016,
        "corr_mfcc_02_with_voicing": 0.80078,
        "corr_f0_fast_with_voicing_slow": -0.23438,
    }
    row = extract(clip_of(speech("happy", 1)))
    assert_allclose([row[name] for name in golden], list(golden.values()), rtol=1e-3, atol=1 / 256)


# --- gain ------------------------------------------------------------------------------------------


def test_gain_moves_levels_and_nothing_else():
    """A quarter is -12.04 dB; a power of two, so that the samples are scaled without rounding."""
    y = speech("angry", 1) + (0.01 * np.random.default_rng(0).standard_normal(int(1.2 * RATE)))
    loud, soft = extract(clip_of(y)), extract(clip_of(0.25 * y.astype(np.float32)))
    shift = 20 * np.log10(0.25)
    for name in loud:
        stem, how = name.split("_")[0], name.split("_")[-1]
        if stem in ("level", "mel") and how in ("mean", "p05", "p50", "p95"):
            assert_allclose(soft[name] - loud[name], shift, atol=0.05, err_msg=name)
        elif name == "mfcc_01_mean":
            assert_allclose(soft[name] - loud[name], shift * np.sqrt(FULL.n_mels), rtol=0.01)
        elif stem == "corr":
            assert_allclose(soft[name], loud[name], atol=0.02, err_msg=name)
        elif stem in ("time", "f0", "chroma", "zcr", "voicing"):
            assert_allclose(soft[name], loud[name], rtol=0.01, atol=0.02, err_msg=name)


def test_gain_scales_the_mel_powers_of_classic():
    y = speech("angry", 1)
    loud, soft = (np.array(list(extract(clip_of(g * y), CLASSIC).values())) for g in (1, 0.5))
    assert_allclose(soft[52:], loud[52:] / 4, rtol=1e-4)
    assert_allclose(soft[40:52], loud[40:52], atol=1e-4)


# --- start -----------------------------------------------------------------------------------------


def test_a_first_clip_does_not_wait_for_librosa():
    """librosa brings numba: a second and 100 MB that one clip does not need."""
    code = (
        "import sys, numpy as np; from ser_lib.features.sets import *; from ser_lib.audio.clip import Audio\n"
        "y = np.ones(16_000, np.float32)\n"
        "for name in SETS: extract(Audio(y, 16_000, 'y', 1.0, 16_000, 1), FeatureConfig(name))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert not {"librosa", "numba", "sklearn", "pandas", "matplotlib"} & set(done.stdout.split())


# --- whatever `audio.load` accepts -----------------------------------------------------------------

HOSTILE = {
    "near silent": 2e-4 * np.sin(2 * np.pi * 200 * TIME),
    "shortest": 0.3 * np.sin(2 * np.pi * 200 * TIME[: int(0.3 * RATE)]),
    "clipped square": 0.999 * np.sign(np.sin(2 * np.pi * 150 * TIME)),
    "loud float": 7.9 * np.sin(2 * np.pi * 200 * TIME),
    "impulse in faint noise": np.eye(1, RATE, RATE // 2)[0] + 0.02 * np.sin(2 * np.pi * 50 * TIME),
    "silence between bursts": np.where((TIME < 0.2) | (TIME > 0.8), np.sin(2 * np.pi * 300 * TIME), 0),
    "noise": np.random.default_rng(0).standard_normal(RATE),
    "Nyquist": 0.5 * (-1.0) ** np.arange(RATE),
}


@ALL_SETS
@pytest.mark.parametrize("name", HOSTILE)
def test_every_clip_that_loads_has_finite_features(name, config):
    row = extract(audio.load(wav(HOSTILE[name]), config.audio), config)
    assert list(row) == list(feature_names(config))
    assert np.isfinite(list(row.values())).all()


def test_an_untrimmed_burst_has_finite_features():
    config = FeatureConfig(audio=AudioConfig(trim_db=None))
    burst = np.where(np.abs(TIME - 0.5) < 0.02, np.sin(2 * np.pi * 300 * TIME), 0)
    row = extract(audio.load(wav(burst), config.audio), config)
    assert np.isfinite(list(row.values())).all()


@ALL_SETS
def test_the_same_clip_has_the_same_features(config):
    y = speech("sad", 3)
    first, second = extract(clip_of(y), config), extract(clip_of(y.copy()), config)
    assert first == second


@ALL_SETS
def test_extract_leaves_the_waveform_alone(config):
    y = speech("sad", 3)
    before = y.copy()
    extract(clip_of(y), config)
    assert_array_equal(y, before)


def test_values_keep_sixteen_significant_bits():
    values = np.array([1 / 3, -1234.5678, 1e-20, 0, 1], np.float32)
    rounded = sets._rounded(values.copy())
    assert_allclose(rounded, values, rtol=2.0**-16)
    assert not (rounded.view(np.uint32) & 0xFF).any()
    row = np.array(list(extract(clip_of(speech("calm", 2))).values()), np.float32)
    assert not (row.view(np.uint32) & 0xFF).any()


# --- configurations and refusals -------------------------------------------------------------------


def test_the_hash_names_every_field():
    changes = {
        "name": "classic",
        "audio": AudioConfig(trim_db=None),
        "n_fft": 512,
        "hop": 80,
        "n_mfcc": 20,
        "n_mels": 64,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(FeatureConfig)}
    configs = [FULL, *(dataclasses.replace(FULL, **{name: value}) for name, value in changes.items())]
    configs += [FeatureConfig(audio=AudioConfig(sample_rate=22_050))]
    assert len({config.hash for config in configs}) == len(configs)
    assert FeatureConfig().hash == FULL.hash
    assert len(FULL.hash) == 16


def test_a_configuration_changes_the_columns():
    names = feature_names(FeatureConfig(n_mfcc=5, n_mels=26))
    assert {"mfcc_05_mean", "mel_26_mean"} <= set(names)
    assert not {"mfcc_06_mean", "mel_27_mean"} & set(names)


def test_an_unknown_set_is_refused():
    with pytest.raises(SerError, match="'none' is unknown; choose one of classic, compact, full"):
        FeatureConfig("none")


@ALL_SETS
def test_another_sample_rate_is_refused(config):
    with pytest.raises(SerError, match="clip: sample rate 8000 Hz, the features expect 16000 Hz"):
        extract(clip_of(speech("calm", 2), 8_000), config)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.hop = 1
