"""Fit the served model on all speakers: in notebook 04, or again from the shipped tables."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from ser_lib.augmentation import copies
from ser_lib.corpora import emotion_list, identity
from ser_lib.errors import BundleError, CorpusError
from ser_lib.evaluation import cross_validation
from ser_lib.features import FeatureConfig, feature_names, relative, tables
from ser_lib.serving import bundle
from ser_lib.serving.model import Typical

INTENSITIES = ("normal", "strong")


def by_intensity(table: pd.DataFrame) -> pd.DataFrame:
    """Clips of the emotions spoken at two intensities, labelled by intensity instead of emotion.

    Neutral is left out: RAVDESS has it at normal intensity only, so a model could use it as a shortcut.

    Raises
    ------
    CorpusError
        No emotion has clips of two intensities.

    Examples
    --------
    >>> table = pd.DataFrame({"emotion": ["sad", "sad", "neutral"], "intensity": ["normal", "strong", "normal"]})
    >>> by_intensity(table)["emotion"].to_list()
    ['normal', 'strong']
    """
    known = table[table["intensity"].isin(INTENSITIES)]
    kinds = known.groupby("emotion")["intensity"].nunique()
    both = known[known["emotion"].isin(kinds.index[kinds > 1])].reset_index(drop=True)
    if both.empty:
        raise CorpusError("no emotion with clips of two intensities; a model of intensity needs them")
    return both.assign(emotion=both["intensity"])


def fit(
    rows: pd.DataFrame, model: str, *, seed: int = 0, enroll: int = 0, intensity: str = ""
) -> dict[str, Any]:
    """Fit on all speakers; return `models`, `typical` and `speakers` for `bundle.save`.

    Parameters
    ----------
    rows : DataFrame
        Feature table with augmented copies, from `copies.for_training`.
    model : str
        Of `models.MODELS`, for the emotion.
    enroll : int
        Neutral clips a speaker for the ``enrolled`` model; 0 for no such model.
    intensity : str
        Of `models.MODELS`, for the intensity; empty for no such model.

    Examples
    --------
    >>> rows = pd.DataFrame({"clip_id": list("abcd"), "speaker": list("aabb"), "emotion": ["sad", "happy"] * 2})
    >>> fitted = fit(rows.assign(level_mean=[-30.0, -20.0, -31.0, -21.0]), "logistic")
    >>> fitted["models"]["emotion"].predict([[-18.0]])
    array(['happy'], dtype=object)
    """
    models, speakers = {"emotion": cross_validation.fit_all(rows, model, seed=seed)}, None
    if enroll:
        models["enrolled"] = cross_validation.fit_all(relative.enrolled(rows, n=enroll), model, seed=seed)
        speakers = relative.speakers(relative.neutral_clips(rows, n=enroll))
    if intensity:
        models["intensity"] = cross_validation.fit_all(by_intensity(rows), intensity, seed=seed)
    values = rows.loc[identity.originals(rows), tables.feature_columns(rows)].to_numpy(float)
    return {"models": models, "typical": Typical.of(values), "speakers": speakers}


def retrain(path: Path) -> dict[str, Any]:
    """Fit a model of RAVDESS again from the shipped tables, overwrite it, and return the new metadata.

    Choice, calibration and scores are copied from the old metadata: they were measured on the same clips and
    features. Only the library versions may differ.

    Raises
    ------
    BundleError
        No readable metadata, or a model of other clips or features.
    """
    metadata = bundle.read_metadata(path)
    about = {key: value for key, value in metadata.items() if key not in (*bundle.REQUIRED, bundle.HASH)}
    training = about.get("training", {})
    corpus = training.get("corpus")
    if corpus != "ravdess":
        raise BundleError(
            f"{path}: trained on {corpus or 'an unknown corpus'}, the shipped tables are of ravdess; train it anew from "
            f"its clips: `python -m ser_lib reports --notebook 04 --force -p corpus=… -p run=… -p model_path={path}`"
        )
    table = tables.select(tables.shipped(), emotion_list(about["headline"]["emotions"]))
    if training["clips"] != len(table):
        raise BundleError(
            f"{path}: trained on {training['clips']} clips, the shipped tables have {len(table)}; {bundle.CHOOSE}"
        )
    if metadata["feature_names"] != list(feature_names()):
        raise BundleError(f"{path}: {bundle.OTHER_FEATURES}; {bundle.CHOOSE}")
    rows = copies.append_copies(table, tables.shipped(tables.SHIPPED_COPIES)) if training["copies"] else table
    parts = fit(
        rows,
        about["estimator"],
        seed=training["seed"],
        enroll=(about["enrolled"] or {}).get("clips", 0),
        intensity=(about["intensity"] or {}).get("estimator", ""),
    )
    kept = {key: metadata[key] for key in ("temperatures", "abstain_below", "conformal", "least_speech_s")}
    today = datetime.date.today().isoformat()
    return bundle.save(path=path, config=FeatureConfig(), created=today, **parts, **kept, **about)
