"""Features relative to their speaker (all clips, or a few enrolled ones), their corpus, or the clip's own level.

Each function takes a feature table and returns one with the same columns. None uses an emotion label, except that
`enrolled` takes neutral clips, which a speaker records on request, and leaves them out. So all of them may be
applied before the folds are made. The server uses `Speakers` alone, so pandas is imported only where it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ser_lib.errors import CorpusError

if TYPE_CHECKING:
    import pandas as pd

# Prior weight, in clips: how strongly one speaker's statistics shrink to those of all speakers.
PRIOR_MEAN = 1  # one clip counts half, three clips three quarters
PRIOR_DEVIATION = 4


@dataclass(frozen=True)
class Speakers:
    """Statistics of the training speakers' neutral clips, by feature; shapes (n_features,)."""

    mean: np.ndarray  # over speakers, of each speaker's mean
    variance: np.ndarray  # over speakers, of each speaker's variance

    def relative_to(self, neutral: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Subtract a speaker's neutral mean from `values` and, with two neutral clips or more, scale them.

        The speaker's mean shrinks to that of all speakers (`PRIOR_MEAN`), because the mean of a few clips is
        mostly chance. The scale is the speaker's deviation relative to the pooled one, shrunk to 1
        (`PRIOR_DEVIATION`).

        Parameters
        ----------
        neutral : ndarray, shape (n, n_features)
            The speaker's neutral clips.
        values : ndarray, shape (n_clips, n_features)
            Other clips of the speaker.

        Examples
        --------
        >>> speakers = Speakers(mean=np.array([-30.0]), variance=np.array([4.0]))
        >>> speakers.relative_to(np.array([[-40.0]]), np.array([[-25.0]]))  # the shrunken mean is -35
        array([[10.]])
        """
        n = len(neutral)
        centred = values - (self.mean + (neutral.mean(axis=0) - self.mean) * n / (n + PRIOR_MEAN))
        if n == 1:
            return centred
        ratio = np.ones_like(self.mean)
        np.divide(neutral.var(axis=0, ddof=1), self.variance, out=ratio, where=self.variance > 0)
        return centred / np.sqrt(((n - 1) * ratio + PRIOR_DEVIATION) / (n - 1 + PRIOR_DEVIATION))


def transductive(table: pd.DataFrame, by: str = "speaker") -> pd.DataFrame:
    """Standardise each feature within each speaker, over all clips of the speaker.

    This needs all test clips at once, each emotion about as often as in training, so its score says nothing about
    a speaker's first clip. `by="corpus"` does the same within each corpus and removes its microphone and room.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"speaker": ["ann", "ann", "ben", "ben"], "level_mean": [-30.0, -20.0, -50.0, -40.0]})
    >>> transductive(table)["level_mean"].to_list()
    [-1.0, 1.0, -1.0, 1.0]
    """
    from ser_lib.corpora import identity

    columns = _feature_columns(table)
    groups = table[identity.originals(table)].groupby(by)[columns]
    mean = groups.mean().loc[table[by]].to_numpy(np.float64)
    std = groups.std(ddof=0).loc[table[by]].to_numpy(np.float64)
    return _with_features(table, (table[columns].to_numpy(np.float64) - mean) / np.where(std > 0, std, 1))


def transductive_frames(table: pd.DataFrame, shape: tuple[int, int]) -> pd.DataFrame:
    """Standardise frames within each speaker, over all frames, then rescale them to all speakers' mean and deviation.

    Parameters
    ----------
    shape : (n_frames, n_values)
        Of one clip, as in `features.FRAMES`.
    """
    from ser_lib.corpora import identity

    frames = table[_feature_columns(table)].to_numpy(np.float64).reshape(len(table), *shape)
    original = identity.originals(table)
    whole = frames[original].reshape(-1, shape[1])
    values = np.empty_like(frames)
    for rows in table.groupby("speaker").indices.values():
        own = frames[rows[original[rows]]].reshape(-1, shape[1])
        std = np.nanstd(own, axis=0)
        values[rows] = (frames[rows] - np.nanmean(own, axis=0)) / np.where(std > 0, std, 1)
    values = values * np.nanstd(whole, axis=0) + np.nanmean(whole, axis=0)
    return _with_features(table, values.reshape(len(table), -1))


def enrolled(table: pd.DataFrame, *, n: int = 3, seed: int = 0) -> pd.DataFrame:
    """Features relative to `n` neutral clips of the speaker (`Speakers.relative_to`), which are left out.

    Parameters
    ----------
    table : DataFrame
        With neutral clips: apply `tables.select` afterwards.
    n, seed : int
        Neutral clips per speaker, and the seed that draws them.

    Returns
    -------
    DataFrame
        Without the enrolled clips, their twins and their augmented copies: neither trained on nor tested.

    Raises
    ------
    CorpusError
        A speaker has fewer than `n` neutral clips.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"clip_id": list("abcd"), "speaker": ["ann", "ann", "ben", "ben"]})
    >>> table = table.assign(emotion=["neutral", "happy"] * 2, level_mean=[-30.0, -24.0, -40.0, -34.0])
    >>> enrolled(table, n=1)[["clip_id", "level_mean"]].to_dict("list")
    {'clip_id': ['b', 'd'], 'level_mean': [8.5, 3.5]}
    """
    from ser_lib.corpora import identity

    columns, drawn = _feature_columns(table), neutral_clips(table, n=n, seed=seed)
    kept = table[~identity.origins(table).isin(identity.contents(drawn))].reset_index(drop=True)
    values, statistics = kept[columns].to_numpy(np.float64, copy=True), speakers(drawn)
    for speaker, rows in kept.groupby("speaker").indices.items():
        own = drawn[drawn["speaker"] == speaker][columns].to_numpy(np.float64)
        values[rows] = statistics.relative_to(own, values[rows])
    return _with_features(kept, values)


def fewest_neutral(table: pd.DataFrame) -> int:
    """The smallest number of neutral clips that a speaker has; twins count once."""
    return int(_neutral(table)[1].min())


def _neutral(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """The neutral originals, one of each set of twins, and their number by speaker."""
    from ser_lib.corpora import identity

    neutral = table[identity.originals(table) & (table["emotion"] == "neutral")].sort_values("clip_id")
    neutral = neutral[~identity.contents(neutral).duplicated()]
    return neutral, neutral["speaker"].value_counts().reindex(table["speaker"].unique(), fill_value=0)


def neutral_clips(table: pd.DataFrame, *, n: int = 3, seed: int = 0) -> pd.DataFrame:
    """Draw `n` neutral originals of each speaker at random, as `enrolled` does.

    Raises
    ------
    CorpusError
        As `enrolled`.
    """
    neutral, counts = _neutral(table)
    if n < 1 or counts.min() < n:
        raise CorpusError(
            f"speaker {counts.idxmin()} has {counts.min()} neutral clip(s), enrolment needs {n}; "
            f"choose n from 1 to {max(counts.min(), 1)}, or leave the speaker out"
        )
    return neutral.groupby("speaker").sample(n, random_state=seed)


def speakers(neutral: pd.DataFrame) -> Speakers:
    """The statistics of all speakers in a table of neutral clips.

    Examples
    --------
    >>> import pandas as pd
    >>> neutral = pd.DataFrame({"speaker": ["ann", "ann", "ben"], "level_mean": [-32.0, -28.0, -40.0]})
    >>> speakers(neutral).mean
    array([-35.])
    """
    by_speaker = neutral.groupby("speaker")[_feature_columns(neutral)]
    variance = by_speaker.var(ddof=1).mean().fillna(0)
    return Speakers(by_speaker.mean().astype(np.float64).mean().to_numpy(), variance.to_numpy(np.float64))


def relative_level(table: pd.DataFrame) -> pd.DataFrame:
    """The full set with its levels in decibels relative to the clip's loud frames (`level_p95`).

    A gain shifts the level and every mel band equally, and the first MFCC by the square root of the number of bands.
    This removes the shift, and with it how loud the speaker was.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"level_p50": [-26.0], "level_p95": [-20.0], "f0_semitone_p50": [36.0]})
    >>> relative_level(table).to_dict("records")
    [{'level_p50': -6.0, 'level_p95': 0.0, 'f0_semitone_p50': 36.0}]
    """
    columns = _feature_columns(table)
    bands = {name.rsplit("_", 1)[0] for name in columns if name.startswith("mel_")}
    shifts = dict.fromkeys(bands, 1.0) | {"level": 1.0, "mfcc_01": np.sqrt(len(bands))}
    factors = np.zeros(len(columns))
    for i, name in enumerate(columns):
        stem, functional = name.rsplit("_", 1)
        if functional in ("mean", "p05", "p50", "p95", "vmean"):
            factors[i] = shifts.get(stem, 0)
    values = table[columns].to_numpy(np.float64) - table[["level_p95"]].to_numpy(np.float64) * factors
    return _with_features(table, values)


def _feature_columns(table: pd.DataFrame) -> list[str]:
    from ser_lib.features.tables import feature_columns  # which imports pandas

    return feature_columns(table)


def _with_features(table: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    columns = _feature_columns(table)
    features = pd.DataFrame(values.astype(np.float32), columns=columns, index=table.index)
    return pd.concat([table.drop(columns=columns), features], axis=1)[list(table.columns)]
