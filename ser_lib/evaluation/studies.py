"""Studies that the notebooks report, each under its heading.

Learning curve; importance of feature families; one change at a time; leakage; transfer between corpora;
robustness to distortions; the voice check; human listeners.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from ser_lib import audio
from ser_lib.audio import quality
from ser_lib.augmentation import Change, Noise, stress
from ser_lib.corpora import identity
from ser_lib.errors import AudioError
from ser_lib.evaluation import comparison, cross_validation, guard, metrics, splits
from ser_lib.evaluation.cross_validation import Job
from ser_lib.features import FeatureConfig, extraction, family, tables
from ser_lib.features.tables import feature_columns
from ser_lib.parallel import map_parallel

# --- learning curve --------------------------------------------------------------------------------


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
    """Return UAR on unseen speakers by share of the training speakers.

    Parameters
    ----------
    whole : DataFrame, optional
        Predictions from `cross_validation.out_of_fold` for these models, protocol and seed: the end of the curve,
        which is then not fitted again.

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
    folds, names = splits.folds(table, protocol, seed=seed), list(names)
    speakers = table["speaker"].to_numpy()
    rng = np.random.default_rng(seed)
    order = {fold: rng.permutation(np.unique(speakers[train])) for fold, (train, _) in folds.items()}
    jobs, about, given = [], [], []
    for share in shares:
        for fold, (train, test) in folds.items():
            chosen = order[fold][: max(2, round(share * len(order[fold])))]
            columns = {"share": share, "n_speakers": len(chosen)}
            if whole is not None and share == 1:
                rows = whole[whole["model"].isin(names) & (whole["seed"] == seed) & (whole["fold"] == fold)]
                given.append(rows.assign(**columns))
                continue
            part = train[np.isin(speakers[train], chosen)]
            jobs += [Job(name, fold, part, test, seed) for name in names]
            about += [columns] * len(names)
    fitted = cross_validation.predict_each(table, jobs, protocol, n_jobs=n_jobs, title="learning curve")
    fitted = [part.assign(**columns) for part, columns in zip(fitted, about, strict=True)]
    rows = []
    predictions = cross_validation.concatenate(fitted + given)
    for (name, _), part in predictions.groupby(["model", "share"], sort=False):
        rows.append((name, part["n_speakers"].mean(), *metrics.score(part, emotions)))
    return pd.DataFrame(rows, columns=["model", "speakers", "value", "low", "high"])


# --- importance of feature families ----------------------------------------------------------------


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
    """Return the UAR lost when all columns of a feature family are shuffled together among the test clips.

    Columns of a family are correlated: shuffled one at a time, the others would stand in for it.

    Returns
    -------
    DataFrame
        A row per family, a column per model; mean over `repeats` shuffles, pooled over folds.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": range(8), "speaker": list("aabbccdd"), "emotion": ["sad", "happy"] * 4})
    >>> table = table.assign(level_mean=[-30.0, -20.0] * 4, mfcc_01_mean=1.0)
    >>> importance(table, ["logistic"], ["sad", "happy"], protocol="loso", repeats=20, n_jobs=1).round(1).to_dict()
    {'logistic': {'energy': 0.5, 'mfcc': 0.0}}
    """
    families = pd.Series([family(name) for name in feature_columns(table)])
    folds = splits.folds(table, protocol, seed=seed)
    jobs = [Job(name, fold, *rows, seed) for name in names for fold, rows in folds.items()]
    work = partial(_shuffled_counts, table, families=families, emotions=emotions, repeats=repeats)
    counts: dict[str, np.ndarray] = {}
    for job, part in zip(jobs, map_parallel(work, jobs, n_jobs=n_jobs, what="importance"), strict=True):
        counts[job.model] = counts.get(job.model, 0) + part
    lost = {}
    for name, count in counts.items():
        uar = metrics.from_counts(count, "uar")  # (1 + n_families, repeats)
        lost[name] = (uar[:1] - uar[1:]).mean(axis=1)
    return pd.DataFrame(lost, index=families.unique())


def _shuffled_counts(
    table: pd.DataFrame, job: Job, *, families: pd.Series, emotions: Sequence[str], repeats: int
) -> np.ndarray:
    """Return confusion counts, shape (1 + n_families, repeats, n_labels, n_labels); the first are unshuffled."""
    model = cross_validation.fit(table, job)
    test = table.iloc[job.test]
    x = test[feature_columns(table)].to_numpy(np.float32)
    rng = np.random.default_rng(job.seed)
    groups = [np.zeros(len(families), bool), *((families == name).to_numpy() for name in families.unique())]
    counts = np.zeros((len(groups), repeats, len(emotions), len(emotions)))
    for i, columns in enumerate(groups):
        for repeat in range(repeats):
            shuffled = x.copy()
            shuffled[:, columns] = shuffled[rng.permutation(len(shuffled))][:, columns]
            counts[i, repeat] = confusion_matrix(test["emotion"], model.predict(shuffled), labels=emotions)
    return counts


