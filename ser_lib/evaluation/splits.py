"""Which clips are tested together: one fold number a clip, -1 where a clip is never tested.

`actors5` is the headline protocol and `loso` its finest form: no speaker is on both sides.
`random` is the tutorials' split, kept to be compared with: speakers straddle it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedShuffleSplit

from ser_lib.corpora import RAVDESS, identity
from ser_lib.errors import CorpusError
from ser_lib.evaluation import guard
from ser_lib.features.tables import NOT_FEATURES

Sides = dict[int, tuple[np.ndarray, np.ndarray]]  # by fold: the rows trained on, the rows tested

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
    Sample-identical clips (same `audio_sha256`) always share a fold. Folds are made of the originals;
    an altered copy (see `guard`) has the fold of its source, in which it is neither tested nor, since
    that fold is tested, trained on.

    Examples
    --------
    >>> clips = pd.DataFrame({"speaker": ["ann", "ben", "ann"], "emotion": ["sad", "sad", "happy"]})
    >>> assign_folds(clips, "loso").to_list()
    [0, 1, 0]
    """
    if protocol not in PROTOCOLS:
        raise CorpusError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    held = clips[identity.originals(clips)]
    folds = _random(held, seed) if protocol == "random" else _by_speaker(held, protocol)
    folds = _join_duplicates(held, folds)
    if protocol != "random":
        assert_speakers_apart(held, folds)
    return _with_copies(clips, held, folds)


def sides(table: pd.DataFrame, protocol: str = "actors5", *, seed: int = 0, guarded: bool = True) -> Sides:
    """The training and test rows of every fold of a protocol.

    Parameters
    ----------
    guarded : bool
        Without, folds are made and checked as if copies and twins were clips of their own: only to
        show what a leak is worth.

    Raises
    ------
    ContaminationError
        As `guard.check`.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": list("abc"), "speaker": ["ann", "ben", "ann"], "emotion": "sad"})
    >>> {fold: (train.tolist(), test.tolist()) for fold, (train, test) in sides(clips, "loso").items()}
    {0: ([1], [0, 2]), 1: ([0, 2], [1])}
    """
    clips = _about(table)
    if not guarded:
        clips = clips.drop(columns=[identity.SOURCE, "audio_sha256"], errors="ignore")
    folds = assign_folds(clips, protocol, seed=seed)
    return _sides(clips, folds, speakers=protocol != "random")


def inner_sides(table: pd.DataFrame, train: np.ndarray, n: int = 4) -> Sides:
    """As `sides`, at most `n` folds of whole speakers within the rows `train`, to choose or calibrate by.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": list("abcd"), "speaker": ["ann", "ben", "cat", "ann"], "emotion": "sad"})
    >>> inner = inner_sides(clips, np.array([1, 2]))  # ann is tested outside
    >>> sorted((train.tolist(), test.tolist()) for train, test in inner.values())
    [([1], [2]), ([2], [1])]
    """
    clips = _about(table).iloc[train]
    inner = _sides(clips, inner_folds(clips, n), speakers=True)
    return {fold: (train[heard], train[tested]) for fold, (heard, tested) in inner.items()}


def _about(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in NOT_FEATURES if name in table]]


def _sides(clips: pd.DataFrame, folds: pd.Series, *, speakers: bool) -> Sides:
    numbers = folds.to_numpy()
    may_test = identity.originals(clips) & (numbers >= 0)
    found = {}
    for fold in np.unique(numbers[may_test]).tolist():  # a part of RAVDESS may leave some empty
        train, test = np.flatnonzero(numbers != fold), np.flatnonzero(may_test & (numbers == fold))
        guard.check(clips, train, test, speakers=speakers)
        found[fold] = train, test
    return found


def inner_folds(clips: pd.DataFrame, n: int) -> pd.Series:
    """At most `n` folds of whole speakers of a training set, as `assign_folds` gives them.

    Raises
    ------
    CorpusError
        Fewer than two speakers, or a copy whose source is not there.

    Examples
    --------
    >>> inner_folds(pd.DataFrame({"speaker": ["ann", "ben", "ann", "cat"]}), 3).to_list()
    [0, 2, 0, 1]
    """
    held = clips[identity.originals(clips)]
    if held["speaker"].nunique() < 2:
        raise CorpusError("1 speaker in training: choosing on unseen speakers needs at least 2")
    return _with_copies(clips, held, held["speaker"].map(_grouped(held, n)).astype(int).rename("fold"))


def _with_copies(clips: pd.DataFrame, held: pd.DataFrame, folds: pd.Series) -> pd.Series:
    """The folds of the originals `held`, given to their altered copies as well."""
    if len(held) == len(clips):
        return folds
    source = identity.sources(clips)
    orphans = source[~source.isin(held["clip_id"])].unique()
    if len(orphans):
        raise CorpusError(
            f"{orphans[0]}: has an altered copy in the table but is not there itself, as are "
            f"{len(orphans) - 1} more; leave copies out with their sources"
        )
    return source.map(dict(zip(held["clip_id"], folds, strict=True))).astype(int).rename("fold")


def _random(clips: pd.DataFrame, seed: int) -> pd.Series:
    scarce = clips["emotion"].value_counts()
    if scarce.min() < 4:
        raise CorpusError(
            f"{scarce.idxmin()}: {scarce.min()} clip(s); a stratified quarter needs at least 4 an emotion; add some, "
            "or leave it out of emotions=…"
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
        raise CorpusError(
            f"{len(speakers)} speaker(s): testing on unseen speakers needs at least 2; add recordings of others"
        )
    if protocol == "loso":
        fold_of = {speaker: fold for fold, speaker in enumerate(speakers)}
    elif set(clips.get("corpus", ["?"])) <= RAVDESS and set(speakers) <= set(PUBLISHED):
        fold_of = PUBLISHED
    else:
        fold_of = _grouped(clips, 5)
    folds = clips["speaker"].map(fold_of).astype(int).rename("fold")
    if folds.nunique() < 2:
        raise CorpusError(f"{protocol}: all {len(speakers)} speakers fall in one fold; use protocol=loso")
    return folds


def _grouped(clips: pd.DataFrame, n: int) -> dict[str, int]:
    """The fold of each speaker in at most `n` folds of about as many clips."""
    splitter = GroupKFold(min(n, clips["speaker"].nunique()))
    return {
        speaker: fold
        for fold, (_, test) in enumerate(splitter.split(clips, groups=clips["speaker"]))
        for speaker in clips["speaker"].iloc[test].unique()
    }


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

    Examples
    --------
    >>> assert_speakers_apart(pd.DataFrame({"speaker": ["ann", "ben", "ann"]}), pd.Series([0, 1, 1]))
    Traceback (most recent call last):
    ser_lib.errors.CorpusError: speaker(s) ann in more than one fold; are clips of two speakers identical?
    """
    spread = folds.groupby(clips["speaker"]).nunique()
    if (spread > 1).any():
        names = ", ".join(spread[spread > 1].index.astype(str))
        raise CorpusError(f"speaker(s) {names} in more than one fold; are clips of two speakers identical?")
