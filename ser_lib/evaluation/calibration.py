"""Averages of models, temperature scaling, reliability, abstention and prediction sets.

Throughout, `p` has shape (n_clips, n_labels); `true` is the column of each clip's label and `correct` whether the
most probable label is the true one, both of shape (n_clips,). Temperatures and thresholds are fitted on out-of-fold
predictions of training speakers; `calibrate` does so for each fold. Serving imports this module, without pandas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from ser_lib.errors import ContaminationError, SerError

if TYPE_CHECKING:
    import pandas as pd

TINY = 1e-12  # floor of a probability before its logarithm
LEAST = 1e-6  # floor in an average of models, so that one model alone cannot rule a class out
ROUNDING = 1e-12  # error that rounding may leave in a share


# --- several models as one -------------------------------------------------------------------------


def geometric_mean(ps: Sequence[np.ndarray]) -> np.ndarray:
    """Return the normalised geometric mean of several models' probabilities for the same clips.

    Examples
    --------
    >>> geometric_mean([np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])]).round(2)
    array([[0.75, 0.25]])
    """
    return softmax(np.mean([np.log(np.maximum(p, LEAST)) for p in ps], axis=0), axis=1)


def averaged(parts: Iterable[pd.DataFrame], name: str) -> pd.DataFrame:
    """Return one prediction per clip from several models: their mean log-probability, with equal weight per part.

    Parameters
    ----------
    parts : iterable of DataFrame
        Predictions tables of the same clips, protocol and folds. Within a part, models and seeds weigh the same.
    name : str
        The average's name in the column `model`.

    Returns
    -------
    DataFrame
        A predictions table of the first part's clips, with seed 0.

    Raises
    ------
    SerError
        The parts differ in clips, folds or emotions.

    Examples
    --------
    >>> import pandas as pd
    >>> part = pd.DataFrame({"clip_id": ["a"], "fold": 0, "model": "mlp", "seed": 1, "predicted": "sad"})
    >>> parts = part.assign(p_happy=0.4, p_sad=0.6), part.assign(p_happy=0.9, p_sad=0.1, predicted="happy")
    >>> averaged(parts, "both").round(2)
      clip_id  fold model  seed predicted  p_happy  p_sad
    0       a     0  both     0     happy     0.71   0.29
    """
    parts = list(parts)
    clips = parts[0].drop_duplicates("clip_id").set_index("clip_id")
    columns = [column for column in clips if column.startswith("p_")]
    total = np.zeros((len(clips), len(columns)))
    for part in parts:
        folds = part.drop_duplicates("clip_id").set_index("clip_id")["fold"]
        if not folds.reindex(clips.index).eq(clips["fold"]).all() or len(folds) != len(clips):
            raise SerError(f"{name}: predictions of different clips or folds cannot be averaged")
        differing = set(columns) ^ {column for column in part if column.startswith("p_")}
        if differing:
            raise SerError(
                f"{name}: predictions of different emotions cannot be averaged ({', '.join(differing)})"
            )
        logs = np.log(part[columns].clip(lower=LEAST)).groupby(part["clip_id"]).mean()
        total += logs.loc[clips.index].to_numpy() / len(parts)
    p = softmax(total, axis=1)
    labels = np.array([column.removeprefix("p_") for column in columns], dtype=object)
    average = clips.assign(model=name, seed=0, predicted=labels[p.argmax(axis=1)])
    average[columns] = p.astype(np.float32)
    return average.reset_index()[list(parts[0].columns)]


# --- temperature -----------------------------------------------------------------------------------


def apply_temperature(p: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the log-probabilities by `temperature` and normalise; above 1 lowers the confidence.

    Examples
    --------
    >>> apply_temperature(np.array([[0.9, 0.1]]), 2.0).round(2)
    array([[0.75, 0.25]])
    """
    return softmax(np.log(np.maximum(p, TINY)) / temperature, axis=1)


