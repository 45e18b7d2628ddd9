"""comparison: against plain loops, two bootstraps done apart, and scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest
from test_metrics import LABELS, guesses

from ser_lib.evaluation.comparison import by_group, difference, group_gap, mcnemar, seed_spread, verdict
from ser_lib.evaluation.metrics import METRICS, bootstrap_scores, score, speaker_counts, speaker_draws

# --- differences -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_a_table_differs_from_itself_by_nothing(metric):
    table = guesses(9, seeds=(0, 1))
    assert difference(table, table.sample(frac=1, random_state=1), LABELS, metric) == (0, 0, 0)


@pytest.mark.parametrize("metric", METRICS)
def test_a_difference_is_of_the_scores_and_turns_its_sign(metric):
    good, poor = guesses(10, skill=0.7), guesses(10, skill=0.2)
    value, low, high = difference(good, poor, LABELS, metric)
    assert value == pytest.approx(score(good, LABELS, metric)[0] - score(poor, LABELS, metric)[0])
    assert 0 < low < value < high
    back = difference(poor, good, LABELS, metric)
    assert back == pytest.approx((-value, -high, -low))


def test_pairing_narrows_the_interval():
    """Hard speakers are hard for both models, so the difference varies less than either score."""
    a = guesses(11, skill=0.5, speakers=12)
    hard = a["speaker"] < "06"
    a.loc[hard, "predicted"] = "calm"
    b = a.copy()
    better = b.groupby("speaker").head(2).index
    b.loc[better, "predicted"] = b.loc[better, "emotion"]
    paired = difference(b, a, LABELS, "accuracy")
    alone = score(a, LABELS, "accuracy")
    assert paired[2] - paired[1] < 0.5 * (alone[2] - alone[1])


def test_models_with_different_numbers_of_seeds_can_be_compared():
    a, b = guesses(12, seeds=(0, 1, 2)), guesses(12, seeds=(7,))
    assert difference(a, b, LABELS)[0] == pytest.approx(score(a, LABELS)[0] - score(b, LABELS)[0])


def test_the_draws_of_an_interval_are_those_of_seed_0_unless_others_are_asked_for():
    a, b = (
        guesses(21, seeds=(0, 1)),
        guesses(22, seeds=(0, 1)).assign(emotion=guesses(21, seeds=(0, 1))["emotion"]),
    )
    assert difference(a, b, LABELS) == difference(a, b, LABELS, seed=0) != difference(a, b, LABELS, seed=1)
    parts = dict(list(a.groupby(a["clip_id"].map(genders(a)))))
    for seed in (0, 5):
        row = by_group(a, genders(a), LABELS, seed=seed).set_index("group").loc["f", ["value", "low", "high"]]
        assert tuple(row) == score(parts["f"], LABELS, seed=seed)
    groups = genders(a)
    assert group_gap(a, groups, "f", "m", LABELS) == group_gap(a, groups, "f", "m", LABELS, seed=0)
    assert group_gap(a, groups, "f", "m", LABELS) != group_gap(a, groups, "f", "m", LABELS, seed=9)


def test_other_clips_cannot_be_paired():
    table = guesses(13)
    with pytest.raises(ValueError, match=r"^a paired difference needs predictions of the same clips$"):
        difference(table, table[table["clip_id"] != "clip3"], LABELS)


@pytest.mark.parametrize(
    ("gap", "sentence"),
    [
        (
            (0.031, 0.01, 0.052),
            "MLP is ahead of SVM (MLP minus SVM: +3.1% UAR, 95 % interval +1.0% to +5.2%).",
        ),
        (
            (-0.031, -0.052, -0.01),
            "SVM is ahead of MLP (MLP minus SVM: -3.1% UAR, 95 % interval -5.2% to -1.0%).",
        ),
        (
            (0.031, -0.002, 0.06),
            "No clear winner between MLP and SVM (MLP minus SVM: +3.1% UAR, 95 % interval -0.2% to +6.0%).",
        ),
        (
            (0.0, 0.0, 0.0),
            "No clear winner between MLP and SVM (MLP minus SVM: +0.0% UAR, 95 % interval +0.0% to +0.0%).",
        ),
    ],
)
def test_verdicts(gap, sentence):
    assert verdict("MLP", "SVM", gap) == sentence


# --- groups ----------------------------------------------------------------------------------------

GENDERS = {"00": "f", "01": "m", "02": "f", "03": "m", "04": "f", "05": "x"}


def genders(table: pd.DataFrame) -> pd.Series:
    """The group of each clip; speaker 05 is a group alone."""
    return table.drop_duplicates("clip_id").set_index("clip_id")["speaker"].map(GENDERS)


@pytest.mark.parametrize("metric", METRICS)
def test_groups_equal_a_plain_loop(metric):
    table = guesses(14, seeds=(0, 1))
    groups = genders(table)
    result = by_group(table, groups, LABELS, metric)
    assert list(result.columns) == ["group", "value", "low", "high", "clips", "speakers"]
    assert result["group"].to_list() == ["f", "m", "x"]
    for row in result.itertuples():
        part = table[[groups[clip] == row.group for clip in table["clip_id"]]]
        if row.group == "x":  # one speaker: its clips are resampled
            assert row.value == pytest.approx(score(part, LABELS, metric)[0])
            part = part.assign(speaker=part["clip_id"])
        assert (row.value, row.low, row.high) == pytest.approx(score(part, LABELS, metric))
        assert row.low < row.value < row.high
        assert (row.clips, row.speakers) == {"f": (60, 3), "m": (40, 2), "x": (20, 1)}[row.group]
    assert not by_group(table, groups, LABELS, metric, seed=1)[["low", "high"]].equals(
        result[["low", "high"]]
    )


def test_clips_of_no_group_are_left_out_and_unknown_clips_refused():
    table = guesses(15)
    groups = genders(table)
    result = by_group(table, groups.where(groups != "x"), LABELS)
    assert result["clips"].sum() == 100
    with pytest.raises(ValueError, match=r"clip0 and 0 more clips are missing from the groups"):
        by_group(table, groups.drop("clip0"), LABELS)


def test_the_gap_between_groups_of_different_speakers():
    """Against two bootstraps done apart."""
    table = guesses(16, speakers=12, seeds=(0, 1))
    groups = table.drop_duplicates("clip_id").set_index("clip_id")["speaker"].map(lambda s: "mf"[s < "07"])
    value, low, high = group_gap(table, groups, "f", "m", LABELS)
    a, b = (table[table["clip_id"].map(groups) == name] for name in "fm")
    assert value == pytest.approx(score(a, LABELS)[0] - score(b, LABELS)[0])
    spread = [
        bootstrap_scores(speaker_counts(part, LABELS), "uar", speaker_draws(n, seed))
        for part, n, seed in ((a, 7, 1), (b, 5, 2))
    ]
    assert (low, high) == pytest.approx(np.quantile(spread[0] - spread[1], (0.025, 0.975)))
    back = group_gap(table, groups, "m", "f", LABELS)
    assert back == pytest.approx((-value, -high, -low), abs=0.012)


def test_the_gap_between_groups_of_the_same_speakers_is_paired():
    """Strong clips are equally much easier for every speaker, so the paired interval is narrower."""
    table = guesses(17, speakers=24, skill=0)
    rank = table.groupby("speaker").cumcount()
    hard = table["speaker"].astype(int) % 8  # of 10 clips an intensity, so many are wrong
    strong = table["clip_id"].map(dict(zip(table["clip_id"], rank % 2 == 1, strict=True)))
    wrong = rank // 2 < hard + np.where(strong, 0, 2)
    other = table["emotion"].map(dict(zip(LABELS, LABELS[1:] + LABELS[:1], strict=True)))
    table["predicted"] = np.where(wrong, other, table["emotion"])
    groups = pd.Series(np.where(strong, "strong", "normal"), index=table["clip_id"])
    value, low, high = group_gap(table, groups, "strong", "normal", LABELS, "accuracy")
    assert (value, low, high) == pytest.approx((0.2, 0.2, 0.2))
    assert np.ptp(by_group(table, groups, LABELS, "accuracy")[["low", "high"]].iloc[0]) > 0.1


def test_a_group_of_one_speaker_has_a_gap_without_bounds():
    table = guesses(18)
    value, low, high = group_gap(table, genders(table), "f", "x", LABELS)
    assert np.isfinite(value)
    assert np.isnan([low, high]).all()
    with pytest.raises(ValueError, match=r"^no clip in group z; there are f, m, x$"):
        group_gap(table, genders(table), "f", "z", LABELS)
    with pytest.raises(ValueError, match=r"^no clip in group y, z; there are f, m, x$"):
        group_gap(table, genders(table), "y", "z", LABELS)
    assert np.isfinite(group_gap(table, genders(table), "f", "m", LABELS)).all()  # m: two speakers


# --- pairs and seeds -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_mcnemar_equals_the_binomial_test(seed):
    a, b = guesses(seed, skill=0.5, seeds=(0, 7)), guesses(seed + 50, skill=0.4, seeds=(0, 7))
    truth = a.drop_duplicates("clip_id").set_index("clip_id")["emotion"]
    b["emotion"] = b["clip_id"].map(truth)
    result = mcnemar(a, b.sample(frac=1, random_state=0)).set_index("seed")
    assert list(result.columns) == ["b", "c", "exact", "mid_p"]
    assert list(result.index) == [0, 7]
    for n, row in result.iterrows():
        right = [
            {r.clip_id: r.predicted == r.emotion for r in t[t["seed"] == n].itertuples()} for t in (a, b)
        ]
        only_a = sum(right[0][clip] and not right[1][clip] for clip in right[0])
        only_b = sum(right[1][clip] and not right[0][clip] for clip in right[0])
        assert (row["b"], row["c"]) == (only_a, only_b)
        exact = binomtest(only_a, only_a + only_b).pvalue
        assert row["exact"] == pytest.approx(exact)
        assert row["mid_p"] == pytest.approx(
            2 * binom.sf(max(only_a, only_b), only_a + only_b, 0.5)
            + binom.pmf(max(only_a, only_b), only_a + only_b, 0.5)
        )
        assert row["mid_p"] <= row["exact"]


def test_mcnemar_of_equals_and_of_other_clips():
    table = guesses(19)
    same = mcnemar(table, table).iloc[0]
    assert (same["b"], same["c"], same["exact"], same["mid_p"]) == (0, 0, 1, 1)
    for other in (table.iloc[1:], table.assign(seed=1)):
        with pytest.raises(
            ValueError, match=r"^a paired test needs predictions of the same clips and seeds$"
        ):
            mcnemar(table, other)


@pytest.mark.parametrize("metric", METRICS)
def test_the_spread_over_seeds(metric):
    table = guesses(20, seeds=(0, 1, 4))
    values = [score(part, LABELS, metric)[0] for _, part in table.groupby("seed")]
    result = seed_spread(table, LABELS, metric)
    assert result["std"] == pytest.approx(np.std(values, ddof=1))
    assert result["range"] == pytest.approx(max(values) - min(values))
    assert result["seeds"] == 3
    assert result.name == metric
    two = seed_spread(table[table["seed"] < 2], LABELS, metric)
    assert two["std"] == pytest.approx(two["range"] / np.sqrt(2))
    alone = seed_spread(table[table["seed"] == 0], LABELS, metric)
    assert np.isnan(alone["std"])
    assert (alone["range"], alone["seeds"]) == (0, 1)
    if metric == "uar":
        pd.testing.assert_series_equal(seed_spread(table, LABELS), result)
