"""Numbers from a predictions table, with intervals that resample speakers.

Everything is computed from confusion counts, one matrix a speaker and seed, so that a bootstrap of
2,000 draws takes milliseconds. Rows are the true emotion, columns the predicted one, in the order
given. UAR (unweighted average recall) averages the recalls of the emotions that have test clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

METRICS = ("uar", "accuracy", "macro_f1", "weighted_f1")
N_DRAWS = 2_000
TINY = 1e-12


def speaker_counts(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Confusion counts, shape (n_seeds, n_speakers, n_labels, n_labels); speakers in sorted order.

    Raises
    ------
    ValueError
        An emotion in the table is not among `labels`.
    """
    strange = (set(predictions["emotion"]) | set(predictions["predicted"])) - set(labels)
    if strange:
        raise ValueError(f"{', '.join(sorted(strange))}: not among the labels {', '.join(labels)}")
    code = {label: i for i, label in enumerate(labels)}
    seeds, seed = np.unique(predictions["seed"], return_inverse=True)
    speakers, speaker = np.unique(predictions["speaker"], return_inverse=True)
    counts = np.zeros((len(seeds), len(speakers), len(code), len(code)))
    true, said = predictions["emotion"].map(code), predictions["predicted"].map(code)
    np.add.at(counts, (seed, speaker, true.to_numpy(), said.to_numpy()), 1)
    return counts


def from_counts(counts: np.ndarray, metric: str) -> np.ndarray:
    """One metric of confusion matrices, shape (..., n_labels, n_labels) to (...).

    Raises
    ------
    ValueError
        The metric is not one of `METRICS`.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    clips, said = counts.sum(axis=-1), counts.sum(axis=-2)
    n = np.maximum(clips.sum(axis=-1), 1)
    present = clips > 0
    if metric == "accuracy":
        return hits.sum(axis=-1) / n
    if metric == "uar":
        return np.where(present, hits / np.maximum(clips, 1), 0).sum(axis=-1) / present.sum(axis=-1)
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} is unknown; choose one of {', '.join(METRICS)}")
    f1 = 2 * hits / np.maximum(clips + said, 1)
    weight = present | (said > 0) if metric == "macro_f1" else clips
    return (f1 * weight).sum(axis=-1) / np.maximum(weight.sum(axis=-1), 1)


def _draws(n_speakers: int, seed: int) -> np.ndarray:
    """How often each speaker is drawn in each bootstrap sample, shape (N_DRAWS, n_speakers)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_speakers, np.full(n_speakers, 1 / n_speakers), size=N_DRAWS).astype(float)


def _resampled(counts: np.ndarray, metric: str, seed: int) -> np.ndarray:
    """The metric of each bootstrap sample of speakers, averaged over the models' seeds."""
    draws = _draws(counts.shape[1], seed)
    return np.mean([from_counts(np.tensordot(draws, one, axes=1), metric) for one in counts], axis=0)


def score(
    predictions: pd.DataFrame, labels: Sequence[str], metric: str = "uar", *, seed: int = 0
) -> tuple[float, float, float]:
    """One metric over the pooled test clips, averaged over seeds, with a 95 % interval.

    The interval resamples speakers, the unit that a new user is one of; clips of one speaker are
    not independent, so resampling clips would be too sure.

    Returns
    -------
    value, low, high : float
        Fractions from 0 to 1.
    """
    counts = speaker_counts(predictions, labels)
    value = from_counts(counts.sum(axis=1), metric).mean()
    low, high = np.quantile(_resampled(counts, metric, seed), (0.025, 0.975))
    return float(value), float(low), float(high)


def difference(
    a: pd.DataFrame, b: pd.DataFrame, labels: Sequence[str], metric: str = "uar", *, seed: int = 0
) -> tuple[float, float, float]:
    """`a` minus `b` on the same clips, with a 95 % interval from resampling speakers in pairs.

    Raises
    ------
    ValueError
        The two tables do not hold the same clips.
    """
    if set(a["clip_id"]) != set(b["clip_id"]):
        raise ValueError("a paired difference needs predictions of the same clips")
    x, y = speaker_counts(a, labels), speaker_counts(b, labels)
    value = from_counts(x.sum(axis=1), metric).mean() - from_counts(y.sum(axis=1), metric).mean()
    low, high = np.quantile(_resampled(x, metric, seed) - _resampled(y, metric, seed), (0.025, 0.975))
    return float(value), float(low), float(high)