# --- one change at a time --------------------------------------------------------------------------


def inner_uar(inner: pd.DataFrame, labels: Sequence[str]) -> pd.Series:
    """Return the UAR of inner predictions (`cross_validation.inner_predictions`) by outer fold."""
    return pd.Series({fold: metrics.score(part, labels)[0] for fold, part in inner.groupby("outer")})


def inner_gain(a: pd.DataFrame, b: pd.DataFrame, labels: Sequence[str]) -> tuple[float, float, float]:
    """Return UAR of inner predictions `a` minus `b`, mean over outer folds: value, low, high (95 % interval).

    A clip has a prediction in each outer fold that trains on it, so each outer fold counts as one run, as a seed
    does in `comparison.difference`. The predictions are of one seed.

    Examples
    --------
    >>> a = pd.DataFrame({"clip_id": list("abab"), "speaker": ["ann", "ben"] * 2, "outer": [0, 0, 1, 1]})
    >>> a = a.assign(emotion="sad", predicted="sad")
    >>> inner_gain(a, a.assign(predicted=["sad", "happy", "sad", "sad"]), ["happy", "sad"])  # 0.5 and 0
    (0.25, 0.0, 0.5)
    """
    return comparison.difference(a.assign(seed=a["outer"]), b.assign(seed=b["outer"]), labels)


# --- leakage ---------------------------------------------------------------------------------------


