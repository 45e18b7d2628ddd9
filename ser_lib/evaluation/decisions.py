"""What is decided with calibrated probabilities: which clips to answer, and which labels to leave possible.

Probabilities, shape (n_clips, n_labels), are those that `calibration` has made as sure as they are right.
Thresholds are chosen on out-of-fold predictions of training speakers and kept in the model's passport; a
served answer tells what they decide, as `abstained` and `prediction_set`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

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
