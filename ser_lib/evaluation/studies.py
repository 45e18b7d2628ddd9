"""What a score depends on: how many speakers were learnt from, and which families of features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from ser_lib import evaluate, metrics, splits
from ser_lib.evaluate import Job
from ser_lib.features import family
from ser_lib.progress import parallel
from ser_lib.tables import feature_columns


def learning_curve(
    table: pd.DataFrame,
    names: Iterable[str],
    emotions: Sequence[str],
    *,
    whole: pd.DataFrame | None = None,
    protocol: str = "actors5",
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    seed: int = 0,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """UAR on unheard speakers when only a share of the training speakers is used.

    Parameters
    ----------
    whole : DataFrame, optional
        What `evaluate.out_of_fold` returned for these models, protocol and seed: the end of the curve, which is
        not fitted again then.

    Returns
    -------
    DataFrame
        `model, speakers (in training, mean over folds), value, low, high`.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": range(8), "speaker": list("aabbccdd"), "emotion": ["sad", "happy"] * 4})
    >>> table["level_mean"] = [-30.0, -20.0] * 4
    >>> curve = learning_curve(table, ["logistic"], ["sad", "happy"], protocol="loso", shares=(0.7, 1), n_jobs=1)
    >>> curve[["model", "speakers", "value"]].to_dict("list")
    {'model': ['logistic', 'logistic'], 'speakers': [2.0, 3.0], 'value': [1.0, 1.0]}
    """
    outer, names = splits.sides(table, protocol, seed=seed), list(names)
    speakers = table["speaker"].to_numpy()
    rng = np.random.default_rng(seed)
    order = {fold: rng.permutation(np.unique(speakers[train])) for fold, (train, _) in outer.items()}
    jobs, parts = [], []
    for share in shares:
        for fold, (train, test) in outer.items():
            heard = order[fold][: max(2, round(share * len(order[fold])))]
            if whole is not None and share == 1:
                rows = whole[whole["model"].isin(names) & (whole["seed"] == seed) & (whole["fold"] == fold)]
                parts.append(rows.assign(share=share, heard=len(heard)))
                continue
            part = train[np.isin(speakers[train], heard)]
            jobs += [(share, len(heard), Job(name, fold, part, test, seed)) for name in names]
    fitted = evaluate.predictions(
        table, [job for *_, job in jobs], protocol, n_jobs=n_jobs, what="learning curve"
    )
    by_job = zip(fitted, jobs, strict=True)
    said = evaluate.stacked([part.assign(share=share, heard=n) for part, (share, n, _) in by_job] + parts)
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

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": range(8), "speaker": list("aabbccdd"), "emotion": ["sad", "happy"] * 4})
    >>> table = table.assign(level_mean=[-30.0, -20.0] * 4, mfcc_01_mean=1.0)
    >>> importance(table, ["logistic"], ["sad", "happy"], protocol="loso", repeats=20, n_jobs=1).round(1).to_dict()
    {'logistic': {'energy': 0.5, 'mfcc': 0.0}}
    """
    families = pd.Series([family(name) for name in feature_columns(table)])
    outer = splits.sides(table, protocol, seed=seed)
    jobs = [Job(name, fold, *rows, seed) for name in names for fold, rows in outer.items()]
    work = partial(_shuffled_counts, table, families=families, emotions=emotions, repeats=repeats)
    counts: dict[str, np.ndarray] = {}
    for job, part in zip(jobs, parallel(work, jobs, n_jobs=n_jobs, what="importance"), strict=True):
        counts[job.model] = counts.get(job.model, 0) + part
    uar = {name: metrics.from_counts(c, "uar") for name, c in counts.items()}  # (1 + n_families, repeats)
    lost = {name: (u[:1] - u[1:]).mean(axis=1) for name, u in uar.items()}
    return pd.DataFrame(lost, index=list(dict.fromkeys(families)))


def _shuffled_counts(
    table: pd.DataFrame, job: Job, *, families: pd.Series, emotions: Sequence[str], repeats: int
) -> np.ndarray:
    """Confusion counts, shape (1 + n_families, repeats, n_labels, n_labels); the first is unshuffled."""
    model = evaluate.fit(table, job)
    tested = table.iloc[job.test]
    x = tested[feature_columns(table)].to_numpy(np.float32)
    rng = np.random.default_rng(job.seed)
    code = {label: i for i, label in enumerate(emotions)}
    true = tested["emotion"].map(code).to_numpy()
    groups = [np.zeros(len(families), bool), *((families == f).to_numpy() for f in dict.fromkeys(families))]
    counts = np.zeros((len(groups), repeats, len(code), len(code)))
    for i, columns in enumerate(groups):
        for repeat in range(repeats):
            shuffled = x.copy()
            shuffled[:, columns] = shuffled[rng.permutation(len(shuffled))][:, columns]
            said = [code[label] for label in model.predict(shuffled)]
            np.add.at(counts[i, repeat], (true, said), 1)
    return counts
