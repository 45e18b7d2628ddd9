"""Low-level descriptors: what is heard in each frame of a waveform.

Waveforms are mono float32, shape (n_samples,). Everything here returns float32 with one row a frame;
there is no Python loop over single frames. Spectra are magnitudes or powers, never decibels unless the name
says `_db`. Filter banks equal librosa's and are computed once a configuration.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

FLOOR = 1e-10  # power, -100 dB: keeps logarithms finite
F0_MIN, F0_MAX = 60.0, 650.0  # hertz; shouted female speech reaches 600
F0_REFERENCE = 27.5  # hertz, the zero of the semitone scale
VOICED = 0.5  # normalised autocorrelation from which a frame counts as voiced
ACTIVE_DB = 35.0  # decibels below the loudest frame at which a pause begins
BLOCK = 64  # frames whose padded spectra stay in the processor's cache


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

    Examples
    --------
    >>> found = magnitudes(np.sin(2 * np.pi * np.arange(16_000) / 16), n_fft=400, hop=160)  # 1 kHz at 16 kHz
    >>> found.shape, float(found[0].argmax() * 16_000 / 400)  # hertz
    ((98, 201), 1000.0)
    """
    if center:
        y = np.pad(y, n_fft // 2)
    return np.abs(scipy.fft.rfft(frames(y, n_fft, hop) * hann(n_fft), axis=1))


@lru_cache
def mel_filters(rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Triangles of equal area on Slaney's mel scale, shape (n_bins, n_mels), as librosa.filters.mel.

    The scale is linear below 1 kHz (15 mel) and logarithmic above. Source: Slaney (1998), Auditory Toolbox.
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

    Each bin goes to the classes near it, at least a semitone wide; the octaves around 880 Hz weigh most.
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
    """The bins' hertz, and what bins are weighted with: (hertz, hertz²), two slopes' lines, two bands."""
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

    The top and bottom fifth of each band's bins are averaged. Source: Jiang et al. (2002).
    """
    ends = [
        np.sort(magnitude[:, octave], axis=1) @ fifths
        for octave, fifths in _octaves(rate, magnitude.shape[1], n_bands)
    ]
    peak, valley = np.moveaxis(np.stack(ends) + np.float32(1e-5), 2, 0)
    return 2 * decibels(peak / valley).T


@lru_cache
def _octaves(rate: int, n_bins: int, n_bands: int) -> list[tuple[slice, np.ndarray]]:
    """Each band's bins, and the matrix that averages the top and bottom fifth of them when sorted."""
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


def pitch(y: np.ndarray, *, rate: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Fundamental frequency and voicing strength of each frame (64 ms, every `hop` samples).

    Normalised autocorrelation of windowed frames (Boersma 1993), `BLOCK` frames in one FFT at half the
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
    """The parabola through three neighbouring lags: where its top is, from `lag`, and how high."""
    left, inner, right = acf[row, lag - 1], acf[row, lag], acf[row, lag + 1]
    bend = np.minimum(left - 2 * inner + right, np.float32(-1e-6))
    shift = np.clip((left - right) / (2 * bend), -0.5, 0.5)
    return shift, inner - (left - right) * shift / 4


def _autocorrelation(framed: np.ndarray, n_lags: int) -> np.ndarray:
    """Of each row, lags 0 to `n_lags` - 1; the padding is as long as these lags need, no longer."""
    n_fft = scipy.fft.next_fast_len(framed.shape[1] + n_lags - 1, real=True)
    spectrum = scipy.fft.rfft(framed, n_fft, axis=1)
    return (np.square(spectrum.real) + np.square(spectrum.imag)) @ _cosines(n_fft, n_lags)


@lru_cache
def _cosines(n_fft: int, n_lags: int) -> np.ndarray:
    """The inverse Fourier transform of a power spectrum, for few lags as a matrix, (n_bins, n_lags)."""
    inverse = scipy.fft.irfft(np.eye(n_fft // 2 + 1, dtype=np.float32), n_fft, axis=1)
    return np.ascontiguousarray(inverse[:, :n_lags])


@lru_cache
def _window_autocorrelation(n: int, n_lags: int) -> np.ndarray:
    """Of the Hann window, 1 at lag 0, shape (n_lags,)."""
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
