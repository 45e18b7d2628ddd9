"""models: WCCN and balancing against oracles; properties that every named model must have."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist, pdist
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer
from sklearn.utils.validation import check_is_fitted

from ser_lib import corpora, models
from ser_lib.corpora import FOUR
from ser_lib.errors import SerError
from ser_lib.features import FeatureConfig, extraction, feature_names
from ser_lib.models import DETERMINISTIC, MODELS, estimators, make
from ser_lib.models.estimators import WCCN, Balanced, WCCNRegression

EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def table(tiny_corpus, tmp_path_factory) -> pd.DataFrame:
    """Four emotions."""
    clips = corpora.listing(tiny_corpus)[0]
    clips = clips[clips["emotion"].isin(FOUR)]
    config = FeatureConfig("compact")
    return extraction.build(clips, config, cache_dir=tmp_path_factory.mktemp("cache"), n_jobs=1)[0]


@pytest.fixture(scope="module")
def data(table) -> dict[str, np.ndarray]:
    """Features and emotions of five speakers to train on, and of one to test on."""
    x = table[list(feature_names(FeatureConfig("compact")))].to_numpy(np.float32)
    y = table["emotion"].to_numpy()
    test = (table["speaker"] == "06").to_numpy()
    return {"x": x[~test], "y": y[~test], "test": x[test]}


def fit(model, x, y, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few clips, few epochs
        return model.fit(x, y, **kwargs)


@pytest.fixture(scope="module")
def fitted(data):
    """Every model, fitted once."""
    return {name: fit(make(name), data["x"], data["y"]) for name in MODELS}


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Three unequal classes of one correlated covariance in eight dimensions, in units of all sizes."""
    rng = np.random.default_rng(0)
    y = np.repeat(["sad", "calm", "angry"], [150, 300, 450])
    means = {label: rng.normal(0, 1, 8) for label in ("angry", "calm", "sad")}
    mixing = rng.normal(0, 1, (8, 8)) + 2 * np.eye(8)
    x = np.stack([means[label] for label in y]) + rng.normal(0, 1, (900, 8)) @ mixing
    order = rng.permutation(900)
    return (x * 10.0 ** np.arange(-3, 5) + 7)[order], y[order]


def pooled_covariance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Within-class covariance, the slow way."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for label in set(y):
        rows = x[y == label].astype(np.float64)
        for row in rows - rows.mean(axis=0):
            total += np.outer(row, row)
    return total / len(x)


# --- WCCN ------------------------------------------------------------------------------------------


def test_classes_have_unit_covariance_after_wccn(blobs):
    x, y = blobs
    z = WCCN(shrinkage=0).fit_transform(x, y)
    assert_allclose(pooled_covariance(z, y), np.eye(8), atol=1e-3)
    assert_allclose(z.mean(axis=0), 0, atol=1e-3)


def test_distances_after_wccn_are_mahalanobis_distances(blobs):
    x, y = blobs
    z = WCCN(shrinkage=0).fit_transform(x, y)
    inverse = np.linalg.inv(pooled_covariance(x, y))
    assert_allclose(pdist(z[:50]), pdist(x[:50], "mahalanobis", VI=inverse), rtol=1e-3)


def test_the_nearest_mean_after_wccn_is_the_prediction_of_lda(blobs):
    x, y = blobs
    labels = np.unique(y)
    z = WCCN(shrinkage=0).fit_transform(x, y)
    nearest = labels[cdist(z, [z[y == label].mean(axis=0) for label in labels]).argmin(axis=1)]
    lda = LinearDiscriminantAnalysis(priors=[1 / 3] * 3).fit(x, y)
    assert np.mean(nearest == lda.predict(x)) > 0.998  # float32 decides on the border


def test_full_shrinkage_scales_the_columns_and_no_more(blobs):
    x, y = blobs
    z = WCCN(shrinkage=1).fit_transform(x, y)
    scaled = x / np.sqrt(np.diag(pooled_covariance(x, y)))
    assert_allclose(pdist(z[:50]), pdist(scaled[:50]), rtol=1e-3)


