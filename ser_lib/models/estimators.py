"""Scikit-learn estimators: normal ranks, within-class covariance normalisation (WCCN), balanced weights."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy.linalg import eigh
from scipy.special import ndtri, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight

ROWS = 128  # ranked at a time, so that they fit in the processor's cache
RANK_LIMIT = 1e-7  # ranks are clipped this far from 0 and 1, as in scikit-learn: to deviates of about ±5.2


class NormalRanks(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Replace each value by its rank among the training values, as a normal deviate; removes units and outliers.

    Equals scikit-learn's `QuantileTransformer(output_distribution="normal", subsample=None)`, which works
    column by column and would take most of the time of a single clip's prediction.

    Parameters
    ----------
    n_quantiles : int
        Quantiles kept of each feature; ranks between them are interpolated linearly.

    Examples
    --------
    >>> NormalRanks().fit_transform(np.array([[1.0], [2.0], [3.0], [900.0]])).round(2).ravel()
    array([-5.2 , -0.43,  0.43,  5.2 ])
    """

    def __init__(self, n_quantiles: int = 100):
        self.n_quantiles = n_quantiles

    def fit(self, X: np.ndarray, y: object = None) -> Self:
        X = np.asarray(X)
        self.n_features_in_ = X.shape[1]
        self.ranks_ = np.linspace(0, 1, min(self.n_quantiles, len(X)))
        at = self.ranks_ * (len(X) - 1)
        below, above = np.floor(at).astype(int), np.ceil(at).astype(int)
        ordered = np.sort(np.ascontiguousarray(X.T))  # much faster than np.quantile, with the same result
        low, high = ordered[:, below].astype(np.float64), ordered[:, above].astype(np.float64)
        quantiles = (low + (high - low) * (at - below)).astype(np.float32)
        self.quantiles_ = np.ascontiguousarray(np.maximum.accumulate(quantiles, axis=1).T)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        X = np.asarray(X)
        ranks = np.empty(X.shape, X.dtype)
        for start in range(0, len(X), ROWS):
            ranks[start : start + ROWS] = self._rank(X[start : start + ROWS])
        limit = float(-ndtri(RANK_LIMIT))
        return np.clip(ndtri(ranks), -limit, limit)

    def _rank(self, x: np.ndarray) -> np.ndarray:
        """Ranks from 0 to 1; a value equal to several quantiles gets the mean of the first and the last of them."""
        quantiles, ranks = self.quantiles_, self.ranks_
        last, column = len(ranks) - 1, np.arange(x.shape[1])
        left = np.maximum(_count_at_most(quantiles, x) - 1, 0)
        right = np.minimum(left + 1, last)
        x = x.astype(np.float64)
        below, above = quantiles[left, column], quantiles[right, column]
        step = np.where(above > below, above - below, 1)
        rank = ranks[left] + (x - below) / step * (ranks[right] - ranks[left])
        equal = x == below
        first = (quantiles[:, np.nonzero(equal)[1]] < x[equal]).sum(axis=0)
        rank[equal] = (ranks[np.minimum(first, last)] + ranks[left[equal]]) / 2
        return np.where(x <= quantiles[0], 0, np.where(x >= quantiles[-1], 1, rank))


def _count_at_most(ordered: np.ndarray, x: np.ndarray) -> np.ndarray:
    """For each value of x, how many values of its sorted column are at most x: a binary search in all columns."""
    n, columns = ordered.shape
    flat, start = np.ascontiguousarray(ordered.T).ravel(), np.arange(columns) * n
    count = np.zeros(x.shape, np.intp)
    for step in 2 ** np.arange(n.bit_length())[::-1]:
        further = np.minimum(count + step, n)
        count = np.where(flat[start + further - 1] <= x, further, count)
    return count


