"""How sure a model may be: the average of several models, temperature, reliability.

Probabilities, shape (n_clips, n_labels), are of out-of-fold predictions. What is fitted here is fitted on
training speakers: `nested` takes outer predictions and, by outer fold, inner ones of its training clips
(`nested.predictions`). What is decided with calibrated probabilities is in `decisions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from ser_lib.errors import ContaminationError, SerError
from ser_lib.evaluation.metrics import probabilities

TINY = 1e-12
LEAST = 1e-6  # probability in an average of logarithms, so that one model alone cannot rule a class out


# --- several models as one -------------------------------------------------------------------------


def log_mean(ps: Sequence[np.ndarray]) -> np.ndarray:
    """What several models say of the same clips as one: their geometric mean, normalised.

    Examples
    --------
    >>> log_mean([np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])]).round(2)
    array([[0.75, 0.25]])
    """
    return softmax(np.mean([np.log(np.maximum(p, LEAST)) for p in ps], axis=0), axis=1)


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

    Examples
    --------
    >>> part = pd.DataFrame({"clip_id": ["a"], "fold": 0, "model": "mlp", "seed": 1, "predicted": "sad"})
    >>> parts = part.assign(p_happy=0.4, p_sad=0.6), part.assign(p_happy=0.9, p_sad=0.1, predicted="happy")
    >>> averaged(parts, "both").round(2)
      clip_id  fold model  seed predicted  p_happy  p_sad
    0       a     0  both     0     happy     0.71   0.29
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
    p = softmax(total, axis=1)
    labels = np.array([column.removeprefix("p_") for column in scores], dtype=object)
    said = {"model": name, "seed": 0, "predicted": labels[p.argmax(axis=1)]}
    return about.assign(**said, **dict(zip(scores, p.astype(np.float32).T, strict=True))).reset_index()[
        list(parts[0].columns)
    ]


# --- temperature -----------------------------------------------------------------------------------


def sharpen(p: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the log-probabilities by `temperature` and normalise; above 1 is less sure.

    Examples
    --------
    >>> sharpen(np.array([[0.9, 0.1]]), 2.0).round(2)
    array([[0.75, 0.25]])
    """
    return softmax(np.log(np.maximum(p, TINY)) / temperature, axis=1)


def fit_temperature(p: np.ndarray, true: np.ndarray) -> float:
    """The temperature that makes the true labels most likely. Source: Guo et al. (2017).

    Parameters
    ----------
    p : ndarray, shape (n_clips, n_labels)
        Out-of-fold probabilities; those of training clips would say 1.
    true : ndarray of int, shape (n_clips,)
        Column of the true label.

    Examples
    --------
    >>> p = np.tile([0.9, 0.1], (4, 1))  # sure of the first label, which is right three times in four
    >>> temperature = fit_temperature(p, np.array([0, 0, 0, 1]))
    >>> round(temperature, 2), sharpen(p[:1], temperature).round(2)
    (2.0, array([[0.75, 0.25]]))
    """

    def loss(log_t: float) -> float:
        return -np.log(np.maximum(sharpen(p, np.exp(log_t))[np.arange(len(p)), true], TINY)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


# --- how far confidence is from accuracy -----------------------------------------------------------


def calibration_error(p: np.ndarray, correct: np.ndarray, *, n_bins: int = 15) -> float:
    """Expected calibration error of the top probability, equal-width bins. Source: Guo et al. (2017).

    Parameters
    ----------
    p : ndarray, shape (n_clips, n_labels)
    correct : ndarray of bool, shape (n_clips,)
        Whether the most probable label is the true one.

    Examples
    --------
    >>> round(calibration_error(np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([True, False])), 3)
    0.4
    """
    return _mean_gap(reliability(p, correct, n_bins=n_bins))


def adaptive_error(p: np.ndarray, correct: np.ndarray, *, n_bins: int = 15) -> float:
    """As `calibration_error` over bins of equally many clips. Source: Nixon et al. (2019).

    Examples
    --------
    >>> round(adaptive_error(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([True, False]), n_bins=1), 3)
    0.35
    """
    return _mean_gap(reliability(p, correct, n_bins=n_bins, adaptive=True))


def reliability(
    p: np.ndarray, correct: np.ndarray, *, n_bins: int = 15, adaptive: bool = False
) -> pd.DataFrame:
    """Mean confidence, accuracy and clips of each bin that has clips.

    Parameters
    ----------
    adaptive : bool
        Bins of equally many clips (one more in the first ones) instead of equal width. Clips of
        equal confidence count with their mean accuracy, so that the order of rows does not matter.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    >>> reliability(p, np.array([True, False, True]), n_bins=5).to_dict("list")
    {'confidence': [0.6, 0.9], 'accuracy': [1.0, 0.5], 'clips': [1, 2]}
    """
    frame = pd.DataFrame({"confidence": p.max(axis=1), "accuracy": np.asarray(correct, float)})
    if adaptive:
        frame["accuracy"] = frame.groupby("confidence")["accuracy"].transform("mean")
        frame = frame.sort_values("confidence", ignore_index=True)
        sizes = [len(part) for part in np.array_split(np.arange(len(frame)), n_bins)]
        bins = np.repeat(np.arange(n_bins), sizes)
    else:
        bins = np.minimum((frame["confidence"] * n_bins).astype(int), n_bins - 1)
    grouped = frame.groupby(np.asarray(bins))
    return grouped.mean().assign(clips=grouped.size()).reset_index(drop=True)


def _mean_gap(table: pd.DataFrame) -> float:
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["clips"]).sum() / table["clips"].sum())


