"""Folds times models to one table of out-of-fold predictions, from which every number comes.

A row says what a model, trained without the clip's fold, heard in the clip: `clip_id, speaker,
protocol, fold, model, seed, emotion, predicted, p_<emotion>…`. All that is trained and tested here
is a `Job`, whose rows come from `splits.sides` or `inner_sides`, where `guard.check` has passed
them. Altered copies in the table (see `guard`) are trained on and never tested.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Memory
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import ParameterGrid

from ser_lib import metrics, models, splits
from ser_lib.calibration import LEAST
from ser_lib.errors import CorpusError, SerError
from ser_lib.features import family
from ser_lib.progress import parallel
from ser_lib.rows import code_hash

INTENSITIES = ("normal", "strong")
ORDER = ("clip_id", "speaker", "protocol", "fold", "model", "seed", "emotion", "predicted")


def select(table: pd.DataFrame, emotions: Sequence[str]) -> pd.DataFrame:
    """The clips of these emotions.

    Raises
    ------
    CorpusError
        The table has no clip of one of them.
    """
    absent = [name for name in emotions if name not in set(table["emotion"])]
    if absent:
        held = ", ".join(sorted(table["emotion"].unique()))
        raise CorpusError(f"no clip of emotion {', '.join(absent)}; the table holds {held}")
    return table[table["emotion"].isin(emotions)].reset_index(drop=True)


def by_intensity(table: pd.DataFrame) -> pd.DataFrame:
    """The clips of the emotions that were spoken at two intensities, with the intensity in place of the emotion.

    It is evaluated like any table. RAVDESS has no strong neutral clip: with the neutral ones, telling
    them from the others would count as hearing the intensity.

    Raises
    ------
    CorpusError
        The intensities are not known.
    """
    known = table[table["intensity"].isin(INTENSITIES)]
    kinds = known.groupby("emotion")["intensity"].nunique()
    both = known[known["emotion"].isin(kinds.index[kinds > 1])].reset_index(drop=True)
    if both.empty:
        raise CorpusError("no emotion with clips of two intensities; a model of intensity needs them")
    return both.assign(emotion=both["intensity"])


def seed_list(spec: str | int) -> list[int]:
    """`"0,1,2"` or a single number as a list.

    Raises
    ------
    SerError
        Not whole numbers.
    """
    try:
        return [int(part) for part in str(spec).split(",")]
    except ValueError as error:
        raise SerError(f"seeds={spec!r}: give whole numbers, as in seeds=0,1,2") from error


def model_list(spec: str) -> list[str]:
    """`"mlp,xgboost"` as a list.

    Raises
    ------
    SerError
        A name is not one of `models.MODELS`.
    """
    names = [part.strip() for part in spec.split(",") if part.strip()]
    for name in names:
        models.make(name)
    return names


def feature_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a feature table that are features."""
    return [name for name in table.columns if name not in splits.ABOUT]


# --- fits ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One fit: a model, the rows it is trained on, and those it is then asked about."""

    model: str
    fold: int
    train: np.ndarray
    test: np.ndarray
    seed: int = 0
    parameters: dict = field(default_factory=dict)


def _arrays(table: pd.DataFrame) -> dict[str, np.ndarray]:
    x = table[feature_columns(table)].to_numpy(np.float32)
    return {"x": x, "y": table["emotion"].to_numpy(object), "speakers": table["speaker"].to_numpy(object)}


def _fitted(job: Job, x: np.ndarray, y: np.ndarray, speakers: np.ndarray):
    model = models.make(job.model, seed=job.seed, **job.parameters)
    name, last = model.steps[-1]
    stops_early = {f"{name}__speakers": speakers[job.train]} if getattr(last, "held", 0) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is the regulariser
        warnings.filterwarnings("ignore", "n_quantiles|Got `batch_size`")  # fewer clips than either
        return model.fit(x[job.train], y[job.train], **stops_early)


