"""Metrics of a predictions table, with intervals from resampling speakers.

They are computed from confusion counts (rows true, columns predicted, in the order of the labels), one matrix per
speaker and seed, so 2,000 bootstrap samples take milliseconds. UAR (unweighted average recall) averages the recall
of the emotions that have test clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

METRICS = ("uar", "accuracy", "macro_f1", "weighted_f1")
N_DRAWS = 2_000


def speaker_counts(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Return confusion counts, shape (n_seeds, n_speakers, n_labels, n_labels); speakers in sorted order.

    Raises
    ------
    ValueError
        An emotion in the table is not among `labels`.

    Examples
    --------
    >>> predictions = pd.DataFrame({"speaker": ["ann", "ann", "ben"], "emotion": ["sad", "happy", "sad"]})
    >>> speaker_counts(predictions.assign(seed=0, predicted="sad"), ["happy", "sad"]).astype(int).tolist()
    [[[[0, 1], [0, 1]], [[0, 0], [0, 1]]]]
    """
    unknown = (set(predictions["emotion"]) | set(predictions["predicted"])) - set(labels)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: not among the labels {', '.join(labels)}")
    code = {label: i for i, label in enumerate(labels)}
    seeds, seed = np.unique(predictions["seed"], return_inverse=True)
    speakers, speaker = np.unique(predictions["speaker"], return_inverse=True)
    counts = np.zeros((len(seeds), len(speakers), len(code), len(code)))
    true, predicted = predictions["emotion"].map(code), predictions["predicted"].map(code)
    np.add.at(counts, (seed, speaker, true.to_numpy(), predicted.to_numpy()), 1)
    return counts


def from_counts(counts: np.ndarray, metric: str) -> np.ndarray:
    """Return one metric of each confusion matrix: shape (..., n_labels, n_labels) to (...).

    Raises
    ------
    ValueError
        The metric is not one of `METRICS`.

    Examples
    --------
    >>> float(from_counts(np.array([[3, 1], [2, 2]]), "uar"))  # recalls 3/4 and 2/4
    0.625
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    clips, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    n = np.maximum(clips.sum(axis=-1), 1)
    present = clips > 0
    if metric == "accuracy":
        return hits.sum(axis=-1) / n
    if metric == "uar":
        return np.where(present, hits / np.maximum(clips, 1), 0).sum(axis=-1) / present.sum(axis=-1)
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} is unknown; choose one of {', '.join(METRICS)}")
    f1 = 2 * hits / np.maximum(clips + predicted, 1)
    weight = present | (predicted > 0) if metric == "macro_f1" else clips
    return (f1 * weight).sum(axis=-1) / np.maximum(weight.sum(axis=-1), 1)


def speaker_draws(n_speakers: int, seed: int) -> np.ndarray:
    """Return how often each bootstrap sample draws each speaker, shape (N_DRAWS, n_speakers)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_speakers, np.full(n_speakers, 1 / n_speakers), size=N_DRAWS).astype(float)


def bootstrap_scores(counts: np.ndarray, metric: str, draws: np.ndarray) -> np.ndarray:
    """Return the metric of each bootstrap sample of speakers, averaged over the models' seeds.

    Parameters
    ----------
    counts : ndarray
        From `speaker_counts`.
    draws : ndarray, shape (n_draws, n_speakers)
        From `speaker_draws`.

    Examples
    --------
    >>> ann, ben = [[4, 0], [0, 4]], [[2, 2], [2, 2]]  # all of ann's clips are right, half of ben's
    >>> bootstrap_scores(np.array([[ann, ben]]), "uar", np.array([[2, 0], [1, 1], [0, 2]])).tolist()
    [1.0, 0.75, 0.5]
    """
    return np.mean([from_counts(np.tensordot(draws, one, axes=1), metric) for one in counts], axis=0)


