"""cross_validation: every clip is predicted once, by a model trained without its speaker and its label."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_lib import models
from ser_lib.corpora import EIGHT, FOUR, identity
from ser_lib.errors import ContaminationError, CorpusError, SerError
from ser_lib.evaluation import calibration, cross_validation, guard, metrics, splits, studies
from ser_lib.features import tables
from ser_lib.serving import training

pytestmark = pytest.mark.filterwarnings("ignore:Got .batch_size.")  # few clips

SPEAKERS = [f"{actor:02d}" for actor in (1, 2, 3, 4, 5, 6, 10, 17)]  # of all five published folds


def synthetic(*, speakers=SPEAKERS, corpus="ravdess", repetitions=4, seed=0) -> pd.DataFrame:
    """A feature table whose MFCC tell the emotion, whose mel bands tell nothing, and whose row is known."""
    rng = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product([speakers, FOUR, range(repetitions)], names=["speaker", "emotion", "n"])
    table = grid.to_frame(index=False).assign(corpus=corpus)
    table["clip_id"] = table["speaker"] + "-" + table["emotion"] + "-" + table.pop("n").astype(str)
    code = table["emotion"].map(FOUR.index).to_numpy()
    for i in range(4):
        table[f"mfcc_{i + 1:02d}_mean"] = (code == i) * 3 + rng.normal(0, 1, len(table))
    for i in range(4):
        table[f"mel_{i + 1:02d}_mean"] = rng.normal(0, 1, len(table))
    table["level_mean"] = np.arange(len(table), dtype=float)  # the row
    features = tables.feature_columns(table)
    return table.astype(dict.fromkeys(features, np.float32))


@pytest.fixture
def table() -> pd.DataFrame:
    return synthetic()


# --- averages --------------------------------------------------------------------------------------


def predictions_of(model: str, seed: int, p_calm: list[float]) -> pd.DataFrame:
    ids = [f"c{i}" for i in range(len(p_calm))]
    about = {"clip_id": ids, "speaker": "01", "protocol": "actors5", "fold": 0, "model": model, "seed": seed}
    p = np.array(p_calm, np.float32)
    guess = np.where(p > 0.5, "calm", "sad")
    return pd.DataFrame(about | {"emotion": "calm", "predicted": guess, "p_calm": p, "p_sad": 1 - p})


def test_an_average_is_the_mean_of_log_probabilities_each_part_the_same():
    three_seeds = pd.concat([predictions_of("net", seed, [0.9, 0.2]) for seed in range(3)])
    one = predictions_of("log", 0, [0.3, 0.4])
    predictions = calibration.averaged([three_seeds, one.iloc[::-1]], "both")
    odds = np.sqrt([0.9 / 0.1 * 0.3 / 0.7, 0.2 / 0.8 * 0.4 / 0.6])
    np.testing.assert_allclose(predictions["p_calm"], odds / (1 + odds), rtol=1e-5)
    assert list(predictions["predicted"]) == ["calm", "sad"]
    assert list(predictions["model"].unique()) == ["both"]
    assert list(predictions.columns) == list(one.columns)
    assert list(predictions["clip_id"]) == ["c0", "c1"]


@pytest.mark.parametrize("what", ["clips", "folds", "emotions"])
def test_predictions_that_do_not_match_are_not_averaged(what):
    one, other = predictions_of("a", 0, [0.9, 0.2]), predictions_of("b", 0, [0.3, 0.4])
    if what == "clips":
        other = other.iloc[:1]
    elif what == "folds":
        other["fold"] = 1
    else:
        other = other.rename(columns={"p_sad": "p_angry"})
    with pytest.raises(SerError, match="cannot be averaged"):
        calibration.averaged([one, other], "both")


class Recorder(ClassifierMixin, BaseEstimator):
    """Records the rows that it is fitted on and predicts; `right` decides how good it is."""

    seen: list[dict]

    def __init__(self, name="", seed=0, right=0.5):
        self.name, self.seed, self.right = name, seed, right

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.trained_ = X[:, -1].astype(int)
        Recorder.seen.append({"right": self.right, "train": self.trained_, "asked": []})
        self.note_ = Recorder.seen[-1]
        return self

    def predict_proba(self, X):
        """The likeliest emotion by the planted columns, or by their opposite where `right` is low."""
        self.note_["asked"].append(X[:, -1].astype(int))
        sign = 1 if self.right > 0.5 else -1
        planted = X[:, [FOUR.index(label) for label in self.classes_]]
        odds = np.exp(sign * planted)
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


@pytest.fixture
def seen(monkeypatch) -> list[dict]:
    """Replaces every model by a `Recorder`; one entry a fit."""

    def make(name, *, seed=0, **parameters):
        return make_pipeline(Recorder(name, seed)).set_params(**parameters)

    monkeypatch.setattr(models, "make", make)
    Recorder.seen = []
    return Recorder.seen


def speakers_of(table: pd.DataFrame, rows: np.ndarray) -> set[str]:
    return set(table["speaker"].iloc[rows])


# --- small things ----------------------------------------------------------------------------------


def test_select_keeps_the_clips_of_the_emotions(table):
    selected = tables.select(table, ["happy", "disgust"])
    assert set(selected["emotion"]) == {"happy", "disgust"}
    assert len(selected) == len(table) / 2
    assert selected.index.tolist() == list(range(len(selected)))


def test_select_refuses_an_emotion_without_clips(table):
    with pytest.raises(CorpusError, match="no clip of emotion sad, bored; the table has calm, disgust"):
        tables.select(table, ["calm", "sad", "bored"])


@pytest.mark.parametrize(("spec", "seeds"), [("0,1,2", [0, 1, 2]), ("3", [3]), (4, [4]), ("0, 7", [0, 7])])
def test_seed_list(spec, seeds):
    assert cross_validation.seed_list(spec) == seeds


@pytest.mark.parametrize("spec", ["a", "0,", "1.5", ""])
def test_seed_list_refuses_what_is_no_whole_number(spec):
    with pytest.raises(SerError, match="give whole numbers, as in seeds=0,1,2"):
        cross_validation.seed_list(spec)


def test_model_list():
    assert cross_validation.model_list("mlp, xgboost,") == ["mlp", "xgboost"]
    with pytest.raises(SerError, match="'none' is unknown"):
        cross_validation.model_list("mlp,none")


def test_feature_columns_are_no_clip_columns(table):
    assert tables.feature_columns(table) == [*(c for c in table if c.endswith("_mean"))]
    assert len(tables.feature_columns(table)) == 9


# --- out of fold -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["actors5", "loso"])
def test_every_clip_is_predicted_once_by_model_and_seed(table, protocol):
    predictions = cross_validation.out_of_fold(
        table, ["logistic", "majority"], protocol=protocol, seeds=[0, 3], n_jobs=1
    )
    assert len(predictions) == 4 * len(table)
    for _, part in predictions.groupby(["model", "seed"]):
        assert sorted(part["clip_id"]) == sorted(table["clip_id"])
    assert set(predictions["protocol"]) == {protocol}
    assert set(predictions["seed"]) == {0, 3}
    folds = splits.assign_folds(table, protocol)
    expected = table.assign(fold=folds).set_index("clip_id")
    for name in ("fold", "speaker", "emotion"):
        assert (predictions[name] == expected.loc[predictions["clip_id"], name].to_numpy()).all(), name


def test_a_random_quarter_is_tested_and_another_with_another_seed(table):
    predictions = cross_validation.out_of_fold(table, ["majority"], protocol="random", seeds=[0, 1], n_jobs=1)
    tested = [set(part["clip_id"]) for _, part in predictions.groupby("seed")]
    assert [len(clips) for clips in tested] == [len(table) / 4] * 2
    assert tested[0] != tested[1]


def test_the_columns(table):
    predictions = cross_validation.out_of_fold(table, ["logistic"], n_jobs=1)
    about = ["clip_id", "speaker", "protocol", "fold", "model", "seed", "emotion", "predicted"]
    assert list(predictions.columns) == about + [f"p_{label}" for label in sorted(FOUR)]


@pytest.mark.parametrize("name", models.MODELS)
def test_probabilities_and_the_emotion_predicted(table, name):
    predictions = cross_validation.out_of_fold(table, [name], n_jobs=1)
    p = predictions[[f"p_{label}" for label in FOUR]]
    assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert (p.to_numpy() >= 0).all()
    by_name = p.idxmax(axis=1).str.removeprefix("p_")
    assert (p.max(axis=1) == [row[f"p_{row['predicted']}"] for _, row in predictions.iterrows()]).all()
    if name != "majority":  # whose emotions are equally probable
        assert (by_name == predictions["predicted"]).all()
        assert (predictions["predicted"] == predictions["emotion"]).mean() > 0.6


@pytest.mark.parametrize("protocol", ["actors5", "loso"])
def test_no_speaker_is_in_training_and_test(table, seen, protocol):
    cross_validation.out_of_fold(table, ["mlp", "xgboost"], protocol=protocol, seeds=[0, 1], n_jobs=1)
    assert len(seen) == 4 * splits.assign_folds(table, protocol).nunique()
    for note in seen:
        (asked,) = note["asked"]
        assert speakers_of(table, note["train"]).isdisjoint(speakers_of(table, asked))
        assert sorted([*note["train"], *asked]) == list(range(len(table)))


def test_the_order_of_the_clips_does_not_matter(table):
    predictions = cross_validation.out_of_fold(table, ["logistic"], n_jobs=1)
    shuffled = table.sample(frac=1, random_state=0).reset_index(drop=True)
    other = cross_validation.out_of_fold(shuffled, ["logistic"], n_jobs=1)
    p = [f"p_{label}" for label in FOUR]
    a, b = (frame.set_index("clip_id").loc[table["clip_id"], p] for frame in (predictions, other))
    assert_frame_equal(a, b, rtol=0, atol=0.01)  # the solver stops early


def test_worker_processes_change_nothing(table):
    alone = cross_validation.out_of_fold(table, ["logistic", "majority"], n_jobs=1)
    assert_frame_equal(
        alone, cross_validation.out_of_fold(table, ["logistic", "majority"], n_jobs=2), atol=1e-4
    )


def test_published_folds_without_a_speaker_are_left_out():
    """Actors 1 to 4 are of three of the five folds."""
    table = synthetic(speakers=SPEAKERS[:4])
    assert len(cross_validation.out_of_fold(table, ["logistic"], n_jobs=1)) == len(table)
    assert cross_validation.search(table, ["logistic"], n_jobs=1)["fold"].to_list() == [0, 1, 4]
    assert len(studies.learning_curve(table, ["majority"], FOUR, n_jobs=1)) == 4
    assert studies.importance(table, ["majority"], FOUR, n_jobs=1).notna().all(axis=None)


def test_an_emotion_missing_from_training_has_probability_zero(table):
    """Only speaker 05 is ever calm."""
    table = table[(table["emotion"] != "calm") | (table["speaker"] == "05")].reset_index(drop=True)
    predictions = cross_validation.out_of_fold(table, ["logistic"], protocol="loso", n_jobs=1)
    p = predictions[[f"p_{label}" for label in sorted(FOUR)]]
    assert not p.isna().any(axis=None)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    unseen = predictions["speaker"] == "05"
    assert (predictions.loc[unseen, "p_calm"] == 0).all()
    assert "calm" not in set(predictions.loc[unseen, "predicted"])
    assert (predictions.loc[~unseen, "p_calm"] > 0).all()


@pytest.mark.parametrize("name", ["logistic", "xgboost"])
def test_the_labels_of_the_tested_speakers_are_never_used(table, name):
    """Shuffled for one fold's speakers, they change the other folds' predictions alone."""
    folds = splits.assign_folds(table)
    tested = folds == 2
    false = table.copy()
    false.loc[tested, "emotion"] = table.loc[tested, "emotion"].to_numpy()[::-1]
    true, predictions = (cross_validation.out_of_fold(part, [name], n_jobs=1) for part in (table, false))
    columns = ["predicted", *(f"p_{label}" for label in FOUR)]
    here = true["fold"] == 2
    assert_frame_equal(true.loc[here, columns], predictions.loc[here, columns])
    assert not np.allclose(true.loc[~here, columns[1:]], predictions.loc[~here, columns[1:]])


def test_the_features_of_the_other_tested_clips_are_never_used(table):
    """A scaler fitted on training and test rows would fail here."""
    tested = table.index[splits.assign_folds(table) == 2]
    spoilt = table.copy()
    spoilt.loc[tested[1:], tables.feature_columns(table)] += 1000
    clip = table["clip_id"][tested[0]]
    rows = [
        cross_validation.out_of_fold(part, ["logistic"], n_jobs=1).set_index("clip_id").loc[clip]
        for part in (table, spoilt)
    ]
    assert_allclose(*[row[[f"p_{label}" for label in FOUR]].to_numpy(float) for row in rows], atol=1e-6)


def test_shuffled_labels_are_at_chance(table):
    """Cross-validation of a table with nothing to learn."""
    labels = np.random.default_rng(0).permutation(table["emotion"])
    predictions = cross_validation.out_of_fold(table.assign(emotion=labels), ["logistic"], n_jobs=1)
    assert metrics.score(predictions, FOUR)[0] < 0.4  # chance: 0.25


def test_fit_all_trains_on_every_clip(table, seen):
    cross_validation.fit_all(table, "mlp")
    (note,) = seen
    assert sorted(note["train"]) == list(range(len(table)))


# --- search ----------------------------------------------------------------------------------------


@pytest.fixture
def grid(monkeypatch) -> None:
    monkeypatch.setattr(models, "SEARCH", {"mlp": {"recorder__right": [0.1, 0.9]}})


@pytest.mark.parametrize("protocol", ["actors5", "loso"])
def test_search_uses_training_speakers_alone(table, seen, grid, protocol):
    chosen = cross_validation.search(table, ["mlp", "majority"], protocol=protocol, n_jobs=1)
    folds = splits.assign_folds(table, protocol).to_numpy()
    assert list(chosen.columns) == ["model", "fold", "parameters", "inner_uar"]
    assert chosen["fold"].to_list() == list(range(folds.max() + 1))
    assert set(chosen["model"]) == {"mlp"}  # the other has no grid
    fits = len(seen) // len(chosen)
    assert fits == 2 * 4  # points of the grid times inner folds
    for i, note in enumerate(seen):
        tested = speakers_of(table, np.flatnonzero(folds == i // fits))
        trained, asked = speakers_of(table, note["train"]), speakers_of(table, np.concatenate(note["asked"]))
        assert tested.isdisjoint(trained | asked)
        assert trained.isdisjoint(asked)


def test_search_finds_the_better_parameters(table, seen, grid):
    chosen = cross_validation.search(table, ["mlp"], n_jobs=1)
    assert [json.loads(row) for row in chosen["parameters"]] == [{"recorder__right": 0.9}] * len(chosen)
    assert (chosen["inner_uar"] > 0.6).all()
    assert (chosen["inner_uar"] <= 1).all()


def test_out_of_fold_uses_what_was_chosen_for_each_fold(table, seen):
    """Fold 1 alone gets the parameters that are right."""
    chosen = pd.DataFrame(
        {"model": "mlp", "fold": range(5), "parameters": ['{"recorder__right": 0.1}'] * 5, "inner_uar": 0.5}
    )
    chosen.loc[1, "parameters"] = '{"recorder__right": 0.9}'
    predictions = cross_validation.out_of_fold(table, ["mlp", "xgboost"], chosen=chosen, n_jobs=1)
    assert [note["right"] for note in seen] == [0.1, 0.9, 0.1, 0.1, 0.1] + [0.5] * 5
    right = (
        (predictions["predicted"] == predictions["emotion"])
        .groupby([predictions["model"], predictions["fold"]])
        .mean()
    )
    assert right["mlp"].idxmax() == 1


def test_the_real_grid_is_searched(table):
    """One model end to end; what it finds is accepted."""
    chosen = cross_validation.search(table, ["logistic"], n_jobs=1)
    assert len(chosen) == 5
    for parameters in chosen["parameters"]:
        models.make("logistic", **json.loads(parameters))
    assert len(cross_validation.out_of_fold(table, ["logistic"], chosen=chosen, n_jobs=1)) == len(table)


def test_search_runs_in_several_processes(table):
    assert len(cross_validation.search(table, ["logistic"], n_jobs=2)) == 5


def test_search_without_a_grid_is_an_empty_table(table):
    chosen = cross_validation.search(table, ["majority"], n_jobs=1)
    assert list(chosen.columns) == ["model", "fold", "parameters", "inner_uar"]
    assert chosen.empty


# --- one change at a time ----------------------------------------------------------------------------


def test_parameters_are_the_same_in_every_fold(table, seen):
    folds = cross_validation.out_of_fold(table, ["mlp"], parameters={"recorder__right": 0.9}, n_jobs=1)
    inner = cross_validation.inner_predictions(
        table, "mlp", inner=2, parameters={"recorder__right": 0.9}, n_jobs=1
    )
    assert [note["right"] for note in seen] == [0.9] * (5 + 10)
    for part in (folds, inner):
        assert (part["predicted"] == part["emotion"]).mean() > 0.6


def test_what_search_chose_comes_before_the_common_parameters(table, seen):
    chosen = pd.DataFrame({"model": "mlp", "fold": [1], "parameters": '{"recorder__right": 0.9}'})
    about = {"parameters": {"recorder__right": 0.1}, "chosen": chosen}
    cross_validation.out_of_fold(table, ["mlp"], **about, n_jobs=1)
    assert [note["right"] for note in seen] == [0.1, 0.9, 0.1, 0.1, 0.1]


def test_the_gain_inside_the_folds_is_the_mean_over_outer_folds(table):
    """Each outer fold is scored alone; a clip is in the inner predictions of several."""
    plain, better = (
        cross_validation.inner_predictions(
            table, "logistic", inner=3, parameters={"logisticregression__C": c}, n_jobs=1
        )
        for c in (1e-5, 0.01)
    )
    uar = [studies.inner_uar(part, FOUR) for part in (better, plain)]
    assert list(uar[0].index) == list(range(5))
    for fold in range(5):
        assert uar[0][fold] == metrics.score(better[better["outer"] == fold], FOUR)[0]
    value, low, high = studies.inner_gain(better, plain, FOUR)
    assert value == pytest.approx((uar[0] - uar[1]).mean())
    assert low <= value <= high
    assert studies.inner_gain(plain, plain, FOUR) == (0, 0, 0)
    shuffled = better.sample(frac=1, random_state=0)
    assert studies.inner_gain(shuffled, plain, FOUR) == (value, low, high)


# --- learning curve --------------------------------------------------------------------------------


def test_learning_curve_rows(table):
    curve = studies.learning_curve(table, ["logistic", "majority"], FOUR, shares=(0.3, 0.6, 1.0), n_jobs=1)
    assert list(curve.columns) == ["model", "speakers", "value", "low", "high"]
    assert curve.groupby("model").size().to_dict() == {"logistic": 3, "majority": 3}
    for _, part in curve.groupby("model"):
        assert part["speakers"].is_monotonic_increasing
        assert part["speakers"].iloc[0] >= 2
        assert part["speakers"].iloc[0] < part["speakers"].iloc[-1]
    assert (curve["low"] <= curve["value"]).all()
    assert (curve["value"] <= curve["high"]).all()


def test_the_end_of_the_curve_is_the_whole_training_set(table):
    curve = studies.learning_curve(table, ["logistic"], FOUR, shares=(0.5, 1.0), n_jobs=1)
    whole = metrics.score(cross_validation.out_of_fold(table, ["logistic"], n_jobs=1), FOUR)
    assert_allclose(curve[["value", "low", "high"]].iloc[-1], whole, atol=1e-9)


def test_the_end_of_the_curve_is_not_fitted_again(table, seen):
    whole = cross_validation.out_of_fold(table, ["mlp", "logistic"], seeds=[3, 4], n_jobs=1)
    about = {"shares": (0.5, 1.0), "seed": 4, "n_jobs": 1}
    seen.clear()
    curve = studies.learning_curve(table, ["mlp"], FOUR, whole=whole, **about)
    assert len(seen) == 5
    assert_frame_equal(curve, studies.learning_curve(table, ["mlp"], FOUR, **about))


def test_equal_jobs_are_fitted_once(table, seen):
    predictions = cross_validation.out_of_fold(table, ["mlp", "logistic"], seeds=[3, 4], n_jobs=1)
    assert len(seen) == 2 * 5 + 5  # logistic regression is the same with any seed
    assert set(predictions.groupby(["model", "seed"]).size()) == {len(table)}
    alike = (
        predictions[predictions["model"] == "logistic"].set_index(["clip_id", "seed"])["p_happy"].unstack()
    )
    assert_array_equal(alike[3], alike[4])


def test_jobs_with_other_parts_are_not_the_same(table):
    """Notebook 08 replaces steps of the pipeline."""
    train, test = splits.folds(table)[0]
    parts = [{"standardscaler": StandardScaler(with_mean=mean)} for mean in (True, False, True)]
    jobs = [cross_validation.Job("logistic", 0, train, test, 0, part) for part in parts]
    first, other, again = cross_validation.predict_each(table, jobs, "mine", n_jobs=1)
    assert_frame_equal(first, again)
    assert not first["p_happy"].equals(other["p_happy"])


def test_only_the_folds_that_are_wanted_are_fitted(table, seen):
    predictions = cross_validation.out_of_fold(table, ["mlp", "logistic"], only={"mlp": [1, 3]}, n_jobs=1)
    assert len(seen) == 2 + 5
    assert set(predictions.loc[predictions["model"] == "mlp", "fold"]) == {1, 3}
    seen.clear()
    inner = cross_validation.inner_predictions(table, "mlp", inner=2, only=[4], n_jobs=1)
    assert len(seen) == 2
    assert set(inner["outer"]) == {4}


def test_the_curve_trains_on_training_speakers_alone(table, seen):
    studies.learning_curve(table, ["mlp"], FOUR, shares=(0.25, 1.0), n_jobs=1)
    folds = splits.assign_folds(table).to_numpy()
    assert len(seen) == 2 * 5
    for i, note in enumerate(seen):
        (asked,) = note["asked"]
        assert sorted(asked) == np.flatnonzero(folds == i % 5).tolist()
        trained = speakers_of(table, note["train"])
        assert trained.isdisjoint(speakers_of(table, asked))
        others = len(SPEAKERS) - len(speakers_of(table, asked))
        assert len(trained) == (2 if i < 5 else others)


# --- importance ------------------------------------------------------------------------------------


def test_importance_of_a_planted_family(table):
    lost = studies.importance(table, ["logistic", "majority"], FOUR, repeats=3, n_jobs=1)
    assert list(lost.index) == ["mfcc", "mel", "energy"]
    assert list(lost.columns) == ["logistic", "majority"]
    assert lost.loc["mfcc", "logistic"] > 0.3
    assert abs(lost.loc["mel", "logistic"]) < 0.05
    assert_allclose(lost["majority"], 0, atol=1e-12)


def test_importance_shuffles_tested_clips_of_training_nothing(table, seen):
    """Trained on the other folds as they are; asked about shuffled clips of one fold."""
    studies.importance(table, ["mlp"], FOUR, repeats=2, n_jobs=1)
    folds = splits.assign_folds(table).to_numpy()
    for fold, note in enumerate(seen):
        assert sorted(note["train"]) == np.flatnonzero(folds != fold).tolist()
        assert len(note["asked"]) == 4 * 2  # unshuffled and three families, twice
        for asked in note["asked"]:
            assert sorted(asked) == np.flatnonzero(folds == fold).tolist()
    orders = [tuple(asked) for asked in seen[0]["asked"]]
    assert len(set(orders[:6])) == 1  # the row number is in the last family
    assert len(set(orders[5:])) == 3


@pytest.mark.parametrize("work", [cross_validation.out_of_fold, cross_validation.search])
def test_an_unknown_protocol_is_refused(table, work: Callable):
    with pytest.raises(CorpusError, match="protocol 'half' is unknown"):
        work(table, ["logistic"], protocol="half", n_jobs=1)


# --- the guard, through which every path goes ------------------------------------------------------

PATHS: dict[str, Callable] = {
    "out_of_fold": lambda table, protocol: cross_validation.out_of_fold(
        table, ["mlp"], protocol=protocol, n_jobs=1
    ),
    "inner_predictions": lambda table, protocol: cross_validation.inner_predictions(
        table, "mlp", protocol=protocol, inner=3, n_jobs=1
    ),
    "search": lambda table, protocol: cross_validation.search(table, ["mlp"], protocol=protocol, n_jobs=1),
    "learning_curve": lambda table, protocol: studies.learning_curve(
        table, ["mlp"], FOUR, protocol=protocol, shares=(0.5, 1.0), n_jobs=1
    ),
    "importance": lambda table, protocol: studies.importance(
        table, ["mlp"], FOUR, protocol=protocol, repeats=1, n_jobs=1
    ),
}
NESTED = ("inner_predictions", "search")


def with_copies(table: pd.DataFrame) -> pd.DataFrame:
    """An altered copy of every other clip, shuffled in; the row number is that of the whole table."""
    copies = table.iloc[::2].assign(source_clip=table["clip_id"], clip_id=table["clip_id"] + "+noise")
    whole = pd.concat([table, copies]).sample(frac=1, random_state=0).reset_index(drop=True)
    return whole.assign(level_mean=np.arange(len(whole), dtype=np.float32))


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
@pytest.mark.parametrize("path", PATHS)
def test_whatever_is_fitted_and_tested_has_passed_the_guard(table, seen, grid, monkeypatch, path, protocol):
    passed, check = [], guard.check_split

    def spy(clips, train, test, *, speakers=True):
        check(clips, train, test, speakers=speakers)
        rows = clips.index.to_numpy()  # the table's own row numbers
        passed.append((set(rows[train]), set(rows[test]), speakers))

    monkeypatch.setattr(guard, "check_split", spy)
    PATHS[path](table, protocol)
    assert seen
    for note in seen:
        train, asked = set(note["train"]), set(np.concatenate(note["asked"]))
        assert any(train <= allowed and asked == test for allowed, test, _ in passed)
    outer = len(splits.folds(table, protocol))
    assert [speakers for *_, speakers in passed[:outer]] == [protocol != "random"] * outer
    assert len(passed) > outer  # the line above called it too


@pytest.mark.parametrize("path", PATHS)
def test_a_split_that_leaks_stops_every_path(table, seen, grid, monkeypatch, path):
    monkeypatch.setattr(
        splits, "assign_folds", lambda clips, *_, **__: pd.Series(clips.index % 2, name="fold")
    )
    with pytest.raises(ContaminationError, match=r"speaker\(s\) 01, 02, 03, 04, 05 and 3 more in both"):
        PATHS[path](table, "actors5")
    assert not seen


@pytest.mark.parametrize("path", NESTED)
def test_inner_folds_that_leak_stop_what_is_nested(table, seen, grid, monkeypatch, path):
    monkeypatch.setattr(splits, "assign_inner_folds", lambda clips, n: pd.Series(np.arange(len(clips)) % n))
    with pytest.raises(ContaminationError, match="in both training and test"):
        PATHS[path](table, "actors5")
    assert not seen


def test_a_leak_on_purpose_is_run_unguarded(table, seen):
    """Copies made before a random split, and tested like clips of their own."""
    whole = with_copies(table)
    predictions = cross_validation.out_of_fold(whole, ["mlp"], protocol="random", guarded=False, n_jobs=1)
    assert predictions["clip_id"].str.contains("noise").any()
    (note,) = seen
    assert guard.leakage(whole, note["train"], note["asked"][0])["altered_copy"] > 0.2


# --- altered copies --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
@pytest.mark.parametrize("path", PATHS)
def test_copies_are_trained_on_with_their_source_and_never_tested(table, seen, grid, path, protocol):
    whole = with_copies(table)
    PATHS[path](whole, protocol)
    origin, original = identity.sources(whole).to_numpy(), identity.originals(whole)
    assert seen
    for note in seen:
        asked = np.concatenate(note["asked"])
        assert original[asked].all()
        assert not original[note["train"]].all()
        assert set(origin[note["train"]]).isdisjoint(origin[asked])
        copied = set(origin[note["train"]][~original[note["train"]]])
        assert copied <= set(origin[note["train"]][original[note["train"]]])


def test_the_same_clips_are_tested_with_copies_and_without(table):
    plain = cross_validation.out_of_fold(table, ["majority"], n_jobs=1)
    predictions = cross_validation.out_of_fold(with_copies(table), ["majority"], n_jobs=1)
    columns = ["clip_id", "fold"]
    assert_frame_equal(*[t[columns].sort_values("clip_id", ignore_index=True) for t in (plain, predictions)])
    assert "source_clip" not in tables.feature_columns(with_copies(table))


# --- inner predictions -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_inner_predictions_are_of_training_clips_by_other_speakers(table, seen, protocol):
    predictions = cross_validation.inner_predictions(
        table, "mlp", protocol=protocol, inner=3, seed=1, n_jobs=1
    )
    outer = splits.folds(table, protocol, seed=1)
    assert sorted(predictions["outer"].unique()) == list(outer)
    assert set(predictions["seed"]) == {1}
    for fold, part in predictions.groupby("outer"):
        assert sorted(part["clip_id"]) == sorted(table["clip_id"].iloc[outer[fold][0]])
        assert part["fold"].nunique() == 3
        assert part.groupby("speaker")["fold"].nunique().max() == 1
    for i, note in enumerate(seen):
        assert set(note["train"]) <= set(outer[list(outer)[i // 3]][0])
        assert speakers_of(table, note["train"]).isdisjoint(speakers_of(table, note["asked"][0]))


def test_predictions_are_calibrated_by_their_inner_ones(table):
    outer = cross_validation.out_of_fold(table, ["logistic"], n_jobs=1)
    inner = cross_validation.inner_predictions(table, "logistic", inner=3, n_jobs=1)
    predictions = calibration.calibrate(outer, inner, FOUR)
    assert predictions["clip_id"].to_list() == outer["clip_id"].to_list()
    assert predictions["covered"].mean() > 0.75


def test_one_training_speaker_has_no_inner_folds():
    with pytest.raises(CorpusError, match="1 speaker in training"):
        cross_validation.search(synthetic(speakers=SPEAKERS[:2]), ["logistic"], protocol="loso", n_jobs=1)


# --- nothing to learn ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_labels_permuted_within_speakers_are_at_chance(monkeypatch, name):
    """RAVDESS itself, search and all: 12.5 % UAR, whatever is chosen and fitted."""
    small = {
        "logistic": {"logisticregression__C": [0.003, 0.01]},
        "mlp": {"balanced__estimator__max_iter": [5, 10]},
    }
    monkeypatch.setattr(models, "SEARCH", small)
    table = tables.shipped()
    features = tables.feature_columns(table)
    table = table.drop(columns=[column for i, column in enumerate(features) if i % 8])
    rng = np.random.default_rng(0)
    table["emotion"] = table.groupby("speaker")["emotion"].transform(rng.permutation)
    chosen = cross_validation.search(table, [name], n_jobs=1)
    predictions = cross_validation.out_of_fold(table, [name], chosen=chosen, n_jobs=1)
    assert metrics.score(predictions, EIGHT)[0] == pytest.approx(0.125, abs=0.03)
    assert (chosen["inner_uar"] < 0.125 + 0.04).all()


# --- intensity -------------------------------------------------------------------------------------


def test_intensity_takes_the_place_of_the_emotion_where_it_varies():
    """In RAVDESS neutral was spoken at one intensity alone; a clip of unknown intensity is left out."""
    table = synthetic()
    strong = np.arange(len(table)) % 4 < 2
    table["intensity"] = np.where(strong & (table["emotion"] != "calm"), "strong", "normal")
    table.loc[5, "intensity"] = "unspecified"
    rows = training.by_intensity(table)
    kept = table[(table["emotion"] != "calm") & (table["intensity"] != "unspecified")]
    assert rows["clip_id"].to_list() == kept["clip_id"].to_list()
    assert rows["emotion"].to_list() == kept["intensity"].to_list()
    assert tables.feature_columns(rows) == tables.feature_columns(table)
    with pytest.raises(CorpusError, match="two intensities"):
        training.by_intensity(table.assign(intensity="normal"))
