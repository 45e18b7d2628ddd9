"""Features relative to something: to their speaker (without labels, or enrolled), or to the clip's own level.

All take a feature table and give one with the same columns, to be evaluated like any other. Neither
looks at an emotion, but for the neutral clips that an enrolled speaker records on request, which are
then left out; so they may be applied before the folds are made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ser_lib.corpora import identity
from ser_lib.errors import CorpusError
from ser_lib.features.tables import feature_columns

# How many clips what is known of all speakers counts for, beside the n clips of one.
PRIOR_MEAN = 1  # the mean over speakers: n = 1 moves a feature half of the way, n = 3 three quarters
PRIOR_DEVIATION = 4  # the deviation pooled over speakers


@dataclass(frozen=True)
class Speakers:
    """What is known of the speakers that a model learnt from, by feature; shapes (n_features,)."""

    mean: np.ndarray  # over speakers, of the mean of their neutral clips
    variance: np.ndarray  # over speakers, of the variance of their neutral clips

    def relative_to(self, neutral: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Features as differences from a speaker's neutral clips.

        The mean of these is shrunk towards that of all speakers (`PRIOR_MEAN`), since that of few clips is
        mostly chance. With two clips or more the features are also divided by the deviation of the clips
        relative to the pooled one, shrunk towards 1 (`PRIOR_DEVIATION`); one clip has no deviation.

        Parameters
        ----------
        neutral : ndarray, shape (n, n_features)
            Of the speaker's neutral clips.
        values : ndarray, shape (n_clips, n_features)
            Of other clips of the speaker.

        Examples
        --------
        >>> known = Speakers(mean=np.array([-30.0]), variance=np.array([4.0]))
        >>> known.relative_to(np.array([[-40.0]]), np.array([[-25.0]]))  # from -35, halfway to the one clip
        array([[10.]])
        """
        n = len(neutral)
        found = values - (self.mean + (neutral.mean(axis=0) - self.mean) * n / (n + PRIOR_MEAN))
        if n == 1:
            return found
        varies = self.variance > 0
        relative = np.divide(
            neutral.var(axis=0, ddof=1), self.variance, np.ones_like(self.mean), where=varies
        )
        return found / np.sqrt(((n - 1) * relative + PRIOR_DEVIATION) / (n - 1 + PRIOR_DEVIATION))


def transductive(table: pd.DataFrame, by: str = "speaker") -> pd.DataFrame:
    """Standardise each feature within each speaker, over all of the speaker's clips.

    It needs no label but every clip to be tested: a user whose past recordings are kept, each emotion
    among them about as often as in training. Its score is no promise for a first clip. With
    `by="corpus"` the same for a whole corpus, which takes out its microphone and room.

    Examples
    --------
    >>> table = pd.DataFrame({"speaker": ["ann", "ann", "ben", "ben"], "level_mean": [-30.0, -20.0, -50.0, -40.0]})
    >>> transductive(table)["level_mean"].to_list()
    [-1.0, 1.0, -1.0, 1.0]
    """
    columns = feature_columns(table)
    held = table[identity.originals(table)].groupby(by)[columns]
    mean, std = (found.loc[table[by]].to_numpy(np.float64) for found in (held.mean(), held.std(ddof=0)))
    values = (table[columns].to_numpy(np.float64) - mean) / np.where(std > 0, std, 1)
    return _with_features(table, values)


def transductive_frames(table: pd.DataFrame, shape: tuple[int, int]) -> pd.DataFrame:
    """As `transductive` for frames: each value within its speaker, over all frames, then on the scale of all speakers.

    Parameters
    ----------
    shape : (n_frames, n_values)
        Of a clip, as in `features.FRAMES`.

    Examples
    --------
    >>> table = pd.DataFrame({"speaker": ["ann", "ben"], "f0_001": [10.0, 20.0], "f0_002": [14.0, 28.0]})
    >>> transductive_frames(table, shape=(2, 1))[["f0_001", "f0_002"]].to_numpy().round(1)
    array([[11.2, 24.8],
           [11.2, 24.8]], dtype=float32)
    """
    frames = table[feature_columns(table)].to_numpy(np.float64).reshape(len(table), *shape)
    held = identity.originals(table)
    whole = frames[held].reshape(-1, shape[1])
    values = np.empty_like(frames)
    for rows in table.groupby("speaker").indices.values():
        own = frames[rows[held[rows]]].reshape(-1, shape[1])
        std = np.nanstd(own, axis=0)
        values[rows] = (frames[rows] - np.nanmean(own, axis=0)) / np.where(std > 0, std, 1)
    values = values * np.nanstd(whole, axis=0) + np.nanmean(whole, axis=0)
    return _with_features(table, values.reshape(len(table), -1))