def oversample(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Repeat random clips of the rarer emotions until every emotion has as many as the most frequent.

    Repeated rows are copies (`source_clip`), so a later random split leaks.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": ["a", "b", "c"], "emotion": ["sad", "sad", "happy"]})
    >>> oversample(table)[["clip_id", "emotion", "source_clip"]].tail(1).to_dict("records")
    [{'clip_id': 'c again 0', 'emotion': 'happy', 'source_clip': 'c'}]
    """
    rng = np.random.default_rng(seed)
    n_clips = table["emotion"].value_counts()
    rows = [
        rng.choice(np.flatnonzero(table["emotion"] == emotion), n_clips.max() - n)
        for emotion, n in n_clips.items()
    ]
    repeated = table.iloc[np.concatenate(rows)].copy()
    repeated["source_clip"] = identity.sources(repeated)
    repeated["clip_id"] += [f" again {i}" for i in range(len(repeated))]
    return pd.concat([table.assign(source_clip=identity.sources(table)), repeated], ignore_index=True)


def mean_leakage(
    table: pd.DataFrame, protocol: str, *, seed: int = 0, guarded: bool = True
) -> dict[str, float]:
    """Return the mean over folds of `guard.leakage`: the share of test clips with a match in training, by kind."""
    folds = splits.folds(table, protocol, seed=seed, guarded=guarded)
    shares = [guard.leakage(table, train, test) for train, test in folds.values()]
    return pd.DataFrame(shares).mean().to_dict()


# --- transfer between corpora ----------------------------------------------------------------------


def transfer(train: pd.DataFrame, test: pd.DataFrame, name: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Return predictions for one corpus by a model fitted on another, in the emotions that both have.

    Parameters
    ----------
    train, test : DataFrame
        Feature tables of two corpora; augmented copies are trained on and not tested.

    Examples
    --------
    >>> clips = pd.DataFrame({"clip_id": ["a", "b"], "speaker": ["ann", "ben"], "emotion": ["sad", "happy"]})
    >>> train = clips.assign(corpus="ravdess", level_mean=[-30.0, -20.0])
    >>> test = clips.assign(clip_id=["c", "d"], corpus="emodb", level_mean=[-28.0, -21.0])
    >>> transfer(train, test, "logistic", seeds=[0])["predicted"].to_list()
    ['sad', 'happy']
    """
    shared = [emotion for emotion in train["emotion"].unique() if emotion in set(test["emotion"])]
    train, test = tables.select(train, shared), tables.select(test, shared)
    both = pd.concat([train, test], ignore_index=True)
    train_rows, test_rows = np.arange(len(train)), len(train) + np.flatnonzero(identity.originals(test))
    guard.check_split(both.assign(speaker=both["corpus"] + both["speaker"]), train_rows, test_rows)
    jobs = [Job(name, 0, train_rows, test_rows, seed) for seed in seeds]
    return cross_validation.predict(both, jobs, "corpus")


# --- robustness to distortions ---------------------------------------------------------------------

CLEAN = "as recorded"


def tables_by_condition(
    table: pd.DataFrame, clips: pd.DataFrame, changes: Sequence[Change], config: FeatureConfig
) -> dict[str, pd.DataFrame]:
    """Return the feature table itself (`CLEAN`), then that of the changed recordings by the name of the change.

    Parameters
    ----------
    table : DataFrame
        Feature table of the test clips.
    clips : DataFrame
        Their clip table, with `path`. A clip that a change makes too short is left out.
    """
    wanted = clips[clips["clip_id"].isin(table["clip_id"])]
    changed = {change.name: extraction.build(wanted, config, change=change)[0] for change in changes}
    return {CLEAN: table} | changed


def predict_conditions(
    train: pd.DataFrame,
    tested: Mapping[str, pd.DataFrame],
    name: str,
    *,
    protocol: str = "actors5",
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Return predictions for each fold's test speakers under every condition, by a model trained on the other folds.

    Parameters
    ----------
    train : DataFrame
        Feature table to train on; may hold augmented copies.
    tested : mapping of str to DataFrame
        Feature tables of clips of the same speakers, by condition, as from `tables_by_condition`.

    Returns
    -------
    DataFrame
        A predictions table with a column `condition`; `clip_id` is that of the original recording.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": list("abcd"), "speaker": ["ann", "ann", "ben", "ben"]})
    >>> table = table.assign(emotion=["sad", "happy"] * 2, level_mean=[-30.0, -20.0] * 2)
    >>> tested = {CLEAN: table, "10 dB louder": table.assign(level_mean=table["level_mean"] + 10)}
    >>> predictions = predict_conditions(table, tested, "logistic", protocol="loso")
    >>> predictions.groupby("condition")["predicted"].agg(list).to_dict()
    {'10 dB louder': ['happy', 'happy', 'happy', 'happy'], 'as recorded': ['sad', 'happy', 'sad', 'happy']}
    """
    parts = []
    for condition, part in tested.items():
        clip_id = part["clip_id"]
        parts.append(part.assign(source_clip=clip_id, clip_id=clip_id + f" {condition}", condition=condition))
    test = pd.concat(parts, ignore_index=True)
    both = pd.concat([train, test.drop(columns="condition")], ignore_index=True)
    jobs = []
    for fold, (train_rows, fold_test) in splits.folds(train, protocol).items():
        of_fold = test["speaker"].isin(train["speaker"].iloc[fold_test])
        test_rows = len(train) + np.flatnonzero(of_fold)
        guard.check_split(both, train_rows, test_rows)
        jobs += [Job(name, fold, train_rows, test_rows, seed) for seed in seeds]
    predictions = cross_validation.predict(both, jobs, protocol)
    origin = test.set_index("clip_id").loc[predictions["clip_id"]]
    return predictions.assign(
        clip_id=origin["source_clip"].to_numpy(), condition=origin["condition"].to_numpy()
    )


def probability_shifts(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return how far a change moves a clip's probabilities from those of the clip as recorded.

    Parameters
    ----------
    predictions : DataFrame
        From `predict_conditions`, of one seed.

    Returns
    -------
    DataFrame
        By condition: `median`, `95 %` and `largest` shift of a clip's most moved probability, and `other answer`,
        the share of clips with another most probable emotion.

    Examples
    --------
    >>> about = {"clip_id": "a", "condition": [CLEAN, "click"], "predicted": "sad"}
    >>> probability_shifts(pd.DataFrame(about | {"p_sad": [0.75, 0.5], "p_calm": [0.25, 0.5]}))["largest"].to_dict()
    {'click': 0.25}
    """
    columns = [name for name in predictions if name.startswith("p_")]
    clean = predictions[predictions["condition"] == CLEAN].set_index("clip_id")
    rows = {}
    for condition, part in predictions.groupby("condition", sort=False):
        if condition == CLEAN:
            continue
        before = clean.loc[part["clip_id"]]
        shift = np.abs(part[columns].to_numpy() - before[columns].to_numpy()).max(axis=1)
        other = part["predicted"].to_numpy() != before["predicted"].to_numpy()
        rows[condition] = [np.median(shift), np.quantile(shift, 0.95), shift.max(), other.mean()]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["median", "95 %", "largest", "other answer"])


# --- the voice check -------------------------------------------------------------------------------


def voice_check(
    recordings: Mapping[str, Sequence[str]], *, sounds: int = 40, seed: int = 0, n_jobs: int = -1
) -> pd.DataFrame:
    """Return the share of recordings of speech, and of sounds that are no speech, that get an answer.

    Parameters
    ----------
    recordings : mapping of str to sequence of paths
        Of speech, by the name of their corpus. Each is tested as it is, and with white noise at 10 dB.
    sounds : int
        Of each kind in `stress.NOT_SPEECH`; no file is needed for these.

    Returns
    -------
    DataFrame
        `sound` (a corpus or a kind), `speech` (whether it is), `n` and `answered`, a share.

    Examples
    --------
    >>> voice_check({}, sounds=2, n_jobs=1).iloc[0].to_dict()
    {'sound': 'tone', 'speech': False, 'n': 2, 'answered': 0.0}
    """
    tested: list[tuple[str, bool, Any]] = []
    for corpus, paths in recordings.items():
        for change in (None, Noise(10)):
            name = f"{corpus}, {change.name}" if change else corpus
            tested += [(name, True, (path, change)) for path in paths]
    for kind in stress.NOT_SPEECH:
        tested += [(kind, False, (kind, seed + i)) for i in range(sounds)]
    answered = map_parallel(_has_speech, [each for _, _, each in tested], n_jobs=n_jobs, what="voice check")
    rows = pd.DataFrame([row[:2] for row in tested], columns=["sound", "speech"]).assign(
        answered=list(answered)
    )
    groups = rows.groupby(["sound", "speech"], sort=False)["answered"]
    return groups.agg(n="size", answered="mean").reset_index()


def _has_speech(tested: tuple[str, Any]) -> bool:
    what, how = tested
    try:
        if what in stress.NOT_SPEECH:
            rng = np.random.default_rng([how, stress.NOT_SPEECH.index(what)])
            clip = audio.prepare(stress.not_speech(what, rng)[:, None], 16_000, name=what)
        else:
            clip = audio.load(what, change=how)
    except AudioError:  # silent once clicks are removed, for example
        return False
    return quality.voice(clip.samples, clip.sample_rate)["speech_s"] >= quality.VOICE_LEAST_S


# --- human listeners -------------------------------------------------------------------------------

# Accuracy of human listeners on RAVDESS speech, audio only: Livingstone & Russo (2018), PLoS ONE 13(5): e0196391. They
# chose among seven emotions (neutral and calm are one) or "none of these", without any labelled example. A model is
# trained on labelled clips of other speakers and cannot answer "none": another task on the same clips.
LISTENERS = 0.624
LISTENERS_BY_INTENSITY = {"normal": 0.580, "strong": 0.674}
NEUTRAL_CALM = "neutral/calm"
LISTENERS_BY_EMOTION = {
    NEUTRAL_CALM: 0.817, "angry": 0.746, "surprised": 0.679, "fearful": 0.662,
    "disgust": 0.519, "sad": 0.479, "happy": 0.366,
}  # fmt: skip


def merge_neutral_calm(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return predictions of the eight emotions with neutral and calm as one: their probabilities are added."""
    parts = ["p_neutral", "p_calm"]
    merged = predictions.drop(columns=parts)
    merged[f"p_{NEUTRAL_CALM}"] = predictions[parts].sum(axis=1)
    columns = [f"p_{emotion}" for emotion in LISTENERS_BY_EMOTION]
    return merged.assign(
        emotion=predictions["emotion"].replace({"neutral": NEUTRAL_CALM, "calm": NEUTRAL_CALM}),
        predicted=merged[columns].idxmax(axis=1).str.removeprefix("p_"),
    )


def compare_with_listeners(predictions: pd.DataFrame, intensity: pd.Series) -> pd.DataFrame:
    """Return the accuracy of a model beside that of human listeners; neutral and calm are one emotion.

    Parameters
    ----------
    predictions : DataFrame
        Of the eight emotions.
    intensity : Series indexed by `clip_id`

    Returns
    -------
    DataFrame
        `group` ("all clips", an intensity or an emotion); `value, low, high, clips, speakers` of the model, as in
        `comparison.by_group`; and `listeners`, for whom no interval was published.

    Examples
    --------
    >>> p = {f"p_{emotion}": 0.0 for emotion in ("neutral", "calm", *LISTENERS_BY_EMOTION) if emotion != NEUTRAL_CALM}
    >>> clip = {"clip_id": "a", "speaker": "ann", "seed": 0, "emotion": "sad"}
    >>> table = compare_with_listeners(pd.DataFrame([p | clip | {"p_sad": 1.0}]), pd.Series({"a": "strong"}))
    >>> table[["group", "value", "listeners"]].to_numpy().tolist()
    [['all clips', 1.0, 0.624], ['strong', 1.0, 0.674], ['sad', 1.0, 0.479]]
    """
    predictions = merge_neutral_calm(predictions)
    emotion = predictions.drop_duplicates("clip_id").set_index("clip_id")["emotion"]
    everything = pd.Series("all clips", emotion.index)
    parts = []
    for groups, listeners in (
        (everything, {"all clips": LISTENERS}),
        (intensity, LISTENERS_BY_INTENSITY),
        (emotion, LISTENERS_BY_EMOTION),
    ):
        part = comparison.by_group(predictions, groups, list(LISTENERS_BY_EMOTION), "accuracy")
        parts.append(part.assign(listeners=part["group"].map(listeners)))
    return pd.concat(parts, ignore_index=True)