# --- all of it, fold by fold -----------------------------------------------------------------------


def nested(
    predictions: pd.DataFrame,
    inner: pd.DataFrame,
    labels: Sequence[str],
    *,
    level: float = 0.9,
    accuracy: float = 0.8,
) -> pd.DataFrame:
    """One model's predictions, calibrated fold by fold on the inner predictions of its training clips.

    Parameters
    ----------
    predictions : DataFrame
        Of one model, from `evaluate.out_of_fold`.
    inner : DataFrame
        Of the same model, protocol and seeds, from `nested.predictions`.
    level : float
        How often the sets shall hold the true emotion.
    accuracy : float
        How often the clips that are kept shall be right.

    Returns
    -------
    DataFrame
        The predictions with calibrated `p_<emotion>`, in the same order, and `temperature`,
        `confidence`, `kept`, `set` (emotions, comma-separated), `set_size`, `covered`.

    Raises
    ------
    ValueError
        A fold and seed has no inner predictions.
    ContaminationError
        The inner predictions of a fold hold one of its test clips.

    Examples
    --------
    >>> inner = pd.DataFrame({"clip_id": list("abcd"), "seed": 0, "outer": 0, "p_happy": 0.1, "p_sad": 0.9})
    >>> inner["emotion"] = ["sad", "sad", "sad", "happy"]  # so 0.9 is too sure
    >>> outer = pd.DataFrame({"clip_id": ["z"], "seed": 0, "fold": 0, "p_happy": 0.05, "p_sad": 0.95})
    >>> found = nested(outer.assign(emotion="sad"), inner, ["happy", "sad"], level=0.5, accuracy=0.7)
    >>> found[["temperature", "confidence", "kept", "set", "covered"]].round(2).to_dict("records")
    [{'temperature': 2.0, 'confidence': 0.81, 'kept': True, 'set': 'sad', 'covered': True}]
    """
    out = predictions.reset_index(drop=True).assign(
        temperature=np.nan, confidence=np.nan, kept=False, set="", set_size=0, covered=False
    )
    columns, names = [f"p_{label}" for label in labels], np.asarray(labels)
    out[columns] = out[columns].astype(np.float64)
    for (seed, fold), part in out.groupby(["seed", "fold"]):
        fitting = inner[(inner["seed"] == seed) & (inner["outer"] == fold)]
        if fitting.empty:
            raise ValueError(f"no inner predictions of fold {fold}, seed {seed}")
        both = set(fitting["clip_id"]) & set(part["clip_id"])
        if both:
            raise ContaminationError(f"{min(both)}: tested in fold {fold} and among its inner predictions")
        raw, true = probabilities(fitting, labels), codes(fitting, labels)
        temperature = fit_temperature(raw, true)
        fair, p = sharpen(raw, temperature), sharpen(probabilities(part, labels), temperature)
        threshold = abstain_threshold(fair, fair.argmax(axis=1) == true, accuracy=accuracy)
        sets = prediction_sets(p, conformal_threshold(fair, true, level))
        out.loc[part.index, columns] = p
        out.loc[part.index, "temperature"] = temperature
        out.loc[part.index, "confidence"] = p.max(axis=1)
        out.loc[part.index, "kept"] = p.max(axis=1) >= threshold
        out.loc[part.index, "set"] = [",".join(names[held]) for held in sets]
        out.loc[part.index, "set_size"] = sets.sum(axis=1)
        out.loc[part.index, "covered"] = sets[np.arange(len(part)), codes(part, labels)]
    return out


