"""Which clips are the same recording: twins with equal samples, and augmented copies of a clip.

A clip table may contain augmented copies of its clips, for training only: their `source_clip` is the `clip_id`
of the original. A row without a `source_clip`, or with its own `clip_id` there, is an original. Clips whose
decoded samples are equal (`audio_sha256`) are twins.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

SOURCE = "source_clip"


def sources(clips: pd.DataFrame) -> pd.Series:
    """The `clip_id` of each row's original: an original's own, and for a copy that of its source.

    Examples
    --------
    >>> sources(pd.DataFrame({"clip_id": ["a", "a speed"], "source_clip": ["", "a"]})).to_list()
    ['a', 'a']
    """
    if SOURCE not in clips:
        return clips["clip_id"]
    return clips[SOURCE].where(clips[SOURCE].notna() & (clips[SOURCE] != ""), clips["clip_id"])


def originals(clips: pd.DataFrame) -> np.ndarray:
    """Whether each row is an original, so that it may be tested; shape (n_clips,).

    Examples
    --------
    >>> originals(pd.DataFrame({"clip_id": ["a", "a speed"], "source_clip": ["", "a"]}))
    array([ True, False])
    """
    if SOURCE not in clips:
        return np.ones(len(clips), bool)
    return (sources(clips) == clips["clip_id"]).to_numpy(bool)


def contents(clips: pd.DataFrame) -> pd.Series:
    """The content hash of each row, which twins share, or its `clip_id` if there is none.

    Examples
    --------
    >>> contents(pd.DataFrame({"clip_id": ["a", "b"], "audio_sha256": ["06ab", None]})).to_list()
    ['06ab', 'b']
    """
    if "audio_sha256" not in clips:
        return clips["clip_id"]
    return clips["audio_sha256"].fillna(clips["clip_id"])


def origins(clips: pd.DataFrame) -> pd.Series:
    """The content hash of each row's original: the same for a clip, its twins, and the augmented copies of both.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": ["a", "b", "b speed"], "source_clip": ["a", "b", "b"]})
    >>> origins(clips.assign(audio_sha256=["06ab", "06ab", "9c1f"])).to_list()
    ['06ab', '06ab', '06ab']
    """
    content = dict(zip(clips["clip_id"], contents(clips), strict=True))
    return sources(clips).map(lambda name: content.get(name, name))
