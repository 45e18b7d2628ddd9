"""Low-level descriptors: one row of float32 per frame of a waveform, without a Python loop over frames.

Waveforms are mono float32, shape (n_samples,). Spectra are magnitudes or powers; decibels end in `_db`. Filter
banks equal librosa's and are computed once per configuration. Pitch is in `pitch`.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

FLOOR = 1e-10  # power, -100 dB: keeps logarithms finite
F0_REFERENCE = 27.5  # hertz, the zero of the semitone scale
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
    """Magnitudes of the short-time Fourier transform, shape (n_frames, 1 + n_fft // 2).

    With `center=True` it equals ``abs(librosa.stft(y, n_fft=n_fft, hop_length=hop)).T``.

    Examples
    --------
    >>> spectrum = magnitudes(np.sin(2 * np.pi * np.arange(16_000) / 16), n_fft=400, hop=160)  # 1 kHz at 16 kHz
    >>> spectrum.shape, float(spectrum[0].argmax() * 16_000 / 400)  # hertz
    ((98, 201), 1000.0)
    """
    if center:
        y = np.pad(y, n_fft // 2)
    return np.abs(scipy.fft.rfft(frames(y, n_fft, hop) * hann(n_fft), axis=1))


@lru_cache
def mel_filters(rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Triangles of equal area on Slaney's mel scale, shape (n_bins, n_mels), as librosa.filters.mel.

    The scale is linear below 1 kHz (15 mel) and logarithmic above. Source: Slaney (1998), Auditory Toolbox.

    Examples
    --------
    >>> peaks = mel_filters(16_000, 1600, 40).argmax(axis=0) * 10  # hertz; a bin is 10 wide
    >>> peaks[:3].tolist(), peaks[-3:].tolist()  # narrow bands at the bottom, wide ones at the top
    ([70, 150, 220], [6370, 6870, 7420])
    """
    top = 15 + 27 * np.log(rate / 2000) / np.log(6.4)
    mel = np.linspace(0, top, n_mels + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hertz = np.linspace(0, rate / 2, 1 + n_fft // 2)[:, None]
    triangles = np.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre))
    return (np.maximum(triangles, 0) * 2 / (high - low)).astype(np.float32)


@lru_cache
def chroma_filters(rate: int, n_fft: int) -> np.ndarray:
    """Pitch classes from C, A at 440 Hz, shape (n_bins, 12), as librosa.filters.chroma without tuning.

    Each bin contributes to nearby classes, at least a semitone wide; the octaves around 880 Hz weigh most.
    Source: Ellis (2007), Chroma feature analysis and synthesis.
    """
    bins = np.arange(1, 2 + n_fft // 2)
    semitone = 12 * np.log2(bins * rate / n_fft / F0_REFERENCE)  # above A
    semitone = np.concatenate([semitone[:1] - 18, semitone])  # bin 0 has no pitch: an octave and a half below
    width = np.maximum(np.diff(semitone), 1)[:, None]
    semitone = semitone[:-1, None]
    distance = (semitone - 3 - np.arange(12) + 6) % 12 - 6
    near = np.exp(-2 * np.square(distance / width))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    return (near * np.exp(-np.square(semitone / 12 - 5) / 8)).astype(np.float32)


def decibels(power: np.ndarray) -> np.ndarray:
    """10 log10 of `power`, by the natural logarithm, which NumPy computes four times as fast."""
    return np.log(power) * np.float32(10 / np.log(10))


def power_db(power: np.ndarray, *, top_db: float | None = 80.0) -> np.ndarray:
    """10 log10 of `power`, floored at -100 dB and `top_db` below the maximum (librosa.power_to_db)."""
    db = decibels(np.maximum(power, np.float32(FLOOR)))
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
    """Share of neighbouring samples with different signs in each frame, shape (n_frames,).

    Examples
    --------
    >>> y = np.sin(2 * np.pi * 1000 * (np.arange(16_000) + 0.5) / 16_000)
    >>> zero_crossings(y, n=400, hop=160)[1:4].tolist()  # two in a period of 16 samples
    [0.125, 0.125, 0.125]
    """
    changed = np.diff(np.signbit(y), prepend=np.signbit(y[:1]))
    total = np.concatenate([[0], np.cumsum(changed, dtype=np.int32)])
    if len(y) < n:
        return np.array([total[-1] / n], np.float32)
    starts = np.arange(0, len(y) - n + 1, hop)
    return ((total[starts + n] - total[starts]) / n).astype(np.float32)


def spectral_shape(magnitude: np.ndarray, *, rate: int) -> dict[str, np.ndarray]:
    """Spectral shape: where the energy lies, and how it is spread.

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

    Examples
    --------
    >>> y = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    >>> shape = spectral_shape(magnitudes(y, n_fft=400, hop=160), rate=16_000)
    >>> [round(float(shape[name].mean())) for name in ("centroid", "rolloff50", "flatness")]
    [1000, 1000, 0]
    """
    n_frames, n_bins = magnitude.shape
    hertz, moments, slopes, bands = _shape_banks(rate, n_bins)
    power = np.square(magnitude) + np.float32(FLOOR)
    weight = magnitude + np.float32(1e-5)
    weight /= weight.sum(axis=1, keepdims=True)
    centroid, square = (weight @ moments).T
    cumulated = np.cumsum(power, axis=1)
    total = cumulated[:, -1:]
    db = decibels(power)
    slope0, slope500 = (db[:, : len(slopes)] @ slopes).T
    low, high = (power @ bands).T
    below2, below5 = np.searchsorted(hertz, (2000, 5000))
    change = np.diff(weight, axis=0)
    flux = np.zeros(n_frames, np.float32)
    flux[1:] = np.sqrt(np.vecdot(change, change))
    shape = {
        "centroid": centroid,
        "bandwidth": np.sqrt(np.maximum(square - np.square(centroid), 0)),
        "flatness": np.exp(db.mean(axis=1) * np.float32(np.log(10) / 10)) / (total[:, 0] / n_bins),
        "entropy": -np.vecdot(weight, np.log(weight)) / np.float32(np.log(n_bins)),
        "flux": flux,
        "slope0to500": slope0,
        "slope500to1500": slope500,
        "alpha": decibels(high / low),
        "hammarberg": db[:, :below2].max(axis=1) - db[:, below2:below5].max(axis=1),
    }
    for share in (25, 50, 85, 95):
        shape[f"rolloff{share}"] = hertz[(cumulated >= total * np.float32(share / 100)).argmax(axis=1)]
    return shape


@lru_cache
def _shape_banks(rate: int, n_bins: int) -> tuple[np.ndarray, ...]:
    """The bins' frequencies, and weights of bins: (hertz, hertz²), two regression lines, two bands."""
    hertz = np.linspace(0, rate / 2, n_bins, dtype=np.float32)
    below = {limit: int(np.searchsorted(hertz, limit)) for limit in (0, 50, 500, 1000, 1500, 5000)}
    slopes = np.zeros((below[1500], 2), np.float32)
    for column, (low, high) in enumerate([(0, 500), (500, 1500)]):
        x = hertz[below[low] : below[high]] / 1000
        slopes[below[low] : below[high], column] = (x - x.mean()) / np.square(x - x.mean()).sum()
    bands = np.zeros((n_bins, 2), np.float32)
    bands[below[50] : below[1000], 0] = bands[below[1000] : below[5000], 1] = 1
    return hertz, np.stack([hertz, np.square(hertz)], axis=1), slopes, bands


def contrast(magnitude: np.ndarray, *, rate: int, n_bands: int = 6) -> np.ndarray:
    """Peak over valley in decibels within octave bands from 200 Hz up, shape (n_frames, n_bands).

    Peak and valley are means of the top and bottom fifth of a band's bins. Source: Jiang et al. (2002).
    """
    bands = _octaves(rate, magnitude.shape[1], n_bands)
    ends = [np.sort(magnitude[:, octave], axis=1) @ fifths for octave, fifths in bands]
    peak, valley = np.moveaxis(np.stack(ends) + np.float32(1e-5), 2, 0)
    return 2 * decibels(peak / valley).T


@lru_cache
def _octaves(rate: int, n_bins: int, n_bands: int) -> list[tuple[slice, np.ndarray]]:
    """Each band's bins, and the matrix that averages the top and bottom fifth of its sorted bins."""
    hertz = np.linspace(0, rate / 2, n_bins)
    edges = [0, *(200 * 2.0 ** np.arange(n_bands - 1)), rate / 2]
    bands = []
    for low, high in pairwise(edges):
        octave = slice(np.searchsorted(hertz, low), np.searchsorted(hertz, high, side="right"))
        size = octave.stop - octave.start
        k = max(1, size // 5)
        fifths = np.zeros((size, 2), np.float32)
        fifths[-k:, 0] = fifths[:k, 1] = 1 / k
        bands.append((octave, fifths))
    return bands
