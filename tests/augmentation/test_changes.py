"""Each change has the effect in its name, measured independently, and is reproducible."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from functools import partial
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal
from scipy.signal import correlate, welch
from synth import speech

from ser_lib import audio, corpora, features
from ser_lib.audio import AudioConfig, quality
from ser_lib.audio.quality import active_level
from ser_lib.augmentation import (
    Chain,
    Gain,
    Microphone,
    Noise,
    Pitch,
    Room,
    Speed,
    Telephone,
    Tilt,
    changes,
    stress,
)
from ser_lib.augmentation.stress import STRESS, Clip, Codec, Half, Silence
from ser_lib.errors import AudioError, SerError
from ser_lib.features import FeatureConfig, extraction, feature_names, pitch

RATE = 16_000
CLIP = speech("happy", 1)
NOISY = CLIP + np.float32(1e-3) * np.random.default_rng(9).standard_normal(len(CLIP), dtype=np.float32)
RANDOM = (Noise(10), Noise(10, "babble"), Room(0.3, 3), Silence(1), Microphone(), Microphone(1))
USUAL = (
    Speed(0.9), Speed(1.1), Pitch(-1), Pitch(1), Tilt(-3), Tilt(3), Noise(20), Noise(30), Room(0.3, 3),
)  # fmt: skip
ALL = tuple(dict.fromkeys((*USUAL, *STRESS, *RANDOM, Half("second"), Chain((Speed(1.1), Noise(20))))))
CONFIG = FeatureConfig("compact")
NAMES = list(feature_names(CONFIG))

each = pytest.mark.parametrize("change", ALL, ids=lambda change: change.name)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def decibels(power: float) -> float:
    return 10 * np.log10(power)


def lag(y: np.ndarray, of: np.ndarray) -> int:
    """Samples by which `y` comes after `of`."""
    return int(correlate(y, of, method="fft").argmax()) - (len(of) - 1)


def semitones_up(y: np.ndarray, of: np.ndarray, factor: float = 1.0) -> float:
    """Median change of pitch, frame by frame; `factor` is that of the speed."""
    f0, strength = pitch.pitch(of, rate=RATE, hop=160)
    new, new_strength = pitch.pitch(y, rate=RATE, hop=160)
    at = np.minimum((np.arange(len(f0)) / factor).round().astype(int), len(new) - 1)
    sure = (strength > 0.7) & (new_strength[at] > 0.7)
    assert sure.sum() > 20
    return float(np.median(12 * np.log2(new[at][sure] / f0[sure])))


# --- what all changes keep -------------------------------------------------------------------------


@each
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_a_waveform_stays_a_waveform(change, rate):
    clip = speech("calm", 2, rate=rate, seconds=0.8)
    before = clip.copy()
    out = change(clip, rate, rng())
    assert out.dtype == np.float32
    assert out.ndim == 1
    assert np.isfinite(out).all()
    assert np.abs(out).max() > 1e-3
    assert not np.shares_memory(out, clip)
    np.testing.assert_array_equal(clip, before)


@each
def test_a_read_only_waveform_is_enough(change):
    clip = CLIP.copy()
    clip.setflags(write=False)
    change(clip, RATE, rng())


@each
def test_silence_stays_finite(change):
    assert np.isfinite(change(np.zeros(RATE, np.float32), RATE, rng())).all()


@each
def test_the_same_seed_is_the_same_copy(change):
    first, again, other = (change(NOISY, RATE, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    is_random = isinstance(change, Noise | Room | Silence | Microphone | Chain)
    assert np.array_equal(first, other) != is_random


@each
def test_a_change_is_a_value(change):
    copy = pickle.loads(pickle.dumps(change))
    assert copy == change
    assert hash(copy) == hash(change)
    assert repr(copy) == repr(change)
    assert eval(repr(change), vars(changes) | vars(stress)) == change
    assert isinstance(change.name, str)
    with pytest.raises(FrozenInstanceError):
        change.factor = 2


def test_names_are_unique_and_for_reading():
    for those in (USUAL, STRESS, ALL):
        assert len({change.name for change in those}) == len(those)
    assert [change.name for change in (Noise(10), Speed(1.1), Codec("opus", 24), Telephone())] == [
        "white noise 10 dB",
        "speed ×1.10",
        "Opus 24 kb/s",
        "telephone",
    ]
    assert Chain((Gain(-20), Half())).name == "gain -20 dB + first half"


def test_the_repr_is_the_same_in_another_process():
    code = "from ser_lib.augmentation.stress import STRESS; print(repr(STRESS))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert out.stdout.strip() == repr(STRESS)


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (partial(Noise, 10, "pink"), "white, babble"),
        (partial(Half, "last"), "first, second"),
        (partial(Codec, "aac", 64), "mp3, opus"),
    ],
)
def test_an_unknown_kind_is_refused(make, known):
    with pytest.raises(SerError, match=f"is unknown; choose one of {known}"):
        make()


# --- speed and pitch -------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_speed_changes_duration_and_pitch(factor):
    out = Speed(factor)(CLIP, RATE, rng())
    assert len(out) == pytest.approx(len(CLIP) / factor, abs=1)
    assert semitones_up(out, CLIP, factor) == pytest.approx(12 * np.log2(factor), abs=0.15)


def test_speed_back_and_forth_is_the_clip():
    out = Chain((Speed(0.8), Speed(1.25)))(CLIP, RATE, rng())
    assert len(out) == pytest.approx(len(CLIP), abs=1)
    assert np.corrcoef(out[: len(CLIP)], CLIP[: len(out)])[0, 1] > 0.99


@pytest.mark.parametrize("semitones", [-4, -1, 1, 4])
def test_pitch_moves_and_duration_stays(semitones):
    clip = speech("happy", 1, seconds=2.5)
    out = Pitch(semitones)(clip, RATE, rng())
    assert len(out) == len(clip)
    assert semitones_up(out, clip) == pytest.approx(semitones, abs=0.1)
    assert decibels(np.square(out).sum() / np.square(clip).sum()) == pytest.approx(0, abs=0.5)
    levels = [np.sqrt(quality.frame_power(y, RATE)) for y in (clip, out)]
    assert np.corrcoef(*levels)[0, 1] > 0.8  # the syllables are where they were
    assert abs(lag(levels[1], levels[0])) <= 1  # frames of 20 ms


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_pitch_of_a_hum(rate):
    hum = np.sin(2 * np.pi * 200 * np.arange(2 * rate) / rate).astype(np.float32)
    out = Pitch(2)(hum, rate, rng())[rate // 4 : -rate // 4]
    hertz, power = welch(out, rate, nperseg=len(out))
    assert hertz[power.argmax()] == pytest.approx(200 * 2 ** (2 / 12), abs=2)
    assert power[np.abs(hertz - 224.5) < 10].sum() > 0.99 * power.sum()


def test_no_shift_is_the_clip():
    assert_allclose(Pitch(0)(CLIP, RATE, rng()), CLIP, atol=1e-6)


# --- noise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["white", "babble"])
@pytest.mark.parametrize("snr_db", [20, 10, 5, -5])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_the_snr_is_that_of_the_active_speech(kind, snr_db, rate):
    clip = speech("angry", 3, rate=rate)
    padded = np.pad(clip, (rate, 2 * rate))  # silence that must not count
    noise = Noise(snr_db, kind)(padded, rate, rng()) - padded
    n = rate // 50
    power = np.square(padded[: len(padded) // n * n]).reshape(-1, n).mean(axis=1)
    active = power > power.max() * 10**-3.5
    assert 0.1 < active.mean() < 0.35
    assert decibels(power[active].mean() / np.square(noise).mean()) == pytest.approx(snr_db, abs=0.1)


def test_silence_around_the_speech_does_not_lower_its_level():
    assert active_level(np.pad(CLIP, RATE), RATE) == pytest.approx(active_level(CLIP, RATE), rel=1e-5)
    assert active_level(CLIP, RATE) > np.sqrt(np.square(CLIP).mean())
    assert active_level(CLIP / 2, RATE) == pytest.approx(active_level(CLIP, RATE) / 2)


@pytest.mark.parametrize("kind", ["white", "babble"])
def test_an_snr_means_the_same_at_every_rate(kind):
    clip = speech("sad", 2, rate=48_000)
    noise = Noise(10, kind)(clip, 48_000, rng()) - clip
    hertz, power = welch(noise, 48_000, nperseg=4096)
    assert power[hertz > 8_100].sum() < 1e-5 * power.sum()


def test_white_noise_is_flat_and_steady():
    noise = Noise(10)(CLIP, RATE, rng()) - CLIP
    hertz, power = welch(noise, RATE, nperseg=256)
    assert np.ptp(10 * np.log10(power[(hertz > 100) & (hertz < 7_900)])) < 6
    level = 10 * np.log10(np.square(noise).reshape(-1, 1600).mean(axis=1))
    assert level.std() < 0.5


def test_babble_sounds_like_the_clip_and_comes_in_syllables():
    clip = speech("happy", 1, seconds=4)
    noise, white = (Noise(0, kind)(clip, RATE, rng()) - clip for kind in ("babble", "white"))
    spectra = [10 * np.log10(welch(y, RATE, nperseg=256)[1][2:-2]) for y in (clip, noise, white)]
    assert np.corrcoef(spectra[0], spectra[1])[0, 1] > 0.95
    assert abs(np.corrcoef(spectra[0], spectra[2])[0, 1]) < 0.5
    assert abs(np.corrcoef(clip, noise)[0, 1]) < 0.05  # it is no copy
    envelope = np.square(noise).reshape(-1, 160).mean(axis=1)
    assert envelope.std() > 0.3 * envelope.mean()
    hertz, power = welch(envelope - envelope.mean(), 100, nperseg=200)
    syllabic = power[(hertz >= 2) & (hertz <= 12)].mean()  # squared sines double, and beat
    assert syllabic > 2 * power[hertz > 25].mean()


def test_two_levels_are_the_same_noise():
    loud, soft = (Noise(snr_db)(CLIP, RATE, rng()) - CLIP for snr_db in (0, 20))
    assert_allclose(loud, 10 * soft, atol=1e-5)


# --- filters and levels ----------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [-6, -3, 3, 6])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_tilt_has_its_slope(slope, rate):
    flat = rng().standard_normal(4 * rate).astype(np.float32)
    hertz, before = welch(flat, rate, nperseg=1024)
    after = welch(Tilt(slope)(flat, rate, rng()), rate, nperseg=1024)[1]
    gain = 10 * np.log10(after / before)
    middle = (hertz > 200) & (hertz < 7_000)
    fitted, at_1k = np.polyfit(np.log2(hertz[middle] / 1000), gain[middle], 1)
    assert fitted == pytest.approx(slope, abs=0.1)
    assert at_1k == pytest.approx(0, abs=0.1)


def test_tilt_does_not_delay():
    assert lag(Tilt(3)(CLIP, RATE, rng()), CLIP) == 0
    there_and_back = Chain((Tilt(3), Tilt(-3)))(CLIP, RATE, rng())
    assert_allclose(there_and_back, CLIP, atol=1e-3)


def test_gain_does_not_clip():
    loud = Gain(20)(CLIP, RATE, rng())
    assert_allclose(loud, 10 * CLIP, rtol=1e-6)
    assert np.abs(loud).max() > 1
    assert_allclose(Gain(-20)(loud, RATE, rng()), CLIP, rtol=1e-6)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_clipping_holds_the_share_of_the_peak(share):
    out = Clip(share)(CLIP, RATE, rng())
    limit = share * np.abs(CLIP).max()
    assert np.abs(out).max() == pytest.approx(limit)
    below = np.abs(CLIP) < limit
    np.testing.assert_array_equal(out[below], CLIP[below])
    assert_allclose(out[~below], np.sign(CLIP[~below]) * limit, rtol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_the_telephone_has_its_band(rate):
    flat = rng().standard_normal(4 * rate).astype(np.float32)
    out = Telephone()(flat, rate, rng())
    assert len(out) == len(flat)
    hertz, power = welch(out, rate, nperseg=rate // 20, detrend=False)
    gain = 10 * np.log10(power / welch(flat, rate, nperseg=rate // 20, detrend=False)[1])
    assert np.abs(gain[(hertz > 400) & (hertz < 3_000)]).max() < 0.5
    assert gain[(hertz >= 300) & (hertz <= 3_400)].min() > -4
    assert gain[hertz < 120].max() < -30
    assert (gain[hertz > 4_100] < -30).all()
    assert power[(hertz < 200) | (hertz > 3_800)].sum() < 1e-3 * power.sum()


# --- room, silence, half ---------------------------------------------------------------------------


@pytest.mark.parametrize(("rt60_s", "drr_db"), [(0.3, 3), (0.6, 0), (1.0, 10)])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_the_room_decays_as_it_says(rt60_s, drr_db, rate):
    """Reverberation time from Schroeder's backward integral, -5 to -25 dB, as ISO 3382 has it."""
    impulse = np.zeros(2 * rate, np.float32)
    impulse[100] = 1
    response = Room(rt60_s, drr_db)(impulse, rate, rng()).astype(float)
    assert len(response) == len(impulse)
    assert np.abs(response[:100]).max() < 1e-5
    assert response[100] == pytest.approx(1, abs=1e-4)
    echo = response[101:]
    assert decibels(1 / np.square(echo).sum()) == pytest.approx(drr_db, abs=0.05)
    left = np.cumsum(np.square(echo)[::-1])[::-1]
    curve = 10 * np.log10(left / left[0] + 1e-12)
    part = np.flatnonzero((curve < -5) & (curve > -25))
    slope = np.polyfit(part / rate, curve[part], 1)[0]
    assert -60 / slope == pytest.approx(rt60_s, rel=0.1)


