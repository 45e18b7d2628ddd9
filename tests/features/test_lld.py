"""Each descriptor against librosa if the definitions agree, otherwise against a plain loop."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import binary_erosion
from synth import speech

from ser_lib.features import lld, pitch

RATE, N_FFT, HOP = 16_000, 400, 160
SHORTEST = int(0.3 * RATE)  # samples, audio.clip.MIN_S
TIME = np.arange(RATE) / RATE
RNG = np.random.default_rng(0)
NOISE = (0.1 * RNG.standard_normal(RATE)).astype(np.float32)
TONE = (0.3 * np.sin(2 * np.pi * 1000 * TIME)).astype(np.float32)
SPEECH = speech("happy", 1)
IMPULSE = np.zeros(RATE, np.float32)
IMPULSE[RATE // 2] = 0.9
BURSTS = np.where(np.arange(RATE) // 3200 % 2, 0, NOISE).astype(np.float32)
ADVERSARIAL = {
    "impulse": IMPULSE,
    "DC": np.full(RATE, 0.5, np.float32),
    "clipped square": np.sign(np.sin(2 * np.pi * 150 * TIME)).astype(np.float32),
    "digital silence between bursts": BURSTS,
    "shortest": TONE[:SHORTEST],
    "Nyquist": (0.5 * (-1.0) ** np.arange(RATE)).astype(np.float32),
    "loud": 8 * TONE,
    "near silent": 1e-4 * TONE,
}
CLIPS = {"speech": SPEECH, "noise": NOISE, "tone": TONE}


@pytest.fixture(params=CLIPS)
def clip(request) -> np.ndarray:
    return CLIPS[request.param]


SWEEP = np.geomspace(80, 600, 25).round(1)  # 551.7 is 14.5 lags: as far from a whole one as can be


def voice(f0: float, *, tilt: float, wobble: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A second of a pulse train without aliases: harmonics up to 3.9 kHz, the k-th at k ** -tilt.

    With `wobble` (semitones) the pitch rises, falls and jitters as a voice does. Also the true pitch.
    """
    semitones = 10 * wobble * np.sin(2 * np.pi * 1.3 * TIME)
    jitter = np.random.default_rng(seed).normal(0, 1, RATE // 80)  # new every 5 ms
    true = f0 * 2 ** ((semitones + wobble * np.repeat(jitter, 80)) / 12)
    phase = 2 * np.pi * np.cumsum(true) / RATE
    y = sum(np.cos(k * phase) * k**-tilt for k in range(1, int(3900 / f0) + 1))
    return (0.3 * y / np.abs(y).max()).astype(np.float32), true


def off(f0: np.ndarray, true: float | np.ndarray) -> np.ndarray:
    """Distance in semitones."""
    return np.abs(12 * np.log2(f0 / true))


# --- spectra ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_fft", "hop"), [(400, 160), (2048, 512)])
def test_magnitudes_equal_librosa(clip, n_fft, hop):
    ours = lld.magnitudes(clip, n_fft=n_fft, hop=hop, center=True)
    theirs = np.abs(librosa.stft(clip, n_fft=n_fft, hop_length=hop)).T
    assert ours.dtype == np.float32
    assert_allclose(ours, theirs, atol=1e-6 * theirs.max(), rtol=1e-4)  # float32, sums of 2048


def test_magnitudes_without_centering(clip):
    theirs = np.abs(librosa.stft(clip, n_fft=N_FFT, hop_length=HOP, center=False)).T
    ours = lld.magnitudes(clip, n_fft=N_FFT, hop=HOP)
    assert_allclose(ours, theirs, atol=1e-6 * theirs.max(), rtol=1e-4)


def test_a_tone_peaks_in_its_bin():
    spectrum = lld.magnitudes(TONE, n_fft=N_FFT, hop=HOP)
    assert (spectrum.argmax(axis=1) == 1000 * N_FFT // RATE).all()
    assert_allclose(spectrum.max(axis=1), 0.3 * N_FFT / 4, rtol=1e-3)  # amplitude times half the window's sum


def test_frames():
    y = np.arange(10, dtype=np.float32)
    assert lld.frames(y, 4, 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert lld.frames(y[:2], 4, 3).tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize("top_db", [80.0, 20.0, None])
def test_power_db_equals_librosa(clip, top_db):
    power = np.square(lld.magnitudes(clip, n_fft=N_FFT, hop=HOP))
    assert_allclose(lld.power_db(power, top_db=top_db), librosa.power_to_db(power, top_db=top_db), atol=1e-4)


def test_power_db_of_nothing_is_the_floor():
    assert_allclose(lld.power_db(np.zeros(3, np.float32)), -100)


@pytest.mark.parametrize("n_mels", [26, 40, 128])
@pytest.mark.parametrize(("rate", "n_fft"), [(16_000, 400), (16_000, 2048), (22_050, 1024), (48_000, 2048)])
def test_the_filter_banks_equal_librosa(rate, n_fft, n_mels):
    mel = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels)
    assert_allclose(lld.mel_filters(rate, n_fft, n_mels).T, mel, atol=1e-6 * mel.max())
    chroma = librosa.filters.chroma(sr=rate, n_fft=n_fft, tuning=0)
    assert_allclose(lld.chroma_filters(rate, n_fft).T, chroma, atol=1e-6)


def test_decibels():
    assert_allclose(lld.decibels(np.array([1e-10, 1, 1000], np.float32)), [-100, 0, 30], atol=1e-4)


@pytest.mark.parametrize("n_lags", [136, 200])
def test_autocorrelation_equals_a_plain_loop(n_lags):
    """The padding is just long enough that nothing wraps around."""
    framed = lld.frames(NOISE, 512, 4000)
    expected = [[frame[: 512 - lag] @ frame[lag:] for lag in range(n_lags)] for frame in framed.astype(float)]
    assert_allclose(pitch._autocorrelation(framed, n_lags), expected, atol=1e-5)


def test_mel_mfcc_and_chroma_equal_librosa(clip):
    spectrum = lld.magnitudes(clip, n_fft=2048, hop=512, center=True)
    mel = np.square(spectrum) @ lld.mel_filters(RATE, 2048, 128)
    theirs = librosa.feature.melspectrogram(y=clip, sr=RATE).T
    assert_allclose(mel, theirs, rtol=1e-3, atol=1e-6 * theirs.max())
    mfcc = lld.cepstrum(lld.power_db(mel), 20)
    assert_allclose(mfcc, librosa.feature.mfcc(y=clip, sr=RATE, n_mfcc=20).T, rtol=1e-4, atol=0.01)
    chroma = lld.chroma(spectrum, lld.chroma_filters(RATE, 2048))
    theirs = librosa.feature.chroma_stft(S=np.abs(librosa.stft(clip)), sr=RATE, tuning=0).T
    assert_allclose(chroma, theirs, atol=1e-4)


def test_chroma_of_silence_is_zero_and_of_a_note_its_pitch_class():
    filters = lld.chroma_filters(RATE, 2048)
    assert not lld.chroma(np.zeros((2, 1025), np.float32), filters).any()
    a4 = np.sin(2 * np.pi * 440 * TIME).astype(np.float32)
    classes = lld.chroma(lld.magnitudes(a4, n_fft=2048, hop=512), filters)
    assert (classes.argmax(axis=1) == 9).all()  # C is 0


# --- zero crossings --------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [SPEECH, NOISE, BURSTS, NOISE[:300], IMPULSE], ids=len)
def test_zero_crossings_equal_a_plain_loop(samples):
    expected = []
    for start in range(0, max(1, len(samples) - N_FFT + 1), HOP):
        count = 0
        for i in range(max(1, start), min(start + N_FFT, len(samples))):
            count += (samples[i] < 0) != (samples[i - 1] < 0)
        expected.append(count / N_FFT)
    assert_allclose(lld.zero_crossings(samples, n=N_FFT, hop=HOP), expected, atol=1e-7)


def test_zero_crossings_count_twice_a_period():
    assert_allclose(lld.zero_crossings(TONE, n=N_FFT, hop=HOP), 2 * 1000 / RATE, atol=2 / N_FFT)


# --- spectral shape --------------------------------------------------------------------------------


@pytest.fixture(params=CLIPS)
def spectrum(request) -> np.ndarray:
    return lld.magnitudes(CLIPS[request.param], n_fft=N_FFT, hop=HOP)


def test_centroid_bandwidth_flatness_and_rolloff_equal_librosa(spectrum):
    """The same definitions once 1e-5 is added to the magnitudes, 1e-10 to the powers."""
    shape = lld.spectral_shape(spectrum, rate=RATE)
    weight, power = (spectrum + 1e-5).T, (np.square(spectrum) + 1e-10).T
    hertz = librosa.fft_frequencies(sr=RATE, n_fft=N_FFT)
    assert_allclose(shape["centroid"], librosa.feature.spectral_centroid(S=weight, freq=hertz)[0], rtol=1e-4)
    assert_allclose(
        shape["bandwidth"], librosa.feature.spectral_bandwidth(S=weight, freq=hertz)[0], rtol=1e-3
    )
    assert_allclose(shape["flatness"], librosa.feature.spectral_flatness(S=power, power=1)[0], rtol=1e-3)
    for share in (25, 50, 85, 95):
        theirs = librosa.feature.spectral_rolloff(S=power, freq=hertz, roll_percent=share / 100)[0]
        one_bin = RATE / N_FFT  # where the sum falls on the share, rounding decides between neighbours
        assert_allclose(shape[f"rolloff{share}"], theirs, atol=1.01 * one_bin)
        assert np.mean(shape[f"rolloff{share}"] == theirs) > 0.97


def test_the_rest_of_the_shape_equals_a_plain_loop(spectrum):
    shape = lld.spectral_shape(spectrum, rate=RATE)
    hertz = np.arange(spectrum.shape[1]) * RATE / N_FFT
    before = None
    for i, frame in enumerate(spectrum.astype(np.float64)):
        power = frame**2 + 1e-10
        db = 10 * np.log10(power)
        weight = (frame + 1e-5) / (frame + 1e-5).sum()

        def between(low, high):
            return (hertz >= low) & (hertz < high)

        def slope(low, high, db=db):
            return np.polyfit(hertz[between(low, high)] / 1000, db[between(low, high)], 1)[0]

        expected = {
            "entropy": -(weight * np.log(weight)).sum() / np.log(len(weight)),
            "flux": 0 if before is None else np.linalg.norm(weight - before),
            "slope0to500": slope(0, 500),
            "slope500to1500": slope(500, 1500),
            "alpha": 10 * np.log10(power[between(1000, 5000)].sum() / power[between(50, 1000)].sum()),
            "hammarberg": db[between(0, 2000)].max() - db[between(2000, 5000)].max(),
        }
        before = weight
        for name, value in expected.items():
            assert_allclose(shape[name][i], value, rtol=2e-3, atol=2e-3, err_msg=f"{name}, frame {i}")


def test_the_shapes_of_a_tone_and_of_noise_differ():
    tone, noise = (
        lld.spectral_shape(lld.magnitudes(y, n_fft=N_FFT, hop=HOP), rate=RATE) for y in (TONE, NOISE)
    )
    assert_allclose(tone["centroid"], 1000, rtol=0.05)
    assert_allclose(tone["rolloff50"], 1000, atol=RATE / N_FFT)
    assert_allclose(noise["centroid"].mean(), RATE / 4, rtol=0.05)
    for name in ("flatness", "entropy", "bandwidth"):
        assert tone[name].max() < noise[name].min(), name
    for name in ("flatness", "entropy"):
        assert 0 <= tone[name].min() < noise[name].max() <= 1, name


def test_contrast_equals_a_plain_loop(clip):
    spectrum = lld.magnitudes(clip, n_fft=N_FFT, hop=HOP)
    hertz = np.arange(spectrum.shape[1]) * RATE / N_FFT
    edges = [0, 200, 400, 800, 1600, 3200, 8000]
    ours = lld.contrast(spectrum, rate=RATE)
    assert ours.shape == (len(spectrum), 6)
    for band in range(6):
        inside = (hertz >= edges[band]) & (hertz <= edges[band + 1])
        for i in range(0, len(spectrum), 7):
            values = sorted(spectrum[i, inside].astype(np.float64))
            k = max(1, len(values) // 5)
            expected = 20 * np.log10((np.mean(values[-k:]) + 1e-5) / (np.mean(values[:k]) + 1e-5))
            assert_allclose(ours[i, band], expected, atol=1e-3)


def test_contrast_is_higher_for_a_voice_than_for_noise():
    voiced, noise = (
        lld.contrast(lld.magnitudes(y, n_fft=2048, hop=512), rate=RATE).mean(axis=0)
        for y in (voice(200, tilt=0)[0], NOISE)
    )
    assert (voiced[:5] > noise[:5] + 6).all()  # the voice ends below the last band


# --- pitch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("f0", SWEEP)
def test_pitch_of_a_sine(f0):
    hertz, strength = pitch.pitch(
        (0.3 * np.sin(2 * np.pi * f0 * TIME)).astype(np.float32), rate=RATE, hop=HOP
    )
    assert (strength > pitch.VOICED).all()
    assert off(hertz, f0).max() < 0.5


@pytest.mark.parametrize("f0", SWEEP)
def test_pitch_of_a_steady_voice(f0):
    """12 dB an octave, the slope of the glottal source."""
    hertz, strength = pitch.pitch(voice(f0, tilt=2)[0], rate=RATE, hop=HOP)
    assert (strength > pitch.VOICED).all()
    assert off(hertz, f0).max() < 0.5


def test_octave_errors_of_a_steady_bright_voice():
    """6 dB an octave, glottal source and lips; without the movement that a second pass relies on."""
    sweep = np.geomspace(80, 600, 60)
    errors = [off(pitch.pitch(voice(f0, tilt=1)[0], rate=RATE, hop=HOP)[0], f0) for f0 in sweep]
    assert np.mean(np.concatenate(errors) > 6) < 0.03
    assert np.median(np.concatenate(errors)) < 0.05


@pytest.mark.parametrize("tilt", [0, 1, 2])
def test_pitch_of_a_moving_voice(tilt):
    """Octave errors below 3 %, even of bare pulses (tilt 0)."""
    errors = []
    for f0 in np.geomspace(90, 500, 25):
        y, true = voice(f0, tilt=tilt, wobble=0.15)
        hertz, strength = pitch.pitch(y, rate=RATE, hop=HOP)
        in_frame = np.array([true[i * HOP : i * HOP + 1024].mean() for i in range(len(hertz))])
        errors.append(off(hertz, in_frame)[strength > pitch.VOICED])
    errors = np.concatenate(errors)
    assert (errors > 6).mean() < 0.03
    assert np.median(errors) < 0.1
    assert np.percentile(errors, 95) < 0.5


@pytest.mark.parametrize(("emotion", "speaker"), [("happy", 1), ("sad", 2), ("angry", 4), ("surprised", 2)])
def test_pitch_of_speech_agrees_with_pyin_and_yin(emotion, speaker):
    y = speech(emotion, speaker)
    kwargs = {"fmin": 60, "fmax": 650, "sr": RATE, "frame_length": 1024, "hop_length": HOP, "center": False}
    hertz, strength = pitch.pitch(y, rate=RATE, hop=HOP)
    pyin, voiced, _ = librosa.pyin(y, **kwargs)
    assert len(hertz) == len(pyin)
    both = voiced & (strength > pitch.VOICED)
    assert both.sum() > 0.9 * voiced.sum()
    gross = off(hertz[both], pyin[both]) > 1
    assert gross.mean() < 0.1
    assert np.median(off(hertz[both], pyin[both])) < 0.15
    assert np.median(off(hertz[both], librosa.yin(y, **kwargs)[both])) < 0.15


def test_noise_is_mostly_unvoiced():
    for seed in range(3):
        noise = np.random.default_rng(seed).standard_normal(RATE).astype(np.float32)
        _, strength = pitch.pitch(0.1 * noise, rate=RATE, hop=HOP)
        assert (strength > pitch.VOICED).mean() < 0.02


@pytest.mark.parametrize("gain", [0.03, 0.5, 4])
def test_pitch_does_not_depend_on_the_gain(gain):
    f0, strength = pitch.pitch(SPEECH, rate=RATE, hop=HOP)
    louder = pitch.pitch(np.float32(gain) * SPEECH, rate=RATE, hop=HOP)
    sure = binary_erosion(strength > pitch.VOICED, iterations=2)  # the median is over five frames
    assert sure.mean() > 0.5
    assert_allclose(louder[0][sure], f0[sure], rtol=1e-3)
    assert_allclose(louder[1][sure], strength[sure], atol=1e-3)


def test_pitch_stays_in_its_range():
    for y in CLIPS.values():
        f0, strength = pitch.pitch(y, rate=RATE, hop=HOP)
        assert f0.min() > 0.95 * pitch.F0_MIN
        assert f0.max() < 1.05 * pitch.F0_MAX
        assert 0 <= strength.min() <= strength.max() <= 1


def test_harmonic_levels_of_known_harmonics():
    """Two harmonics, the second 12 dB lower, and a line at 3 kHz 30 dB lower."""
    y = sum(10 ** (-db / 20) * np.sin(2 * np.pi * f * TIME) for f, db in ((200, 0), (400, 12), (3000, 30)))
    spectrum = lld.magnitudes(y.astype(np.float32), n_fft=N_FFT, hop=HOP)
    levels = pitch.harmonic_levels(spectrum, np.full(len(spectrum), 200.0), rate=RATE, n_fft=N_FFT)
    assert_allclose(levels["h1h2"], 12, atol=0.2)
    assert_allclose(levels["h1a3"], 30, atol=0.2)


# --- whatever comes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_everything_is_finite(name):
    y = ADVERSARIAL[name]
    spectrum = lld.magnitudes(y, n_fft=N_FFT, hop=HOP)
    f0, strength = pitch.pitch(y, rate=RATE, hop=HOP)
    mel_db = lld.power_db(np.square(spectrum) @ lld.mel_filters(RATE, N_FFT, 40))
    descriptors = lld.spectral_shape(spectrum, rate=RATE) | {
        "spectrum": spectrum,
        "mfcc": lld.cepstrum(mel_db, 13),
        "chroma": lld.chroma(spectrum, lld.chroma_filters(RATE, N_FFT)),
        "zcr": lld.zero_crossings(y, n=N_FFT, hop=HOP),
        "contrast": lld.contrast(spectrum, rate=RATE),
        "f0": f0,
        "strength": strength,
    }
    resampled = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, len(f0)), f0)
    descriptors |= pitch.harmonic_levels(spectrum, resampled, rate=RATE, n_fft=N_FFT)
    for descriptor, values in descriptors.items():
        assert np.isfinite(values).all(), descriptor
        if descriptor not in ("f0", "strength"):
            assert len(values) == len(spectrum), descriptor
