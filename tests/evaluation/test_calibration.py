"""calibration: against plain loops and known temperatures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from ser_lib.errors import ContaminationError
from ser_lib.evaluation import metrics
from ser_lib.evaluation.calibration import (
    abstain_threshold,
    apply_temperature,
    calibrate,
    calibration_error,
    fit_temperature,
    reliability,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_bins", [5, 10, 15])
def test_calibration_error_equals_a_plain_loop(n_bins):
    rng = np.random.default_rng(n_bins)
    p = np.vstack([rng.dirichlet(np.full(4, 0.5), 500), np.eye(4)])
    correct = rng.random(len(p)) < 0.5
    error, rows = 0.0, []
    for b in range(n_bins):
        inside = [
            i for i in range(len(p)) if b / n_bins <= p[i].max() < (b + 1) / n_bins or (b == n_bins - 1 and p[i].max() == 1)
        ]  # fmt: skip
        if inside:
            confidence = sum(p[i].max() for i in inside) / len(inside)
            accuracy = sum(correct[i] for i in inside) / len(inside)
            rows.append((confidence, accuracy, len(inside)))
            error += len(inside) / len(p) * abs(confidence - accuracy)
    assert calibration_error(p, correct, n_bins=n_bins) == pytest.approx(error)
    np.testing.assert_allclose(
        reliability(p, correct, n_bins=n_bins)[["confidence", "accuracy", "clips"]], rows
    )


def test_calibration_error_of_simple_cases():
    sure = np.tile([1.0, 0.0], (10, 1))
    assert calibration_error(sure, np.ones(10, bool)) == 0
    assert calibration_error(sure, np.zeros(10, bool)) == 1
    assert calibration_error(sure, np.arange(10) < 7) == pytest.approx(0.3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 3.5])
def test_a_known_temperature_is_found_again(temperature):
    """Labels are drawn from `fair`; the model's logits are `temperature` times too large."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (20_000, 4))
    fair = softmax(logits)
    true = (fair.cumsum(axis=1) < rng.random((len(fair), 1))).sum(axis=1)
    fitted = fit_temperature(softmax(temperature * logits), true)
    assert fitted == pytest.approx(temperature, rel=0.04)
    np.testing.assert_allclose(apply_temperature(softmax(temperature * logits), temperature), fair, atol=1e-3)


def test_certain_and_wrong_stays_finite():
    p = np.tile([1.0, 0.0, 0.0], (30, 1))
    temperature = fit_temperature(p, np.arange(30) % 3)
    assert np.isfinite(temperature)
    assert temperature > 1
    assert np.isfinite(apply_temperature(p, temperature)).all()


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 2.0, 10.0])
def test_sharpening_keeps_the_argmax_and_the_sum(temperature):
    p = np.random.default_rng(2).dirichlet(np.full(8, 0.3), 1_000)
    out = apply_temperature(p, temperature)
    np.testing.assert_array_equal(out.argmax(axis=1), p.argmax(axis=1))
    np.testing.assert_allclose(out.sum(axis=1), 1)
    sureness = out.max(axis=1) - p.max(axis=1)
    assert (sureness <= 1e-9).all() if temperature >= 1 else (sureness >= -1e-9).all()
    if temperature == 1:
        np.testing.assert_allclose(out, p, atol=1e-9)


# --- adaptive bins ---------------------------------------------------------------------------------


