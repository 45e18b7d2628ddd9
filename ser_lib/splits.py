"""Which clips are tested together: one fold number a clip, -1 where a clip is never tested.

`actors5` is the headline protocol and `loso` its finest form: no speaker is on both sides.
`random` is the tutorials' split, kept to be compared with: speakers straddle it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedShuffleSplit

from ser_lib.errors import CorpusError

PROTOCOLS = ("actors5", "loso", "random")

# Luna-Jimenez et al. (2021), subject-wise five-fold split of RAVDESS: the test actors of each fold.
RAVDESS_FOLDS = (
    (2, 5, 14, 15, 16),
    (3, 6, 7, 13, 18),
    (10, 11, 12, 19, 20),
    (8, 17, 21, 23, 24),
    (1, 4, 9, 22),
)

PUBLISHED = {f"{actor:02d}": fold for fold, actors in enumerate(RAVDESS_FOLDS) for actor in actors}


def assign_folds(clips: pd.DataFrame, protocol: str = "actors5", *, seed: int = 0) -> pd.Series:
    """Give every clip the number of the fold in which it is tested.

    Parameters
    ----------
    clips : DataFrame
        With `speaker` and `emotion`; `corpus` and `audio_sha256` are used where they are.
    protocol : one of PROTOCOLS
        ``actors5``: the published five folds for RAVDESS, `GroupKFold` by speaker for other corpora.
        ``loso``: one fold a speaker. ``random``: a stratified quarter is tested once (fold 0).
    seed : int
        Of the random protocol; the others are fixed.

    Returns
    -------
    Series of int, indexed like `clips`

    Raises
    ------
    CorpusError
        Unknown protocol, or too few speakers or clips for it.

    Notes
    -----
    Sample-identical clips (same `audio_sha256`) always share a fold.
    """
    if protocol not in PROTOCOLS:
        raise CorpusError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    folds = _random(clips, seed) if protocol == "random" else _by_speaker(clips, protocol)
    folds = _join_duplicates(clips, folds)
    if protocol != "random":
        assert_speakers_apart(clips, folds)
    return folds


def _random(clips: pd.DataFrame, seed: int) -> pd.Series:
    scarce = clips["emotion"].value_counts()
    if scarce.min() < 4:
        raise CorpusError(
            f"{scarce.idxmin()}: {scarce.min()} clip(s); a stratified quarter needs at least 4 an emotion"
        )
    _, test = next(
        StratifiedShuffleSplit(1, test_size=0.25, random_state=seed).split(clips, clips["emotion"])
    )
    folds = np.full(len(clips), -1)
    folds[test] = 0
    return pd.Series(folds, index=clips.index, name="fold")


def _by_speaker(clips: pd.DataFrame, protocol: str) -> pd.Series:
    speakers = sorted(clips["speaker"].unique())
    if len(speakers) < 2:
        raise CorpusError(f"{len(speakers)} speaker(s): testing on unheard speakers needs at least 2")
    if protocol == "loso":
        fold_of = {speaker: fold for fold, speaker in enumerate(speakers)}
    elif set(clips.get("corpus", ["?"])) <= {"ravdess", "ravdess-song"} and set(speakers) <= set(PUBLISHED):
        fold_of = PUBLISHED
    else:
        splitter = GroupKFold(min(5, len(speakers)))
        fold_of = {
            speaker: fold
            for fold, (_, test) in enumerate(splitter.split(clips, groups=clips["speaker"]))
            for speaker in clips["speaker"].iloc[test].unique()
        }
    folds = clips["speaker"].map(fold_of).astype(int).rename("fold")
    if folds.nunique() < 2:
        raise CorpusError(f"{protocol}: all {len(speakers)} speakers fall in one fold; use protocol=loso")
    return folds


def _join_duplicates(clips: pd.DataFrame, folds: pd.Series) -> pd.Series:
    """Move every copy of a sample-identical clip to the fold of the first."""
    if "audio_sha256" not in clips:
        return folds
    return folds.groupby(clips["audio_sha256"]).transform("first").rename("fold")


def assert_speakers_apart(clips: pd.DataFrame, folds: pd.Series) -> None:
    """Fail if a speaker is tested in more than one fold (and so heard in training while tested).

    Raises
    ------
    CorpusError
        Names the speakers.
    """
    spread = folds.groupby(clips["speaker"]).nunique()
    if (spread > 1).any():
        names = ", ".join(spread[spread > 1].index.astype(str))
        raise CorpusError(f"speaker(s) {names} in more than one fold; are clips of two speakers identical?")
