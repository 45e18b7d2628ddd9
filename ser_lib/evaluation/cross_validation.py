"""Folds times models to one table of out-of-fold predictions, from which every number comes.

A row says what a model, trained without the clip's fold, heard: `clip_id, speaker, protocol, fold, model,
seed, emotion, predicted, p_<emotion>…`. All that is trained and tested is a `Job`, whose rows come from
`splits.sides` or `inner_sides`, where `guard.check` passed them. Altered copies (`guard`) are never tested.
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

ORDER = ("clip_id", "speaker", "protocol", "fold", "model", "seed", "emotion", "predicted")


def seed_list(spec: str | int) -> list[int]:
    """`"0,1,2"` or a single number as a list; `SerError` if these are not whole numbers.

    Examples
    --------
    >>> seed_list("0,1,2")
    [0, 1, 2]
    """
    try:
        return [int(part) for part in str(spec).split(",")]
    except ValueError as error:
        raise SerError(f"seeds={spec!r}: give whole numbers, as in seeds=0,1,2") from error


def model_list(spec: str) -> list[str]:
    """`"mlp,xgboost"` as a list; `SerError` if a name is not one of `models.MODELS` or `NETWORKS`.

    Examples
    --------
    >>> model_list("logistic, majority")
    ['logistic', 'majority']
    """
    names = [part.strip() for part in spec.split(",") if part.strip()]
    for name in names:
        models.make(name)
    return names


# --- fits ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One fit: a model, the rows it is trained on, and those it is then asked about.

    Examples
    --------
    >>> Job("mlp", 0, train=np.array([1, 2]), test=np.array([0]))
    Job(model='mlp', fold=0, train=array([1, 2]), test=array([0]), seed=0, parameters={})
    """

    model: str
    fold: int
    train: np.ndarray
    test: np.ndarray
    seed: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)


def _arrays(table: pd.DataFrame) -> dict[str, np.ndarray]:
    x = table[feature_columns(table)].to_numpy(np.float32)
    return {"x": x, "y": table["emotion"].to_numpy(object), "speakers": table["speaker"].to_numpy(object)}


def _fitted(job: Job, x: np.ndarray, y: np.ndarray, speakers: np.ndarray) -> Pipeline:
    model = models.make(job.model, seed=job.seed, **job.parameters)
    name, last = model.steps[-1]
    stops_early = {f"{name}__speakers": speakers[job.train]} if getattr(last, "held", 0) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is the regulariser
        warnings.filterwarnings("ignore", "Got `batch_size`")  # fewer clips than that
        return model.fit(x[job.train], y[job.train], **stops_early)


