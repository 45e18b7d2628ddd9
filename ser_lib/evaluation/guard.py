"""What must not be on both sides of a split: the same samples, an altered copy, the same speaker.

A clip table may hold altered copies of its clips, for training alone: rows whose `source_clip` is
the `clip_id` of the original. Without that column, or where it is empty or the row's own `clip_id`,
a row is an original. Clips whose decoded samples are equal (`audio_sha256`) are twins.
`splits` and `ladder` send every split through `check`, but those that leak by intent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ser_lib.corpora import identity
from ser_lib.errors import ContaminationError

NAMED = 5  # clips that a message names
Rows = Sequence[int] | Sequence[bool] | np.ndarray  # row numbers, or a mask of shape (n_clips,)


def check(clips: pd.DataFrame, train: Rows, test: Rows, *, speakers: bool = True) -> None:
    """Refuse a split that trains on a form of what it tests.

    Parameters
    ----------
    clips : DataFrame
        Clip or feature table with `clip_id`, `speaker`; `audio_sha256`, `source_clip` where they are.
    train, test : row numbers or masks
    speakers : bool
        Whether a speaker on both sides is refused too; the random protocol says openly that it is not.

    Raises
    ------
    ContaminationError
        Names the test clips, each with the training clip that it meets, or the speakers.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": ["a", "b", "c"], "speaker": ["ann", "ann", "ben"]})
    >>> check(clips, train=[0, 1], test=[2])
    >>> check(clips, train=[0], test=[1, 2])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ser_lib.errors.ContaminationError: speaker(s) ann on both sides, tested in b; use protocol actors5 or loso, ...
    """
    train, test = _row_numbers(train), _row_numbers(test)
    name = clips["clip_id"].to_numpy()
    meetings = {
        "a sample-identical twin": _first_match(identity.contents(clips), train, test),
        "an altered copy": _copies(clips, train, test),
    }
    for what, met in meetings.items():
        caught = np.flatnonzero(met >= 0)
        if len(caught):
            named = [f"{name[test[i]]} ({name[met[i]]})" for i in caught[:NAMED]]
            raise ContaminationError(
                f"{len(caught)} test clip(s) have {what} in training: {_listed(named, len(caught))}; "
                "keep a clip, its twins and its copies in one fold, as splits.assign_folds does"
            )
    shared = np.flatnonzero(_first_match(clips["speaker"], train, test) >= 0) if speakers else ()
    if len(shared):
        who = clips["speaker"].iloc[test[shared]].unique()
        raise ContaminationError(
            f"speaker(s) {_listed(who[:NAMED], len(who))} on both sides, tested in "
            f"{_listed(name[test[shared[:NAMED]]], len(shared))}; use protocol actors5 or loso, and name "
            "the speakers of different corpora differently"
        )


def leakage(clips: pd.DataFrame, train: Rows, test: Rows) -> dict[str, float]:
    """The share of test clips that training holds something of.

    Returns
    -------
    dict
        From 0 to 1: `altered_copy` (of the clip or a twin), `identical_twin`, `same_sentence` (a
        clip of the same speaker, statement and emotion; none where the statement is unknown) and
        `same_speaker`.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": ["a", "b", "c"], "speaker": ["ann", "ann", "ben"]})
    >>> leakage(clips, train=[0], test=[1, 2])["same_speaker"]
    0.5
    """
    train, test = _row_numbers(train), _row_numbers(test)
    matches = {
        "altered_copy": _copies(clips, train, test),
        "identical_twin": _first_match(identity.contents(clips), train, test),
        "same_sentence": _first_match(_sentences(clips), train, test),
        "same_speaker": _first_match(clips["speaker"], train, test),
    }
    return {what: float((met >= 0).mean()) for what, met in matches.items()}


def _row_numbers(side: Rows) -> np.ndarray:
    side = np.asarray(side)
    return np.flatnonzero(side) if side.dtype == bool else side.astype(int)


def _listed(names: Sequence[str], n: int) -> str:
    more = f" and {n - len(names)} more" if n > len(names) else ""
    return ", ".join(map(str, names)) + more


def _first_match(keys: pd.Series, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The first training row with the key of each test row, -1 where there is none."""
    keys = keys.to_numpy()
    first = dict(zip(keys[train[::-1]], train[::-1], strict=True))
    return np.array([first.get(key, -1) for key in keys[test]], int)


def _copies(clips: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """As `_first_match` by origin, where one of the two rows at least is an altered copy."""
    keys, altered = identity.origins(clips), ~identity.originals(clips)
    any_row = _first_match(keys, train, test)
    return np.where(altered[test], any_row, _first_match(keys, train[altered[train]], test))


def _sentences(clips: pd.DataFrame) -> pd.Series:
    """Speaker, statement and emotion in one; the `clip_id`, which nothing meets, for an unknown statement."""
    if "statement" not in clips:
        return clips["clip_id"]
    spoken = clips[["speaker", "statement", "emotion"]].astype(str).agg("\n".join, axis=1)
    return spoken.where(clips["statement"].fillna("") != "", clips["clip_id"])
