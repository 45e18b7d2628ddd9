"""Pickles of models, and of nothing else: what is not named here is not loaded, so it cannot run."""

from __future__ import annotations

import io
import pickle
from typing import Any

ALLOWED = {
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.random._mt19937": {"MT19937"},
    "numpy.random._pickle": {"__bit_generator_ctor", "__randomstate_ctor"},
    "ser_lib.models": {"Balanced", "NormalRanks", "WhitenedRegression", "WithinClassWhitening"},
    "sklearn.dummy": {"DummyClassifier"},
    "sklearn.linear_model._logistic": {"LogisticRegression"},
    "sklearn.neural_network._multilayer_perceptron": {"MLPClassifier"},
    "sklearn.neural_network._stochastic_optimizers": {"AdamOptimizer"},
    "sklearn.pipeline": {"Pipeline"},
    "sklearn.preprocessing._data": {"StandardScaler"},
    "sklearn.preprocessing._label": {"LabelBinarizer"},
    "xgboost.core": {"Booster"},
    "xgboost.sklearn": {"XGBClassifier"},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a model")
        return super().find_class(module, name)


def loads(content: bytes) -> Any:
    """As `pickle.loads`, for the parts of `models.MODELS`.

    Raises
    ------
    pickle.UnpicklingError
        Another name, or not a pickle.
    """
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # whatever a damaged pickle does
        raise pickle.UnpicklingError(f"not a pickle of a model ({type(error).__name__})") from error
