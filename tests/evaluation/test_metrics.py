"""metrics: against scikit-learn and against plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kruskal
from sklearn import metrics as sk

from ser_lib.corpora import EIGHT, FOUR
from ser_lib.evaluation import metrics
from ser_lib.evaluation.metrics import (
    METRICS,
    confusion,
    from_counts,
    per_class,
    per_speaker,
    probabilities,
    score,
    speaker_counts,
    variance_share,
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
    "uar": lambda true, predicted, labels: sk.balanced_accuracy_score(true, predicted),
    "accuracy": lambda true, predicted, labels: sk.accuracy_score(true, predicted),
    "macro_f1": lambda true, predicted, labels: sk.f1_score(
        true, predicted, labels=sorted(set(true) | set(predicted)), average="macro", zero_division=0
    ),
    "weighted_f1": lambda true, predicted, labels: sk.f1_score(
        true, predicted, labels=labels, average="weighted", zero_division=0
    ),
}


# --- against scikit-learn --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("absent", [None, "true", "predicted", "both"])
def test_metrics_equal_scikit_learn(metric, seed, absent):
    table = guesses(seed, labels=list(EIGHT))
    if absent in ("true", "both"):
        table = table[table["emotion"] != "sad"]
    if absent in ("predicted", "both"):
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
    true, predicted = table["emotion"], table["predicted"]
    expected = sk.confusion_matrix(true, predicted, labels=EIGHT, normalize="true")
    matrix = confusion(table, EIGHT)
    np.testing.assert_allclose(matrix, expected)
    assert (list(matrix.index), list(matrix.columns)) == (list(EIGHT), list(EIGHT))
    assert (matrix.index.name, matrix.columns.name) == ("emotion", "predicted")
    precision, recall, f1, clips = sk.precision_recall_fscore_support(
        true, predicted, labels=EIGHT, zero_division=0
    )
    result = per_class(table, EIGHT)
    np.testing.assert_allclose(
        result[["precision", "recall", "f1"]], np.stack([precision, recall, f1], axis=1)
    )
    np.testing.assert_array_equal(result["clips"], clips / len(seeds))


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
    result = per_class(table, LABELS)
    assert result.loc["calm"].to_list() == [1, 1, 1, 1]
    assert result.loc["disgust"].to_list() == [0, 0, 0, 0]
    assert result.index.equals(pd.Index(LABELS))
    assert result.index.name == "emotion"
    assert result["clips"].dtype.kind == "i"


@pytest.mark.parametrize("metric", METRICS)
def test_seeds_are_averaged_not_pooled(metric):
    table = guesses(2, seeds=(3, 5, 8))
    each = [score(part, LABELS, metric)[0] for _, part in table.groupby("seed")]
    assert score(table, LABELS, metric)[0] == pytest.approx(np.mean(each), abs=1e-12)
    assert len(set(each)) == 3


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_each_speaker_alone():
    table = guesses(3, seeds=(0, 1))
    result = per_speaker(table, LABELS)
    for speaker, part in table.groupby("speaker"):
        each = [sk.balanced_accuracy_score(t["emotion"], t["predicted"]) for _, t in part.groupby("seed")]
        assert result[speaker] == pytest.approx(np.mean(each))
    assert list(result.index) == sorted(result.index)
    assert result.name == "uar"


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
    true = ["calm", "happy", "happy"]
    predicted = [["calm", "disgust", "happy"], ["fearful", "happy", "happy"]]
    counts = np.stack([sk.confusion_matrix(true, row, labels=LABELS) for row in predicted])
    expected = {
        "accuracy": lambda row: sk.accuracy_score(true, row),
        "uar": lambda row: sk.recall_score(
            true, row, labels=["calm", "happy"], average="macro", zero_division=0
        ),
        "macro_f1": lambda row: sk.f1_score(true, row, labels=sorted({*true, *row}), average="macro"),
        "weighted_f1": lambda row: sk.f1_score(true, row, average="weighted"),
    }[metric]
    result = metrics.from_counts(counts, metric)
    np.testing.assert_allclose(result, [expected(row) for row in predicted])
    np.testing.assert_allclose(metrics.from_counts(counts[:, None], metric), result[:, None])
    np.testing.assert_allclose([metrics.from_counts(one, metric) for one in counts], result)
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
    for draw in metrics.speaker_draws(4, seed=11):
        drawn = pd.concat(
            [part for part, times in zip(by_speaker, draw, strict=True) for _ in range(int(times))]
        )
        each = [ORACLES[metric](t["emotion"], t["predicted"], LABELS) for _, t in drawn.groupby("seed")]
        values.append(np.mean(each))
    _, low, high = score(table, LABELS, metric, seed=11)
    np.testing.assert_allclose((low, high), np.quantile(values, (0.025, 0.975)), atol=1e-12)


def test_draws_are_of_speakers_with_replacement():
    draws = metrics.speaker_draws(24, seed=0)
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
    """Speakers differ in accuracy; the long-run accuracy is 0.6 by construction."""
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
    assert score(table, LABELS) == score(table, LABELS, seed=0)
    assert score(table, LABELS, seed=1) == score(table, LABELS, seed=1)
    assert score(table, LABELS, seed=1)[0] == score(table, LABELS, seed=2)[0]
    assert score(table, LABELS, seed=1)[1:] != score(table, LABELS, seed=2)[1:]


# --- probabilities and variance -------------------------------------------------------------------


def test_probabilities_follow_the_labels_asked_for():
    table = pd.DataFrame({"p_sad": [0.125], "p_calm": [0.25], "seed": [0], "p_happy": [0.625]})
    for kind in (np.float32, np.float64):  # a table keeps single precision; sums over clips need double
        result = probabilities(table.astype(kind), ["happy", "sad", "calm"])
        np.testing.assert_array_equal(result, [[0.625, 0.125, 0.25]])
        assert result.dtype == np.float64


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
    result = variance_share(values, groups)
    assert result["clear"] == pytest.approx(1)
    assert np.isnan(result["still"])
    for name in ("clear", "noise", "half"):
        samples = [values[name][(groups == group).to_numpy()] for group in "abc"]
        assert result[name] == pytest.approx(kruskal(*samples).statistic / (len(values) - 1))
    assert result["noise"] < result["half"] < result["clear"]
