"""Differences between scores: of two models on the same clips, of groups of clips, of a model's seeds.

Intervals resample speakers, as in `metrics`. Both scores of a difference use the same draws, because a speaker who
is hard for one model is hard for the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binom

from ser_lib.evaluation import metrics
from ser_lib.evaluation.metrics import bootstrap_scores, from_counts, score, speaker_counts, speaker_draws


def difference(
    a: pd.DataFrame, b: pd.DataFrame, labels: Sequence[str], metric: str = "uar", *, seed: int = 0
) -> tuple[float, float, float]:
    """Return `a` minus `b` on the same clips: value, low and high (95 % interval, paired by speaker).

    Raises
    ------
    ValueError
        The two tables do not hold the same clips.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": ["a", "b"], "speaker": ["ann", "ben"], "emotion": ["sad", "happy"]})
    >>> a = clips.assign(seed=0, predicted=["sad", "happy"])
    >>> difference(a, a.assign(predicted="sad"), ["happy", "sad"])  # no better on ann, better on ben
    (0.5, 0.0, 1.0)
    """
    if set(a["clip_id"]) != set(b["clip_id"]):
        raise ValueError("a paired difference needs predictions of the same clips")
    x, y = speaker_counts(a, labels), speaker_counts(b, labels)
    value = from_counts(x.sum(axis=1), metric).mean() - from_counts(y.sum(axis=1), metric).mean()
    draws = speaker_draws(x.shape[1], seed)
    differences = bootstrap_scores(x, metric, draws) - bootstrap_scores(y, metric, draws)
    low, high = np.quantile(differences, (0.025, 0.975))
    return float(value), float(low), float(high)


def verdict(a: str, b: str, gap: tuple[float, float, float]) -> str:
    """Return one sentence on a paired difference; no clear winner if the interval holds zero.

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
    """Return one metric of each group of clips, with its interval.

    Parameters
    ----------
    groups : Series indexed by `clip_id`
        Gender, intensity, statement…; clips without a value are in no group.

    Returns
    -------
    DataFrame
        `group, value, low, high, clips, speakers`. The interval of a group with one speaker resamples clips
        instead; it does not hold for other speakers.

    Raises
    ------
    ValueError
        A clip is missing from `groups`.

    Examples
    --------
    >>> predictions = pd.DataFrame({"clip_id": list("abc"), "speaker": ["ann", "ben", "cat"], "emotion": "sad"})
    >>> predictions = predictions.assign(seed=0, predicted=["sad", "sad", "happy"])
    >>> gender = pd.Series({"a": "female", "b": "male", "c": "female"})
    >>> by_group(predictions, gender, ["happy", "sad"]).to_numpy().tolist()
    [['female', 0.5, 0.0, 1.0, 2, 2], ['male', 1.0, 1.0, 1.0, 1, 1]]
    """
    rows = []
    for group, part in _parts(predictions, groups).items():
        speakers, clips = part["speaker"].nunique(), part["clip_id"].nunique()
        resampled = part if speakers > 1 else part.assign(speaker=part["clip_id"])
        value, low, high = score(resampled, labels, metric, seed=seed)
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
    """Return group `a` minus group `b`: value, low and high (95 % interval from resampling speakers).

    Each group draws its own speakers (as for gender). Speakers in both groups (as for intensity) are drawn once for
    both. The bounds are NaN if a group has only one speaker.

    Raises
    ------
    ValueError
        A clip is missing from `groups`, or a group has no clip.

    Examples
    --------
    >>> predictions = pd.DataFrame({"clip_id": list("abcd"), "speaker": ["ann", "ann", "ben", "ben"]})
    >>> predictions = predictions.assign(seed=0, emotion="sad", predicted=["sad", "sad", "sad", "happy"])
    >>> intensity = pd.Series({"a": "strong", "b": "normal", "c": "strong", "d": "normal"})
    >>> group_gap(predictions, intensity, "strong", "normal", ["happy", "sad"])
    (0.5, 0.0, 1.0)
    """
    parts = _parts(predictions, groups)
    absent = [name for name in (a, b) if name not in parts]
    if absent:
        raise ValueError(
            f"no clip in group {', '.join(map(str, absent))}; there are {', '.join(map(str, parts))}"
        )
    value = score(parts[a], labels, metric)[0] - score(parts[b], labels, metric)[0]
    if min(parts[a]["speaker"].nunique(), parts[b]["speaker"].nunique()) < 2:
        return value, np.nan, np.nan
    shared = np.intersect1d(parts[a]["speaker"], parts[b]["speaker"])
    scores_a = bootstrap_scores(
        speaker_counts(parts[a], labels), metric, _draws(parts[a], shared, seed, seed + 1)
    )
    scores_b = bootstrap_scores(
        speaker_counts(parts[b], labels), metric, _draws(parts[b], shared, seed, seed + 2)
    )
    low, high = np.quantile(scores_a - scores_b, (0.025, 0.975))
    return value, float(low), float(high)


