"""What a recording is like: level, clipping, silence, bandwidth, and which of these make an answer unreliable."""

from __future__ import annotations

import numpy as np
import scipy.fft

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
FAR = 1.3  # distance from the training clips; 1 % of them are farther than 1


def describe(
    mono: np.ndarray, rate: int, prepared: np.ndarray, prepared_rate: int, *, channels: int
) -> dict[str, float]:
    """Measure a recording.

    Parameters
    ----------
    mono : ndarray, shape (n_samples,)
        The whole recording at `rate` hertz.
    prepared : ndarray, shape (n_prepared,)
        The same, resampled to `prepared_rate` hertz and trimmed.
    channels : int
        Channels of the file.

    Returns
    -------
    dict
        `duration_s`, `sample_rate`, `channels`; `loudness_db` of the speech without pauses, relative to full
        scale; `clipped`, the share of samples cut off; `silence`, the share of time; `bandwidth_hz`, the
        highest frequency with sound, at most `prepared_rate / 2`.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) * np.repeat([0.0, 0.1], 8_000)
    >>> quality = describe(tone, 16_000, tone[8_000:], 16_000, channels=1)
    >>> quality["duration_s"], quality["loudness_db"], quality["silence"]
    (1.0, -23.0, 0.5)
    """
    limit = FLAT * max(mono.max(), -mono.min())
    high = mono >= limit
    high |= mono <= -limit
    at_peak = np.flatnonzero(high)
    n_clipped = int(np.count_nonzero(at_peak[1:] - at_peak[:-1] == 1))
    energy = _frame_energy(mono, int(SILENCE_FRAME_S * rate))
    n_silent = int(np.count_nonzero(energy < energy.max() * 10 ** (-SILENT_DB / 10)))
    n = int(LEVEL_FRAME_S * rate)
    level = max(_active(_frame_energy(mono, n) / n), 1e-12)  # digital silence has no logarithm
    return {
        "duration_s": round(len(mono) / rate, 3),
        "sample_rate": rate,
        "channels": channels,
        "loudness_db": round(float(20 * np.log10(level)), 1),
        "clipped": round(n_clipped / (len(mono) - 1), 5),
        "silence": round(n_silent / len(energy), 3),
        "bandwidth_hz": round(_bandwidth(prepared, prepared_rate)),
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
    if quality.get("distance", 0) > FAR:
        problems.append("unlike the recordings the model was trained on")
    return problems
