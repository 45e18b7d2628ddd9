"""The pitch of a voice, and levels at its harmonics.

`pitch` estimates the fundamental frequency of each frame by autocorrelation, with its voicing strength.
`harmonic_levels` measures breathiness at that frequency. Conventions are those of `lld`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft

from ser_lib.features.lld import FLOOR, decibels, frames, hann

F0_MIN, F0_MAX = 60.0, 650.0  # hertz; shouted female speech reaches 600
VOICED = 0.5  # normalised autocorrelation above which a frame counts as voiced
BLOCK = 64  # frames per FFT: their spectra fit into the processor's cache


def pitch(y: np.ndarray, *, rate: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Fundamental frequency and voicing strength of each frame (64 ms, every `hop` samples).

    Normalised autocorrelation of windowed frames (Boersma 1993) at half the sample rate. A second pass prefers
    candidates near the clip's median, which removes most octave jumps (de Looze & Hirst 2008). A median over
    five frames removes single outliers.

    Returns
    -------
    f0_hz : ndarray, shape (n_frames,)
        Hertz, also for unvoiced frames.
    strength : ndarray, shape (n_frames,)
        Height of the autocorrelation peak, 0 to 1.

    Examples
    --------
    >>> y = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    >>> f0, strength = pitch(y, rate=16_000, hop=160)
    >>> f0.shape, round(float(np.median(f0))), bool(strength.min() > VOICED)  # frames, hertz
    ((94,), 440, True)
    """
    import soxr

    half = rate // 2
    y = soxr.resample(y, rate, half, quality="LQ")
    n = int(half * 0.064)
    low, high = int(half / F0_MAX), int(half / F0_MIN) + 2
    framed = frames(y, n, hop // 2)
    acf = np.empty((len(framed), high + 1), np.float32)
    for start in range(0, len(framed), BLOCK):
        block = framed[start : start + BLOCK]
        centred = (block - block.mean(axis=1, keepdims=True)) * hann(n)
        acf[start : start + BLOCK] = _autocorrelation(centred, high + 1)
    acf /= np.maximum(acf[:, :1], np.float32(FLOOR)) * _window_autocorrelation(n, high + 1)
    octave = (12 * np.log2(half / np.arange(low, high))).astype(np.float32)  # semitones above 1 Hz
    inner = acf[:, low:high]
    peaks = np.nonzero((inner >= acf[:, low - 1 : high - 1]) & (inner >= acf[:, low + 1 :]))
    score = np.full(inner.shape, -1, np.float32)
    score[peaks] = _vertex(acf, peaks[0], peaks[1] + low)[1]
    score += np.float32(0.002) * octave

    rows = np.arange(len(acf))
    first = score.argmax(axis=1)
    sure = _vertex(acf, rows, first + low)[1] > VOICED
    centre = np.median(octave[first[sure]]) if sure.any() else np.median(octave)
    best = (score - np.float32(0.012) * np.abs(octave - centre)).argmax(axis=1) + low
    shift, height = _vertex(acf, rows, best)
    f0 = (half / (best + shift)).astype(np.float32)
    near = np.clip(rows[:, None] + np.arange(-2, 3), 0, len(rows) - 1)
    return np.sort(f0[near], axis=1)[:, 2], np.clip(height, 0, 1)


def _vertex(acf: np.ndarray, row: np.ndarray, lag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertex of the parabola through three neighbouring lags: its offset from `lag`, and its height."""
    left, inner, right = acf[row, lag - 1], acf[row, lag], acf[row, lag + 1]
    bend = np.minimum(left - 2 * inner + right, np.float32(-1e-6))
    shift = np.clip((left - right) / (2 * bend), -0.5, 0.5)
    return shift, inner - (left - right) * shift / 4


def _autocorrelation(framed: np.ndarray, n_lags: int) -> np.ndarray:
    """Lags 0 to `n_lags` - 1 of each row, with just enough padding for these."""
    n_fft = scipy.fft.next_fast_len(framed.shape[1] + n_lags - 1, real=True)
    spectrum = scipy.fft.rfft(framed, n_fft, axis=1)
    return (np.square(spectrum.real) + np.square(spectrum.imag)) @ _cosines(n_fft, n_lags)


@lru_cache
def _cosines(n_fft: int, n_lags: int) -> np.ndarray:
    """The inverse Fourier transform of a power spectrum as a matrix, for a few lags, (n_bins, n_lags)."""
    inverse = scipy.fft.irfft(np.eye(n_fft // 2 + 1, dtype=np.float32), n_fft, axis=1)
    return np.ascontiguousarray(inverse[:, :n_lags])


@lru_cache
def _window_autocorrelation(n: int, n_lags: int) -> np.ndarray:
    """Autocorrelation of the Hann window, 1 at lag 0, shape (n_lags,)."""
    acf = _autocorrelation(hann(n)[None], n_lags)[0]
    return acf / acf[0]


def harmonic_levels(magnitude: np.ndarray, f0: np.ndarray, *, rate: int, n_fft: int) -> dict[str, np.ndarray]:
    """Level of the first harmonic over the second, and over the strongest bin in 2-4 kHz, in dB.

    Breathy voices raise both, pressed voices lower them. Source: Hanson (1997).
    """
    bins = magnitude.shape[1]
    at = np.rint(f0 * n_fft / rate).astype(int)
    rows = np.arange(len(at))[:, None]

    def near(index: np.ndarray) -> np.ndarray:
        return magnitude[rows, np.clip(index[:, None] + [-1, 0, 1], 0, bins - 1)]

    def level(values: np.ndarray) -> np.ndarray:
        return 2 * decibels(values.max(axis=1) + np.float32(1e-5))

    first = level(near(at))
    high = magnitude[:, int(2000 * n_fft / rate) : int(4000 * n_fft / rate)]
    return {"h1h2": first - level(near(2 * at)), "h1a3": first - level(high)}
