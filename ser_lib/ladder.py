"""The protocols that the field reports under, from the most leaking to the most honest.

Each rung gives a predictions table, like any other evaluation, so that all are scored alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ser_lib import evaluate, guard, splits


def oversample(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Repeat clips of the scarcer emotions at random until all have as many as the most frequent.

    Repeated rows are copies (`source_clip`), which is what makes a later random split leak.
    """
    rng = np.random.default_rng(seed)
    counts = table["emotion"].value_counts()
    again = np.concatenate(
        [
            rng.choice(np.flatnonzero(table["emotion"] == emotion), counts.max() - n)
            for emotion, n in counts.items()
        ]
    )
    repeated = table.iloc[again].copy()
    repeated["source_clip"] = guard.sources(repeated)
    repeated["clip_id"] += [f" again {i}" for i in range(len(repeated))]
    return pd.concat([table.assign(source_clip=guard.sources(table)), repeated], ignore_index=True)


def siblings(table: pd.DataFrame, protocol: str, *, seed: int = 0, guarded: bool = True) -> dict[str, float]:
    """Mean over folds of `guard.leakage`: what share of test clips training holds something of."""
    sides = splits.sides(table, protocol, seed=seed, guarded=guarded)
    return (
        pd.DataFrame([guard.leakage(table, train, test) for train, test in sides.values()]).mean().to_dict()
    )


def transfer(train: pd.DataFrame, test: pd.DataFrame, name: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Predictions for one corpus by a model fitted on another, in the emotions that both have.

    Parameters
    ----------
    train, test : DataFrame
        Feature tables of two corpora; copies are trained on and not tested.
    """
    shared = [emotion for emotion in train["emotion"].unique() if emotion in set(test["emotion"])]
    train, test = evaluate.select(train, shared), evaluate.select(test, shared)
    both = pd.concat([train, test], ignore_index=True)
    heard, tested = np.arange(len(train)), len(train) + np.flatnonzero(guard.originals(test))
    guard.check(both.assign(speaker=both["corpus"] + both["speaker"]), heard, tested)
    jobs = [evaluate.Job(name, 0, heard, tested, seed) for seed in seeds]
    return evaluate.predict(both, jobs, "corpus")