def _draws(part: pd.DataFrame, shared: np.ndarray, shared_seed: int, own_seed: int) -> np.ndarray:
    """Return draws of a group's speakers: of those in both groups by one seed, of the others by another."""
    speakers = np.unique(part["speaker"])
    in_both, draws = np.isin(speakers, shared), np.empty((metrics.N_DRAWS, len(speakers)))
    for chosen, seed in ((in_both, shared_seed), (~in_both, own_seed)):
        if chosen.any():
            draws[:, chosen] = speaker_draws(chosen.sum(), seed)
    return draws


def _parts(predictions: pd.DataFrame, groups: pd.Series) -> dict[str, pd.DataFrame]:
    missing = set(predictions["clip_id"]) - set(groups.index)
    if missing:
        raise ValueError(f"{min(missing)} and {len(missing) - 1} more clips are missing from the groups")
    return dict(list(predictions.groupby(predictions["clip_id"].map(groups))))


def mcnemar(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return McNemar's test, by seed: whether each model alone is right on equally many clips.

    The test assumes independent clips, but clips of one speaker are not: its p-values are smaller than
    those of `difference` would be. The mid-p value is less conservative than the exact one. Source: Fagerland et al. (2013).

    Returns
    -------
    DataFrame
        `seed, b (only the first is right), c (only the second is right), exact, mid_p`; two-sided.

    Raises
    ------
    ValueError
        The two tables do not hold the same clips and seeds.

    Examples
    --------
    >>> a = pd.DataFrame({"clip_id": list("abcde"), "seed": 0, "emotion": "sad", "predicted": "sad"})
    >>> mcnemar(a, a.assign(predicted=["sad"] + 4 * ["happy"])).round(4).to_dict("records")
    [{'seed': 0, 'b': 4, 'c': 0, 'exact': 0.125, 'mid_p': 0.0625}]
    """
    a, b = a.set_index(["seed", "clip_id"]), b.set_index(["seed", "clip_id"])
    if not a.sort_index().index.equals(b.sort_index().index):
        raise ValueError("a paired test needs predictions of the same clips and seeds")
    right_a = a["predicted"] == a["emotion"]
    right_b = (b["predicted"] == b["emotion"]).reindex(a.index)
    only = pd.DataFrame({"b": right_a & ~right_b, "c": right_b & ~right_a})
    counts = only.groupby(level="seed").sum().reset_index()
    fewer, n = counts[["b", "c"]].min(axis=1), counts["b"] + counts["c"]
    tails = 2 * binom.cdf(fewer, n, 0.5)
    return counts.assign(exact=np.minimum(tails, 1), mid_p=tails - binom.pmf(fewer, n, 0.5))


def seed_spread(predictions: pd.DataFrame, labels: Sequence[str], metric: str = "uar") -> pd.Series:
    """Return the spread of one metric over a model's seeds: `std` (NaN for one seed), `range`, `seeds`.

    Examples
    --------
    >>> predictions = pd.DataFrame({"seed": [0, 0, 1, 1], "emotion": ["happy", "sad", "happy", "sad"]})
    >>> predictions = predictions.assign(speaker="ann", predicted=["happy", "sad", "sad", "sad"])  # UAR 1 and 0.5
    >>> seed_spread(predictions, ["happy", "sad"]).round(3).to_dict()
    {'std': 0.354, 'range': 0.5, 'seeds': 2.0}
    """
    values = from_counts(speaker_counts(predictions, labels).sum(axis=1), metric)
    std = values.std(ddof=1) if len(values) > 1 else np.nan
    return pd.Series({"std": std, "range": np.ptp(values), "seeds": len(values)}, name=metric)
