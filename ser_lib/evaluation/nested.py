"""Nested cross-validation: what is chosen or calibrated for a fold is so on inner folds of its training speakers."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import ParameterGrid

from ser_lib import evaluate, metrics, models, splits


def predictions(
    table: pd.DataFrame,
    name: str,
    *,
    protocol: str = "actors5",
    seed: int = 0,
    inner: int = 10,
    only: Collection[int] | None = None,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """For each outer fold, out-of-fold predictions of its training clips over inner folds of speakers.

    What is fitted on them for a fold (temperature, threshold, quantile) has seen training speakers alone.
    The table has `outer`, the fold of `evaluate.out_of_fold`, beside `fold`, the inner one.

    Parameters
    ----------
    inner : int
        Inner folds of whole speakers. Few of them train on fewer clips and so make the model look less sure
        than it is: on RAVDESS the network's temperature comes out at 0.42 with 4, at 0.56 with 10 or 20.
    only : collection of int, optional
        The outer folds that are wanted.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": range(6), "speaker": ["ann", "ann", "ben", "ben", "cat", "cat"]})
    >>> table = table.assign(emotion=["sad", "happy"] * 3, level_mean=[-30.0, -20.0] * 3)
    >>> found = predictions(table, "logistic", protocol="loso", inner=2, n_jobs=1)
    >>> found[found["outer"] == 0][["speaker", "predicted"]].to_numpy().tolist()
    [['cat', 'sad'], ['cat', 'happy'], ['ben', 'sad'], ['ben', 'happy']]
    """
    outer = splits.sides(table, protocol, seed=seed)
    jobs = {
        (fold, number): evaluate.Job(name, number, *rows, seed, {})
        for fold, (train, _) in outer.items()
        if only is None or fold in only
        for number, rows in splits.inner_sides(table, train, inner).items()
    }
    parts = evaluate.predictions(table, list(jobs.values()), protocol, n_jobs=n_jobs, what="inner folds")
    return evaluate.stacked([part.assign(outer=fold) for (fold, _), part in zip(jobs, parts, strict=True)])


def search(
    table: pd.DataFrame, names: Iterable[str], *, protocol: str = "actors5", seed: int = 0, n_jobs: int = -1
) -> pd.DataFrame:
    """Choose hyper-parameters for every fold from its training speakers alone.

    A grid (`models.SEARCH`) scored by UAR over four inner folds of whole speakers. The table has
    `model, fold, parameters (JSON), inner_uar`; models without a grid have no row.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": range(10), "speaker": np.repeat(["ann", "ben", "cat", "dan", "eve"], 2)})
    >>> table = table.assign(emotion=["sad", "happy"] * 5, level_mean=[-30.0, -20.0] * 5)
    >>> search(table, ["logistic"], protocol="loso", n_jobs=1)["parameters"][0]
    '{"logisticregression__C": 0.001}'
    """
    outer, labels = splits.sides(table, protocol, seed=seed), np.unique(table["emotion"])
    inner = {fold: splits.inner_sides(table, train) for fold, (train, _) in outer.items()}
    jobs = [
        (outer_fold, evaluate.Job(name, fold, *rows, seed, parameters))
        for name in names
        if name in models.SEARCH
        for outer_fold in outer
        for parameters in ParameterGrid(models.SEARCH[name])
        for fold, rows in inner[outer_fold].items()
    ]
    parts = evaluate.predictions(table, [job for _, job in jobs], protocol, n_jobs=n_jobs, what="search")
    counts = (confusion_matrix(part["emotion"], part["predicted"], labels=labels) for part in parts)
    uar = [float(metrics.from_counts(count, "uar")) for count in counts]
    tried = [(job.model, fold, json.dumps(job.parameters)) for fold, job in jobs]
    scores = pd.DataFrame(tried, columns=["model", "fold", "parameters"]).assign(inner_uar=uar)
    means = scores.groupby(["model", "fold", "parameters"], sort=False, as_index=False).mean()
    best = means.groupby(["model", "fold"], sort=False)["inner_uar"].idxmax()
    return means.loc[best].reset_index(drop=True)
