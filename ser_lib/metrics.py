"""Numbers from a predictions table, with intervals that resample speakers.

All is of confusion counts (rows true, columns predicted, in the order given), one matrix a speaker and seed, so that
2,000 draws take milliseconds. UAR (unweighted average recall) averages the recalls of emotions that have test clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binom

METRICS = ("uar", "accuracy", "macro_f1", "weighted_f1")
N_DRAWS = 2_000


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

    Examples
    --------
    >>> float(from_counts(np.array([[3, 1], [2, 2]]), "uar"))  # of four clips each, 3 and 2 are right
    0.625
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


def _resampled(counts: np.ndarray, metric: str, draws: np.ndarray) -> np.ndarray:
    """The metric of each bootstrap sample of speakers, averaged over the models' seeds."""
    return np.mean([from_counts(np.tensordot(draws, one, axes=1), metric) for one in counts], axis=0)


def score(
    predictions: pd.DataFrame, labels: Sequence[str], metric: str = "uar", *, seed: int = 0
) -> tuple[float, float, float]:
    """One metric over the pooled test clips, averaged over seeds: value, low, high (95 % interval), from 0 to 1.

    The interval resamples speakers, the unit that a new user is one of; clips of one speaker are
    not independent, so resampling clips would be too sure.

    Examples
    --------
    >>> said = pd.DataFrame({"speaker": ["ann", "ben"], "emotion": ["sad", "happy"]})
    >>> score(said.assign(seed=0, predicted="sad"), ["happy", "sad"])  # right on ann, wrong on ben
    (0.5, 0.0, 1.0)
    """
    counts = speaker_counts(predictions, labels)
    value = from_counts(counts.sum(axis=1), metric).mean()
    low, high = np.quantile(_resampled(counts, metric, _draws(counts.shape[1], seed)), (0.025, 0.975))
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
    draws = _draws(x.shape[1], seed)
    low, high = np.quantile(_resampled(x, metric, draws) - _resampled(y, metric, draws), (0.025, 0.975))
    return float(value), float(low), float(high)


def verdict(a: str, b: str, gap: tuple[float, float, float]) -> str:
    """One sentence on a paired difference, which may be that there is no clear winner.

    Examples
    --------
    >>> verdict("mlp", "svm", (0.031, 0.01, 0.052))
    'mlp is ahead of svm (mlp minus svm: +3.1% UAR, 95 % interval +1.0% to +5.2%).'
    """
    value, low, high = gap
    interval = f"{value:+.1%} UAR, 95 % interval {low:+.1%} to {high:+.1%}"
    if low <= 0 <= high:
        return f"No clear winner between {a} and {b} ({a} minus {b}: {interval})."
    first, second = (a, b) if value > 0 else (b, a)
    return f"{first} is ahead of {second} ({a} minus {b}: {interval})."


def by_group(
    predictions: pd.DataFrame, groups: pd.Series, labels: Sequence[str], metric: str = "uar", *, seed: int = 0
) -> pd.DataFrame:
    """One metric for each group of clips, as `score` gives it.

    Parameters
    ----------
    groups : Series indexed by `clip_id`
        Gender, intensity, statement…; clips without a value belong to no group.

    Returns
    -------
    DataFrame
        `group, value, low, high, clips, speakers`; the interval of a group of one speaker resamples its
        clips instead, and says nothing of other speakers.

    Raises
    ------
    ValueError
        A clip is not in `groups`.
    """
    rows = []
    for group, part in _parts(predictions, groups).items():
        speakers, clips = part["speaker"].nunique(), part["clip_id"].nunique()
        drawn = part if speakers > 1 else part.assign(speaker=part["clip_id"])
        value, low, high = score(drawn, labels, metric, seed=seed)
        rows.append((group, value, low, high, clips, speakers))
    return pd.DataFrame(rows, columns=["group", "value", "low", "high", "clips", "speakers"])


