"""decisions: against plain loops, and clips for which the promise must hold."""

from __future__ import annotations

import numpy as np
import pytest
from test_calibration import judged

from ser_lib.evaluation.calibration import (
    abstain_threshold,
    apply_temperature,
    conformal_threshold,
    prediction_sets,
    risk_coverage,
)

# --- abstaining ------------------------------------------------------------------------------------


def test_risk_and_coverage_equal_a_plain_loop():
    p, _, correct = judged(3, n=120)
    p[:40] = p[40:80]  # equal confidences are answered together
    curve = risk_coverage(p, correct)
    top = p.max(axis=1)
    assert list(curve.columns) == ["coverage", "risk", "threshold"]
    assert curve["threshold"].to_list() == sorted(set(top), reverse=True)
    for row in curve.itertuples():
        kept = top >= row.threshold
        assert row.coverage == pytest.approx(kept.mean())
        assert row.risk == pytest.approx((~correct[kept]).mean())


def test_the_ends_and_the_area_of_the_curve():
    p, _, correct = judged(4)
    curve = risk_coverage(p, correct)
    assert (np.diff(curve["coverage"]) > 0).all()
    assert curve["coverage"].iloc[-1] == 1
    assert curve["risk"].iloc[-1] == pytest.approx((~correct).mean())
    best = risk_coverage(np.stack([0.5 + correct / 4, 0.5 - correct / 4], axis=1), correct)
    assert best["risk"].iloc[0] == 0
    assert curve["risk"].mean() < (~correct).mean()  # the more sure, the more often right
    assert (risk_coverage(p, np.ones(len(p), bool))["risk"] == 0).all()


@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.95])
def test_the_smallest_confidence_that_reaches_the_accuracy(accuracy):
    p, _, correct = judged(5)
    top = p.max(axis=1)
    threshold = abstain_threshold(p, correct, accuracy=accuracy)
    assert correct[top >= threshold].mean() >= accuracy
    assert threshold == min(t for t in top if correct[top >= t].mean() >= accuracy)
    fresh, _, right = judged(6, n=20_000)
    assert right[fresh.max(axis=1) >= threshold].mean() == pytest.approx(accuracy, abs=0.04)


def test_an_accuracy_out_of_reach_keeps_nothing_and_an_easy_one_everything():
    p, _, correct = judged(7)
    assert abstain_threshold(p, np.zeros(len(p), bool), accuracy=0.5) == np.inf
    assert abstain_threshold(p, correct, accuracy=0.0) == p.max(axis=1).min()


# --- prediction sets -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_sets_of_exchangeable_clips_hold_the_truth_as_often_as_they_say(level):
    """Also where the probabilities are wrong: sharpened, they are far too sure."""
    for temperature in (1, 0.3):
        rates = []
        for seed in range(60):
            p, true, _ = judged(seed, n=400)
            p = apply_temperature(p, temperature)
            threshold = conformal_threshold(p[:100], true[:100], level)
            rates.append(prediction_sets(p[100:], threshold)[np.arange(300), true[100:]].mean())
        assert level - 0.012 < np.mean(rates) < level + 1 / 101 + 0.012


def test_the_threshold_is_the_corrected_quantile():
    """Golden: 9 clips at level 0.8 take the ceil(10 x 0.8) = 8th score; 10 at 0.9 the 10th of 10."""
    p = np.stack([np.arange(1, 11) / 20, 1 - np.arange(1, 11) / 20], axis=1)
    true = np.zeros(10, int)
    assert conformal_threshold(p[:9], true[:9], 0.8) == pytest.approx(1 - p[1, 0])
    assert conformal_threshold(p, true, 0.9) == pytest.approx(1 - p[0, 0])
    assert conformal_threshold(p, true, 0.95) == 1
    assert prediction_sets(p, 1.0).all()


def test_sets_at_the_threshold_hold_the_clips_it_was_fitted_on():
    for level in (0.1, 0.3, 0.6, 0.7, 0.9):
        p, true, _ = judged(8, n=199)
        sets = prediction_sets(p, conformal_threshold(p, true, level))
        assert sets[np.arange(199), true].sum() == round(200 * level)


def test_a_higher_level_gives_larger_sets():
    p, true, _ = judged(9)
    sets = [prediction_sets(p, conformal_threshold(p, true, level)) for level in (0.5, 0.7, 0.9)]
    assert (sets[0] <= sets[1]).all()
    assert (sets[1] <= sets[2]).all()
    assert sets[0].sum() < sets[1].sum() < sets[2].sum()