@pytest.mark.parametrize("shrinkage", [0, 0.5, 1])
def test_wccn_ignores_units(blobs, shrinkage):
    x, y = blobs
    rng = np.random.default_rng(1)
    other = x * rng.uniform(0.1, 10, 8) * rng.choice([-1, 1], 8) + x.std(axis=0) * rng.normal(0, 1, 8)
    one, two = (WCCN(shrinkage).fit_transform(part, y) for part in (x, other))
    assert_allclose(pdist(one[:100]), pdist(two[:100]), rtol=2e-3)


def test_wccn_of_more_columns_than_clips_is_finite():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (20, 60)), np.repeat(["a", "b"], 10)
    x[:, 5] = 3  # constant
    assert np.isfinite(WCCN().fit_transform(x, y)).all()


@pytest.mark.parametrize("labels", [["sad", "calm", "angry"], ["sad", "calm"]], ids=len)
def test_wccn_regression_equals_its_two_steps(blobs, labels):
    x, y = (part[np.isin(blobs[1], labels)] for part in blobs)
    one = WCCNRegression(0.5, 0.1).fit(x, y)
    regression = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    two = make_pipeline(WCCN(0.5), regression).fit(x, y)
    assert_array_equal(one.classes_, two.classes_)
    assert_allclose(one.predict_proba(x), two.predict_proba(x), atol=1e-4)


# --- balancing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), MLPClassifier((5,), max_iter=10, random_state=3)], ids=str
)
def test_balanced_equals_explicit_weights(blobs, estimator):
    x, y = blobs
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    labels, code = np.unique(y, return_inverse=True)
    weights = np.array([len(y) / (3 * np.sum(y == label)) for label in y])
    expected = fit(clone(estimator), x, code, sample_weight=weights)
    balanced = fit(Balanced(estimator), x, y)
    assert_array_equal(balanced.classes_, ["angry", "calm", "sad"])
    assert_allclose(balanced.predict_proba(x), expected.predict_proba(x), atol=1e-6)
    assert_array_equal(balanced.predict(x), labels[expected.predict(x)])


def test_balanced_gives_every_emotion_the_same_total_weight():
    """Without information, each emotion is equally probable, however many clips it has."""
    y = np.repeat(["calm", "sad"], [90, 10])
    p = Balanced(LogisticRegression()).fit(np.zeros((100, 1)), y).predict_proba(np.zeros((1, 1)))
    assert_allclose(p, 0.5, atol=1e-4)


def test_balanced_leaves_its_estimator_unfitted(blobs):
    inner = LogisticRegression()
    fit(Balanced(inner), *blobs)
    with pytest.raises(NotFittedError):
        check_is_fitted(inner)


def test_ranks_become_scikit_learns_normal_deviates():
    rng = np.random.default_rng(0)
    x = np.hstack([rng.gamma(1, [1, 100, 1e-3], (300, 3)), rng.poisson(1, (300, 2)), np.full((300, 1), 3)])
    theirs = QuantileTransformer(n_quantiles=100, subsample=None, output_distribution="normal").fit(x[:200])
    ours = estimators.NormalRanks().fit(x[:200])
    for part in (x[:200], x[200:], 100 * x[200:], -x[200:]):  # the last two beyond what was seen
        assert_allclose(ours.transform(part), theirs.transform(part), atol=1e-6)


# --- the named models ------------------------------------------------------------------------------


@EVERY_MODEL
def test_probabilities(name, fitted, data):
    model = fitted[name]
    assert list(model.classes_) == sorted(FOUR)
    p = model.predict_proba(data["test"])
    assert p.shape == (len(data["test"]), 4)
    assert (p >= 0).all()
    assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(model.predict(data["test"]), model.classes_[p.argmax(axis=1)])


@pytest.mark.parametrize("name", [name for name in MODELS if name != "majority"])
def test_a_model_learns(name, fitted, data):
    assert np.mean(fitted[name].predict(data["x"]) == data["y"]) > 0.6  # chance: 1 in 4
    assert len(set(fitted[name].predict(data["test"]))) > 1


def test_majority_predicts_the_most_frequent_emotion(fitted, data):
    labels, counts = np.unique(data["y"], return_counts=True)
    assert set(fitted["majority"].predict(data["test"])) == {labels[counts.argmax()]}