def fit_temperature(p: np.ndarray, true: np.ndarray) -> float:
    """Return the temperature that maximises the likelihood of the true labels. Source: Guo et al. (2017).

    `p` must be out-of-fold: on training clips the result would be about 1.

    Examples
    --------
    >>> p = np.tile([0.9, 0.1], (4, 1))  # 90 % confident, but right three times in four
    >>> temperature = fit_temperature(p, np.array([0, 0, 0, 1]))
    >>> round(temperature, 2), apply_temperature(p[:1], temperature).round(2)
    (2.0, array([[0.75, 0.25]]))
    """
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        likelihood = apply_temperature(p, np.exp(log_t))[np.arange(len(p)), true]
        return -np.log(np.maximum(likelihood, TINY)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


# --- calibration error -----------------------------------------------------------------------------


def calibration_error(
    p: np.ndarray, correct: np.ndarray, *, n_bins: int = 15, adaptive: bool = False
) -> float:
    """Return the expected calibration error of the top probability over the bins of `reliability`.

    Source: Guo et al. (2017); Nixon et al. (2019) for adaptive bins.

    Examples
    --------
    >>> round(calibration_error(np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([True, False])), 3)
    0.4
    """
    bins = reliability(p, correct, n_bins=n_bins, adaptive=adaptive)
    gaps = (bins["confidence"] - bins["accuracy"]).abs()
    return float((gaps * bins["clips"]).sum() / bins["clips"].sum())


def reliability(
    p: np.ndarray, correct: np.ndarray, *, n_bins: int = 15, adaptive: bool = False
) -> pd.DataFrame:
    """Return mean confidence, accuracy and number of clips of each bin that has clips.

    Parameters
    ----------
    adaptive : bool
        Bins with equal numbers of clips instead of equal widths. Clips of equal confidence count with their
        mean accuracy, so the order of rows does not matter.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    >>> reliability(p, np.array([True, False, True]), n_bins=5).to_dict("list")
    {'confidence': [0.6, 0.9], 'accuracy': [1.0, 0.5], 'clips': [1, 2]}
    """
    import pandas as pd

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


# --- abstention ------------------------------------------------------------------------------------


def risk_coverage(p: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Return the error rate among the answered clips, for every threshold on the confidence.

    Returns
    -------
    DataFrame
        `coverage` (share answered, ascending to 1), `risk` (share of these that is wrong) and
        `threshold` (lowest confidence that is answered). Source: El-Yaniv and Wiener (2010).

    Examples
    --------
    >>> risk_coverage(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([True, False])).to_dict("list")
    {'coverage': [0.5, 1.0], 'risk': [0.0, 0.5], 'threshold': [0.9, 0.6]}
    """
    import pandas as pd

    frame = pd.DataFrame({"threshold": p.max(axis=1), "wrong": 1 - np.asarray(correct, float)})
    steps = frame.groupby("threshold")["wrong"].agg(["sum", "size"]).sort_index(ascending=False).cumsum()
    curve = {"coverage": steps["size"] / len(p), "risk": steps["sum"] / steps["size"]}
    return pd.DataFrame(curve).reset_index()[["coverage", "risk", "threshold"]]


def abstain_threshold(p: np.ndarray, correct: np.ndarray, *, accuracy: float) -> float:
    """Return the lowest confidence from which the answered clips reach this accuracy; infinity if none does.

    The accuracy holds for the clips given; on other clips it is only about reached.

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
    """Return the threshold at which `prediction_sets` hold the true label with probability `level`.

    Split conformal prediction: the score is 1 minus the probability of the true label, and the threshold its
    ceil((n + 1) level) / n quantile. Source: Sadinle et al. (2019); Angelopoulos and Bates (2023), sec. 1.

    With too few clips for the level it is 1: sets of all labels. The guarantee needs clips exchangeable with these.
    Clips of one speaker resemble one another, so those of a new speaker are not: report the coverage by speaker too.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    >>> true = np.array([0, 0, 1])  # the last clip is misclassified: its label has 0.4
    >>> round(conformal_threshold(p, true, 0.5), 2), round(conformal_threshold(p, true, 0.75), 2)
    (0.2, 0.6)
    """
    scores = np.sort(1 - p[np.arange(len(p)), true])
    rank = int(np.ceil(round((len(p) + 1) * level, 9)))
    return float(scores[rank - 1]) if rank <= len(p) else 1.0


def prediction_sets(p: np.ndarray, threshold: float) -> np.ndarray:
    """Return which labels are in each clip's set, bool of shape (n_clips, n_labels); a set may be empty.

    Examples
    --------
    >>> prediction_sets(np.array([[0.6, 0.3, 0.1]]), 0.8)
    array([[ True,  True, False]])
    """
    return 1 - p <= threshold


# --- all of it, fold by fold -----------------------------------------------------------------------


def calibrate(
    predictions: pd.DataFrame,
    inner: pd.DataFrame,
    labels: Sequence[str],
    *,
    level: float = 0.9,
    accuracy: float = 0.8,
) -> pd.DataFrame:
    """Calibrate one model's predictions, each fold by the inner predictions of its training clips.

    Parameters
    ----------
    predictions : DataFrame
        From `cross_validation.out_of_fold`.
    inner : DataFrame
        From `cross_validation.inner_predictions`, of the same model, protocol and seeds.
    level : float
        How often the prediction sets should hold the true emotion.
    accuracy : float
        Intended accuracy of the clips that are kept.

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
    >>> import pandas as pd
    >>> inner = pd.DataFrame({"clip_id": list("abcd"), "seed": 0, "outer": 0, "p_happy": 0.1, "p_sad": 0.9})
    >>> inner["emotion"] = ["sad", "sad", "sad", "happy"]  # so 0.9 is overconfident
    >>> outer = pd.DataFrame({"clip_id": ["z"], "seed": 0, "fold": 0, "p_happy": 0.05, "p_sad": 0.95})
    >>> result = calibrate(outer.assign(emotion="sad"), inner, ["happy", "sad"], level=0.5, accuracy=0.7)
    >>> result[["temperature", "confidence", "kept", "set", "covered"]].round(2).to_dict("records")
    [{'temperature': 2.0, 'confidence': 0.81, 'kept': True, 'set': 'sad', 'covered': True}]
    """
    from ser_lib.evaluation.metrics import probabilities

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
        calibrated = apply_temperature(raw, temperature)
        p = apply_temperature(probabilities(part, labels), temperature)
        threshold = abstain_threshold(calibrated, calibrated.argmax(axis=1) == true, accuracy=accuracy)
        sets = prediction_sets(p, conformal_threshold(calibrated, true, level))
        rows = part.index
        out.loc[rows, columns] = p
        out.loc[rows, "temperature"] = temperature
        out.loc[rows, "confidence"] = p.max(axis=1)
        out.loc[rows, "kept"] = p.max(axis=1) >= threshold
        out.loc[rows, "set"] = [",".join(names[members]) for members in sets]
        out.loc[rows, "set_size"] = sets.sum(axis=1)
        out.loc[rows, "covered"] = sets[np.arange(len(part)), codes(part, labels)]
    return out


def codes(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Return the position of each clip's emotion among `labels`, shape (n_clips,)."""
    return predictions["emotion"].map({label: i for i, label in enumerate(labels)}).to_numpy()
