"""Which clips are the same recording: twins with equal samples, and augmented copies of a clip.

A clip table may hold augmented copies of its clips, for training alone: rows whose `source_clip` is the
`clip_id` of the original. Without that column, or where it is empty or the row's own `clip_id`, a row is an
original. Clips whose decoded samples are equal (`audio_sha256`) are twins.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

SOURCE = "source_clip"


def sources(clips: pd.DataFrame) -> pd.Series:
    """The `clip_id` of each row's original, which is its own for an original.

    Examples
    --------
    >>> sources(pd.DataFrame({"clip_id": ["a", "a speed"], "source_clip": ["", "a"]})).to_list()
    ['a', 'a']
    """
    if SOURCE not in clips:
        return clips["clip_id"]
    return clips[SOURCE].where(clips[SOURCE].notna() & (clips[SOURCE] != ""), clips["clip_id"])


def originals(clips: pd.DataFrame) -> np.ndarray:
    """Whether each row is an original, which may be tested, and no altered copy; shape (n_clips,).

    Examples
    --------
    >>> originals(pd.DataFrame({"clip_id": ["a", "a speed"], "source_clip": ["", "a"]}))
    array([ True, False])
    """
    if SOURCE not in clips:
        return np.ones(len(clips), bool)
    return (sources(clips) == clips["clip_id"]).to_numpy(bool)


def contents(clips: pd.DataFrame) -> pd.Series:
    """What twins have in common: the hash of the samples, or the `clip_id` where there is none.

    Examples
    --------
    >>> contents(pd.DataFrame({"clip_id": ["a", "b"], "audio_sha256": ["06ab", None]})).to_list()
    ['06ab', 'b']
    """
    if "audio_sha256" not in clips:
        return clips["clip_id"]
    return clips["audio_sha256"].fillna(clips["clip_id"])


def origins(clips: pd.DataFrame) -> pd.Series:
    """The content of each row's original: the same for a clip, its twins and the altered copies of any.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": ["a", "b", "b speed"], "source_clip": ["a", "b", "b"]})
    >>> origins(clips.assign(audio_sha256=["06ab", "06ab", "9c1f"])).to_list()
    ['06ab', '06ab', '06ab']
    """
    content = dict(zip(clips["clip_id"], contents(clips), strict=True))
    return sources(clips).map(lambda name: content.get(name, name))
