"""Folds times models to one table of out-of-fold predictions, from which every number comes.

A row says what a model, trained without the clip's fold, heard in the clip: `clip_id, speaker,
protocol, fold, model, seed, emotion, predicted, p_<emotion>…`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, GroupKFold

from ser_lib import metrics, models, splits
from ser_lib.corpus import CLIP_COLUMNS
from ser_lib.errors import CorpusError, SerError
from ser_lib.features import family
from ser_lib.progress import parallel


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
    return [name for name in table.columns if name not in CLIP_COLUMNS]


def out_of_fold(
    table: pd.DataFrame,
    names: Iterable[str],
    *,
    protocol: str = "actors5",
    seeds: Sequence[int] = (0,),
    chosen: pd.DataFrame | None = None,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """Predict every tested clip with every model, each time trained on the other folds.

    Parameters
    ----------
    table : DataFrame
        Feature table, already limited to the emotions that are compared.
    names : iterable of str
        Of `models.MODELS`.
    seeds : sequence of int
        One run of every model a seed; under the random protocol the split changes as well.
    chosen : DataFrame, optional
        What `search` returned for this protocol and the first seed; each fold then uses its own
        parameters instead of the defaults.

    Returns
    -------
    DataFrame
        The predictions table.
    """
    columns = feature_columns(table)
    x = table[columns].to_numpy(np.float32)
    folds = {seed: splits.assign_folds(table, protocol, seed=seed).to_numpy() for seed in seeds}
    parameters = {}
    if chosen is not None:
        parameters = {(row.model, row.fold): json.loads(row.parameters) for row in chosen.itertuples()}
    jobs = [
        (name, seed, fold, parameters.get((name, fold), {}))
        for name in names
        for seed in seeds
        for fold in _tested(folds[seed])
    ]
    work = partial(_predict_fold, x=x, y=table["emotion"].to_numpy(), folds=folds)
    parts = parallel(work, jobs, n_jobs=n_jobs, what=f"{protocol} folds")
    rows = []
    for (name, seed, fold, _), (classes, p) in zip(jobs, parts, strict=True):
        tested = table.loc[folds[seed] == fold, ["clip_id", "speaker", "emotion"]].reset_index(drop=True)
        scores = pd.DataFrame(p.astype(np.float32), columns=[f"p_{label}" for label in classes])
        about = tested.assign(
            protocol=protocol, fold=fold, model=name, seed=seed, predicted=classes[p.argmax(axis=1)]
        )
        rows.append(pd.concat([about, scores], axis=1))
    order = ["clip_id", "speaker", "protocol", "fold", "model", "seed", "emotion", "predicted"]
    predictions = pd.concat(rows, ignore_index=True)
    scores = [name for name in predictions if name.startswith("p_")]
    return predictions[order + scores].fillna(dict.fromkeys(scores, 0))


def _tested(folds: np.ndarray) -> list[int]:
    """The fold numbers that have clips; a part of RAVDESS may leave some empty."""
    return np.unique(folds[folds >= 0]).tolist()


def _predict_fold(job: tuple, *, x: np.ndarray, y: np.ndarray, folds: dict) -> tuple[np.ndarray, np.ndarray]:
    name, seed, fold, parameters = job
    test = folds[seed] == fold
    model = models.make(name, seed=seed, **parameters)
    _fit(model, x[~test], y[~test])
    return model.classes_, model.predict_proba(x[test])


def _fit(model, x: np.ndarray, y: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is the regulariser
        warnings.filterwarnings("ignore", "n_quantiles|Got `batch_size`")  # fewer clips than either
        model.fit(x, y)


def fit_all(table: pd.DataFrame, name: str, *, seed: int = 0):
    """The model `name` fitted on every clip of `table`, to be served."""
    model = models.make(name, seed=seed)
    _fit(model, table[feature_columns(table)].to_numpy(np.float32), table["emotion"].to_numpy())
    return model


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
    x = table[feature_columns(table)].to_numpy(np.float32)
    y, speakers = table["emotion"].to_numpy(), table["speaker"].to_numpy()
    folds = splits.assign_folds(table, protocol, seed=seed).to_numpy()
    rows = []
    for name in names:
        if name not in models.SEARCH:
            continue
        for fold in _tested(folds):
            train = folds != fold
            inner = GroupKFold(min(4, len(set(speakers[train]))))
            grid = GridSearchCV(
                models.make(name, seed=seed),
                models.SEARCH[name],
                scoring="recall_macro",
                cv=list(inner.split(x[train], y[train], speakers[train])),
                n_jobs=n_jobs,
                refit=False,
            )
            _fit(grid, x[train], y[train])
            row = {"model": name, "fold": fold, "parameters": json.dumps(grid.best_params_)}
            rows.append(row | {"inner_uar": float(grid.best_score_)})
    return pd.DataFrame(rows, columns=["model", "fold", "parameters", "inner_uar"])


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
    x = table[feature_columns(table)].to_numpy(np.float32)
    y, speakers = table["emotion"].to_numpy(), table["speaker"].to_numpy()
    folds = splits.assign_folds(table, protocol, seed=seed).to_numpy()
    rng = np.random.default_rng(seed)
    order = {fold: rng.permutation(np.unique(speakers[folds != fold])) for fold in _tested(folds)}
    jobs = []
    for share in shares:
        for fold in _tested(folds):
            heard = order[fold][: max(2, round(share * len(order[fold])))]
            jobs += [(name, share, fold, heard) for name in names]
    work = partial(_predict_part, x=x, y=y, speakers=speakers, folds=folds, seed=seed)
    parts = parallel(work, jobs, n_jobs=n_jobs, what="learning curve")
    said = [
        table.loc[folds == fold, ["clip_id", "speaker", "emotion"]].assign(
            model=name, share=share, heard=len(heard), seed=seed, predicted=predicted
        )
        for (name, share, fold, heard), predicted in zip(jobs, parts, strict=True)
    ]
    rows = []
    for (name, _), part in pd.concat(said).groupby(["model", "share"], sort=False):
        value, low, high = metrics.score(part, emotions)
        row = {"model": name, "speakers": part["heard"].mean()}
        rows.append(row | {"value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def _predict_part(job: tuple, *, x, y, speakers, folds, seed: int) -> np.ndarray:
    name, _, fold, heard = job
    train = np.isin(speakers, heard) & (folds != fold)
    model = models.make(name, seed=seed)
    _fit(model, x[train], y[train])
    return model.predict(x[folds == fold])


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
    columns = feature_columns(table)
    families = pd.Series([family(name) for name in columns])
    x, y = table[columns].to_numpy(np.float32), table["emotion"].to_numpy()
    folds = splits.assign_folds(table, protocol, seed=seed).to_numpy()
    jobs = [(name, fold) for name in names for fold in _tested(folds)]
    work = partial(
        _shuffled_counts,
        x=x,
        y=y,
        folds=folds,
        families=families,
        emotions=emotions,
        repeats=repeats,
        seed=seed,
    )
    counts: dict[str, np.ndarray] = {}
    for (name, _), part in zip(jobs, parallel(work, jobs, n_jobs=n_jobs, what="importance"), strict=True):
        counts[name] = counts.get(name, 0) + part
    uar = {name: metrics.from_counts(c, "uar") for name, c in counts.items()}  # (1 + n_families, repeats)
    lost = {name: (u[:1] - u[1:]).mean(axis=1) for name, u in uar.items()}
    return pd.DataFrame(lost, index=list(dict.fromkeys(families)))


def _shuffled_counts(job: tuple, *, x, y, folds, families, emotions, repeats: int, seed: int) -> np.ndarray:
    """Confusion counts, shape (1 + n_families, repeats, n_labels, n_labels); the first is unshuffled."""
    name, fold = job
    test = folds == fold
    model = models.make(name, seed=seed)
    _fit(model, x[~test], y[~test])
    rng = np.random.default_rng(seed)
    code = {label: i for i, label in enumerate(emotions)}
    true = np.array([code[label] for label in y[test]])
    groups = [np.zeros(len(families), bool), *((families == f).to_numpy() for f in dict.fromkeys(families))]
    counts = np.zeros((len(groups), repeats, len(code), len(code)))
    for i, columns in enumerate(groups):
        for repeat in range(repeats):
            shuffled = x[test].copy()
            shuffled[:, columns] = shuffled[rng.permutation(len(shuffled))][:, columns]
            said = [code[label] for label in model.predict(shuffled)]
            np.add.at(counts[i, repeat], (true, said), 1)
    return counts
