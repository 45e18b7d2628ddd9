"""A model on changed recordings of speakers that it never heard: another microphone, line or room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ser_lib import evaluate, guard, splits, tables
from ser_lib.augment import Change
from ser_lib.features import FeatureConfig

CLEAN = "as recorded"


def recordings(
    table: pd.DataFrame, clips: pd.DataFrame, changes: Sequence[Change], config: FeatureConfig
) -> dict[str, pd.DataFrame]:
    """The feature table under each change, by the change's name, after the table itself (`CLEAN`).

    Parameters
    ----------
    table : DataFrame
        Feature table of the clips that are tested.
    clips : DataFrame
        Their clip table, with `path`. Clips that a change makes unusable (too short) are left out.
    """
    wanted = clips[clips["clip_id"].isin(table["clip_id"])]
    return {CLEAN: table} | {
        change.name: tables.build(wanted, config, change=change)[0] for change in changes
    }


def hear(
    train: pd.DataFrame,
    tested: Mapping[str, pd.DataFrame],
    name: str,
    *,
    protocol: str = "actors5",
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """What a model trained on the other folds hears in each fold's speakers, under every condition.

    Parameters
    ----------
    train : DataFrame
        Feature table; its altered copies (see `guard`) are trained on.
    tested : mapping of str to DataFrame
        Feature tables of clips of the same speakers, by condition, as from `recordings`.

    Returns
    -------
    DataFrame
        The predictions table with a `condition`; `clip_id` is that of the recording that was changed.
    """
    about = [
        held.assign(
            source_clip=held["clip_id"], clip_id=held["clip_id"] + f" {condition}", condition=condition
        )
        for condition, held in tested.items()
    ]
    asked = pd.concat(about, ignore_index=True)
    origin = asked.set_index("clip_id")[["source_clip", "condition"]]
    both = pd.concat([train, asked.drop(columns="condition")], ignore_index=True)
    speaker = both["speaker"].to_numpy()
    jobs = []
    for fold, (heard, held) in splits.sides(train, protocol).items():
        rows = len(train) + np.flatnonzero(np.isin(speaker[len(train) :], np.unique(speaker[held])))
        guard.check(both, heard, rows)
        jobs += [evaluate.Job(name, fold, heard, rows, seed) for seed in seeds]
    said = evaluate.predict(both, jobs, protocol)
    found = origin.loc[said["clip_id"]]
    return said.assign(clip_id=found["source_clip"].to_numpy(), condition=found["condition"].to_numpy())