def enrolled(table: pd.DataFrame, *, n: int = 3, seed: int = 0) -> pd.DataFrame:
    """Features as differences from the mean of `n` neutral clips of the speaker, which are left out.

    As `Speakers.relative_to`.

    Parameters
    ----------
    table : DataFrame
        With neutral clips, so before `tables.select` leaves them out.
    n : int
        Clips that each speaker records; drawn at random from the neutral originals.
    seed : int
        Of the draw.

    Returns
    -------
    DataFrame
        Without the enrolled clips, their twins and their altered copies: neither trained on nor tested.

    Raises
    ------
    CorpusError
        A speaker has fewer than `n` neutral clips.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": list("abcd"), "speaker": ["ann", "ann", "ben", "ben"]})
    >>> table = table.assign(emotion=["neutral", "happy"] * 2, level_mean=[-30.0, -24.0, -40.0, -34.0])
    >>> enrolled(table, n=1)[["clip_id", "level_mean"]].to_dict("list")
    {'clip_id': ['b', 'd'], 'level_mean': [8.5, 3.5]}
    """
    columns, drawn = feature_columns(table), neutral_clips(table, n=n, seed=seed)
    kept = table[~identity.origins(table).isin(identity.contents(drawn))].reset_index(drop=True)
    values, known = kept[columns].to_numpy(np.float64, copy=True), speakers(drawn)
    for speaker, rows in kept.groupby("speaker").indices.items():
        own = drawn[drawn["speaker"] == speaker][columns].to_numpy(np.float64)
        values[rows] = known.relative_to(own, values[rows])
    return _with_features(kept, values)


def fewest_neutral(table: pd.DataFrame) -> int:
    """The fewest neutral clips that a speaker has, twins counted once: more than are to be enrolled are needed.

    Examples
    --------
    >>> fewest_neutral(pd.DataFrame({"clip_id": list("ab"), "speaker": "ann", "emotion": ["neutral", "happy"]}))
    1
    """
    return int(_neutral(table)[1].min())


def _neutral(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """The neutral originals, of twins one, and their number by speaker."""
    neutral = table[identity.originals(table) & (table["emotion"] == "neutral")].sort_values("clip_id")
    neutral = neutral[~identity.contents(neutral).duplicated()]
    return neutral, neutral["speaker"].value_counts().reindex(table["speaker"].unique(), fill_value=0)


def neutral_clips(table: pd.DataFrame, *, n: int = 3, seed: int = 0) -> pd.DataFrame:
    """The rows of `n` neutral originals of each speaker, which `enrolled` draws at random.

    Raises
    ------
    CorpusError
        As `enrolled`.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": list("abc"), "speaker": "ann", "emotion": ["neutral", "happy", "neutral"]})
    >>> sorted(neutral_clips(table, n=2)["clip_id"])
    ['a', 'c']
    """
    neutral, counts = _neutral(table)
    if n < 1 or counts.min() < n:
        raise CorpusError(
            f"speaker {counts.idxmin()} has {counts.min()} neutral clip(s), {n} are to be enrolled; "
            f"choose n from 1 to {max(counts.min(), 1)}, or leave the speaker out"
        )
    return neutral.groupby("speaker").sample(n, random_state=seed)


def speakers(neutral: pd.DataFrame) -> Speakers:
    """What is known of all speakers from a table of neutral clips: the mean of their means, and of their variances.

    Examples
    --------
    >>> neutral = pd.DataFrame({"speaker": ["ann", "ann", "ben"], "level_mean": [-32.0, -28.0, -40.0]})
    >>> speakers(neutral).mean
    array([-35.])
    """
    by_speaker = neutral.groupby("speaker")[feature_columns(neutral)]
    variance = by_speaker.var(ddof=1).mean().fillna(0)
    return Speakers(by_speaker.mean().astype(np.float64).mean().to_numpy(), variance.to_numpy(np.float64))


def relative_level(table: pd.DataFrame) -> pd.DataFrame:
    """The full set's levels in decibels as differences from the clip's own loud frames (`level_p95`).

    A gain shifts the level, every mel band and, by the square root of the number of bands, the first MFCC
    alike; after this it changes nothing, and how loud a speaker was is no longer known.

    Examples
    --------
    >>> table = pd.DataFrame({"level_p50": [-26.0], "level_p95": [-20.0], "f0_semitone_p50": [36.0]})
    >>> relative_level(table).to_dict("records")
    [{'level_p50': -6.0, 'level_p95': 0.0, 'f0_semitone_p50': 36.0}]
    """
    columns = feature_columns(table)
    bands = {name.rsplit("_", 1)[0] for name in columns if name.startswith("mel_")}
    shift = dict.fromkeys(bands, 1.0) | {"level": 1.0, "mfcc_01": np.sqrt(len(bands))}
    stems = [name.rsplit("_", 1) for name in columns]
    location = ("mean", "p05", "p50", "p95", "vmean")
    by = np.array([shift.get(stem, 0) if how in location else 0 for stem, how in stems])
    values = table[columns].to_numpy(np.float64) - table[["level_p95"]].to_numpy(np.float64) * by
    return _with_features(table, values)


def _with_features(table: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    columns = feature_columns(table)
    features = pd.DataFrame(values.astype(np.float32), columns=columns, index=table.index)
    return pd.concat([table.drop(columns=columns), features], axis=1)[list(table.columns)]
