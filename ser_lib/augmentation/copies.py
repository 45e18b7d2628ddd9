"""Feature tables with altered copies of their clips, which are trained on and never tested (see `guard`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ser_lib import augmentation
from ser_lib.features import FeatureConfig, extraction, feature_names, tables


def with_copies(
    table: pd.DataFrame, clips: pd.DataFrame, changes: Sequence[augmentation.Change], config: FeatureConfig
) -> pd.DataFrame:
    """The table followed by an altered copy of every clip for each change.

    Parameters
    ----------
    table : DataFrame
        Feature table of the clips that are evaluated.
    clips : DataFrame
        Their clip table, with `path`: copies are made from the audio.

    Returns
    -------
    DataFrame
        With `source_clip`, by which `guard` knows a copy. A copy that cannot be used is left out.
    """
    wanted = clips[clips["clip_id"].isin(table["clip_id"])]
    parts = [table.assign(source_clip=table["clip_id"])]
    for change in changes:
        made, _ = extraction.build(wanted, config, change=change)
        parts.append(made.assign(source_clip=made["clip_id"], clip_id=made["clip_id"] + f" {change.name}"))
    return pd.concat(parts, ignore_index=True)


def coarse(table: pd.DataFrame, config: FeatureConfig) -> pd.DataFrame:
    """Features in steps of at most a sixteenth of their column's deviation, a power of two: for copies, in half the bytes."""
    names = list(feature_names(config))
    values = table[names].to_numpy(np.float64)
    steps = np.exp2(np.floor(np.log2(np.maximum(values.std(axis=0), 1e-12) / 16)))
    rounded = pd.DataFrame(np.round(values / steps) * steps, table.index, names, np.float32)
    return pd.concat([table.drop(columns=names), rounded], axis=1)[list(table)]


def for_training(data: tables.Data, table: pd.DataFrame) -> pd.DataFrame:
    """`table` and the copies of its clips that the served model is trained with (`augment.TRAINING`).

    Parameters
    ----------
    data : Data
        From `tables.get`.
    table : DataFrame
        `data.table` or a part of it. Copies of RAVDESS are the shipped ones, with its recordings or without,
        so that both give the same model; those of other clips are made from the recordings.

    Examples
    --------
    >>> table = tables.shipped().head(4)
    >>> from ser_lib.corpora.clips import Corpus
    >>> data = tables.Data(table, Corpus(table, table[:0]), "shipped", audio=False, config=FeatureConfig())
    >>> len(for_training(data, table))
    16
    """
    if data.config == FeatureConfig():
        held = tables.shipped(tables.SHIPPED_COPIES)
        if table["audio_sha256"].isin(held["audio_sha256"]).all():
            return followed_by(held, table)
    return with_copies(table, data.corpus.clips, augmentation.TRAINING, data.config)


def followed_by(made: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The table followed by those of the copies `made` that are of its clips; as `with_copies`.

    Examples
    --------
    >>> made = pd.DataFrame({"clip_id": ["a 1.1x", "c 1.1x"], "source_clip": ["a", "c"], "level_mean": [-29.0, -31.0]})
    >>> followed_by(made, pd.DataFrame({"clip_id": ["a", "b"], "level_mean": [-30.0, -20.0]}))["clip_id"].to_list()
    ['a', 'b', 'a 1.1x']
    """
    own = table.assign(source_clip=table["clip_id"])
    return pd.concat([own, made[made["source_clip"].isin(table["clip_id"])]], ignore_index=True)
