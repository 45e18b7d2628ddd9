"""Out-of-fold predictions: fit every model on the training rows of each fold and predict its test rows.

A predictions table has `COLUMNS`, then `p_<emotion>…`; every figure of a report comes from one. Folds come from
`splits`, which checks them. Augmented copies are trained on and never tested.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Memory
from joblib import hash as joblib_hash
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from ser_lib import models
from ser_lib.errors import SerError
from ser_lib.evaluation import metrics, splits
from ser_lib.features.tables import feature_columns
from ser_lib.parallel import map_parallel
from ser_lib.provenance import code_hash

COLUMNS = ("clip_id", "speaker", "protocol", "fold", "model", "seed", "emotion", "predicted")


def seed_list(spec: str | int) -> list[int]:
    """Return `"0,1,2"`, or a single number, as a list; `SerError` if these are not whole numbers."""
    try:
        return [int(part) for part in str(spec).split(",")]
    except ValueError as error:
        raise SerError(f"seeds={spec!r}: give whole numbers, as in seeds=0,1,2") from error


def model_list(spec: str) -> list[str]:
    """Return `"mlp,xgboost"` as a list; `SerError` if a name is not one of `models.MODELS` or `NETWORKS`."""
    names = [part.strip() for part in spec.split(",") if part.strip()]
    for name in names:
        models.make(name)
    return names


# --- fits ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One fit: a model with its seed and parameters, its training rows, and the rows to predict."""

    model: str
    fold: int
    train: np.ndarray
    test: np.ndarray
    seed: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)


def _arrays(table: pd.DataFrame) -> dict[str, np.ndarray]:
    x = table[feature_columns(table)].to_numpy(np.float32)
    return {"x": x, "y": table["emotion"].to_numpy(object), "speakers": table["speaker"].to_numpy(object)}


def _fit(job: Job, x: np.ndarray, y: np.ndarray, speakers: np.ndarray) -> Pipeline:
    model = models.make(job.model, seed=job.seed, **job.parameters)
    fit_parameters = {}
    if job.model in models.NETWORKS:  # they stop early by a share of the training speakers
        fit_parameters = models.last_step(job.model, speakers=speakers[job.train])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs regularises
        warnings.filterwarnings("ignore", "Got `batch_size`")  # fewer clips than that
        return model.fit(x[job.train], y[job.train], **fit_parameters)