class WCCN(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Within-class covariance normalisation: rotate and scale so that the within-class covariance is the identity.

    The first half of linear discriminant analysis. Differences between clips of one emotion (speaker, statement,
    chance) shrink where they were large, so a regularised classifier sees what differs between emotions.

    Parameters
    ----------
    shrinkage : float
        From 0 (the sample covariance) to 1 (its diagonal).

    Examples
    --------
    >>> x, y = np.array([[0, 0], [2, 20], [9, 1], [7, 3]]), np.array(["sad", "sad", "happy", "happy"])
    >>> z = WCCN(shrinkage=0).fit_transform(x, y)
    >>> ((z[y == "sad"].var(axis=0) + z[y == "happy"].var(axis=0)) / 2).round(2).tolist()
    [1.0, 1.0]
    """

    def __init__(self, shrinkage: float = 0.7):
        self.shrinkage = shrinkage

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        X = np.asarray(X, np.float64)
        classes, code = np.unique(y, return_inverse=True)
        means = np.stack([X[code == i].mean(axis=0) for i in range(len(classes))])
        residual = X - means[code]
        scale = np.maximum(residual.std(axis=0), 1e-6)
        residual /= scale
        covariance = residual.T @ residual * ((1 - self.shrinkage) / len(X))
        covariance[np.diag_indices_from(covariance)] += self.shrinkage
        variance, directions = eigh(covariance)
        self.mean_ = X.mean(axis=0).astype(np.float32)
        self.projection_ = ((directions / np.sqrt(variance)) / scale[:, None]).astype(np.float32)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return (np.asarray(X, np.float32) - self.mean_) @ self.projection_


class MostProbable(ClassifierMixin, BaseEstimator):
    """A classifier that predicts the class of the highest probability."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class WCCNRegression(MostProbable):
    """Logistic regression after `WCCN`, kept as one linear map.

    Close to linear discriminant analysis, but scores better: the regression is fitted to the class boundaries.

    Parameters
    ----------
    shrinkage : float
        As in `WCCN`.
    C : float
        Inverse strength of the regression's L2 penalty.

    Examples
    --------
    >>> model = WCCNRegression(C=1).fit([[0], [1], [4], [5]], ["sad", "sad", "happy", "happy"])
    >>> model.predict_proba([[5]]).round(2)  # happy, sad
    array([[0.98, 0.02]])
    """

    def __init__(self, shrinkage: float = 0.7, C: float = 0.003):
        self.shrinkage = shrinkage
        self.C = C

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        wccn = WCCN(self.shrinkage)
        regression = LogisticRegression(C=self.C, class_weight="balanced", max_iter=1000)
        regression.fit(wccn.fit_transform(X, y), y)
        self.classes_ = regression.classes_
        directions, offset = regression.coef_.T, regression.intercept_
        if len(self.classes_) == 2:  # scikit-learn keeps the coefficients of the second class only
            directions, offset = np.insert(directions, 0, 0, axis=-1), np.insert(offset, 0, 0, axis=-1)
        self.coef_ = wccn.projection_ @ directions  # (n_features, n_classes)
        self.intercept_ = offset - wccn.mean_ @ self.coef_
        self.n_features_in_ = wccn.n_features_in_
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return softmax(np.asarray(X, np.float64) @ self.coef_ + self.intercept_, axis=1)


class Balanced(MostProbable):
    """Fit an estimator with balanced sample weights, and with class names in place of numbers.

    `MLPClassifier` and `XGBClassifier` take sample weights but have no `class_weight`.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> model = Balanced(DummyClassifier(strategy="prior")).fit([[0]] * 3, ["sad", "sad", "happy"])
    >>> model.predict_proba([[0]])
    array([[0.5, 0.5]])
    """

    def __init__(self, estimator: BaseEstimator):
        self.estimator = estimator

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        self.classes_, code = np.unique(y, return_inverse=True)
        self.estimator_ = clone(self.estimator)
        self.estimator_.fit(X, code, sample_weight=compute_sample_weight("balanced", code))
        for name in (
            "_optimizer",
            "_best_coefs",
            "_best_intercepts",
        ):  # MLPClassifier's, and most of the pickle
            vars(self.estimator_).pop(name, None)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return self.estimator_.predict_proba(X)
