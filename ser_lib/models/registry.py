"""Models by name. Whatever is fitted, scaling included, is a step of the model's pipeline.

A model takes features of shape (n_clips, n_features) and emotion names; `predict_proba` has its columns in
the order of `classes_`. All models but `mlp300` and `majority` give every emotion the same total weight.
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
DETERMINISTIC = ("logistic", "wccn", "majority")  # the seed changes nothing
NETWORKS = {"corrcnn": "melpitch", "cnn_bilstm": "mfcc", "dense": "compact"}  # and the features they take

# The grids of `cross_validation.search`: parameters of the pipeline, by model. The defaults below are what the
# search chose most often over the outer folds of eight emotions (notebook 03 with `-p search=True`).
SEARCH: dict[str, dict[str, list[float]]] = {
    "mlp": {"wccn__shrinkage": [0.3, 0.5, 0.7], "balanced__estimator__max_iter": [6, 10, 20]},
    "xgboost": {"balanced__estimator__max_depth": [2, 3], "balanced__estimator__learning_rate": [0.1, 0.2]},
    "logistic": {"logisticregression__C": [0.001, 0.003, 0.01]},
}


def make(name: str, *, seed: int = 0, **parameters: Any) -> Pipeline:
    """Return a new, unfitted model.

    Parameters
    ----------
    name : one of MODELS or NETWORKS
        ``mlp`` and ``xgboost``: the two models that the reports compare. ``mlp300``: the network of the
        literature, 300 ReLU units and Adam on standardised features. ``wccn``: `WCCNRegression` on ranks.
        ``logistic`` and ``majority``: baselines. The models of NETWORKS need PyTorch.
    seed : int
        Seed of the initial weights and of all sampling.
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
    steps: tuple[Any, ...]
    match name:
        case "mlp":
            network = MLPClassifier((300,), alpha=10, batch_size=64, max_iter=10, random_state=seed)
            steps = NormalRanks(), WCCN(), Balanced(network)
        case "mlp300":
            adam = {"batch_size": 256, "learning_rate": "adaptive", "max_iter": 500}
            steps = StandardScaler(), MLPClassifier((300,), alpha=0.01, random_state=seed, **adam)
        case "xgboost":
            from xgboost import XGBClassifier

            trees = XGBClassifier(
                n_estimators=300, max_depth=2, learning_rate=0.2, subsample=0.7, colsample_bytree=0.2,
                colsample_bynode=0.3, max_bin=32, tree_method="hist", n_jobs=1, random_state=seed,
            )  # fmt: skip
            steps = (Balanced(trees),)
        case "logistic":
            steps = StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
        case "wccn":
            steps = NormalRanks(), WCCNRegression()
        case "majority":
            steps = (DummyClassifier(strategy="prior"),)
        case _ if name in NETWORKS:
            steps = (_network(name, seed),)
        case _:
            raise SerError(f"model {name!r} is unknown; choose one of {', '.join((*MODELS, *NETWORKS))}")
    return make_pipeline(*steps).set_params(**parameters)


def last_step(name: str, **parameters: Any) -> dict[str, Any]:
    """Return parameters of the classifier itself, the pipeline's last step, as `make` takes them.

    Examples
    --------
    >>> last_step("logistic", C=0.5)
    {'logisticregression__C': 0.5}
    """
    step = make(name).steps[-1][0]
    return {f"{step}__{key}": value for key, value in parameters.items()}


def _network(name: str, seed: int) -> Any:
    try:
        from ser_lib.models import corrcnn, networks
    except ImportError as error:
        raise SerError(
            f"{name}: PyTorch is not installed; install it with `python -m pip install torch`"
        ) from error
    if name == "corrcnn":
        return corrcnn.CorrelationCNN(steps=2000, seed=seed)
    network = networks.CNNBiLSTM if name == "cnn_bilstm" else networks.Dense
    return network(steps=2000, batch=32, rate=1e-3, validation_share=0.2, seed=seed)
