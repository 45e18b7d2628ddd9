"""Low-level descriptors: what is heard in each frame of a waveform.

Waveforms are mono float32, shape (n_samples,). Everything here returns float32 with one row a frame;
there is no Python loop over frames. Spectra are magnitudes or powers, never decibels unless the name
says `_db`. Filter banks come from librosa and are computed once a configuration.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import median_filter

FLOOR = 1e-10  # power, -100 dB: keeps logarithms finite
F0_MIN, F0_MAX = 60.0, 650.0  # hertz; shouted female speech reaches 600
F0_REFERENCE = 27.5  # hertz, the zero of the semitone scale
VOICED = 0.5  # normalised autocorrelation from which a frame counts as voiced
ACTIVE_DB = 35.0  # decibels below the loudest frame at which a pause begins


def frames(y: np.ndarray, n: int, hop: int) -> np.ndarray:
    """Overlapping frames of `y` as a view, shape (n_frames, n); a short `y` is padded with zeros."""
    if len(y) < n:
        y = np.pad(y, (0, n - len(y)))
    return sliding_window_view(y, n)[::hop]


@lru_cache
def hann(n: int) -> np.ndarray:
    """Periodic Hann window, shape (n,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)


def magnitudes(y: np.ndarray, *, n_fft: int, hop: int, center: bool = False) -> np.ndarray:
    """Short-time Fourier transform, absolute values, shape (n_frames, 1 + n_fft // 2).

    With `center=True` it equals ``abs(librosa.stft(y, n_fft=n_fft, hop_length=hop)).T``.
    """
    if center:
        y = np.pad(y, n_fft // 2)
    return np.abs(scipy.fft.rfft(frames(y, n_fft, hop) * hann(n_fft), axis=1))


@lru_cache
def mel_filters(rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Slaney mel filter bank, shape (n_bins, n_mels). Source: librosa.filters.mel."""
    import librosa.filters

    return np.ascontiguousarray(librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels).T)


@lru_cache
def chroma_filters(rate: int, n_fft: int) -> np.ndarray:
    """Pitch-class filter bank without tuning estimate, shape (n_bins, 12). Source: librosa.filters.chroma."""
    import librosa.filters

    return np.ascontiguousarray(librosa.filters.chroma(sr=rate, n_fft=n_fft, tuning=0).T, dtype=np.float32)


def power_db(power: np.ndarray, *, top_db: float | None = 80.0) -> np.ndarray:
    """10 log10 of `power`, floored at -100 dB and `top_db` below the maximum (librosa.power_to_db)."""
    db = 10 * np.log10(np.maximum(power, np.float32(FLOOR)))
    return db if top_db is None else np.maximum(db, db.max() - np.float32(top_db))


def cepstrum(mel_db: np.ndarray, n: int) -> np.ndarray:
    """The first `n` MFCC of mel bands in decibels: orthonormal DCT-II, shape (n_frames, n)."""
    return scipy.fft.dct(mel_db, type=2, norm="ortho", axis=1)[:, :n]


def chroma(spectrum: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Pitch-class energy, each frame scaled to a maximum of 1, shape (n_frames, 12)."""
    raw = spectrum @ filters
    peak = raw.max(axis=1, keepdims=True)
    return raw / np.where(peak > np.finfo(np.float32).tiny, peak, 1)


def zero_crossings(y: np.ndarray, *, n: int, hop: int) -> np.ndarray:
    """Share of neighbouring samples with different signs in each frame, shape (n_frames,)."""
    changed = np.diff(np.signbit(y), prepend=np.signbit(y[:1]))
    total = np.concatenate([[0], np.cumsum(changed, dtype=np.int32)])
    if len(y) < n:
        return np.array([total[-1] / n], np.float32)
    starts = np.arange(0, len(y) - n + 1, hop)
    return ((total[starts + n] - total[starts]) / n).astype(np.float32)


def spectral_shape(magnitude: np.ndarray, *, rate: int) -> dict[str, np.ndarray]:
    """Where the energy lies in the spectrum and how it is spread.

    Parameters
    ----------
    magnitude : ndarray, shape (n_frames, n_bins)

    Returns
    -------
    dict of ndarray, shape (n_frames,)
        centroid, bandwidth and rolloffs in hertz (power-weighted rolloff); flatness and entropy in
        [0, 1]; flux as the distance between neighbouring normalised spectra; slopes in dB per kHz;
        alpha ratio (1-5 kHz over 50 Hz-1 kHz) and Hammarberg index (peak below 2 kHz over peak in
        2-5 kHz) in dB. Source: Eyben et al. (2016), The Geneva minimalistic acoustic parameter set.
    """
    n_frames, n_bins = magnitude.shape
    hertz = np.linspace(0, rate / 2, n_bins, dtype=np.float32)
    power = np.square(magnitude) + np.float32(FLOOR)
    weight = magnitude + np.float32(1e-5)
    weight /= weight.sum(axis=1, keepdims=True)
    centroid = weight @ hertz
    spread = np.sqrt(np.maximum(weight @ np.square(hertz) - np.square(centroid), 0))
    cumulated = np.cumsum(power, axis=1)
    total = cumulated[:, -1:]
    db = 10 * np.log10(power)

    def below(limit: float) -> int:
        return int(np.searchsorted(hertz, limit))

    def slope(low: float, high: float) -> np.ndarray:
        x = hertz[below(low) : below(high)] / 1000
        x = (x - x.mean()) / np.square(x - x.mean()).sum()
        return db[:, below(low) : below(high)] @ x

    def band(low: float, high: float) -> np.ndarray:
        return power[:, below(low) : below(high)].sum(axis=1)

    flux = np.zeros(n_frames, np.float32)
    flux[1:] = np.sqrt(np.square(np.diff(weight, axis=0)).sum(axis=1))
    shape = {
        "centroid": centroid,
        "bandwidth": spread,
        "flatness": np.exp(db.mean(axis=1) * np.float32(np.log(10) / 10)) / (total[:, 0] / n_bins),
        "entropy": -(weight * np.log(weight)).sum(axis=1) / np.float32(np.log(n_bins)),
        "flux": flux,
        "slope0to500": slope(0, 500),
        "slope500to1500": slope(500, 1500),
        "alpha": 10 * np.log10(band(1000, 5000) / band(50, 1000)),
        "hammarberg": db[:, : below(2000)].max(axis=1) - db[:, below(2000) : below(5000)].max(axis=1),
    }
    for share in (25, 50, 85, 95):
        bins = (cumulated < total * np.float32(share / 100)).sum(axis=1)
        shape[f"rolloff{share}"] = hertz[np.minimum(bins, n_bins - 1)]
    return shape


def contrast(magnitude: np.ndarray, *, rate: int, n_bands: int = 6) -> np.ndarray:
    """Peak over valley in decibels within octave bands from 200 Hz up, shape (n_frames, n_bands).

    The top and bottom fifth of each band's bins are averaged. Source: Jiang et al. (2002).
    """
    hertz = np.linspace(0, rate / 2, magnitude.shape[1])
    edges = [0, *(200 * 2.0 ** np.arange(n_bands - 1)), rate / 2]
    out = []
    for low, high in pairwise(edges):
        band = np.sort(magnitude[:, (hertz >= low) & (hertz <= high)], axis=1)
        k = max(1, band.shape[1] // 5)
        peak, valley = band[:, -k:].mean(axis=1), band[:, :k].mean(axis=1)
        out.append(20 * np.log10((peak + 1e-5) / (valley + 1e-5)))
    return np.stack(out, axis=1).astype(np.float32)


def pitch(y: np.ndarray, *, rate: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Fundamental frequency and voicing strength of each frame (64 ms, every `hop` samples).

    Normalised autocorrelation of windowed frames (Boersma 1993), all frames in one FFT at half the
    sample rate. A second pass prefers candidates near the clip's median, which removes most octave
    jumps (de Looze & Hirst 2008); a median over five frames removes single ones.

    Returns
    -------
    f0_hz : ndarray, shape (n_frames,)
        Hertz, also where the frame is unvoiced.
    strength : ndarray, shape (n_frames,)
        Height of the autocorrelation peak, 0 to 1.
    """
    import soxr

    half = rate // 2
    y = soxr.resample(y, rate, half, quality="LQ")
    n = int(half * 0.064)
    n_fft = scipy.fft.next_fast_len(2 * n, real=True)
    window = hann(n)
    framed = frames(y, n, hop // 2)
    framed = (framed - framed.mean(axis=1, keepdims=True)) * window
    acf = _autocorrelation(framed, n_fft)
    low, high = int(half / F0_MAX), int(half / F0_MIN) + 2
    norm = _autocorrelation(window[None], n_fft)[0, : high + 1]
    acf = acf[:, : high + 1] / (np.maximum(acf[:, :1], np.float32(FLOOR)) * (norm / norm[0]))
    lags = np.arange(low, high)
    left, inner, right = acf[:, low - 1 : high - 1], acf[:, low:high], acf[:, low + 1 : high + 1]
    is_peak = (inner >= left) & (inner >= right)
    bend = np.minimum(left - 2 * inner + right, np.float32(-1e-6))
    shift = np.clip((left - right) / (2 * bend), -0.5, 0.5)  # of the parabola through three lags
    height = inner - (left - right) * shift / 4
    octave = (12 * np.log2(half / lags)).astype(np.float32)  # semitones above 1 Hz
    score = np.where(is_peak, height, -1) + np.float32(0.002) * octave

    rows = np.arange(len(acf))
    first = score.argmax(axis=1)
    sure = height[rows, first] > VOICED
    centre = np.median(octave[first[sure]]) if sure.any() else np.median(octave)
    best = (score - np.float32(0.012) * np.abs(octave - centre)).argmax(axis=1)
    f0 = half / (lags[best] + shift[rows, best])
    strength = np.clip(height[rows, best], 0, 1)
    return median_filter(f0, 5, mode="nearest").astype(np.float32), strength.astype(np.float32)


def _autocorrelation(framed: np.ndarray, n_fft: int) -> np.ndarray:
    spectrum = scipy.fft.rfft(framed, n_fft, axis=1)
    return scipy.fft.irfft(np.square(spectrum.real) + np.square(spectrum.imag), n_fft, axis=1)


def harmonic_levels(magnitude: np.ndarray, f0: np.ndarray, *, rate: int, n_fft: int) -> dict[str, np.ndarray]:
    """Level of the first harmonic over the second, and over the strongest bin in 2-4 kHz, in dB.

    Breathy voices raise both, pressed voices lower them. Source: Hanson (1997).
    """
    bins = magnitude.shape[1]
    at = np.rint(f0 * n_fft / rate).astype(int)
    rows = np.arange(len(at))

    def level(index: np.ndarray) -> np.ndarray:
        near = [magnitude[rows, np.clip(index + d, 0, bins - 1)] for d in (-1, 0, 1)]
        return 20 * np.log10(np.maximum.reduce(near) + 1e-5)

    first = level(at)
    high = magnitude[:, int(2000 * n_fft / rate) : int(4000 * n_fft / rate)].max(axis=1)
    return {"h1h2": first - level(2 * at), "h1a3": first - 20 * np.log10(high + 1e-5)}