@EVERY_MODEL
def test_the_same_seed_gives_the_same_predictions(name, fitted, data):
    x = data["x"].copy()
    again = fit(make(name, seed=0), x, data["y"])
    assert_array_equal(again.predict_proba(data["test"]), fitted[name].predict_proba(data["test"]))
    assert_array_equal(x, data["x"])  # nor does fitting change what it is given


@EVERY_MODEL
def test_another_seed_changes_all_but_deterministic_models(name, fitted, data):
    other = fit(make(name, seed=1), data["x"], data["y"]).predict_proba(data["test"])
    same = np.array_equal(other, fitted[name].predict_proba(data["test"]))
    assert same == (name in DETERMINISTIC)


@EVERY_MODEL
def test_scaling_lives_inside(name, fitted, data):
    """The same clips in other units: powers of two, which float32 scales without rounding."""
    units = 2.0 ** np.random.default_rng(0).integers(-4, 11, data["x"].shape[1]).astype(np.float32)
    other = fit(make(name), data["x"] * units, data["y"])
    assert_allclose(
        other.predict_proba(data["test"] * units), fitted[name].predict_proba(data["test"]), atol=0.02
    )


@EVERY_MODEL
def test_a_prediction_does_not_depend_on_the_other_clips(name, fitted, data):
    """A scaler fitted on what is predicted would fail here."""
    before = data["test"].copy()
    together = fitted[name].predict_proba(data["test"])
    assert_array_equal(data["test"], before)
    changed = data["test"].copy()
    changed[1:] = 1e3 * changed[1:] + 5
    assert_allclose(fitted[name].predict_proba(changed)[0], together[0], atol=1e-5)
    assert_allclose(fitted[name].predict_proba(data["test"][:1])[0], together[0], atol=1e-5)


@EVERY_MODEL
def test_a_pickle_predicts_the_same(name, fitted, data):
    again = pickle.loads(pickle.dumps(fitted[name]))
    assert_array_equal(again.predict_proba(data["test"]), fitted[name].predict_proba(data["test"]))
    assert_array_equal(again.classes_, fitted[name].classes_)


@EVERY_MODEL
def test_an_emotion_may_be_missing(name, data):
    """Folds of small corpora may lack an emotion; the classes are those of the training clips."""
    present = data["y"] != "happy"
    model = fit(make(name), data["x"][present], data["y"][present])
    assert list(model.classes_) == sorted(set(FOUR) - {"happy"})
    assert model.predict_proba(data["test"]).shape[1] == 3


@EVERY_MODEL
def test_make_gives_a_new_unfitted_estimator(name, data):
    with pytest.raises(NotFittedError):
        make(name).predict(data["test"])
    assert make(name) is not make(name)


def test_parameters_of_the_last_step():
    for name in MODELS:
        assert set(models.last_step(name, verbose=0)) == {f"{make(name).steps[-1][0]}__verbose"}
    parameters = models.last_step("logistic", C=0.5)
    assert make("logistic", **parameters)[-1].C == 0.5


def test_make_changes_parameters():
    assert make("logistic", logisticregression__C=0.5).get_params()["logisticregression__C"] == 0.5


def test_make_refuses_unknown_names_and_parameters():
    with pytest.raises(SerError, match="model 'none' is unknown; choose one of mlp, xgboost"):
        make("none")
    with pytest.raises(ValueError, match="Invalid parameter"):
        make("logistic", depth=3)


# --- the grid of `cross_validation.search` -----------------------------------------------------------------


def test_the_grid_is_of_known_models():
    assert set(models.SEARCH) <= set(MODELS)


@pytest.mark.parametrize("name", models.SEARCH)
def test_every_point_of_the_grid_makes_a_model(name):
    """Also after JSON, through which `out_of_fold` gets it."""
    points = list(ParameterGrid(models.SEARCH[name]))
    assert len(points) > 1
    for point in points:
        assert set(point) <= set(make(name).get_params())
        kept = make(name, **json.loads(json.dumps(point))).get_params()
        assert all(kept[key] == value for key, value in point.items())