def judged(seed: int, n: int = 500, labels: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, true columns drawn from them (so calibrated), and whether the top one is right."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(labels, 0.6), n)
    true = np.minimum((p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), labels - 1)
    return p, true, p.argmax(axis=1) == true


@pytest.mark.parametrize("n_bins", [1, 5, 15])
def test_adaptive_bins_hold_equally_many_clips(n_bins):
    p, _, correct = judged(n_bins, n=503)
    table = reliability(p, correct, n_bins=n_bins, adaptive=True)
    assert table["clips"].sum() == 503
    assert np.ptp(table["clips"]) <= 1
    assert table["confidence"].is_monotonic_increasing
    order = np.argsort(p.max(axis=1))
    error = sum(
        len(part) / 503 * abs(p.max(axis=1)[part].mean() - correct[part].mean())
        for part in np.array_split(order, n_bins)
    )
    assert calibration_error(p, correct, n_bins=n_bins, adaptive=True) == pytest.approx(error)


def test_one_adaptive_bin_is_the_mean_gap():
    p, _, correct = judged(1)
    assert calibration_error(p, correct, n_bins=1, adaptive=True) == pytest.approx(
        abs(p.max(axis=1).mean() - correct.mean())
    )


def test_equal_confidences_do_not_depend_on_the_order_of_rows():
    p, correct = np.tile([0.7, 0.3], (40, 1)), np.arange(40) < 28
    for order in (np.arange(40), np.arange(40)[::-1]):
        assert calibration_error(p[order], correct[order], adaptive=True) == pytest.approx(0, abs=1e-9)


def test_fewer_clips_than_bins():
    p, _, correct = judged(2, n=4)
    assert reliability(p, correct, adaptive=True)["clips"].to_list() == [1, 1, 1, 1]


# --- fold by fold ------------------------------------------------------------------------------------


LABELS = ["calm", "happy", "sad"]


def predictions(seed: int, folds: int = 3, each: int = 300, sureness=(0.5, 1.0, 2.0)) -> pd.DataFrame:
    """Labels are drawn from calibrated probabilities, which each fold then sharpens in its own way."""
    parts = []
    for fold in range(folds):
        p, true, _ = judged(100 * seed + fold, each, len(LABELS))
        p = apply_temperature(p, sureness[fold])
        part = pd.DataFrame(p, columns=[f"p_{label}" for label in LABELS])
        part["predicted"] = [LABELS[i] for i in p.argmax(axis=1)]
        part["emotion"] = [LABELS[i] for i in true]
        part["clip_id"] = [f"{seed}-{fold}-{i}" for i in range(each)]
        parts.append(part.assign(fold=fold, seed=0))
    return pd.concat(parts)


def test_every_fold_is_calibrated_by_its_own_inner_predictions():
    outer = predictions(1)
    inner = predictions(2, each=2000).rename(columns={"fold": "outer"})
    calibrated = calibrate(outer, inner, LABELS, level=0.8, accuracy=0.75)
    assert calibrated["clip_id"].to_list() == outer["clip_id"].to_list()
    np.testing.assert_allclose(calibrated.groupby("fold")["temperature"].first(), [2, 1, 0.5], rtol=0.1)
    right = calibrated["predicted"] == calibrated["emotion"]
    p = metrics.probabilities(calibrated, LABELS)
    raw = metrics.probabilities(outer, LABELS)
    assert calibration_error(p, right) < calibration_error(raw, right.to_numpy())
    np.testing.assert_allclose(calibrated["confidence"], p.max(axis=1))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert calibrated["covered"].mean() == pytest.approx(0.8, abs=0.04)
    assert right[calibrated["kept"]].mean() == pytest.approx(0.75, abs=0.05)
    for fold, part in calibrated.groupby("fold"):
        mine = inner[inner["outer"] == fold]
        fair = apply_temperature(metrics.probabilities(mine, LABELS), part["temperature"].iloc[0])
        least = abstain_threshold(fair, (mine["predicted"] == mine["emotion"]).to_numpy(), accuracy=0.75)
        assert (part["kept"] == (part["confidence"] >= least)).all()
    for row in calibrated.head(50).itertuples():
        members = row.set.split(",") if row.set else []
        assert len(members) == row.set_size
        assert row.covered == (row.emotion in members)


def test_calibrate_sees_no_label_that_is_tested():
    outer, inner = predictions(3), predictions(4).rename(columns={"fold": "outer"})
    columns = [*outer.columns[:3], "temperature", "confidence", "kept", "set"]
    false = outer.assign(emotion=outer["emotion"].to_numpy()[::-1])
    pd.testing.assert_frame_equal(
        calibrate(outer, inner, LABELS)[columns], calibrate(false, inner, LABELS)[columns]
    )


def test_calibrate_refuses_inner_predictions_that_are_missing_or_hold_what_is_tested():
    outer, inner = predictions(5), predictions(6).rename(columns={"fold": "outer"})
    with pytest.raises(ValueError, match="no inner predictions of fold 2, seed 0"):
        calibrate(outer, inner[inner["outer"] < 2], LABELS)
    with pytest.raises(ContaminationError, match="5-0-0: tested in fold 0 and among its inner predictions"):
        calibrate(outer, outer.rename(columns={"fold": "outer"}), LABELS)


def test_serving_imports_it_without_pandas_and_the_optimiser():
    code = (
        "import sys, ser_lib.evaluation.calibration; print({'pandas', 'scipy.optimize'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "set()\n"
