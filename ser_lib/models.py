"""Named estimators. Everything that is fitted, scaling included, lives inside the pipeline.

Each takes a DataFrame or array of features and emotion names, weights the emotions equally, and
answers `predict_proba` in the order of `classes_`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, QuantileTransformer, StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from ser_lib.errors import SerError

MODELS = ("mlp", "xgboost", "mlp300", "logistic", "majority")
