"""The run that notebook 04 goes by, and what of a served model is fitted on all speakers: there, and once more from a metadata."""

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
    """The clips of the emotions that were spoken at two intensities, with the intensity in place of the emotion.

    It is evaluated like any table. RAVDESS has no strong neutral clip: with the neutral ones, telling
    them from the others would count as hearing the intensity.

    Raises
    ------
    CorpusError
        The intensities are not known.

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
    """Models of all speakers, and what else `bundle.save` takes: `models`, `typical`, `speakers`.

    Parameters
    ----------
    rows : DataFrame
        Feature table with the copies to be trained with, as `altered.for_training` gives it.
    model : str
        Of `models.MODELS`, for the emotion.
    enroll : int
        Neutral clips a speaker for the model that hears them first; 0 for none.
    intensity : str
        Of `models.MODELS`, for normal or strong; empty for none.

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


def again(path: Path) -> dict[str, Any]:
    """Fit a model of RAVDESS again from the shipped tables and write it in its place; return the new metadata.

    The choice, the calibration and the scores are those of the metadata: they were measured on the same clips
    and features. What may differ are the library versions.

    Raises
    ------
    BundleError
        No readable metadata, or it is of other clips or features.
    """
    metadata = bundle.read_metadata(path)
    about = {key: value for key, value in metadata.items() if key not in bundle.REQUIRED}
    trained = about.get("training", {})
    if (held := trained.get("corpus")) != "ravdess":
        raise BundleError(
            f"{path}: trained on other clips than the shipped tables hold, of {held or 'an unknown corpus'}; train it anew from "
            f"them: `python -m ser_lib reports --notebook 04 --force -p corpus=… -p run=… -p model_path={path}`"
        )
    table = tables.select(tables.shipped(), emotion_list(about["headline"]["emotions"]))
    if trained["clips"] != len(table):
        raise BundleError(f"{path}: trained on other clips than the shipped tables hold; {bundle.CHOOSE}")
    if metadata["feature_names"] != list(feature_names()):
        raise BundleError(f"{path}: its features are not those of this ser_lib; {bundle.CHOOSE}")
    rows = table
    if trained["copies"]:
        rows = copies.append_copies(table, tables.shipped(tables.SHIPPED_COPIES))
    parts = fit(
        rows,
        about["estimator"],
        seed=trained["seed"],
        enroll=(about["enrolled"] or {}).get("clips", 0),
        intensity=(about["intensity"] or {}).get("estimator", ""),
    )
    kept = {key: metadata[key] for key in ("temperatures", "abstain_below", "conformal")}
    today = datetime.date.today().isoformat()
    return bundle.save(path=path, config=FeatureConfig(), created=today, **parts, **kept, **about)
