"""What a recording is like: level, clipping, silence, bandwidth, and which of these make an answer unreliable."""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from ser_lib import SERVED

SILENCE_FRAME_S = 0.025  # seconds
LEVEL_FRAME_S = 0.02  # seconds
SILENT_DB = 40.0  # decibels below the loudest frame
PAUSE_DB = 35.0  # decibels below the loudest frame; speech pauses for `active_level`
BAND_DB = 65.0  # decibels below the strongest frequency; weaker ones do not count for the bandwidth
FLAT = 0.999  # of the peak: two neighbouring samples above it were cut off
HOP = 256  # samples between the windows of the spectrum, which are twice as long
HANN = (0.5 - 0.5 * np.cos(np.pi * np.arange(2 * HOP) / HOP)).astype(np.float32)

# From here on a recording gets a warning.
QUIET_DB = -55.0  # decibels relative to full scale; 1 % of RAVDESS is softer
CLIPPED = 0.001  # share of the samples
SILENCE = 0.65  # share of the time; more than in any clip of RAVDESS
NARROW_HZ = 4_200.0  # a telephone line ends at 3400
LONG_S = 10.0  # seconds; the clips of RAVDESS have 3 to 5
HUM_DB = -35.0  # decibels relative to the speech, of the hum in its pauses
LOUD_DB = -10.0  # decibels relative to the speech, of a sound outside it
FAR = 1.3  # distance from the training clips; 1 % of them are farther than 1


def describe(
    mono: np.ndarray, rate: int, whole: np.ndarray, prepared: np.ndarray, prepared_rate: int, *, channels: int
) -> dict[str, float]:
    """Measure a recording.

    Parameters
    ----------
    mono : ndarray, shape (n_samples,)
        The whole recording at `rate` hertz.
    whole : ndarray, shape (n_whole,)
        The same, cleaned and resampled to `prepared_rate` hertz.
    prepared : ndarray, shape (n_prepared,)
        `whole`, trimmed.
    channels : int
        Channels of the file.

    Returns
    -------
    dict
        `duration_s`, `sample_rate`, `channels`; `loudness_db` of the speech without pauses, relative to full
        scale; `clipped`, the share of samples cut off; `silence`, the share of time; `bandwidth_hz`, the
        highest frequency with sound, at most `prepared_rate / 2`; `hum_hz`, 50 or 60 if the pauses hum with the
        mains, else 0.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) * np.repeat([0.0, 0.1], 8_000)
    >>> quality = describe(tone, 16_000, tone, tone[8_000:], 16_000, channels=1)
    >>> quality["duration_s"], quality["loudness_db"], quality["silence"]
    (1.0, -23.0, 0.5)
    """
    limit = FLAT * max(mono.max(), -mono.min())
    high = mono >= limit
    high |= mono <= -limit
    at_peak = np.flatnonzero(high)
    n_clipped = int(np.count_nonzero(at_peak[1:] - at_peak[:-1] == 1))
    energy = _frame_energy(whole, int(SILENCE_FRAME_S * prepared_rate))
    n_silent = int(np.count_nonzero(energy < energy.max() * 10 ** (-SILENT_DB / 10)))
    n = int(LEVEL_FRAME_S * prepared_rate)
    level = max(_active(_frame_energy(whole, n) / n), 1e-12)  # digital silence has no logarithm
    return {
        "duration_s": round(len(mono) / rate, 3),
        "sample_rate": rate,
        "channels": channels,
        "loudness_db": round(float(20 * np.log10(level)), 1),
        "clipped": round(n_clipped / (len(mono) - 1), 5),
        "silence": round(n_silent / len(energy), 3),
        "bandwidth_hz": round(_bandwidth(prepared, prepared_rate)),
        "hum_hz": _hum(whole, prepared_rate, level),
    }


def _bandwidth(samples: np.ndarray, rate: int) -> float:
    """The highest frequency in hertz whose mean power is within `BAND_DB` of the strongest."""
    halves = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)  # of windows that overlap by one half
    windows = np.empty((len(halves) - 1, 2 * HOP), samples.dtype)
    np.multiply(halves[:-1], HANN[:HOP], out=windows[:, :HOP])
    np.multiply(halves[1:], HANN[HOP:], out=windows[:, HOP:])
    spectrum = scipy.fft.rfft(windows, axis=1)
    parts = spectrum.view(samples.dtype)  # real and imaginary, side by side
    power = np.einsum("ij,ij->j", parts, parts).reshape(-1, 2).sum(axis=1)
    strong = np.flatnonzero(power >= power.max() * 10 ** (-BAND_DB / 10))
    return float(strong[-1] * rate / (2 * HOP))