def _heard(job: Job, **arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The model's classes and their probabilities for the tested rows."""
    model = _fitted(job, **arrays)
    return model.classes_, model.predict_proba(arrays["x"][job.test])


def _predictions(
    table: pd.DataFrame, jobs: list[Job], protocol: str, *, n_jobs: int, what: str, keep: Path | None = None
) -> list:
    """A predictions table a job."""
    work = _heard
    if (
        keep is not None
    ):  # mmap_mode: processes are given large arrays as memory maps, which are to count as arrays
        work = Memory(keep / code_hash("models", "sequence"), mmap_mode="r", verbose=0).cache(_heard)
    parts = parallel(partial(work, **_arrays(table)), jobs, n_jobs=n_jobs, what=what)
    clips, found = table[["clip_id", "speaker", "emotion"]], []
    for job, (classes, p) in zip(jobs, parts, strict=True):
        scores = pd.DataFrame(p.astype(np.float32), columns=[f"p_{label}" for label in classes])
        said = {"model": job.model, "seed": job.seed, "predicted": classes[p.argmax(axis=1)]}
        about = clips.iloc[job.test].reset_index(drop=True).assign(protocol=protocol, fold=job.fold, **said)
        found.append(pd.concat([about[list(ORDER)], scores], axis=1))
    return found


def _stack(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """One table; an emotion that a fold never heard has probability 0."""
    whole = pd.concat(parts, ignore_index=True)
    return whole.fillna({name: 0 for name in whole if name.startswith("p_")})


def _chosen(chosen: pd.DataFrame | None) -> dict[tuple[str, int], dict]:
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
    guarded: bool = True,
    keep: Path | None = None,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """Predict every tested clip with every model, each time trained on the other folds.

    Parameters
    ----------
    table : DataFrame
        Feature table, already limited to the emotions that are compared; with altered copies or not.
    names : iterable of str
        Of `models.MODELS`.
    seeds : sequence of int
        One run of every model a seed; under the random protocol the split changes as well.
    chosen : DataFrame, optional
        What `search` returned for this protocol and the first seed; each fold then uses its own
        parameters instead of the defaults.
    guarded : bool
        As `splits.sides`.
    keep : Path, optional
        A folder where what each fit has predicted is kept, so that a run that was stopped goes on there.

    Returns
    -------
    DataFrame
        The predictions table.
    """
    parameters = _chosen(chosen)
    folds = {seed: splits.sides(table, protocol, seed=seed, guarded=guarded) for seed in seeds}
    jobs = [
        Job(name, fold, train, test, seed, parameters.get((name, fold), {}))
        for name in names
        for seed in seeds
        for fold, (train, test) in folds[seed].items()
    ]
    return _stack(_predictions(table, jobs, protocol, n_jobs=n_jobs, what=f"{protocol} folds", keep=keep))


def predict(table: pd.DataFrame, jobs: Sequence[Job], protocol: str, *, n_jobs: int = -1) -> pd.DataFrame:
    """The predictions table of jobs whose rows were chosen, and guarded, by the caller."""
    return _stack(_predictions(table, list(jobs), protocol, n_jobs=n_jobs, what=protocol))


def averaged(parts: Iterable[pd.DataFrame], name: str) -> pd.DataFrame:
    """One prediction a clip from several models: their mean log-probability, each part counting the same.

    Parameters
    ----------
    parts : iterable of DataFrame
        Predictions tables of the same clips, protocol and folds; in a part, all models and seeds count the same.
    name : str
        Of the average, as a model.

    Returns
    -------
    DataFrame
        A predictions table of the first part's clips, with seed 0.

    Raises
    ------
    SerError
        The parts are not of the same clips, folds and emotions.
    """
    parts = list(parts)
    about = parts[0].drop_duplicates("clip_id").set_index("clip_id")
    scores = [column for column in about if column.startswith("p_")]
    total = np.zeros((len(about), len(scores)))
    for part in parts:
        folds = part.drop_duplicates("clip_id").set_index("clip_id")["fold"]
        if not folds.reindex(about.index).eq(about["fold"]).all() or len(folds) != len(about):
            raise SerError(f"{name}: predictions of other clips or folds cannot be averaged")
        if missing := set(scores) ^ {column for column in part if column.startswith("p_")}:
            raise SerError(f"{name}: predictions of other emotions cannot be averaged ({', '.join(missing)})")
        logs = np.log(part[scores].clip(lower=LEAST)).groupby(part["clip_id"]).mean()
        total += logs.loc[about.index].to_numpy() / len(parts)
    p = np.exp(total - total.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    labels = np.array([column.removeprefix("p_") for column in scores], dtype=object)
    said = {"model": name, "seed": 0, "predicted": labels[p.argmax(axis=1)]}
    return about.assign(**said, **dict(zip(scores, p.astype(np.float32).T, strict=True))).reset_index()[
        list(parts[0].columns)
    ]


def inner_predictions(
    table: pd.DataFrame,
    name: str,
    *,
    protocol: str = "actors5",
    seed: int = 0,
    inner: int = 10,
    chosen: pd.DataFrame | None = None,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """For each outer fold, out-of-fold predictions of its training clips over inner folds of speakers.

    What is fitted on them for a fold (temperature, threshold, quantile) has seen training speakers alone.

    Parameters
    ----------
    inner : int
        Inner folds of whole speakers. A model trained on fewer clips is less sure, so that few inner
        folds make the outer model look less sure than it is: on RAVDESS the network's temperature
        comes out at 0.42 with 4 of them, at 0.56 with 10 or 20.
    chosen : DataFrame, optional
        As `out_of_fold`.

    Returns
    -------
    DataFrame
        A predictions table whose `fold` is the inner one, and `outer`, the fold of `out_of_fold`.
    """
    parameters = _chosen(chosen)
    outer = splits.sides(table, protocol, seed=seed)
    jobs = {
        (fold, number): Job(name, number, *rows, seed, parameters.get((name, fold), {}))
        for fold, (train, _) in outer.items()
        for number, rows in splits.inner_sides(table, train, inner).items()
    }
    parts = _predictions(table, list(jobs.values()), protocol, n_jobs=n_jobs, what="inner folds")
    return _stack([part.assign(outer=fold) for (fold, _), part in zip(jobs, parts, strict=True)])


def fit_all(table: pd.DataFrame, name: str, *, seed: int = 0):
    """The model `name` fitted on every clip of `table`, to be served."""
    every = np.arange(len(table))
    return _fitted(Job(name, -1, every, every[:0], seed), **_arrays(table))


def search(
    table: pd.DataFrame, names: Iterable[str], *, protocol: str = "actors5", seed: int = 0, n_jobs: int = -1
) -> pd.DataFrame:
    """Choose hyper-parameters for every fold from its training speakers alone.

    A grid (`models.SEARCH`) scored by UAR over four inner folds of whole speakers.

    Returns
    -------
    DataFrame
        `model, fold, parameters (JSON), inner_uar`; models without a grid have no row.
    """
    outer = splits.sides(table, protocol, seed=seed)
    inner = {fold: splits.inner_sides(table, train) for fold, (train, _) in outer.items()}
    jobs = [
        (outer_fold, Job(name, fold, *rows, seed, parameters))
        for name in names
        if name in models.SEARCH
        for outer_fold in outer
        for parameters in ParameterGrid(models.SEARCH[name])
        for fold, rows in inner[outer_fold].items()
    ]
    work = partial(_inner_uar, **_arrays(table))
    uar = parallel(work, [job for _, job in jobs], n_jobs=n_jobs, what="search")
    tried = [(job.model, fold, json.dumps(job.parameters)) for fold, job in jobs]
    scores = pd.DataFrame(tried, columns=["model", "fold", "parameters"]).assign(inner_uar=uar)
    means = scores.groupby(["model", "fold", "parameters"], sort=False, as_index=False).mean()
    best = means.groupby(["model", "fold"], sort=False)["inner_uar"].idxmax()
    return means.loc[best].reset_index(drop=True)


def _inner_uar(job: Job, **arrays: np.ndarray) -> float:
    classes, p = _heard(job, **arrays)
    y = arrays["y"]
    counts = confusion_matrix(y[job.test], classes[p.argmax(axis=1)], labels=np.unique(y))
    return float(metrics.from_counts(counts, "uar"))


def learning_curve(
    table: pd.DataFrame,
    names: Iterable[str],
    emotions: Sequence[str],
    *,
    protocol: str = "actors5",
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    seed: int = 0,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """UAR on unheard speakers when only a share of the training speakers is used.

    Returns
    -------
    DataFrame
        `model, speakers (in training, mean over folds), value, low, high`.
    """
    outer, names = splits.sides(table, protocol, seed=seed), list(names)
    speakers = table["speaker"].to_numpy()
    rng = np.random.default_rng(seed)
    order = {fold: rng.permutation(np.unique(speakers[train])) for fold, (train, _) in outer.items()}
    jobs = []
    for share in shares:
        for fold, (train, test) in outer.items():
            heard = order[fold][: max(2, round(share * len(order[fold])))]
            part = train[np.isin(speakers[train], heard)]
            jobs += [(share, len(heard), Job(name, fold, part, test, seed)) for name in names]
    parts = _predictions(table, [job for *_, job in jobs], protocol, n_jobs=n_jobs, what="learning curve")
    said = _stack(
        [part.assign(share=share, heard=heard) for part, (share, heard, _) in zip(parts, jobs, strict=True)]
    )
    rows = []
    for (name, _), part in said.groupby(["model", "share"], sort=False):
        value, low, high = metrics.score(part, emotions)
        row = {"model": name, "speakers": part["heard"].mean()}
        rows.append(row | {"value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def importance(
    table: pd.DataFrame,
    names: Iterable[str],
    emotions: Sequence[str],
    *,
    protocol: str = "actors5",
    repeats: int = 5,
    seed: int = 0,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """UAR lost when all columns of a feature family are shuffled together among the test clips.

    Shuffling a whole family at once is fair to correlated columns, which stand in for one another
    when shuffled singly.

    Returns
    -------
    DataFrame
        One row a family, one column a model; mean over `repeats` shuffles, pooled over folds.
    """
    families = pd.Series([family(name) for name in feature_columns(table)])
    outer = splits.sides(table, protocol, seed=seed)
    jobs = [Job(name, fold, *rows, seed) for name in names for fold, rows in outer.items()]
    work = partial(_shuffled_counts, **_arrays(table), families=families, emotions=emotions, repeats=repeats)
    counts: dict[str, np.ndarray] = {}
    for job, part in zip(jobs, parallel(work, jobs, n_jobs=n_jobs, what="importance"), strict=True):
        counts[job.model] = counts.get(job.model, 0) + part
    uar = {name: metrics.from_counts(c, "uar") for name, c in counts.items()}  # (1 + n_families, repeats)
    lost = {name: (u[:1] - u[1:]).mean(axis=1) for name, u in uar.items()}
    return pd.DataFrame(lost, index=list(dict.fromkeys(families)))


def _shuffled_counts(job: Job, *, x, y, speakers, families, emotions, repeats: int) -> np.ndarray:
    """Confusion counts, shape (1 + n_families, repeats, n_labels, n_labels); the first is unshuffled."""
    model = _fitted(job, x, y, speakers)
    rng = np.random.default_rng(job.seed)
    code = {label: i for i, label in enumerate(emotions)}
    true = np.array([code[label] for label in y[job.test]])
    groups = [np.zeros(len(families), bool), *((families == f).to_numpy() for f in dict.fromkeys(families))]
    counts = np.zeros((len(groups), repeats, len(code), len(code)))
    for i, columns in enumerate(groups):
        for repeat in range(repeats):
            shuffled = x[job.test].copy()
            shuffled[:, columns] = shuffled[rng.permutation(len(shuffled))][:, columns]
            said = [code[label] for label in model.predict(shuffled)]
            np.add.at(counts[i, repeat], (true, said), 1)
    return counts
