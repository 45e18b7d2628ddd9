"""Statistics and correlations over time against NumPy, SciPy and librosa."""

from __future__ import annotations

from itertools import combinations

import librosa
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose

from ser_lib.features import functionals
from ser_lib.features.functionals import FUNCTIONALS, SLOPES

# --- statistics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 50, 1000])
def test_functionals_against_numpy_and_scipy(n):
    rng = np.random.default_rng(n)
    columns = {"a": rng.gamma(2, 3, n), "b": np.linspace(5, -7, n) + rng.normal(0, 0.1, n)}
    row = functionals.statistics({name: x.astype(np.float32) for name, x in columns.items()})
    assert list(row) == [f"{name}_{how}" for name in columns for how in FUNCTIONALS]
    time = np.linspace(-1, 1, n)
    for name, x in columns.items():
        change = np.diff(x)
        expected = {
            "mean": x.mean(),
            "std": x.std(),
            "p05": np.quantile(x, 0.05),
            "p50": np.median(x),
            "p95": np.quantile(x, 0.95),
            "skew": scipy.stats.skew(x),
            "slope": 2 * np.polyfit(time, x, 1)[0],
            "bend": np.polyfit(time, x, 2)[0],
            "dmean": np.abs(change).mean(),
            "dstd": change.std(),
        }
        for how, value in expected.items():
            assert_allclose(row[f"{name}_{how}"], value, rtol=1e-3, atol=1e-4, err_msg=f"{name}_{how}")


def test_functionals_of_simple_curves():
    time = np.linspace(-1, 1, 101)
    row = functionals.statistics({"rise": 3 * time, "arch": 1 - np.square(time), "flat": np.full(101, 7.0)})
    assert_allclose(row["rise_slope"], 6, rtol=1e-5)  # from -3 to 3
    assert_allclose(row["arch_bend"], -1, rtol=1e-4)  # the middle is above the ends
    assert_allclose([row["rise_bend"], row["arch_slope"]], 0, atol=1e-5)
    assert row["flat_mean"] == 7
    assert_allclose([row[f"flat_{how}"] for how in ("std", "skew", "slope", "dmean", "dstd")], 0, atol=1e-4)


@pytest.mark.parametrize("level", [-87.3, -20.07, 0.1, 1234.5])
@pytest.mark.parametrize("n", [3, 100, 193, 997])
def test_functionals_of_a_constant_ignore_rounding(level, n):
    """As a mel band at the floor of every frame."""
    row = functionals.statistics({"flat": np.full(n, level)})
    assert_allclose([row[f"flat_{how}"] for how in ("mean", "p05", "p50", "p95")], level, rtol=1e-6)
    assert_allclose([row[f"flat_{how}"] for how in ("std", "skew", "dmean", "dstd")], 0, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_functionals_of_too_few_frames_are_zero(n):
    row = functionals.statistics({"a": np.ones(n)})
    assert list(row) == [f"a_{how}" for how in FUNCTIONALS]
    assert not any(row.values())


# --- correlations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [30, 400])
def test_correlations_against_numpy_and_librosa(n):
    rng = np.random.default_rng(n)
    tracks = {"a": np.cumsum(rng.normal(size=n)), "b": rng.normal(-40, 9, n), "c": np.sin(np.arange(n) / 7)}
    x = np.stack(list(tracks.values()))
    slopes = [librosa.feature.delta(np.pad(x, ((0, 0), (w, w)), "edge"), width=2 * w + 1) for w in (4, 12)]
    moving = np.concatenate([x, *(s[:, w:-w] for s, w in zip(slopes, (4, 12), strict=True))])
    names = [*"abc", *(f"{name}_{how}" for how in SLOPES for name in "abc")]
    row = functionals.correlations({name: track.astype(np.float32) for name, track in tracks.items()})
    expected = np.corrcoef(moving)
    assert len(row) == 36
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        assert_allclose(row[f"corr_{a}_with_{b}"], expected[i, j], atol=1 / 512 + 1e-5, err_msg=f"{a} {b}")


def test_a_constant_track_has_no_correlation():
    n = 200
    row = functionals.correlations(
        {"flat": np.full(n, -73.3), "b": np.sin(np.arange(n)), "minus": -np.sin(np.arange(n))}
    )
    assert row["corr_b_with_minus"] == row["corr_b_slow_with_minus_slow"] == -1
    assert not any(value for name, value in row.items() if "flat" in name)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_correlations_of_too_few_frames_are_zero(n):
    row = functionals.correlations({"a": np.arange(n), "b": np.arange(n)})
    assert len(row) == 15
    assert not any(row.values())


def test_rhythm_bands_do_not_overlap_and_leave_no_gap():
    hertz = np.fft.rfftfreq(512, 0.01)
    bands = functionals._rhythm_bands(0.01)
    assert bands.sum(axis=1).tolist() == ((hertz > 0.5) & (hertz <= 20)).tolist()
    assert [hertz[band > 0].max() // 1 for band in bands.T] == [1, 3, 7, 19]