def group_gap(
    predictions: pd.DataFrame,
    groups: pd.Series,
    a: str,
    b: str,
    labels: Sequence[str],
    metric: str = "uar",
    *,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Group `a` minus group `b`, with a 95 % interval from resampling speakers.

    Speakers are drawn within each group (gender); those in both (intensity) are drawn once for both,
    since their clips come in pairs. No bounds (NaN) if a group is of one speaker.

    Raises
    ------
    ValueError
        A clip is not in `groups`, or a group has no clip.
    """
    parts = _parts(predictions, groups)
    absent = [name for name in (a, b) if name not in parts]
    if absent:
        raise ValueError(
            f"no clip in group {', '.join(map(str, absent))}; there are {', '.join(map(str, parts))}"
        )
    value = score(parts[a], labels, metric)[0] - score(parts[b], labels, metric)[0]
    speakers = np.unique(parts[a]["speaker"]), np.unique(parts[b]["speaker"])
    if min(map(len, speakers)) < 2:
        return value, np.nan, np.nan
    resampled = []
    for own_seed, name, heard in zip((seed + 1, seed + 2), (a, b), speakers, strict=True):
        paired, draws = np.isin(heard, np.intersect1d(*speakers)), np.empty((N_DRAWS, len(heard)))
        for these, drawn_by in ((paired, seed), (~paired, own_seed)):
            if these.any():
                draws[:, these] = _draws(these.sum(), drawn_by)
        resampled.append(_resampled(speaker_counts(parts[name], labels), metric, draws))
    low, high = np.quantile(resampled[0] - resampled[1], (0.025, 0.975))
    return value, float(low), float(high)


def _parts(predictions: pd.DataFrame, groups: pd.Series) -> dict[str, pd.DataFrame]:
    strange = set(predictions["clip_id"]) - set(groups.index)
    if strange:
        raise ValueError(f"{min(strange)} and {len(strange) - 1} more clips are in no group")
    return dict(list(predictions.groupby(predictions["clip_id"].map(groups))))


def mcnemar(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Whether two models are right on different clips equally often, seed by seed.

    McNemar's exact test takes clips as independent, which those of one speaker are not: it is surer than
    `difference`. The mid-p value is less conservative than the exact one. Source: Fagerland et al. (2013).

    Returns
    -------
    DataFrame
        `seed, b (only the first is right), c (only the second), exact, mid_p`; two-sided.

    Raises
    ------
    ValueError
        The two tables do not hold the same clips and seeds.
    """
    right = [
        (t["predicted"] == t["emotion"]).set_axis(pd.MultiIndex.from_frame(t[["seed", "clip_id"]]))
        for t in (a, b)
    ]
    if not right[0].sort_index().index.equals(right[1].sort_index().index):
        raise ValueError("a paired test needs predictions of the same clips and seeds")
    pairs = pd.concat(right, axis=1, keys=["a", "b"])
    only = pd.DataFrame({"b": pairs["a"] & ~pairs["b"], "c": pairs["b"] & ~pairs["a"]})
    counts = only.groupby(level="seed").sum().reset_index()
    fewer, n = counts[["b", "c"]].min(axis=1), counts["b"] + counts["c"]
    tails = 2 * binom.cdf(fewer, n, 0.5)
    return counts.assign(exact=np.minimum(tails, 1), mid_p=tails - binom.pmf(fewer, n, 0.5))


def seed_spread(predictions: pd.DataFrame, labels: Sequence[str], metric: str = "uar") -> pd.Series:
    """How much one metric differs between the models' seeds: `std` (NaN for one seed), `range`, `seeds`."""
    values = from_counts(speaker_counts(predictions, labels).sum(axis=1), metric)
    std = values.std(ddof=1) if len(values) > 1 else np.nan
    return pd.Series({"std": std, "range": np.ptp(values), "seeds": len(values)}, name=metric)


def per_speaker(predictions: pd.DataFrame, labels: Sequence[str], metric: str = "uar") -> pd.Series:
    """One metric a speaker, averaged over seeds.

    Examples
    --------
    >>> said = pd.DataFrame({"speaker": ["ann", "ann", "ben"], "emotion": ["sad", "happy", "sad"]})
    >>> per_speaker(said.assign(seed=0, predicted="sad"), ["happy", "sad"]).to_dict()
    {'ann': 0.5, 'ben': 1.0}
    """
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


def variance_share(values: pd.DataFrame, groups: pd.Series) -> pd.Series:
    """The share of each column's variance that lies between groups (eta squared), 0 to 1; NaN where it has none.

    Ranks are used, so that outliers do not decide (the statistic of the Kruskal-Wallis test).
    """
    ranks = values.rank()
    between = ranks.groupby(groups.to_numpy()).transform("mean")
    return between.var() / ranks.var()