def test_the_room_does_not_delay():
    assert lag(Room(0.3, 3)(CLIP, RATE, rng()), CLIP) == 0


def test_silence_is_faint_and_at_the_end():
    out = Silence(2)(CLIP, RATE, rng())
    assert len(out) == len(CLIP) + 2 * RATE
    np.testing.assert_array_equal(out[: len(CLIP)], CLIP)
    assert not out[len(CLIP) :].any()  # as digital as the silence at its start
    pause = Silence(2)(NOISY, RATE, rng())[len(NOISY) :]
    assert np.sqrt(np.square(pause).mean()) == pytest.approx(1e-3, rel=0.1)


def test_two_halves_are_the_clip():
    for clip in (CLIP, CLIP[:-1]):
        halves = [Half(which)(clip, RATE, rng()) for which in ("first", "second")]
        assert abs(len(halves[0]) - len(halves[1])) <= 1
        np.testing.assert_array_equal(np.concatenate(halves), clip)


# --- codecs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [Codec("mp3", 64), Codec("opus", 24)], ids=lambda change: change.name)
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_codec_changes_the_clip_but_does_not_delay_it(change, rate):
    clip = speech("surprised", 4, rate=rate)
    out = change(clip, rate, rng())
    assert len(out) == len(clip)
    assert abs(lag(out, clip)) <= rate / 48_000
    r = np.corrcoef(out, clip)[0, 1]
    assert 0.95 < r < 0.999999
    assert decibels(np.square(out).sum() / np.square(clip).sum()) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("codec", ["mp3", "opus"])
