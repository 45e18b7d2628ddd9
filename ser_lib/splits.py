"""Which clips are tested together: one fold number a clip, -1 where a clip is never tested.

`actors5` is the headline protocol and `loso` its finest form: no speaker is on both sides.
`random` is the tutorials' split, kept to be compared with: speakers straddle it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedShuffleSplit

from ser_lib import guard
from ser_lib.corpus import CLIP_COLUMNS, SAME_SPEAKERS
from ser_lib.errors import CorpusError

ABOUT = (*CLIP_COLUMNS, guard.SOURCE)  # the columns of a feature table that are no features
Sides = dict[int, tuple[np.ndarray, np.ndarray]]  # by fold: the rows trained on, the rows tested

PROTOCOLS = ("actors5", "loso", "random")
MIN_CLIPS = 10  # of an emotion: its recall then goes in steps of a tenth
MIN_SPEAKERS = 5  # the intervals resample speakers, and `actors5` has five folds
MIN_EACH = 3  # speakers of an emotion: one is tested, and what the others have in common is learnt

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
    """
    if protocol not in PROTOCOLS:
        raise CorpusError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    held = _originals(clips)
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
        Without, folds are made as if copies and twins were clips of their own, and nothing is
        checked: only to show what a leak is worth.

    Raises
    ------
    ContaminationError
        As `guard.check`.
    """
    clips = _about(table)
    if not guarded:
        clips = clips.drop(columns=[guard.SOURCE, "audio_sha256"], errors="ignore")
    folds = assign_folds(clips, protocol, seed=seed)
    return _sides(clips, folds, guarded=guarded, speakers=protocol != "random")


def inner_sides(table: pd.DataFrame, train: np.ndarray, n: int = 4) -> Sides:
    """As `sides`, at most `n` folds of whole speakers within the rows `train`, to choose or calibrate by."""
    clips = _about(table).iloc[train]
    inner = _sides(clips, inner_folds(clips, n))
    return {fold: (train[heard], train[tested]) for fold, (heard, tested) in inner.items()}


def _about(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in ABOUT if name in table]]


def _sides(clips: pd.DataFrame, folds: pd.Series, *, guarded: bool = True, speakers: bool = True) -> Sides:
    numbers = folds.to_numpy()
    may_test = guard.originals(clips) & (numbers >= 0)
    found = {}
    for fold in np.unique(numbers[may_test]).tolist():  # a part of RAVDESS may leave some empty
        train, test = np.flatnonzero(numbers != fold), np.flatnonzero(may_test & (numbers == fold))
        if guarded:
            guard.check(clips, train, test, speakers=speakers)
        found[fold] = train, test
    return found


def inner_folds(clips: pd.DataFrame, n: int) -> pd.Series:
    """At most `n` folds of whole speakers of a training set, as `assign_folds` gives them.

    Raises
    ------
    CorpusError
        Fewer than two speakers, or a copy whose source is not there.
    """
    held = _originals(clips)
    if held["speaker"].nunique() < 2:
        raise CorpusError("1 speaker in training: choosing on unheard speakers needs at least 2")
    return _with_copies(clips, held, held["speaker"].map(_grouped(held, n)).astype(int).rename("fold"))


def _originals(clips: pd.DataFrame) -> pd.DataFrame:
    return clips[guard.originals(clips)] if guard.SOURCE in clips else clips


def _with_copies(clips: pd.DataFrame, held: pd.DataFrame, folds: pd.Series) -> pd.Series:
    """The folds of the originals `held`, given to their altered copies as well."""
    if len(held) == len(clips):
        return folds
    source = guard.sources(clips)
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
            f"{len(speakers)} speaker(s): testing on unheard speakers needs at least 2; add recordings of others"
        )
    if protocol == "loso":
        fold_of = {speaker: fold for fold, speaker in enumerate(speakers)}
    elif set(clips.get("corpus", ["?"])) <= {"ravdess", "ravdess-song"} and set(speakers) <= set(PUBLISHED):
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
    """
    spread = folds.groupby(clips["speaker"]).nunique()
    if (spread > 1).any():
        names = ", ".join(spread[spread > 1].index.astype(str))
        raise CorpusError(f"speaker(s) {names} in more than one fold; are clips of two speakers identical?")


def doubts(clips: pd.DataFrame, protocol: str = "actors5") -> list[str]:
    """Why a report under a protocol could not be run or trusted, each with the remedy; empty where it could.

    Parameters
    ----------
    clips : DataFrame
        With the columns of `CLIP_COLUMNS` that tell a clip apart: id, corpus, speaker, emotion, content.
    protocol : one of PROTOCOLS
    """
    apart = protocol != "random"
    emotions, speakers = clips["emotion"].value_counts(), clips["speaker"].nunique()
    found = []
    if len(emotions) < 2:
        found.append(f"one emotion, {emotions.index[0]}: nothing to tell apart; add clips of another")
    if apart and speakers < MIN_SPEAKERS:
        found.append(
            f"{speakers} speaker(s): {protocol} tests on unheard speakers, and below {MIN_SPEAKERS} says little of "
            "the next one; add recordings of others"
        )
    remedy = "add some, or leave the label out (null in labels.yaml, or without it in emotions=…)"
    for emotion, part in clips.groupby("emotion"):
        n, who = len(part), sorted(part["speaker"].unique())
        if n < MIN_CLIPS:
            found.append(f"{emotion}: {n} clip(s), at least {MIN_CLIPS} are needed; {remedy}")
        elif apart and len(who) < min(MIN_EACH, speakers):
            found.append(
                f"{emotion}: only of {', '.join(who)}, at least {MIN_EACH} speakers are needed; {remedy}"
            )
    found += [*_written_twice(emotions.index), *_mixed_up(clips)]
    return found or _untaught(clips, protocol)


def _written_twice(emotions: pd.Index) -> list[str]:
    alike = emotions.to_series().groupby(emotions.str.strip().str.lower())
    return [
        f"{' and '.join(repr(name) for name in names)} differ only in writing; make one of them the other in labels.yaml"
        for _, names in alike
        if len(names) > 1
    ]


def _mixed_up(clips: pd.DataFrame) -> list[str]:
    """Clips of the same samples that are told differently, and speakers that may be two."""
    found = []
    for _, twins in clips[clips["audio_sha256"].duplicated(keep=False)].groupby("audio_sha256"):
        for column in ("emotion", "speaker"):
            if len(told := twins[column].unique()) > 1:
                found.append(
                    f"{' and '.join(twins['clip_id'])}: the same samples, but {column} {' and '.join(told)}; "
                    "correct one, or take both out"
                )
    of = clips.assign(corpus=clips["corpus"].replace(SAME_SPEAKERS)).groupby("speaker")["corpus"].unique()
    return found + [
        f"speaker {speaker} is in {' and '.join(corpora)} and taken for one person; name two people differently, "
        "and give one person one corpus"
        for speaker, corpora in of.items()
        if len(corpora) > 1
    ]


def _untaught(clips: pd.DataFrame, protocol: str) -> list[str]:
    """Emotions that a fold tests and never trains."""
    try:
        found = sides(clips, protocol)
    except CorpusError as error:
        return [str(error)]
    emotion = clips["emotion"].to_numpy()
    alone = {name for train, test in found.values() for name in set(emotion[test]) - set(emotion[train])}
    return [
        f"{name}: a fold tests all speakers that say it; add recordings of others, or use protocol=loso"
        for name in sorted(alone)
    ]