def _hum(samples: np.ndarray, rate: int, level: float) -> int:
    """50 or 60, if lines at its multiples stand out in the quietest fifth of quarter seconds, else 0."""
    n = rate // 4  # bins of 4 hertz
    if len(samples) < 2 * n:
        return 0
    frames = sliding_window_view(samples, n)[:: n // 2] * np.hanning(n).astype(samples.dtype)
    power = np.quantile(np.square(np.abs(scipy.fft.rfft(frames, axis=1)[:, :80])), 0.2, axis=0) * 6 / n**2
    for mains in (50, 60):
        lines = []
        for hertz in range(mains, 6 * mains, mains):
            at = round(hertz / 4)
            beside = np.median(np.concatenate([power[max(0, at - 6) : at - 2], power[at + 3 : at + 7]]))
            if (line := power[at - 1 : at + 2].max()) > 16 * beside:  # 12 dB
                lines.append(line)
        if len(lines) > 1 and 10 * np.log10(sum(lines) / level**2) > HUM_DB:
            return mains
    return 0


def active_level(y: np.ndarray, rate: int) -> float:
    """Root mean square of the frames less than `PAUSE_DB` below the loudest: the level of speech without pauses.

    Silence around the speech does not lower it. After the idea of ITU-T P.56, in fixed frames.

    Examples
    --------
    >>> active_level(np.repeat([0.0, 0.5, 0.0], 16_000), 16_000)
    0.5
    """
    return _active(frame_power(y, rate))


def _active(power: np.ndarray) -> float:
    return float(np.sqrt(power[power >= power.max() * 10 ** (-PAUSE_DB / 10)].mean()))


def frame_power(y: np.ndarray, rate: int) -> np.ndarray:
    """Mean squares of consecutive frames of `LEVEL_FRAME_S`, shape (n_frames,)."""
    return np.square(_frames(y, int(LEVEL_FRAME_S * rate))).mean(axis=1)


def _frame_energy(y: np.ndarray, n: int) -> np.ndarray:
    """`n` times the mean square of each frame; faster than `frame_power`, and different in the last bits."""
    frames = _frames(y, n)
    return np.vecdot(frames, frames)


def _frames(y: np.ndarray, n: int) -> np.ndarray:
    """Consecutive frames, shape (n_frames, n), without a last short one; a shorter `y` is padded with zeros."""
    if len(y) < n:
        y = np.pad(y, (0, n - len(y)))
    return y[: len(y) // n * n].reshape(-1, n)


def warnings(quality: dict[str, float]) -> list[str]:
    """Problems of a recording that make the answer unreliable.

    Parameters
    ----------
    quality : dict
        From `describe`, with the `distance` from the training clips if it is known.

    Examples
    --------
    >>> warnings({"loudness_db": -30, "clipped": 0, "silence": 0.7, "bandwidth_hz": 8000, "duration_s": 3})
    ['most of this is silence (70%)']
    """
    problems = []
    if quality["loudness_db"] < QUIET_DB:
        problems.append(
            f"very quiet ({quality['loudness_db']:.0f} dB): speak closer to the microphone, or raise its level"
        )
    if quality["clipped"] > CLIPPED:
        problems.append(
            f"clipped ({quality['clipped']:.1%} of the samples are cut off): lower the recording level"
        )
    if quality["silence"] > SILENCE:
        problems.append(f"most of this is silence ({quality['silence']:.0%})")
    if quality["bandwidth_hz"] < NARROW_HZ:
        problems.append(
            f"narrow band (nothing above {quality['bandwidth_hz'] / 1000:.1f} kHz), as on a telephone"
        )
    if quality["duration_s"] > LONG_S:
        problems.append(f"long ({quality['duration_s']:.0f} s): the emotion may change; ask for the timeline")
    if hum := quality.get("hum_hz"):
        problems.append(
            f"mains hum ({hum:.0f} Hz): use another power supply or cable, or move the microphone"
        )
    if "loud_s" in quality:
        problems.append(f"a loud sound that is not speech (at {quality['loud_s']:.1f} s): cut it off")
    if quality.get("distance", 0) > FAR:
        problems.append("unlike the recordings the model was trained on")
    return problems


# --- voice ------------------------------------------------------------------------------------------

VOICE_WEIGHTS = SERVED.with_name("silero_vad.npz")  # made by tools/make_voice_weights.py
VOICE_RATE, VOICE_STEP, VOICE_CONTEXT = 16_000, 512, 64  # hertz, samples a step, samples before a step
STEADY_DB = 1.5  # standard deviation of the level; that of speech is larger
VOICE_LEAST_S = 0.2  # seconds; less speech than this is none


def voice(samples: np.ndarray, rate: int) -> dict[str, float]:
    """Where a clip holds speech.

    Parameters
    ----------
    samples : ndarray of float32, shape (n_samples,)
        At 16,000 hertz.

    Returns
    -------
    dict
        `speech_s`, the seconds of speech; `loud_s`, where a loud sound begins that is not speech, if there is one.
    """
    before, after = 16, 8  # steps of silence, which the detector needs at both ends
    n = before + -(-len(samples) // VOICE_STEP) + after
    padded = np.zeros(n * VOICE_STEP, np.float32)
    start = before * VOICE_STEP
    padded[start : start + len(samples)] = samples / max(2 * float(np.abs(samples).max()), 1e-9)
    p = voice_probability(padded, rate)
    power = np.square(padded).reshape(n, VOICE_STEP).mean(axis=1)
    speech = p > 0.5
    if speech.any() and np.std(10 * np.log10(power[speech] + 1e-12)) < STEADY_DB:
        speech[:] = False  # a chord or a hum, which the detector takes for a vowel
    found = {"speech_s": round(float(speech.sum() * VOICE_STEP / rate), 2)}
    if speech.any():
        near = np.convolve(p > 0.2, np.ones(9), "same") > 0  # speech, or within an eighth of a second of it
        loud = ~near & (power > power[speech].mean() * 10 ** (LOUD_DB / 10))
        if loud.any():
            found["loud_s"] = round((int(np.flatnonzero(loud)[0]) - before) * VOICE_STEP / rate, 1)
    return found


def voice_probability(samples: np.ndarray, rate: int) -> np.ndarray:
    """The probability of speech in each step of `VOICE_STEP` samples, by Silero VAD 6.2; shape (n_steps,).

    A spectrum of four frames a step, four convolutions over them, and an LSTM over the steps. In numpy, since a
    runtime for networks has no wheels for every Python that this package supports.

    Parameters
    ----------
    samples : ndarray of float32, shape (n_steps * VOICE_STEP,)
        At 16,000 hertz.

    Source: Silero Team (2024), Silero VAD; MIT licence, models/silero_vad.LICENSE.
    """
    if rate != VOICE_RATE:
        raise ValueError(f"the voice activity detector takes {VOICE_RATE} Hz, not {rate}")
    w = _voice_weights()
    steps = sliding_window_view(np.pad(samples, (VOICE_CONTEXT, 0)), VOICE_CONTEXT + VOICE_STEP)[::VOICE_STEP]
    frames = sliding_window_view(np.pad(steps, ((0, 0), (0, 64)), mode="reflect"), 256, axis=1)[:, ::128]
    spectrum = frames @ w["stft"][:, 0].T
    x = np.sqrt(np.square(spectrum[..., :129]) + np.square(spectrum[..., 129:]))  # (n_steps, 4, 129)
    for layer, stride in enumerate((1, 2, 2, 1)):
        kernel, bias = w[f"encoder_{layer}_weight"], w[f"encoder_{layer}_bias"]
        near = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (0, 0))), 3, axis=1)[:, ::stride]
        n_steps, n_frames = near.shape[:2]
        x = np.maximum(near.reshape(n_steps, n_frames, -1) @ kernel.reshape(len(kernel), -1).T + bias, 0)
    inputs = x[:, 0] @ w["lstm_input"][0].T + w["lstm_bias"][0, :512] + w["lstm_bias"][0, 512:]
    state, cell = np.zeros(128, np.float32), np.zeros(128, np.float32)
    outputs = np.empty((len(inputs), 128), np.float32)
    for i, each in enumerate(inputs):
        gates = each + w["lstm_state"][0] @ state
        let_in, let_out, forget = _sigmoid(gates[:384].reshape(3, 128))
        cell = forget * cell + let_in * np.tanh(gates[384:])
        outputs[i] = state = let_out * np.tanh(cell)
    scores = np.maximum(outputs, 0) @ w["output_weight"][0, :, 0] + w["output_bias"][0]
    return _sigmoid(scores)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


@cache
def _voice_weights() -> dict[str, np.ndarray]:
    with np.load(VOICE_WEIGHTS) as file:
        return {name: file[name].astype(np.float32) for name in file}