def test_fewer_bits_are_further_from_the_clip(codec):
    few, many = (np.square(Codec(codec, kbps)(CLIP, RATE, rng()) - CLIP).sum() for kbps in (32, 128))
    assert few > 1.1 * many


def test_a_chain_is_one_after_the_other():
    out = Chain((Gain(6), Half(), Clip(0.5)))(CLIP, RATE, rng())
    expected = Clip(0.5)(Half()(Gain(6)(CLIP, RATE, rng()), RATE, rng()), RATE, rng())
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(Chain(())(CLIP, RATE, rng()), CLIP)


# --- audio.load ------------------------------------------------------------------------------------


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def test_load_changes_at_the_files_own_rate(tmp_path):
    clip = speech("happy", 1, rate=48_000)
    seen = []

    def change(y, rate, generator):
        seen.append((y.shape, y.dtype, rate, type(generator)))
        return y

    path = write(tmp_path / "a.wav", np.stack([clip, clip], axis=1), 48_000)
    loaded = audio.load(path, change=change)
    assert seen == [(clip.shape, np.float32, 48_000, np.random.Generator)]
    np.testing.assert_array_equal(loaded.samples, audio.load(path).samples)


def test_load_reports_the_duration_of_the_file(tmp_path):
    path = write(tmp_path / "a.wav", CLIP)
    plain, half = audio.load(path), audio.load(path, change=Half())
    assert half.duration_s == plain.duration_s
    assert len(half.samples) < 0.7 * len(plain.samples)


