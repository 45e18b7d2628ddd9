"""Folds: which clips are trained on and which are tested.

`actors5` is the headline protocol and `loso` its finest form: no speaker is in both training and test.
`random` is the split of the tutorials, for comparison: speakers are in both.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedShuffleSplit

from ser_lib.corpora import CLIP_COLUMNS, RAVDESS, identity
from ser_lib.errors import CorpusError
from ser_lib.evaluation import guard

Folds = dict[int, tuple[np.ndarray, np.ndarray]]  # by fold: the training rows, the test rows

PROTOCOLS = ("actors5", "loso", "random")

# Luna-Jimenez et al. (2021), subject-wise five-fold split of RAVDESS: the test actors of each fold.
RAVDESS_FOLDS = (
    (2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22),
)  # fmt: skip
PUBLISHED = {f"{actor:02d}": fold for fold, actors in enumerate(RAVDESS_FOLDS) for actor in actors}


def assign_folds(clips: pd.DataFrame, protocol: str = "actors5", *, seed: int = 0) -> pd.Series:
    """Return the number of the fold in which each clip is tested; -1 where it is never tested.

    Sample-identical clips (same `audio_sha256`) share a fold. An augmented copy has the fold of its original.

    Parameters
    ----------
    clips : DataFrame
        With `speaker` and `emotion`; `corpus`, `audio_sha256` and `source_clip` are used if present.
    protocol : one of PROTOCOLS
        ``actors5``: the published five folds for RAVDESS, `GroupKFold` by speaker for other corpora.
        ``loso``: one fold per speaker. ``random``: a stratified quarter is tested once (fold 0).
    seed : int
        Seed of the random protocol; the others are fixed.

    Raises
    ------
    CorpusError
        Unknown protocol, or too few speakers or clips for it.

    Examples
    --------
    >>> clips = pd.DataFrame({"speaker": ["ann", "ben", "ann"], "emotion": ["sad", "sad", "happy"]})
    >>> assign_folds(clips, "loso").to_list()
    [0, 1, 0]
    """
    if protocol not in PROTOCOLS:
        raise CorpusError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    originals = clips[identity.originals(clips)]
    numbers = _random(originals, seed) if protocol == "random" else _by_speaker(originals, protocol)
    if "audio_sha256" in originals:
        numbers = numbers.groupby(originals["audio_sha256"]).transform("first").rename("fold")
    if protocol != "random":
        assert_speakers_apart(originals, numbers)
    return _with_copies(clips, originals, numbers)


def folds(table: pd.DataFrame, protocol: str = "actors5", *, seed: int = 0, guarded: bool = True) -> Folds:
    """Return the training and test rows of every fold of a protocol. Augmented copies are never tested.

    Parameters
    ----------
    guarded : bool
        If false, copies and twins count as clips of their own, to measure what such a leak is worth.

    Raises
    ------
    CorpusError, ContaminationError
        As `assign_folds` and `guard.check_split`.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": list("abc"), "speaker": ["ann", "ben", "ann"], "emotion": "sad"})
    >>> {fold: (train.tolist(), test.tolist()) for fold, (train, test) in folds(clips, "loso").items()}
    {0: ([1], [0, 2]), 1: ([0, 2], [1])}
    """
    clips = _clip_columns(table)
    if not guarded:
        clips = clips.drop(columns=[identity.SOURCE, "audio_sha256"], errors="ignore")
    return _checked(clips, assign_folds(clips, protocol, seed=seed), speakers=protocol != "random")


def inner_folds(table: pd.DataFrame, train: np.ndarray, n: int = 4) -> Folds:
    """Return at most `n` folds of whole speakers within the rows `train`, for choosing or calibrating a model.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": list("abcd"), "speaker": ["ann", "ben", "cat", "ann"], "emotion": "sad"})
    >>> inner = inner_folds(clips, np.array([1, 2]))  # ann is tested in the outer fold
    >>> sorted((train.tolist(), test.tolist()) for train, test in inner.values())
    [([1], [2]), ([2], [1])]
    """
    clips = _clip_columns(table).iloc[train]
    inner = _checked(clips, assign_inner_folds(clips, n), speakers=True)
    return {fold: (train[inner_train], train[test]) for fold, (inner_train, test) in inner.items()}


def assign_inner_folds(clips: pd.DataFrame, n: int) -> pd.Series:
    """Return fold numbers as `assign_folds` does: at most `n` folds of whole speakers of a training set.

    Raises
    ------
    CorpusError
        Fewer than two speakers, or a copy whose original is missing.

    Examples
    --------
    >>> assign_inner_folds(pd.DataFrame({"speaker": ["ann", "ben", "ann", "cat"]}), 3).to_list()
    [0, 2, 0, 1]
    """
    originals = clips[identity.originals(clips)]
    if originals["speaker"].nunique() < 2:
        raise CorpusError("1 speaker in training: choosing on unseen speakers needs at least 2")
    numbers = originals["speaker"].map(_grouped(originals, n)).astype(int).rename("fold")
    return _with_copies(clips, originals, numbers)


def assert_speakers_apart(clips: pd.DataFrame, numbers: pd.Series) -> None:
    """Raise `CorpusError` if a speaker is tested in more than one fold, and so trained on while being tested."""
    n_folds = numbers.groupby(clips["speaker"]).nunique()
    if (n_folds > 1).any():
        names = ", ".join(n_folds[n_folds > 1].index.astype(str))
        raise CorpusError(f"speaker(s) {names} in more than one fold; are clips of two speakers identical?")


def _clip_columns(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in (*CLIP_COLUMNS, identity.SOURCE) if name in table]]


def _checked(clips: pd.DataFrame, numbers: pd.Series, *, speakers: bool) -> Folds:
    """Return the rows of each fold, after `guard.check_split`."""
    number = numbers.to_numpy()
    may_test = identity.originals(clips) & (number >= 0)
    rows = {}
    for fold in np.unique(
        number[may_test]
    ).tolist():  # numbers may be missing: a part of RAVDESS leaves folds empty
        train, test = np.flatnonzero(number != fold), np.flatnonzero(may_test & (number == fold))
        guard.check_split(clips, train, test, speakers=speakers)
        rows[fold] = train, test
    return rows


def _with_copies(clips: pd.DataFrame, originals: pd.DataFrame, numbers: pd.Series) -> pd.Series:
    """Return the fold numbers of all clips: an augmented copy has that of its original."""
    if len(originals) == len(clips):
        return numbers
    source = identity.sources(clips)
    orphans = source[~source.isin(originals["clip_id"])].unique()
    if len(orphans):
        raise CorpusError(
            f"{orphans[0]}: the table has an augmented copy of this clip but not the clip itself, and the same for "
            f"{len(orphans) - 1} more; remove copies together with their clips"
        )
    return source.map(dict(zip(originals["clip_id"], numbers, strict=True))).astype(int).rename("fold")


def _random(clips: pd.DataFrame, seed: int) -> pd.Series:
    n_clips = clips["emotion"].value_counts()
    if n_clips.min() < 4:
        raise CorpusError(
            f"{n_clips.idxmin()}: {n_clips.min()} clip(s); a stratified quarter needs at least 4 of each emotion; "
            "add some, or leave it out of emotions=…"
        )
    splitter = StratifiedShuffleSplit(1, test_size=0.25, random_state=seed)
    _, test = next(splitter.split(clips, clips["emotion"]))
    numbers = np.full(len(clips), -1)
    numbers[test] = 0
    return pd.Series(numbers, index=clips.index, name="fold")


def _by_speaker(clips: pd.DataFrame, protocol: str) -> pd.Series:
    speakers = sorted(clips["speaker"].unique())
    if len(speakers) < 2:
        raise CorpusError(
            f"{len(speakers)} speaker(s): testing on unseen speakers needs at least 2; add recordings of others"
        )
    ravdess = "corpus" in clips and set(clips["corpus"]) <= RAVDESS
    if protocol == "loso":
        fold_of = {speaker: fold for fold, speaker in enumerate(speakers)}
    elif ravdess and set(speakers) <= set(PUBLISHED):
        fold_of = PUBLISHED
    else:
        fold_of = _grouped(clips, 5)
    numbers = clips["speaker"].map(fold_of).astype(int).rename("fold")
    if numbers.nunique() < 2:
        raise CorpusError(f"{protocol}: all {len(speakers)} speakers fall in one fold; use protocol=loso")
    return numbers


def _grouped(clips: pd.DataFrame, n: int) -> dict[str, int]:
    """Return the fold of each speaker: at most `n` folds with about the same number of clips."""
    splitter = GroupKFold(min(n, clips["speaker"].nunique()))
    fold_of: dict[str, int] = {}
    for fold, (_, test) in enumerate(splitter.split(clips, groups=clips["speaker"])):
        fold_of |= dict.fromkeys(clips["speaker"].iloc[test].unique(), fold)
    return fold_of
