"""Named estimators. Everything that is fitted, scaling included, lives inside the pipeline.

Each takes features of shape (n_clips, n_features) and emotion names, and answers `predict_proba` in the
order of `classes_`. All but `mlp300` and `majority` give every emotion the same total weight.
"""

from __future__ import annotations

from typing import Any

from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_lib.errors import SerError
from ser_lib.models.estimators import WCCN, Balanced, NormalRanks, WCCNRegression

MODELS = ("mlp", "xgboost", "mlp300", "logistic", "wccn", "majority")
DETERMINISTIC = ("logistic", "wccn", "majority")  # the same with any seed
NETWORKS = {
    "corrcnn": "melpitch",
    "cnn_bilstm": "mfcc",
    "dense": "compact",
}  # and their features; see `sequence`, `correlation`

# What `nested.search` tries, by model: parameters of the pipeline that `make` returns. The defaults
# below are what it chose most often over the outer folds of eight emotions (notebook 03 with `-p search=True`).
SEARCH: dict[str, dict[str, list[float]]] = {
    "mlp": {
        "wccn__shrinkage": [0.3, 0.5, 0.7],
        "balanced__estimator__max_iter": [6, 10, 20],
    },
    "xgboost": {
        "balanced__estimator__max_depth": [2, 3],
        "balanced__estimator__learning_rate": [0.1, 0.2],
    },
    "logistic": {"logisticregression__C": [0.001, 0.003, 0.01]},
}


def make(name: str, *, seed: int = 0, **parameters: Any) -> Pipeline:
    """A new, unfitted estimator.

    Parameters
    ----------
    name : one of MODELS or NETWORKS
        ``mlp`` and ``xgboost``: the two that are compared. ``mlp300``: the field's usual network, one
        hidden layer of 300 ReLU units with Adam on standardised features. ``logistic`` and
        ``majority``: the floor. ``wccn``: `WCCNRegression` on ranks. Those of NETWORKS need
        PyTorch, see `sequence`, `correlation`.
    seed : int
        Of the weights' start and of all sampling.
    **parameters
        Pipeline parameters to change, as `Pipeline.set_params` takes them.

    Raises
    ------
    SerError
        The name is unknown, or PyTorch is not installed.

    Examples
    --------
    >>> make("logistic").steps[-1][0]
    'logisticregression'
    """
    if name in NETWORKS:
        return _network(name, seed).set_params(**parameters)
    if name not in _MAKERS:
        raise SerError(f"model {name!r} is unknown; choose of {', '.join((*MODELS, *NETWORKS))}")
    return _MAKERS[name](seed).set_params(**parameters)


def _mlp(seed: int) -> Pipeline:
    network = MLPClassifier((300,), alpha=10, batch_size=64, max_iter=10, random_state=seed)
    return make_pipeline(NormalRanks(), WCCN(), Balanced(network))


def _mlp300(seed: int) -> Pipeline:
    network = MLPClassifier(
        (300,), alpha=0.01, batch_size=256, learning_rate="adaptive", max_iter=500, random_state=seed
    )
    return make_pipeline(StandardScaler(), network)


def _xgboost(seed: int) -> Pipeline:
    from xgboost import XGBClassifier

    trees = XGBClassifier(
        n_estimators=300, max_depth=2, learning_rate=0.2, subsample=0.7, colsample_bytree=0.2,
        colsample_bynode=0.3, max_bin=32, tree_method="hist", n_jobs=1, random_state=seed,
    )  # fmt: skip
    return make_pipeline(Balanced(trees))


def _logistic(seed: int) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000))


def _wccn(seed: int) -> Pipeline:
    return make_pipeline(NormalRanks(), WCCNRegression())


def _majority(seed: int) -> Pipeline:
    return make_pipeline(DummyClassifier(strategy="prior"))


def _network(name: str, seed: int) -> Pipeline:
    try:
        from ser_lib.models import corrcnn, networks
    except ImportError as error:
        raise SerError(
            f"{name}: PyTorch is not installed; `python -m pip install torch` brings it"
        ) from error
    if name == "corrcnn":
        return make_pipeline(corrcnn.CorrelationCNN(steps=2000, seed=seed))
    kind = {"cnn_bilstm": networks.CNNBiLSTM, "dense": networks.Dense}[name]
    return make_pipeline(kind(steps=2000, batch=32, rate=1e-3, held=0.2, seed=seed))


_MAKERS = {
    "mlp": _mlp,
    "xgboost": _xgboost,
    "mlp300": _mlp300,
    "logistic": _logistic,
    "wccn": _wccn,
    "majority": _majority,
}