def verdict(a: str, b: str, gap: tuple[float, float, float]) -> str:
    """One sentence on a paired difference, which may be that there is no clear winner."""
    value, low, high = gap
    interval = f"{value:+.1%} UAR, 95 % interval {low:+.1%} to {high:+.1%}"
    if low <= 0 <= high:
        return f"No clear winner between {a} and {b} ({a} minus {b}: {interval})."
    first, second = (a, b) if value > 0 else (b, a)
    return f"{first} is ahead of {second} ({a} minus {b}: {interval})."


def per_speaker(predictions: pd.DataFrame, labels: Sequence[str], metric: str = "uar") -> pd.Series:
    """One metric a speaker, averaged over seeds."""
    speakers = np.unique(predictions["speaker"])
    return pd.Series(
        from_counts(speaker_counts(predictions, labels), metric).mean(axis=0), index=speakers, name=metric
    )


def confusion(predictions: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Share of each emotion's clips (rows, summing to 1) heard as each emotion (columns)."""
    counts = speaker_counts(predictions, labels).sum(axis=(0, 1))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return pd.DataFrame(
        shares, index=pd.Index(labels, name="emotion"), columns=pd.Index(labels, name="predicted")
    )


def per_class(predictions: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Precision, recall, F1 and number of clips of each emotion, pooled over seeds."""
    counts = speaker_counts(predictions, labels)
    pooled = counts.sum(axis=(0, 1))
    hits, clips, said = np.diag(pooled), pooled.sum(axis=1), pooled.sum(axis=0)
    return pd.DataFrame(
        {
            "precision": hits / np.maximum(said, 1),
            "recall": hits / np.maximum(clips, 1),
            "f1": 2 * hits / np.maximum(clips + said, 1),
            "clips": (clips / len(counts)).astype(int),
        },
        index=pd.Index(labels, name="emotion"),
    )


def probabilities(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """The `p_<emotion>` columns in the order of `labels`, shape (n_clips, n_labels)."""
    return predictions[[f"p_{label}" for label in labels]].to_numpy(np.float64)


def calibration_error(p: np.ndarray, correct: np.ndarray, *, n_bins: int = 15) -> float:
    """Expected calibration error of the top probability, equal-width bins. Source: Guo et al. (2017).

    Parameters
    ----------
    p : ndarray, shape (n_clips, n_labels)
    correct : ndarray of bool, shape (n_clips,)
        Whether the most probable label is the true one.
    """
    table = reliability(p, correct, n_bins=n_bins)
    return float((np.abs(table["confidence"] - table["accuracy"]) * table["clips"]).sum() / len(p))


def reliability(p: np.ndarray, correct: np.ndarray, *, n_bins: int = 15) -> pd.DataFrame:
    """Mean confidence, accuracy and clips of each bin that has clips."""
    top = p.max(axis=1)
    bins = np.minimum((top * n_bins).astype(int), n_bins - 1)
    frame = pd.DataFrame({"bin": bins, "confidence": top, "accuracy": correct.astype(float)})
    grouped = frame.groupby("bin")
    return grouped.mean().assign(clips=grouped.size()).reset_index(drop=True)


def sharpen(p: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the log-probabilities by `temperature` and normalise; above 1 is less sure."""
    logits = np.log(np.maximum(p, TINY)) / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def fit_temperature(p: np.ndarray, true: np.ndarray) -> float:
    """The temperature that makes the true labels most likely.

    Parameters
    ----------
    p : ndarray, shape (n_clips, n_labels)
        Out-of-fold probabilities; those of training clips would say 1.
    true : ndarray of int, shape (n_clips,)
        Column of the true label.
    """

    def loss(log_t: float) -> float:
        return -np.log(np.maximum(sharpen(p, np.exp(log_t))[np.arange(len(p)), true], TINY)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def variance_share(values: pd.DataFrame, groups: pd.Series) -> pd.Series:
    """The share of each column's variance that lies between groups (eta squared), 0 to 1.

    Ranks are used, so that outliers do not decide (the statistic of the Kruskal-Wallis test).
    """
    ranks = values.rank()
    between = ranks.groupby(groups.to_numpy()).transform("mean")
    return between.var() / ranks.var().replace(0, np.nan)
