"""metrics: against scikit-learn and against plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest, kruskal
from sklearn import metrics as sk

from ser_lib import metrics
from ser_lib.corpus import EIGHT, FOUR
from ser_lib.metrics import (
    METRICS,
    by_group,
    confusion,
    difference,
    from_counts,
    group_gap,
    mcnemar,
    per_class,
    per_speaker,
    probabilities,
    score,
    seed_spread,
    speaker_counts,
    variance_share,
    verdict,
)

LABELS = list(FOUR)


def guesses(seed: int = 0, *, labels=LABELS, speakers: int = 6, clips_each: int = 20, seeds=(0,), skill=0.4):
    """A predictions table of one model; the true emotions are the same for every model seed."""
    truth = np.random.default_rng([seed, 99])
    rng = np.random.default_rng(seed)
    n = speakers * clips_each
    frame = pd.DataFrame(
        {
            "clip_id": [f"clip{i}" for i in range(n)],
            "speaker": np.repeat([f"{s:02d}" for s in range(speakers)], clips_each),
            "emotion": truth.choice(labels, n, p=truth.dirichlet(np.full(len(labels), 3.0))),
        }
    )
    tables = []
    for model_seed in seeds:
        predicted = np.where(rng.random(n) < skill, frame["emotion"], rng.choice(labels, n))
        tables.append(frame.assign(seed=model_seed, predicted=predicted))
    return pd.concat(tables).sample(frac=1, random_state=seed).reset_index(drop=True)


ORACLES = {
    "uar": lambda true, said, labels: sk.balanced_accuracy_score(true, said),
    "accuracy": lambda true, said, labels: sk.accuracy_score(true, said),
    "macro_f1": lambda true, said, labels: sk.f1_score(
        true, said, labels=sorted(set(true) | set(said)), average="macro", zero_division=0
    ),
    "weighted_f1": lambda true, said, labels: sk.f1_score(
        true, said, labels=labels, average="weighted", zero_division=0
    ),
}


# --- against scikit-learn --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("absent", [None, "true", "said", "both"])
def test_metrics_equal_scikit_learn(metric, seed, absent):
    table = guesses(seed, labels=list(EIGHT))
    if absent in ("true", "both"):
        table = table[table["emotion"] != "sad"]
    if absent in ("said", "both"):
        table.loc[table["predicted"] == "sad", "predicted"] = "calm"
    value = score(table, EIGHT, metric)[0]
    assert value == pytest.approx(
        ORACLES[metric](table["emotion"], table["predicted"], list(EIGHT)), abs=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_uar_is_the_macro_recall_of_the_emotions_that_have_clips(seed):
    table = guesses(seed, labels=list(EIGHT))
    table = table[~table["emotion"].isin(["sad", "angry"])]
    present = [emotion for emotion in EIGHT if emotion not in ("sad", "angry")]
    macro = sk.recall_score(table["emotion"], table["predicted"], labels=present, average="macro")
    assert score(table, EIGHT)[0] == pytest.approx(macro)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_tables_equal_scikit_learn(seeds):
    table = guesses(1, labels=list(EIGHT), seeds=seeds)
    table = table[table["emotion"] != "disgust"]
    true, said = table["emotion"], table["predicted"]
    expected = sk.confusion_matrix(true, said, labels=EIGHT, normalize="true")
    matrix = confusion(table, EIGHT)
    np.testing.assert_allclose(matrix, expected)
    assert (list(matrix.index), list(matrix.columns)) == (list(EIGHT), list(EIGHT))
    assert (matrix.index.name, matrix.columns.name) == ("emotion", "predicted")
    precision, recall, f1, clips = sk.precision_recall_fscore_support(
        true, said, labels=EIGHT, zero_division=0
    )
    found = per_class(table, EIGHT)
    np.testing.assert_allclose(
        found[["precision", "recall", "f1"]], np.stack([precision, recall, f1], axis=1)
    )
    np.testing.assert_array_equal(found["clips"], clips / len(seeds))


def test_an_emotion_of_one_clip_counts_whole():
    """Divided by its clips, of which there is one, and no more."""
    table = pd.DataFrame(
        {
            "speaker": ["a", "a", "b"],
            "seed": 0,
            "emotion": ["calm", "happy", "happy"],
            "predicted": ["calm", "happy", "disgust"],
        }
    )
    np.testing.assert_array_equal(confusion(table, LABELS).loc["calm"], np.eye(4)[LABELS.index("calm")])
    found = per_class(table, LABELS)
    assert found.loc["calm"].to_list() == [1, 1, 1, 1]
    assert found.loc["disgust"].to_list() == [0, 0, 0, 0]
    assert found.index.equals(pd.Index(LABELS))
    assert found.index.name == "emotion"
    assert found["clips"].dtype.kind == "i"


@pytest.mark.parametrize("metric", METRICS)
def test_seeds_are_averaged_not_pooled(metric):
    table = guesses(2, seeds=(3, 5, 8))
    each = [score(part, LABELS, metric)[0] for _, part in table.groupby("seed")]
    assert score(table, LABELS, metric)[0] == pytest.approx(np.mean(each), abs=1e-12)
    assert len(set(each)) == 3


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_each_speaker_alone():
    table = guesses(3, seeds=(0, 1))
    found = per_speaker(table, LABELS)
    for speaker, part in table.groupby("speaker"):
        each = [sk.balanced_accuracy_score(t["emotion"], t["predicted"]) for _, t in part.groupby("seed")]
        assert found[speaker] == pytest.approx(np.mean(each))
    assert list(found.index) == sorted(found.index)
    assert found.name == "uar"


def test_counts_hold_every_clip_once():
    table = guesses(4, seeds=(0, 1))
    counts = speaker_counts(table, LABELS)
    assert counts.shape == (2, 6, 4, 4)
    assert counts.sum() == len(table)
    here = table[(table["seed"] == 1) & (table["speaker"] == "04")]
    np.testing.assert_array_equal(
        counts[1, 4], sk.confusion_matrix(here["emotion"], here["predicted"], labels=LABELS)
    )


def test_the_order_of_rows_does_not_matter_and_that_of_labels_neither():
    table = guesses(5, seeds=(0, 1))
    for metric in METRICS:
        value = score(table, LABELS, metric)
        assert score(table.iloc[::-1], LABELS, metric) == pytest.approx(value)
        assert score(table, LABELS[::-1], metric) == pytest.approx(value)


def test_a_perfect_and_a_hopeless_model():
    table = guesses(6)
    right = table.assign(predicted=table["emotion"])
    wrong = table.assign(
        predicted=table["emotion"].map(dict(zip(LABELS, LABELS[1:] + LABELS[:1], strict=True)))
    )
    for metric in METRICS:
        assert score(right, LABELS, metric) == (1, 1, 1)
        assert score(wrong, LABELS, metric) == (0, 0, 0)


@pytest.mark.parametrize("metric", METRICS)
def test_few_clips_and_matrices_of_any_depth_equal_scikit_learn(metric):
    """One clip an emotion, none of some; single matrices and stacks of them."""
    true, said = ["calm", "happy", "happy"], [["calm", "disgust", "happy"], ["fearful", "happy", "happy"]]
    counts = np.stack([sk.confusion_matrix(true, row, labels=LABELS) for row in said])
    expected = {
        "accuracy": lambda row: sk.accuracy_score(true, row),
        "uar": lambda row: sk.recall_score(
            true, row, labels=["calm", "happy"], average="macro", zero_division=0
        ),
        "macro_f1": lambda row: sk.f1_score(true, row, labels=sorted({*true, *row}), average="macro"),
        "weighted_f1": lambda row: sk.f1_score(true, row, average="weighted"),
    }[metric]
    found = metrics.from_counts(counts, metric)
    np.testing.assert_allclose(found, [expected(row) for row in said])
    np.testing.assert_allclose(metrics.from_counts(counts[:, None], metric), found[:, None])
    np.testing.assert_allclose([metrics.from_counts(one, metric) for one in counts], found)
    one = np.zeros((4, 4), int)
    one[0, 0] = 1
    assert metrics.from_counts(one, metric) == 1


def test_labels_that_were_not_asked_for_are_refused():
    table = guesses(3)
    table.loc[0, "predicted"], table.loc[1, "emotion"] = "tired", "bored"
    with pytest.raises(ValueError, match=r"^bored, tired: not among the labels " + ", ".join(LABELS) + "$"):
        score(table, LABELS)


def test_an_unknown_metric_is_refused():
    with pytest.raises(
        ValueError, match=r"metric 'war' is unknown; choose one of uar, accuracy, macro_f1, weigh"
    ):
        score(guesses(), LABELS, "war")
    with pytest.raises(ValueError, match=r"metric 'auc' is unknown"):
        from_counts(np.eye(4), "auc")


# --- intervals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_equals_a_bootstrap_done_the_slow_way(metric, monkeypatch):
    """Tables of whole speakers are put together draw by draw and scored by scikit-learn."""
    monkeypatch.setattr(metrics, "N_DRAWS", 60)
    table = guesses(7, seeds=(0, 1), speakers=4, clips_each=40)
    by_speaker = [part for _, part in table.groupby("speaker")]
    values = []
    for draw in metrics._draws(4, seed=11):
        drawn = pd.concat(
            [part for part, times in zip(by_speaker, draw, strict=True) for _ in range(int(times))]
        )
        each = [ORACLES[metric](t["emotion"], t["predicted"], LABELS) for _, t in drawn.groupby("seed")]
        values.append(np.mean(each))
    _, low, high = score(table, LABELS, metric, seed=11)
    np.testing.assert_allclose((low, high), np.quantile(values, (0.025, 0.975)), atol=1e-12)


def test_draws_are_of_speakers_with_replacement():
    draws = metrics._draws(24, seed=0)
    assert draws.shape == (2_000, 24)
    assert set(draws.sum(axis=1)) == {24}
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose((draws == 0).mean(), (1 - 1 / 24) ** 24, atol=0.01)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_the_interval_holds_the_value_and_narrows_with_more_speakers(metric, seed):
    widths = []
    for speakers in (6, 24, 96):
        value, low, high = score(guesses(seed, speakers=speakers), LABELS, metric)
        assert low < value < high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Speakers differ in how well they are heard; the long-run accuracy is 0.6 by construction."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(120):
        skill = np.clip(rng.normal(0.6, 0.1, 24), 0, 1)
        right = rng.random((24, 40)) < skill[:, None]
        table = pd.DataFrame({"speaker": np.repeat(np.arange(24), 40), "seed": 0, "emotion": "a"})
        table["predicted"] = np.where(right.ravel(), "a", "b")
        _, low, high = score(table, ["a", "b"], "accuracy")
        inside += low <= 0.6 <= high
    assert 0.88 < inside / 120 < 0.99


def test_the_seed_decides_the_draws_alone():
    table = guesses(8)
    assert score(table, LABELS, seed=1) == score(table, LABELS, seed=1)
    assert score(table, LABELS, seed=1)[0] == score(table, LABELS, seed=2)[0]
    assert score(table, LABELS, seed=1)[1:] != score(table, LABELS, seed=2)[1:]


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


def test_pairing_is_surer_than_two_intervals():
    """Hard speakers are hard for both models, so their difference varies less than either score."""
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
    assert score(a, LABELS) == score(a, LABELS, seed=0) != score(a, LABELS, seed=1)
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


def test_probabilities_follow_the_labels_asked_for():
    table = pd.DataFrame({"p_sad": [0.125], "p_calm": [0.25], "seed": [0], "p_happy": [0.625]})
    for kind in (np.float32, np.float64):  # a table keeps single precision; sums over clips need double
        found = probabilities(table.astype(kind), ["happy", "sad", "calm"])
        np.testing.assert_array_equal(found, [[0.625, 0.125, 0.25]])
        assert found.dtype == np.float64


# --- groups ----------------------------------------------------------------------------------------

GENDERS = {"00": "f", "01": "m", "02": "f", "03": "m", "04": "f", "05": "x"}


def genders(table: pd.DataFrame) -> pd.Series:
    """The group of each clip; speaker 05 is a group alone."""
    return table.drop_duplicates("clip_id").set_index("clip_id")["speaker"].map(GENDERS)


@pytest.mark.parametrize("metric", METRICS)
def test_groups_equal_a_plain_loop(metric):
    table = guesses(14, seeds=(0, 1))
    groups = genders(table)
    found = by_group(table, groups, LABELS, metric)
    assert list(found.columns) == ["group", "value", "low", "high", "clips", "speakers"]
    assert found["group"].to_list() == ["f", "m", "x"]
    for row in found.itertuples():
        part = table[[groups[clip] == row.group for clip in table["clip_id"]]]
        if row.group == "x":  # one speaker: its clips are resampled
            assert row.value == pytest.approx(score(part, LABELS, metric)[0])
            part = part.assign(speaker=part["clip_id"])
        assert (row.value, row.low, row.high) == pytest.approx(score(part, LABELS, metric))
        assert row.low < row.value < row.high
        assert (row.clips, row.speakers) == {"f": (60, 3), "m": (40, 2), "x": (20, 1)}[row.group]
    assert not by_group(table, groups, LABELS, metric, seed=1)[["low", "high"]].equals(found[["low", "high"]])


def test_clips_of_no_group_are_left_out_and_unknown_clips_refused():
    table = guesses(15)
    groups = genders(table)
    found = by_group(table, groups.where(groups != "x"), LABELS)
    assert found["clips"].sum() == 100
    with pytest.raises(ValueError, match=r"clip0 and 0 more clips are in no group"):
        by_group(table, groups.drop("clip0"), LABELS)


def test_the_gap_between_groups_of_different_speakers():
    """Against two bootstraps done apart."""
    table = guesses(16, speakers=12, seeds=(0, 1))
    groups = table.drop_duplicates("clip_id").set_index("clip_id")["speaker"].map(lambda s: "mf"[s < "07"])
    value, low, high = group_gap(table, groups, "f", "m", LABELS)
    a, b = (table[table["clip_id"].map(groups) == name] for name in "fm")
    assert value == pytest.approx(score(a, LABELS)[0] - score(b, LABELS)[0])
    spread = [
        metrics._resampled(speaker_counts(part, LABELS), "uar", metrics._draws(n, seed))
        for part, n, seed in ((a, 7, 1), (b, 5, 2))
    ]
    assert (low, high) == pytest.approx(np.quantile(spread[0] - spread[1], (0.025, 0.975)))
    back = group_gap(table, groups, "m", "f", LABELS)
    assert back == pytest.approx((-value, -high, -low), abs=0.012)


def test_the_gap_between_groups_of_the_same_speakers_is_paired():
    """Every speaker's strong clips are heard alike better: the paired gap is surer than apart."""
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
    found = mcnemar(a, b.sample(frac=1, random_state=0)).set_index("seed")
    assert list(found.columns) == ["b", "c", "exact", "mid_p"]
    assert list(found.index) == [0, 7]
    for n, row in found.iterrows():
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
    found = seed_spread(table, LABELS, metric)
    assert found["std"] == pytest.approx(np.std(values, ddof=1))
    assert found["range"] == pytest.approx(max(values) - min(values))
    assert found["seeds"] == 3
    assert found.name == metric
    two = seed_spread(table[table["seed"] < 2], LABELS, metric)
    assert two["std"] == pytest.approx(two["range"] / np.sqrt(2))
    alone = seed_spread(table[table["seed"] == 0], LABELS, metric)
    assert np.isnan(alone["std"])
    assert (alone["range"], alone["seeds"]) == (0, 1)
    if metric == "uar":
        pd.testing.assert_series_equal(seed_spread(table, LABELS), found)


def test_the_share_of_variance_is_that_of_the_kruskal_wallis_test():
    rng = np.random.default_rng(0)
    groups = pd.Series(rng.choice(list("abc"), 60), index=range(100, 160))
    values = pd.DataFrame(
        {
            "clear": groups.map({"a": 0.0, "b": 5.0, "c": 9.0}).to_numpy(),
            "noise": rng.normal(size=60),
            "still": 1.0,
        }
    )
    values["half"] = values["clear"] + rng.normal(scale=4, size=60)
    found = variance_share(values, groups)
    assert found["clear"] == pytest.approx(1)
    assert np.isnan(found["still"])
    for name in ("clear", "noise", "half"):
        samples = [values[name][(groups == group).to_numpy()] for group in "abc"]
        assert found[name] == pytest.approx(kruskal(*samples).statistic / (len(values) - 1))
    assert found["noise"] < found["half"] < found["clear"]