def test_load_trims_after_the_change(tmp_path):
    path = write(tmp_path / "a.wav", CLIP)
    plain, padded = audio.load(path).samples, audio.load(path, change=Silence(2)).samples
    np.testing.assert_allclose(padded, plain, atol=1e-6)
    whole = audio.load(path, AudioConfig(trim_db=None), change=Silence(2))
    assert len(whole.samples) == len(CLIP) + 2 * RATE


def test_load_is_random_by_seed_and_content_alone(tmp_path):
    paths = [write(tmp_path / f"{i}.wav", speech("sad", 1 + i)) for i in range(2)]
    copy = tmp_path / "copy.flac"
    for path in (tmp_path / "pcm.wav", copy):
        soundfile.write(path, (32_767 * CLIP).astype(np.int16), RATE)
    change = Noise(10)
    first = [audio.load(path, change=change).samples for path in paths]
    again = [audio.load(path, change=change).samples for path in paths[::-1]][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    other_seed = audio.load(paths[0], change=change, seed=1).samples
    assert not np.array_equal(first[0], other_seed)
    wav, flac = (audio.load(path, change=change).samples for path in (tmp_path / "pcm.wav", copy))
    np.testing.assert_array_equal(wav, flac)
    silences = [audio.load(path, AudioConfig(trim_db=None), change=change).samples[:1000] for path in paths]
    assert abs(np.corrcoef(*silences)[0, 1]) < 0.2  # each clip has its own noise


def test_what_the_change_leaves_can_be_too_short(tmp_path):
    path = write(tmp_path / "short.wav", np.pad(speech("sad", 1, seconds=0.7), 800))
    audio.load(path)
    with pytest.raises(AudioError, match=r"short\.wav.*at least 0\.3 s is needed"):
        audio.load(path, change=Chain((Half(), Half())))


# --- feature tables --------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path) -> pd.DataFrame:
    (tmp_path / "clips").mkdir()
    files = [f"{i}.wav" for i in range(4)]
    for i, name in enumerate(files):
        write(tmp_path / "clips" / name, speech("fearful", 1 + i, seconds=0.8))
    manifest = tmp_path / "clips.csv"
    pd.DataFrame({"path": [f"clips/{name}" for name in files], "speaker": "a", "emotion": "fearful"}).to_csv(
        manifest, index=False
    )
    return corpora.listing(manifest)[0]


@pytest.fixture
def build(tmp_path, clips):
    return partial(extraction.build, clips, CONFIG, cache_dir=tmp_path / "cache", n_jobs=1)


def folders(tmp_path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").iterdir()}


def test_a_changed_table_has_the_features_of_changed_clips(clips, build):
    change = Noise(10)
    table, problems = build(change=change, seed=3)
    assert problems.empty
    for path, (_, row) in zip(clips["path"], table.iterrows(), strict=True):
        expected = features.extract(audio.load(path, CONFIG.audio, change=change, seed=3), CONFIG)
        assert row[NAMES].to_list() == list(expected.values())
    plain, _ = build()
    assert (plain[NAMES] != table[NAMES]).any(axis=None)
    assert_frame_equal(plain.drop(columns=NAMES), table.drop(columns=NAMES))


def test_every_change_and_seed_has_its_own_cache(build, tmp_path):
    build()
    plain = folders(tmp_path)
    for change, seed in ((Noise(10), 0), (Noise(10), 1), (Noise(20), 0), (Half(), 0)):
        before = folders(tmp_path)
        build(change=change, seed=seed)
        assert len(folders(tmp_path) - before) == 1
        build(change=change, seed=seed)
        assert len(folders(tmp_path) - before) == 1
    assert plain < folders(tmp_path)


def test_no_change_ignores_the_seed(build, tmp_path):
    """Nor does its cache key depend on the code of augmentation."""
    first, _ = build()
    second, _ = build(change=None, seed=7)
    assert_frame_equal(first, second)
    key = sha256(json.dumps(extraction.recipe(CONFIG), sort_keys=True).encode()).hexdigest()[:16]
    assert folders(tmp_path) == {f"compact-{key}"}


def test_a_changed_table_depends_on_the_code_of_augmentation(build, tmp_path, monkeypatch):
    build()
    build(change=Half())
    before, usual = folders(tmp_path), extraction.code_hash
    monkeypatch.setattr(
        extraction, "code_hash", lambda code: "other" if code == extraction.CHANGE else usual(code)
    )
    build()
    assert folders(tmp_path) == before
    build(change=Half())
    assert len(folders(tmp_path) - before) == 1


def test_worker_processes_change_nothing(build, tmp_path):
    change = Chain((Pitch(1), Noise(20, "babble"), Room(0.3, 3), Codec("opus", 24)))
    alone, _ = build(change=change)
    spread, _ = build(change=change, cache_dir=tmp_path / "other", n_jobs=2)
    assert_frame_equal(alone, spread, rtol=1e-3, atol=1e-5)


def test_a_clip_whose_changed_version_is_refused_is_named(clips, tmp_path):
    write(tmp_path / "clips" / "1.wav", speech("fearful", 2, seconds=0.5))
    clips = corpora.listing(tmp_path / "clips.csv")[0]
    _, problems = extraction.build(clips, CONFIG, cache_dir=tmp_path / "cache", n_jobs=1)
    assert problems.empty
    table, problems = extraction.build(clips, CONFIG, cache_dir=tmp_path / "cache", n_jobs=1, change=Half())
    assert table["clip_id"].to_list() == ["clips/0", "clips/2", "clips/3"]
    assert problems["path"].to_list() == [clips["path"][1]]
    assert "at least 0.3 s" in problems["problem"].iloc[0]