def codes(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """The position of each clip's emotion among `labels`, shape (n_clips,).

    Examples
    --------
    >>> codes(pd.DataFrame({"emotion": ["sad", "happy"]}), ["happy", "sad"])
    array([1, 0])
    """
    return predictions["emotion"].map({label: i for i, label in enumerate(labels)}).to_numpy()


# --- decisions ------------------------------------------------------------------------------------

ROUNDING = 1e-12  # what rounding may take from a share


# --- abstaining ------------------------------------------------------------------------------------


def risk_coverage(p: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """What is wrong among the clips that are answered, for every threshold on the confidence.

    Returns
    -------
    DataFrame
        `coverage` (share answered, ascending to 1), `risk` (share of these that is wrong) and
        `threshold` (the least confidence that is answered). Source: El-Yaniv and Wiener (2010).

    Examples
    --------
    >>> risk_coverage(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([True, False])).to_dict("list")
    {'coverage': [0.5, 1.0], 'risk': [0.0, 0.5], 'threshold': [0.9, 0.6]}
    """
    frame = pd.DataFrame({"threshold": p.max(axis=1), "wrong": 1 - np.asarray(correct, float)})
    steps = frame.groupby("threshold")["wrong"].agg(["sum", "size"]).sort_index(ascending=False).cumsum()
    curve = {"coverage": steps["size"] / len(p), "risk": steps["sum"] / steps["size"]}
    return pd.DataFrame(curve).reset_index()[["coverage", "risk", "threshold"]]


def abstain_threshold(p: np.ndarray, correct: np.ndarray, *, accuracy: float) -> float:
    """The smallest confidence at which the clips that are kept are right as often as `accuracy`.

    Returns
    -------
    float
        Infinity (nothing is kept) if no threshold reaches it. On other clips it is reached about,
        not surely: the rule has no margin for the clips that it was fitted on being few.

    Examples
    --------
    >>> p, correct = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]), np.array([True, True, False])
    >>> abstain_threshold(p, correct, accuracy=0.9), abstain_threshold(p, correct, accuracy=0.6)
    (0.8, 0.6)
    """
    curve = risk_coverage(p, correct)
    reached = curve.loc[curve["risk"] <= 1 - accuracy + ROUNDING, "threshold"]
    return float(reached.min()) if len(reached) else float("inf")


# --- prediction sets -------------------------------------------------------------------------------


def conformal_threshold(p: np.ndarray, true: np.ndarray, level: float) -> float:
    """The score up to which a label belongs to the set, so that sets hold the truth `level` of the time.

    Split conformal prediction with the score 1 minus the probability of the true label, whose
    ceil((n + 1) level) / n quantile is returned. Source: Sadinle et al. (2019); Angelopoulos and Bates
    (2023), sec. 1.

    Parameters
    ----------
    p : ndarray, shape (n_clips, n_labels)
    true : ndarray of int, shape (n_clips,)
    level : float
        Between 0 and 1.

    Returns
    -------
    float
        1, every label, where the clips are too few for the level.

    Notes
    -----
    The promise is for clips exchangeable with those fitted on. Clips of a speaker resemble one another,
    so those of a new speaker are not; report the coverage of each speaker, not the mean alone.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    >>> true = np.array([0, 0, 1])  # the last clip is misheard: its label has 0.4
    >>> round(conformal_threshold(p, true, 0.5), 2), round(conformal_threshold(p, true, 0.75), 2)
    (0.2, 0.6)
    """
    scores = np.sort(1 - p[np.arange(len(p)), true])
    rank = int(np.ceil(round((len(p) + 1) * level, 9)))
    return float(scores[rank - 1]) if rank <= len(p) else 1.0


def prediction_sets(p: np.ndarray, threshold: float) -> np.ndarray:
    """Which labels are in the set of each clip, bool of shape (n_clips, n_labels); a set may be empty.

    Examples
    --------
    >>> prediction_sets(np.array([[0.6, 0.3, 0.1]]), 0.8)
    array([[ True,  True, False]])
    """
    return 1 - p <= threshold
