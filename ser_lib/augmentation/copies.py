"""Feature tables with augmented copies of their clips, which are for training and never tested (see `guard`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ser_lib import augmentation
from ser_lib.features import FeatureConfig, extraction, feature_names, tables


def with_copies(
    table: pd.DataFrame, clips: pd.DataFrame, changes: Sequence[augmentation.Change], config: FeatureConfig
) -> pd.DataFrame:
    """Append an augmented copy of every clip for each change, made from the recordings.

    Parameters
    ----------
    table : DataFrame
        Feature table of the original clips.
    clips : DataFrame
        Their clip table, with `path`.

    Returns
    -------
    DataFrame
        With `source_clip`, which marks copies. A copy without features is left out.
    """
    wanted = clips[clips["clip_id"].isin(table["clip_id"])]
    parts = [table.assign(source_clip=table["clip_id"])]
    for change in changes:
        copies, _ = extraction.build(wanted, config, change=change)
        names = copies["clip_id"] + f" {change.name}"
        parts.append(copies.assign(source_clip=copies["clip_id"], clip_id=names))
    return pd.concat(parts, ignore_index=True)


def append_copies(table: pd.DataFrame, copies: pd.DataFrame) -> pd.DataFrame:
    """Append those augmented copies whose original is in `table`.

    Examples
    --------
    >>> copies = pd.DataFrame({"clip_id": ["a 1.1x", "c 1.1x"], "source_clip": ["a", "c"], "level_mean": [-29.0, -31.0]})
    >>> append_copies(pd.DataFrame({"clip_id": ["a", "b"], "level_mean": [-30.0, -20.0]}), copies)["clip_id"].to_list()
    ['a', 'b', 'a 1.1x']
    """
    own = table.assign(source_clip=table["clip_id"])
    return pd.concat([own, copies[copies["source_clip"].isin(table["clip_id"])]], ignore_index=True)


def coarse(table: pd.DataFrame, config: FeatureConfig) -> pd.DataFrame:
    """Round features to a power of two, at most 1/16 of the column's deviation, which halves the file of the copies."""
    names = list(feature_names(config))
    values = table[names].to_numpy(np.float64)
    steps = np.exp2(np.floor(np.log2(np.maximum(values.std(axis=0), 1e-12) / 16)))
    rounded = pd.DataFrame(np.round(values / steps) * steps, table.index, names, np.float32)
    return pd.concat([table.drop(columns=names), rounded], axis=1)[list(table)]


def for_training(data: tables.Data, table: pd.DataFrame) -> pd.DataFrame:
    """Append the augmented copies that the served model is trained with (`augmentation.TRAINING`).

    The copies of RAVDESS are the shipped ones, with or without its recordings, so that both give the same model.
    The copies of other clips are made from the recordings.

    Parameters
    ----------
    data : Data
        From `tables.load_data`.
    table : DataFrame
        `data.table` or a part of it.

    Examples
    --------
    >>> from ser_lib.corpora import Corpus
    >>> table = tables.shipped().head(4)
    >>> data = tables.Data(table, Corpus(table, table[:0]), "shipped", audio=False, config=FeatureConfig())
    >>> len(for_training(data, table))
    16
    """
    if data.config == FeatureConfig():
        copies = tables.shipped(tables.SHIPPED_COPIES)
        if table["audio_sha256"].isin(copies["audio_sha256"]).all():
            return append_copies(table, copies)
    return with_copies(table, data.corpus.clips, augmentation.TRAINING, data.config)
