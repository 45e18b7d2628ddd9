"""Refuse splits that leak: the same samples, an augmented copy or a speaker in both training and test rows.

`corpora.identity` says which rows are the same recording. `splits` and `studies` check every split here, except
those that leak on purpose, to measure what a leak is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ser_lib.corpora import identity
from ser_lib.errors import ContaminationError

NAMED = 5  # clips that a message names
Rows = Sequence[int] | Sequence[bool] | np.ndarray  # row numbers, or a mask of shape (n_clips,)


def check_split(clips: pd.DataFrame, train: Rows, test: Rows, *, speakers: bool = True) -> None:
    """Raise if training rows hold a test clip in any form.

    Parameters
    ----------
    clips : DataFrame
        Clip or feature table with `clip_id` and `speaker`; `audio_sha256` and `source_clip` are used if present.
    train, test : row numbers or masks
    speakers : bool
        Whether to refuse a speaker in both as well; the random protocol does not.

    Raises
    ------
    ContaminationError
        Names the test clips, each with the training clip that matches it, or the speakers.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": ["a", "b", "c"], "speaker": ["ann", "ann", "ben"]})
    >>> check_split(clips, train=[0, 1], test=[2])
    >>> check_split(clips, train=[0], test=[1, 2])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ser_lib.errors.ContaminationError: speaker(s) ann in both training and test, tested in b; use protocol actors5 or ...
    """
    train, test = _row_numbers(train), _row_numbers(test)
    names = clips["clip_id"].to_numpy()
    matches = {
        "a sample-identical twin": _first_match(identity.contents(clips), train, test),
        "an augmented copy": _matching_copies(clips, train, test),
    }
    for what, match in matches.items():
        leaks = np.flatnonzero(match >= 0)
        if len(leaks):
            pairs = [f"{names[test[i]]} ({names[match[i]]})" for i in leaks[:NAMED]]
            raise ContaminationError(
                f"{len(leaks)} test clip(s) have {what} in training: {_listed(pairs, len(leaks))}; "
                "keep a clip, its twins and its copies in one fold, as splits.assign_folds does"
            )
    if not speakers:
        return
    shared = np.flatnonzero(_first_match(clips["speaker"], train, test) >= 0)
    if len(shared):
        who = clips["speaker"].iloc[test[shared]].unique()
        raise ContaminationError(
            f"speaker(s) {_listed(who[:NAMED], len(who))} in both training and test, tested in "
            f"{_listed(names[test[shared[:NAMED]]], len(shared))}; use protocol actors5 or loso, and name "
            "the speakers of different corpora differently"
        )


def leakage(clips: pd.DataFrame, train: Rows, test: Rows) -> dict[str, float]:
    """Return the shares of test clips with a match in training, from 0 to 1, by kind of match.

    The kinds: `altered_copy` (of the clip or a twin), `identical_twin`, `same_sentence` (same speaker, statement and
    emotion; never where the statement is unknown) and `same_speaker`.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": ["a", "b", "c"], "speaker": ["ann", "ann", "ben"]})
    >>> leakage(clips, train=[0], test=[1, 2])["same_speaker"]
    0.5
    """
    train, test = _row_numbers(train), _row_numbers(test)
    matches = {
        "altered_copy": _matching_copies(clips, train, test),
        "identical_twin": _first_match(identity.contents(clips), train, test),
        "same_sentence": _first_match(_sentences(clips), train, test),
        "same_speaker": _first_match(clips["speaker"], train, test),
    }
    return {kind: float((match >= 0).mean()) for kind, match in matches.items()}


def _row_numbers(rows: Rows) -> np.ndarray:
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)


def _listed(names: Sequence[str], n: int) -> str:
    more = f" and {n - len(names)} more" if n > len(names) else ""
    return ", ".join(map(str, names)) + more


def _first_match(keys: pd.Series, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return, for each test row, the first training row with the same key; -1 where there is none."""
    keys = keys.to_numpy()
    first = dict(zip(keys[train[::-1]], train[::-1], strict=True))
    return np.array([first.get(key, -1) for key in keys[test]], int)


def _matching_copies(clips: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return `_first_match` by origin, where at least one of the two rows is an augmented copy."""
    keys, copied = identity.origins(clips), ~identity.originals(clips)
    any_row = _first_match(keys, train, test)
    return np.where(copied[test], any_row, _first_match(keys, train[copied[train]], test))


def _sentences(clips: pd.DataFrame) -> pd.Series:
    """Return speaker, statement and emotion as one key; where the statement is unknown, the unique `clip_id`."""
    if "statement" not in clips:
        return clips["clip_id"]
    spoken = clips[["speaker", "statement", "emotion"]].astype(str).agg("\n".join, axis=1)
    return spoken.where(clips["statement"].fillna("") != "", clips["clip_id"])