def _fit_predict(job: Job, **arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the model's classes and their probabilities for the test rows."""
    model = _fit(job, **arrays)
    return model.classes_, model.predict_proba(arrays["x"][job.test])


def _key(job: Job) -> tuple[object, ...]:
    """Return a key that is equal for jobs with equal predictions: deterministic models are fitted once for all seeds."""
    seed = None if job.model in models.DETERMINISTIC else job.seed
    return job.model, seed, joblib_hash(job.parameters), job.train.tobytes(), job.test.tobytes()


def fit(table: pd.DataFrame, job: Job) -> Pipeline:
    """Return the model of a job, fitted on its training rows of the table."""
    return _fit(job, **_arrays(table))


def fit_all(table: pd.DataFrame, name: str, *, seed: int = 0) -> Pipeline:
    """Return the model `name` fitted on every clip of the table, for serving."""
    rows = np.arange(len(table))
    return fit(table, Job(name, -1, rows, rows[:0], seed))


def predict_each(
    table: pd.DataFrame,
    jobs: Sequence[Job],
    protocol: str,
    *,
    n_jobs: int = -1,
    title: str = "",
    keep: Path | None = None,
) -> list[pd.DataFrame]:
    """Return the predictions of each job, as a table each. The caller has checked the rows (`guard.check_split`).

    Parameters
    ----------
    title : str
        Title of the progress bar.
    keep : Path, optional
        As in `out_of_fold`.
    """
    work: Callable[..., Any] = _fit_predict
    if keep is not None:
        folder = keep / code_hash("from ser_lib.models import corrcnn, networks, registry")
        # joblib hands large arrays to processes as memory maps; mmap_mode hashes these as arrays
        work = Memory(folder, mmap_mode="r", verbose=0).cache(_fit_predict)
    keys = [_key(job) for job in jobs]  # before any fit, which may change an estimator among the parameters
    distinct: dict[tuple[object, ...], Job] = {}
    for key, job in zip(keys, jobs, strict=True):
        distinct.setdefault(key, job)
    results = map_parallel(partial(work, **_arrays(table)), distinct.values(), n_jobs=n_jobs, what=title)
    result_of = dict(zip(distinct, results, strict=True))
    return [_predictions(table, job, protocol, *result_of[key]) for key, job in zip(keys, jobs, strict=True)]


def _predictions(
    table: pd.DataFrame, job: Job, protocol: str, classes: np.ndarray, p: np.ndarray
) -> pd.DataFrame:
    about = table[["clip_id", "speaker", "emotion"]].iloc[job.test].reset_index(drop=True)
    about = about.assign(
        protocol=protocol, fold=job.fold, model=job.model, seed=job.seed, predicted=classes[p.argmax(axis=1)]
    )
    scores = pd.DataFrame(p.astype(np.float32), columns=[f"p_{label}" for label in classes])
    return pd.concat([about[list(COLUMNS)], scores], axis=1)


def predict(table: pd.DataFrame, jobs: Sequence[Job], protocol: str, *, n_jobs: int = -1) -> pd.DataFrame:
    """Return the predictions of all jobs in one table. The caller has checked the rows (`guard.check_split`).

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": ["a", "b"], "speaker": "ann", "emotion": "sad", "level_mean": -30.0})
    >>> jobs = [Job("majority", i, np.array([1 - i]), np.array([i])) for i in range(2)]
    >>> predict(table, jobs, "mine", n_jobs=1)[["clip_id", "fold", "predicted", "p_sad"]].to_numpy().tolist()
    [['a', 0, 'sad', 1.0], ['b', 1, 'sad', 1.0]]
    """
    return concatenate(predict_each(table, jobs, protocol, n_jobs=n_jobs, title=protocol))


def concatenate(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return one table; an emotion that was not in a fold's training clips has probability 0."""
    whole = pd.concat(parts, ignore_index=True)
    return whole.fillna({name: 0 for name in whole if name.startswith("p_")})


# --- cross-validation ------------------------------------------------------------------------------


def out_of_fold(
    table: pd.DataFrame,
    names: Iterable[str],
    *,
    protocol: str = "actors5",
    seeds: Sequence[int] = (0,),
    parameters: Mapping[str, Any] | None = None,
    chosen: pd.DataFrame | None = None,
    only: Mapping[str, Collection[int]] | None = None,
    guarded: bool = True,
    keep: Path | None = None,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """Return every model's predictions for every test clip, each by a model trained on the other folds.

    Parameters
    ----------
    table : DataFrame
        Feature table with the clips of the compared emotions only; may hold augmented copies.
    names : iterable of str
        Of `models.MODELS` or `NETWORKS`.
    seeds : sequence of int
        Seeds of each model; under the random protocol also of the split.
    parameters : mapping of str to value, optional
        Pipeline parameters, the same in every fold.
    chosen : DataFrame, optional
        What `search` returned for this protocol and the first seed: parameters of each model and fold.
    only : mapping of str to collection of int, optional
        For these models, the folds to run; the other models run all.
    guarded : bool
        As in `splits.folds`.
    keep : Path, optional
        A folder for the results of each fit, from which a stopped run continues.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": list("abcd"), "speaker": ["ann", "ann", "ben", "ben"]})
    >>> table = table.assign(emotion=["sad", "happy"] * 2, level_mean=[-30.0, -20.0, -31.0, -21.0])
    >>> predictions = out_of_fold(table, ["logistic"], protocol="loso", n_jobs=1)
    >>> predictions[["clip_id", "fold", "predicted"]].to_numpy().tolist()
    [['a', 0, 'sad'], ['b', 0, 'happy'], ['c', 1, 'sad'], ['d', 1, 'happy']]
    """
    best: dict[tuple[str, int], dict[str, Any]] = {}
    if chosen is not None:
        best = {(row.model, row.fold): json.loads(row.parameters) for row in chosen.itertuples()}
    folds = {seed: splits.folds(table, protocol, seed=seed, guarded=guarded) for seed in seeds}
    jobs = [
        Job(name, fold, train, test, seed, {**(parameters or {}), **best.get((name, fold), {})})
        for name in names
        for seed in seeds
        for fold, (train, test) in folds[seed].items()
        if only is None or name not in only or fold in only[name]
    ]
    return concatenate(
        predict_each(table, jobs, protocol, n_jobs=n_jobs, title=f"{protocol} folds", keep=keep)
    )


def inner_predictions(
    table: pd.DataFrame,
    name: str,
    *,
    protocol: str = "actors5",
    seed: int = 0,
    inner: int = 10,
    parameters: Mapping[str, Any] | None = None,
    only: Collection[int] | None = None,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """Return, for each outer fold, out-of-fold predictions of its training clips over inner folds of speakers.

    A choice or a fit on them (temperature, threshold) uses the outer fold's training speakers only. The column
    `outer` is the fold of `out_of_fold`, `fold` the inner fold.

    Parameters
    ----------
    inner : int
        Inner folds of whole speakers. Fewer folds leave fewer training clips, so the model looks less confident
        than it is: on RAVDESS the network's temperature is 0.42 with 4 folds and 0.56 with 10 or 20.
    parameters : mapping of str to value, optional
        Pipeline parameters.
    only : collection of int, optional
        The outer folds to run.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": range(6), "speaker": ["ann", "ann", "ben", "ben", "cat", "cat"]})
    >>> table = table.assign(emotion=["sad", "happy"] * 3, level_mean=[-30.0, -20.0] * 3)
    >>> predictions = inner_predictions(table, "logistic", protocol="loso", inner=2, n_jobs=1)
    >>> predictions[predictions["outer"] == 0][["speaker", "predicted"]].to_numpy().tolist()
    [['cat', 'sad'], ['cat', 'happy'], ['ben', 'sad'], ['ben', 'happy']]
    """
    jobs, outer_folds = [], []
    for outer, (train, _) in splits.folds(table, protocol, seed=seed).items():
        if only is None or outer in only:
            for fold, rows in splits.inner_folds(table, train, inner).items():
                jobs.append(Job(name, fold, *rows, seed, dict(parameters or {})))
                outer_folds.append(outer)
    parts = predict_each(table, jobs, protocol, n_jobs=n_jobs, title="inner folds")
    return concatenate([part.assign(outer=outer) for part, outer in zip(parts, outer_folds, strict=True)])


def search(
    table: pd.DataFrame, names: Iterable[str], *, protocol: str = "actors5", seed: int = 0, n_jobs: int = -1
) -> pd.DataFrame:
    """Choose hyper-parameters for every fold from its training speakers alone.

    Scores the grid `models.SEARCH` by UAR over four inner folds of whole speakers. The table has
    `model, fold, parameters (JSON), inner_uar`; a model without a grid has no row.
    """
    outer_folds = splits.folds(table, protocol, seed=seed)
    inner_folds = {outer: splits.inner_folds(table, train) for outer, (train, _) in outer_folds.items()}
    jobs, about = [], []
    for name in names:
        if name not in models.SEARCH:
            continue
        for outer, folds in inner_folds.items():
            for parameters in ParameterGrid(models.SEARCH[name]):
                for fold, rows in folds.items():
                    jobs.append(Job(name, fold, *rows, seed, parameters))
                    about.append((name, outer, json.dumps(parameters)))
    parts = predict_each(table, jobs, protocol, n_jobs=n_jobs, title="search")
    labels = np.unique(table["emotion"])
    counts = [confusion_matrix(part["emotion"], part["predicted"], labels=labels) for part in parts]
    scores = pd.DataFrame(about, columns=["model", "fold", "parameters"])
    scores["inner_uar"] = [float(metrics.from_counts(count, "uar")) for count in counts]
    means = scores.groupby(["model", "fold", "parameters"], sort=False, as_index=False).mean()
    best = means.groupby(["model", "fold"], sort=False)["inner_uar"].idxmax()
    return means.loc[best].reset_index(drop=True)
