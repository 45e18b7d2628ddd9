"""What a score depends on: how many speakers were learnt from, and which families of features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from ser_lib.augmentation import Change
from ser_lib.corpora import identity
from ser_lib.evaluation import comparison, cross_validation, guard, metrics, splits
from ser_lib.evaluation.cross_validation import Job
from ser_lib.features import FeatureConfig, extraction, family, tables
from ser_lib.features.tables import feature_columns
from ser_lib.parallel import map_parallel


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
    """UAR on unseen speakers when only a share of the training speakers is used.

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
    fitted = cross_validation.predict_each(
        table, [job for *_, job in jobs], protocol, n_jobs=n_jobs, what="learning curve"
    )
    by_job = zip(fitted, jobs, strict=True)
    said = cross_validation.stacked(
        [part.assign(share=share, heard=n) for part, (share, n, _) in by_job] + parts
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
    for job, part in zip(jobs, map_parallel(work, jobs, n_jobs=n_jobs, what="importance"), strict=True):
        counts[job.model] = counts.get(job.model, 0) + part
    uar = {name: metrics.from_counts(c, "uar") for name, c in counts.items()}  # (1 + n_families, repeats)
    lost = {name: (u[:1] - u[1:]).mean(axis=1) for name, u in uar.items()}
    return pd.DataFrame(lost, index=list(dict.fromkeys(families)))


def _shuffled_counts(
    table: pd.DataFrame, job: Job, *, families: pd.Series, emotions: Sequence[str], repeats: int
) -> np.ndarray:
    """Confusion counts, shape (1 + n_families, repeats, n_labels, n_labels); the first is unshuffled."""
    model = cross_validation.fit(table, job)
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


# --- protocols, corpora, recordings, listeners ----------------------------------------------------

CLEAN = "as recorded"

# What human listeners heard in RAVDESS speech, audio only: Livingstone & Russo (2018), PLoS ONE 13(5): e0196391. They
# chose of seven emotions, neutral and calm being one, or "none of these", and had heard no labelled clip before; a model
# is trained on labelled clips of other speakers and cannot say "none". So it is another task on the same clips.
OVERALL = 0.624  # share of the answers that named the emotion that was meant
BY_INTENSITY = {"normal": 0.580, "strong": 0.674}
MERGED = "neutral/calm"
BY_EMOTION = {
    MERGED: 0.817, "angry": 0.746, "surprised": 0.679, "fearful": 0.662,
    "disgust": 0.519, "sad": 0.479, "happy": 0.366,
}  # fmt: skip


def oversample(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Repeat clips of the scarcer emotions at random until all have as many as the most frequent.

    Repeated rows are copies (`source_clip`), which is what makes a later random split leak.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": ["a", "b", "c"], "emotion": ["sad", "sad", "happy"]})
    >>> oversample(table)[["clip_id", "emotion", "source_clip"]].tail(1).to_dict("records")
    [{'clip_id': 'c again 0', 'emotion': 'happy', 'source_clip': 'c'}]
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
    repeated["source_clip"] = identity.sources(repeated)
    repeated["clip_id"] += [f" again {i}" for i in range(len(repeated))]
    return pd.concat([table.assign(source_clip=identity.sources(table)), repeated], ignore_index=True)


def siblings(table: pd.DataFrame, protocol: str, *, seed: int = 0, guarded: bool = True) -> dict[str, float]:
    """Mean over folds of `guard.leakage`: what share of test clips training holds something of.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": range(16), "speaker": ["ann", "ben"] * 8})
    >>> table["emotion"] = ["sad"] * 8 + ["happy"] * 8
    >>> siblings(table, "random")["same_speaker"], siblings(table, "loso")["same_speaker"]
    (1.0, 0.0)
    """
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

    Examples
    --------
    >>> about = pd.DataFrame({"clip_id": ["a", "b"], "speaker": ["ann", "ben"], "emotion": ["sad", "happy"]})
    >>> train = about.assign(corpus="ravdess", level_mean=[-30.0, -20.0])
    >>> test = about.assign(clip_id=["c", "d"], corpus="emodb", level_mean=[-28.0, -21.0])
    >>> transfer(train, test, "logistic", seeds=[0])["predicted"].to_list()
    ['sad', 'happy']
    """
    shared = [emotion for emotion in train["emotion"].unique() if emotion in set(test["emotion"])]
    train, test = tables.select(train, shared), tables.select(test, shared)
    both = pd.concat([train, test], ignore_index=True)
    heard, tested = np.arange(len(train)), len(train) + np.flatnonzero(identity.originals(test))
    guard.check(both.assign(speaker=both["corpus"] + both["speaker"]), heard, tested)
    jobs = [cross_validation.Job(name, 0, heard, tested, seed) for seed in seeds]
    return cross_validation.predict(both, jobs, "corpus")


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
        change.name: extraction.build(wanted, config, change=change)[0] for change in changes
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

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": range(4), "speaker": ["ann", "ann", "ben", "ben"]}).astype({"clip_id": str})
    >>> table = table.assign(emotion=["sad", "happy"] * 2, level_mean=[-30.0, -20.0] * 2)
    >>> tested = {CLEAN: table, "10 dB louder": table.assign(level_mean=table["level_mean"] + 10)}
    >>> said = hear(table, tested, "logistic", protocol="loso")
    >>> said.groupby("condition")["predicted"].agg(list).to_dict()
    {'10 dB louder': ['happy', 'happy', 'happy', 'happy'], 'as recorded': ['sad', 'happy', 'sad', 'happy']}
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
        jobs += [cross_validation.Job(name, fold, heard, rows, seed) for seed in seeds]
    said = cross_validation.predict(both, jobs, protocol)
    found = origin.loc[said["clip_id"]]
    return said.assign(clip_id=found["source_clip"].to_numpy(), condition=found["condition"].to_numpy())


def with_listeners_options(predictions: pd.DataFrame) -> pd.DataFrame:
    """A predictions table of the eight emotions with the listeners' options: neutral and calm are one.

    Their probabilities are added, and the most probable option is what was heard.

    Examples
    --------
    >>> p = {f"p_{option}": 0.0 for option in BY_EMOTION if option != MERGED}
    >>> said = pd.DataFrame([p | {"p_neutral": 0.3, "p_calm": 0.3, "p_sad": 0.4, "emotion": "calm"}])
    >>> with_listeners_options(said)[["emotion", "predicted"]].to_dict("records")
    [{'emotion': 'neutral/calm', 'predicted': 'neutral/calm'}]
    """
    parts = ["p_neutral", "p_calm"]
    joint = predictions.assign(**{f"p_{MERGED}": predictions[parts].sum(axis=1)}).drop(columns=parts)
    said = joint[[f"p_{option}" for option in BY_EMOTION]].idxmax(axis=1).str.removeprefix("p_")
    meant = predictions["emotion"].replace({"neutral": MERGED, "calm": MERGED})
    return joint.assign(emotion=meant, predicted=said)


def beside_listeners(predictions: pd.DataFrame, intensity: pd.Series) -> pd.DataFrame:
    """Accuracy of a model with the listeners' options, and theirs.

    Parameters
    ----------
    predictions : DataFrame
        Of the eight emotions.
    intensity : Series indexed by `clip_id`

    Returns
    -------
    DataFrame
        `group` ("all clips", an intensity or an emotion), `value, low, high, clips, speakers` of the model,
        as `comparison.by_group`, and `listeners`, for which no interval was published.

    Examples
    --------
    >>> p = {f"p_{option}": 0.0 for option in ("neutral", "calm", *BY_EMOTION) if option != MERGED}
    >>> said = pd.DataFrame([p | {"clip_id": "a", "speaker": "ann", "seed": 0, "emotion": "sad", "p_sad": 1.0}])
    >>> beside_listeners(said, pd.Series({"a": "strong"}))[["group", "value", "listeners"]].to_numpy().tolist()
    [['all clips', 1.0, 0.624], ['strong', 1.0, 0.674], ['sad', 1.0, 0.479]]
    """
    said, options = with_listeners_options(predictions), list(BY_EMOTION)
    whole = said.set_index("clip_id")["emotion"].groupby(level=0).first()
    kinds: Sequence[tuple[pd.Series, dict[str, float]]] = (
        (pd.Series("all clips", whole.index), {"all clips": OVERALL}),
        (intensity, BY_INTENSITY),
        (whole, BY_EMOTION),
    )
    rows = [
        comparison.by_group(said, groups, options, "accuracy").assign(
            listeners=lambda t, heard=heard: t["group"].map(heard)
        )
        for groups, heard in kinds
    ]
    return pd.concat(rows, ignore_index=True)