def _heard(job: Job, **arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The model's classes and their probabilities for the tested rows."""
    model = _fitted(job, **arrays)
    return model.classes_, model.predict_proba(arrays["x"][job.test])


def _same(job: Job) -> tuple[object, ...]:
    """What two jobs with the same answers have in common: a deterministic model is fitted once for all seeds."""
    seed = None if job.model in models.DETERMINISTIC else job.seed
    return job.model, seed, joblib_hash(job.parameters), job.train.tobytes(), job.test.tobytes()


def fit(table: pd.DataFrame, job: Job) -> Pipeline:
    """The model of a job, trained on its rows of the table.

    Examples
    --------
    >>> table = pd.DataFrame({"speaker": "ann", "emotion": ["sad", "happy"], "level_mean": [-30.0, -20.0]})
    >>> fit(table, Job("logistic", 0, train=np.array([0, 1]), test=np.array([]))).predict([[-18.0]])
    array(['happy'], dtype=object)
    """
    return _fitted(job, **_arrays(table))


def predict_each(
    table: pd.DataFrame,
    jobs: Sequence[Job],
    protocol: str,
    *,
    n_jobs: int = -1,
    what: str = "",
    keep: Path | None = None,
) -> list[pd.DataFrame]:
    """A predictions table a job; `what` is the progress bar's title, `keep` as in `out_of_fold`.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": ["a", "b"], "speaker": "ann", "emotion": "sad", "level_mean": -30.0})
    >>> [found] = predict_each(table, [Job("majority", 0, np.array([0]), np.array([1]))], "mine", n_jobs=1)
    >>> found[["clip_id", "emotion", "predicted", "p_sad"]].to_dict("records")
    [{'clip_id': 'b', 'emotion': 'sad', 'predicted': 'sad', 'p_sad': 1.0}]
    """
    work: Callable[..., Any] = _heard
    if keep is not None:
        folder = keep / code_hash("from ser_lib.models import corrcnn, networks, registry")
        # memory maps: processes are given large arrays as such, which are to count as arrays
        work = Memory(folder, mmap_mode="r", verbose=0).cache(_heard)
    keys = [_same(job) for job in jobs]  # before any fit, which may change a part that is given
    once: dict[tuple[object, ...], Job] = {}
    for key, job in zip(keys, jobs, strict=True):
        once.setdefault(key, job)
    done = map_parallel(partial(work, **_arrays(table)), once.values(), n_jobs=n_jobs, what=what)
    parts = dict(zip(once, done, strict=True))
    clips, found = table[["clip_id", "speaker", "emotion"]], []
    for job, key in zip(jobs, keys, strict=True):
        classes, p = parts[key]
        scores = pd.DataFrame(p.astype(np.float32), columns=[f"p_{label}" for label in classes])
        said = {"model": job.model, "seed": job.seed, "predicted": classes[p.argmax(axis=1)]}
        about = clips.iloc[job.test].reset_index(drop=True).assign(protocol=protocol, fold=job.fold, **said)
        found.append(pd.concat([about[list(ORDER)], scores], axis=1))
    return found


def stacked(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """One table; an emotion that a fold never heard has probability 0.

    Examples
    --------
    >>> stacked([pd.DataFrame({"p_sad": [1]}), pd.DataFrame({"p_sad": [0.4], "p_calm": 0.6})]).to_dict("list")
    {'p_sad': [1.0, 0.4], 'p_calm': [0.0, 0.6]}
    """
    whole = pd.concat(parts, ignore_index=True)
    return whole.fillna({name: 0 for name in whole if name.startswith("p_")})


def by_fold(chosen: pd.DataFrame | None) -> dict[tuple[str, int], dict[str, Any]]:
    """What `nested.search` chose, by model and fold; nothing if nothing was.

    Examples
    --------
    >>> by_fold(pd.DataFrame({"model": ["mlp"], "fold": [0], "parameters": ['{"mlp__alpha": 1.0}']}))
    {('mlp', 0): {'mlp__alpha': 1.0}}
    """
    rows = chosen.itertuples() if chosen is not None else ()
    return {(row.model, row.fold): json.loads(row.parameters) for row in rows}


# --- questions -------------------------------------------------------------------------------------


def out_of_fold(
    table: pd.DataFrame,
    names: Iterable[str],
    *,
    protocol: str = "actors5",
    seeds: Sequence[int] = (0,),
    chosen: pd.DataFrame | None = None,
    only: Mapping[str, Collection[int]] | None = None,
    guarded: bool = True,
    keep: Path | None = None,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """The predictions table of every model for every tested clip, each time trained on the other folds.

    Parameters
    ----------
    table : DataFrame
        Feature table, already limited to the emotions that are compared; with altered copies or not.
    names : iterable of str
        Of `models.MODELS`.
    seeds : sequence of int
        One run of every model a seed; under the random protocol the split changes as well.
    chosen : DataFrame, optional
        What `nested.search` returned for this protocol and the first seed: each fold's own parameters.
    only : mapping of str to collection of int, optional
        For these models, the folds that are wanted; the others get all.
    guarded : bool
        As `splits.sides`.
    keep : Path, optional
        A folder where what each fit has predicted is kept, so that a run that was stopped goes on there.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": list("abcd"), "speaker": ["ann", "ann", "ben", "ben"]})
    >>> table = table.assign(emotion=["sad", "happy"] * 2, level_mean=[-30.0, -20.0, -31.0, -21.0])
    >>> found = out_of_fold(table, ["logistic"], protocol="loso", n_jobs=1)
    >>> found[["clip_id", "fold", "predicted"]].to_numpy().tolist()
    [['a', 0, 'sad'], ['b', 0, 'happy'], ['c', 1, 'sad'], ['d', 1, 'happy']]
    """
    parameters = by_fold(chosen)
    folds = {seed: splits.sides(table, protocol, seed=seed, guarded=guarded) for seed in seeds}
    jobs = [
        Job(name, fold, train, test, seed, parameters.get((name, fold), {}))
        for name in names
        for seed in seeds
        for fold, (train, test) in folds[seed].items()
        if fold in (only or {}).get(name, folds[seed])
    ]
    return stacked(predict_each(table, jobs, protocol, n_jobs=n_jobs, what=f"{protocol} folds", keep=keep))


def predict(table: pd.DataFrame, jobs: Sequence[Job], protocol: str, *, n_jobs: int = -1) -> pd.DataFrame:
    """The predictions table of jobs whose rows were chosen, and guarded, by the caller.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": ["a", "b"], "speaker": "ann", "emotion": "sad", "level_mean": -30.0})
    >>> jobs = [Job("majority", i, np.array([1 - i]), np.array([i])) for i in range(2)]
    >>> predict(table, jobs, "mine", n_jobs=1)[["clip_id", "fold", "predicted"]].to_numpy().tolist()
    [['a', 0, 'sad'], ['b', 1, 'sad']]
    """
    return stacked(predict_each(table, jobs, protocol, n_jobs=n_jobs, what=protocol))


def fit_all(table: pd.DataFrame, name: str, *, seed: int = 0) -> Pipeline:
    """The model `name` fitted on every clip of `table`, to be served.

    Examples
    --------
    >>> table = pd.DataFrame({"speaker": ["ann", "ben"], "emotion": ["sad", "happy"], "level_mean": [-30.0, -20.0]})
    >>> fit_all(table, "logistic").predict([[-18.0]])
    array(['happy'], dtype=object)
    """
    every = np.arange(len(table))
    return fit(table, Job(name, -1, every, every[:0], seed))


# --- nested cross-validation ----------------------------------------------------------------------


def inner_predictions(
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
    >>> found = inner_predictions(table, "logistic", protocol="loso", inner=2, n_jobs=1)
    >>> found[found["outer"] == 0][["speaker", "predicted"]].to_numpy().tolist()
    [['cat', 'sad'], ['cat', 'happy'], ['ben', 'sad'], ['ben', 'happy']]
    """
    outer = splits.sides(table, protocol, seed=seed)
    jobs = {
        (fold, number): Job(name, number, *rows, seed, {})
        for fold, (train, _) in outer.items()
        if only is None or fold in only
        for number, rows in splits.inner_sides(table, train, inner).items()
    }
    parts = predict_each(table, list(jobs.values()), protocol, n_jobs=n_jobs, what="inner folds")
    return stacked([part.assign(outer=fold) for (fold, _), part in zip(jobs, parts, strict=True)])


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
        (outer_fold, Job(name, fold, *rows, seed, parameters))
        for name in names
        if name in models.SEARCH
        for outer_fold in outer
        for parameters in ParameterGrid(models.SEARCH[name])
        for fold, rows in inner[outer_fold].items()
    ]
    parts = predict_each(table, [job for _, job in jobs], protocol, n_jobs=n_jobs, what="search")
    counts = (confusion_matrix(part["emotion"], part["predicted"], labels=labels) for part in parts)
    uar = [float(metrics.from_counts(count, "uar")) for count in counts]
    tried = [(job.model, fold, json.dumps(job.parameters)) for fold, job in jobs]
    scores = pd.DataFrame(tried, columns=["model", "fold", "parameters"]).assign(inner_uar=uar)
    means = scores.groupby(["model", "fold", "parameters"], sort=False, as_index=False).mean()
    best = means.groupby(["model", "fold"], sort=False)["inner_uar"].idxmax()
    return means.loc[best].reset_index(drop=True)
