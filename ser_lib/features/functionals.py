"""Functionals: descriptors over time to single numbers. Statistics, correlations, pauses and rhythm.

A descriptor has one value per frame, shape (n_frames,), float32.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import combinations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SLOPES = {"fast": 4, "slow": 12}  # frames on each side of a line whose slope is correlated
STILL = 1e-3  # decibels, semitones or strength (per frame): less than this counts as constant
FUNCTIONALS = ("mean", "std", "p05", "p50", "p95", "skew", "slope", "bend", "dmean", "dstd")


def statistics(columns: dict[str, np.ndarray]) -> dict[str, float]:
    """Ten statistics over time of each descriptor; zeros if there are fewer than three frames.

    Parameters
    ----------
    columns : dict of ndarray, all of shape (n_frames,)

    Returns
    -------
    dict of float
        `name_mean`, `_std`, `_p05`, `_p50`, `_p95`, `_skew`, `_slope` (change from start to end of the
        least-squares line), `_bend` (ends above the middle, least-squares parabola), `_dmean` (mean
        absolute change per frame) and `_dstd` (standard deviation of the changes).

    Examples
    --------
    >>> row = statistics({"level": np.arange(5.0)})
    >>> row["level_mean"], round(row["level_p95"], 1), row["level_slope"]
    (2.0, 3.8, 4.0)
    """
    x = np.stack(list(columns.values()), dtype=np.float32)  # (n_columns, n_frames)
    names = _functional_names(tuple(columns))
    n = x.shape[1]
    if n < 3:
        return dict.fromkeys(names, 0.0)
    mean = x.mean(axis=1)
    z = x - mean[:, None]
    z -= z.mean(
        axis=1, keepdims=True
    )  # without the rounding error of the mean, so that a constant column has skewness 0
    std = np.sqrt(np.vecdot(z, z) / n)
    z /= np.maximum(std, np.float32(1e-6))[:, None]
    time = np.arange(n, dtype=np.float32) * np.float32(2 / (n - 1)) - 1
    arch = np.square(time) - np.square(time).mean()
    change = np.diff(x, axis=1)
    ordered = np.sort(x, axis=1)
    table = np.stack(
        [
            mean,
            std,
            *(_percentile(ordered, share) for share in (5, 50, 95)),
            np.vecdot(z * z, z) / n,
            2 * (x @ time) / (time @ time),
            (x @ arch) / (arch @ arch),
            np.abs(change).mean(axis=1),
            change.std(axis=1),
        ],
        axis=1,
    )
    return dict(zip(names, table.ravel().tolist(), strict=True))


def correlations(tracks: dict[str, np.ndarray]) -> dict[str, float]:
    """Correlations over time between all descriptors and their slopes at two time scales.

    A slope is that of the least-squares line through a frame and `SLOPES` frames on each side (librosa's
    delta). A constant track has correlation 0 with everything. Source: after Williamson et al. (2013), Vocal
    biomarkers of depression based on motor incoordination.

    Parameters
    ----------
    tracks : dict of ndarray, all of shape (n_frames,)

    Returns
    -------
    dict of float
        `corr_a_with_b`, -1 to 1, rounded to 1/256. Zeros if there are fewer than three frames.

    Examples
    --------
    >>> level = np.sin(np.arange(50.0))
    >>> correlations({"level": level, "f0": -level})["corr_level_with_f0"]
    -1.0
    """
    names = _correlation_names(tuple(tracks))
    x = np.stack(list(tracks.values()), dtype=np.float32)  # (n_tracks, n_frames)
    if x.shape[1] < 3:
        return dict.fromkeys(names, 0.0)
    x = np.concatenate([x, *(_slopes(x, width) for width in SLOPES.values())])
    x -= x.mean(axis=1, keepdims=True)
    x -= x.mean(axis=1, keepdims=True)  # as in `statistics`
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(STILL * math.sqrt(x.shape[1])))
    above = np.triu_indices(len(x), 1)
    return dict(zip(names, (np.round((x @ x.T)[above] * 256) / 256).tolist(), strict=True))


def _slopes(x: np.ndarray, width: int) -> np.ndarray:
    """Least-squares slope per frame over `width` frames on each side; the first and last values are repeated."""
    offsets = np.arange(-width, width + 1, dtype=np.float32)
    padded = np.pad(x, ((0, 0), (width, width)), "edge")
    return sliding_window_view(padded, len(offsets), axis=1) @ (offsets / (offsets @ offsets))


@cache
def _correlation_names(tracks: tuple[str, ...]) -> list[str]:
    moving = [*tracks, *(f"{name}_{how}" for how in SLOPES for name in tracks)]
    return [f"corr_{a}_with_{b}" for a, b in combinations(moving, 2)]


@cache
def _functional_names(columns: tuple[str, ...]) -> list[str]:
    return [f"{name}_{how}" for name in columns for how in FUNCTIONALS]


def _percentile(ordered: np.ndarray, share: float) -> np.ndarray:
    """Percentile of each sorted row, by linear interpolation as in np.percentile."""
    at = share / 100 * (ordered.shape[1] - 1)
    low, high = ordered[:, math.floor(at)], ordered[:, math.ceil(at)]
    return low + (at - math.floor(at)) * (high - low)


def _runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of True in `mask`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return edges[1::2] - edges[::2]


def timing(
    voiced: np.ndarray, active: np.ndarray, level: np.ndarray, *, seconds: float, step: float
) -> dict[str, float]:
    """Duration, pauses, voiced segments and the rhythm of the level, in seconds and events per second.

    Parameters
    ----------
    voiced, active : ndarray of bool, shape (n_frames,)
    level : ndarray, shape (n_frames,)
        Decibels.
    seconds, step : float
        Duration of the clip; time between frames.

    Examples
    --------
    >>> voiced = np.repeat([True, False, True], 50)  # half a second each
    >>> row = timing(voiced, voiced, np.where(voiced, -20.0, -60.0), seconds=1.5, step=0.01)
    >>> round(row["time_pause_share"], 2), row["time_voiced_mean"]
    (0.33, 0.5)
    """
    row = {"time_duration": seconds, "time_voiced_share": voiced.mean()}
    row["time_pause_share"] = 1 - active.mean()
    for name, mask in (("voiced", voiced), ("unvoiced", ~voiced), ("pause", ~active)):
        runs = _runs(mask) * step
        row[f"time_{name}_rate"] = len(runs) / seconds
        row[f"time_{name}_mean"] = runs.mean() if len(runs) else 0.0
        row[f"time_{name}_std"] = runs.std() if len(runs) else 0.0
        row[f"time_{name}_max"] = runs.max() if len(runs) else 0.0
    smooth = np.convolve(level, np.ones(5, np.float32) / 5, mode="same")
    inner = smooth[1:-1]
    peaks = (inner > smooth[:-2]) & (inner >= smooth[2:]) & (inner > level.max() - 20)
    row["time_peak_rate"] = peaks.sum() / seconds
    envelope = np.square(np.abs(np.fft.rfft(level - level.mean(), 512)))
    shares = (envelope @ _rhythm_bands(step)).tolist()
    for high, share in zip((2, 4, 8, 20), shares, strict=True):
        row[f"time_rhythm{high}hz"] = share / (sum(shares) + 1e-6)
    return {name: float(value) for name, value in row.items()}


@cache
def _rhythm_bands(step: float) -> np.ndarray:
    """Matrix that sums a 512-point spectrum of frames `step` seconds apart to four bands, shape (257, 4)."""
    hertz = np.fft.rfftfreq(512, step)[:, None]
    return ((hertz > (0.5, 2, 4, 8)) & (hertz <= (2, 4, 8, 20))).astype(np.float64)