def score(
    predictions: pd.DataFrame, labels: Sequence[str], metric: str = "uar", *, seed: int = 0
) -> tuple[float, float, float]:
    """Return value, low and high (95 % interval) of a metric over the pooled test clips, averaged over seeds.

    The interval resamples speakers, because a user is a new speaker and clips of one speaker are not independent;
    resampling clips would make it too narrow.

    Examples
    --------
    >>> predictions = pd.DataFrame({"speaker": ["ann", "ben"], "emotion": ["sad", "happy"]})
    >>> score(predictions.assign(seed=0, predicted="sad"), ["happy", "sad"])  # right on ann, wrong on ben
    (0.5, 0.0, 1.0)
    """
    counts = speaker_counts(predictions, labels)
    value = from_counts(counts.sum(axis=1), metric).mean()
    scores = bootstrap_scores(counts, metric, speaker_draws(counts.shape[1], seed))
    low, high = np.quantile(scores, (0.025, 0.975))
    return float(value), float(low), float(high)


def per_speaker(predictions: pd.DataFrame, labels: Sequence[str], metric: str = "uar") -> pd.Series:
    """Return one metric by speaker, averaged over seeds.

    Examples
    --------
    >>> predictions = pd.DataFrame({"speaker": ["ann", "ann", "ben"], "emotion": ["sad", "happy", "sad"]})
    >>> per_speaker(predictions.assign(seed=0, predicted="sad"), ["happy", "sad"]).to_dict()
    {'ann': 0.5, 'ben': 1.0}
    """
    values = from_counts(speaker_counts(predictions, labels), metric).mean(axis=0)
    return pd.Series(values, index=np.unique(predictions["speaker"]), name=metric)


def confusion(predictions: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Return the share of each emotion's clips (rows, summing to 1) predicted as each emotion (columns).

    Examples
    --------
    >>> predictions = pd.DataFrame({"speaker": "ann", "seed": 0, "emotion": ["sad", "sad", "happy"]})
    >>> shares = confusion(predictions.assign(predicted=["sad", "happy", "happy"]), ["happy", "sad"])
    >>> shares.loc["sad"].to_dict()
    {'happy': 0.5, 'sad': 0.5}
    """
    counts = speaker_counts(predictions, labels).sum(axis=(0, 1))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return pd.DataFrame(
        shares, index=pd.Index(labels, name="emotion"), columns=pd.Index(labels, name="predicted")
    )


def per_class(predictions: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Return precision, recall, F1 and number of clips of each emotion, pooled over seeds.

    Examples
    --------
    >>> predictions = pd.DataFrame({"speaker": "ann", "seed": 0, "emotion": ["sad", "sad", "happy"]})
    >>> table = per_class(predictions.assign(predicted=["sad", "happy", "happy"]), ["happy", "sad"])
    >>> table.round(2).to_dict("index")["happy"]
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.67, 'clips': 1}
    """
    counts = speaker_counts(predictions, labels)
    pooled = counts.sum(axis=(0, 1))
    hits, clips, predicted = np.diag(pooled), pooled.sum(axis=1), pooled.sum(axis=0)
    columns = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(clips, 1),
        "f1": 2 * hits / np.maximum(clips + predicted, 1),
        "clips": (clips / len(counts)).astype(int),
    }
    return pd.DataFrame(columns, index=pd.Index(labels, name="emotion"))


def probabilities(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Return the `p_<emotion>` columns in the order of `labels`, shape (n_clips, n_labels).

    Examples
    --------
    >>> probabilities(pd.DataFrame({"p_happy": [0.25], "p_sad": [0.75]}), ["sad", "happy"]).tolist()
    [[0.75, 0.25]]
    """
    return predictions[[f"p_{label}" for label in labels]].to_numpy(np.float64)


def variance_share(values: pd.DataFrame, groups: pd.Series) -> pd.Series:
    """Return the share of each column's variance between groups (eta squared), 0 to 1; NaN for a constant column.

    Computed on ranks, against outliers: the statistic of the Kruskal-Wallis test.

    Examples
    --------
    >>> values = pd.DataFrame({"pitch": [110, 120, 210, 220], "noise": [1, 2, 1, 2]})
    >>> variance_share(values, pd.Series(["ann", "ann", "ben", "ben"])).round(2).to_dict()
    {'pitch': 0.8, 'noise': 0.0}
    """
    ranks = values.rank()
    between = ranks.groupby(groups.to_numpy()).transform("mean")
    return between.var() / ranks.var()
