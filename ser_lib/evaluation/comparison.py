"""Two models on the same clips, and groups of clips or seeds of one model: how far apart their scores are.

Intervals resample speakers, as in `metrics`. What is compared of one speaker is drawn together, since who is
hard to hear is so on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binom

from ser_lib.evaluation.metrics import (
    N_DRAWS,
    drawn_scores,
    from_counts,
    score,
    speaker_counts,
    speaker_draws,
)


def difference(
    a: pd.DataFrame, b: pd.DataFrame, labels: Sequence[str], metric: str = "uar", *, seed: int = 0
) -> tuple[float, float, float]:
    """`a` minus `b` on the same clips, with a 95 % interval from resampling speakers in pairs.

    Raises
    ------
    ValueError
        The two tables do not hold the same clips.

    Examples
    --------
    >>> said = pd.DataFrame({"clip_id": ["a", "b"], "speaker": ["ann", "ben"], "emotion": ["sad", "happy"]})
    >>> right, always_sad = (said.assign(seed=0, predicted=what) for what in (said["emotion"], "sad"))
    >>> difference(right, always_sad, ["happy", "sad"])  # no better on ann, better on ben
    (0.5, 0.0, 1.0)
    """
    if set(a["clip_id"]) != set(b["clip_id"]):
        raise ValueError("a paired difference needs predictions of the same clips")
    x, y = speaker_counts(a, labels), speaker_counts(b, labels)
    value = from_counts(x.sum(axis=1), metric).mean() - from_counts(y.sum(axis=1), metric).mean()
    draws = speaker_draws(x.shape[1], seed)
    low, high = np.quantile(drawn_scores(x, metric, draws) - drawn_scores(y, metric, draws), (0.025, 0.975))
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
    """One metric for each group of clips, as `metrics.score` gives it.

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

    Examples
    --------
    >>> said = pd.DataFrame({"clip_id": list("abc"), "speaker": ["ann", "ben", "cat"], "emotion": "sad"})
    >>> said = said.assign(seed=0, predicted=["sad", "sad", "happy"])
    >>> gender = pd.Series({"a": "female", "b": "male", "c": "female"})
    >>> by_group(said, gender, ["happy", "sad"]).to_numpy().tolist()
    [['female', 0.5, 0.0, 1.0, 2, 2], ['male', 1.0, 1.0, 1.0, 1, 1]]
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

    Examples
    --------
    >>> said = pd.DataFrame({"clip_id": list("abcd"), "speaker": ["ann", "ann", "ben", "ben"]})
    >>> said = said.assign(seed=0, emotion="sad", predicted=["sad", "sad", "sad", "happy"])  # d is misheard
    >>> intensity = pd.Series({"a": "strong", "b": "normal", "c": "strong", "d": "normal"})
    >>> group_gap(said, intensity, "strong", "normal", ["happy", "sad"])
    (0.5, 0.0, 1.0)
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
                draws[:, these] = speaker_draws(these.sum(), drawn_by)
        resampled.append(drawn_scores(speaker_counts(parts[name], labels), metric, draws))
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

    Examples
    --------
    >>> said = pd.DataFrame({"clip_id": list("abcde"), "seed": 0, "emotion": "sad"})
    >>> sad, happy = said.assign(predicted="sad"), said.assign(predicted=["sad"] + 4 * ["happy"])
    >>> mcnemar(sad, happy).round(4).to_dict("records")
    [{'seed': 0, 'b': 4, 'c': 0, 'exact': 0.125, 'mid_p': 0.0625}]
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
    """How much one metric differs between the models' seeds: `std` (NaN for one seed), `range`, `seeds`.

    Examples
    --------
    >>> said = pd.DataFrame({"seed": [0, 0, 1, 1], "emotion": ["happy", "sad", "happy", "sad"]})
    >>> said = said.assign(speaker="ann", predicted=["happy", "sad", "sad", "sad"])  # UAR 1 and 0.5
    >>> seed_spread(said, ["happy", "sad"]).round(3).to_dict()
    {'std': 0.354, 'range': 0.5, 'seeds': 2.0}
    """
    values = from_counts(speaker_counts(predictions, labels).sum(axis=1), metric)
    std = values.std(ddof=1) if len(values) > 1 else np.nan
    return pd.Series({"std": std, "range": np.ptp(values), "seeds": len(values)}, name=metric)
