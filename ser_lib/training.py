"""What of a served model is fitted on all speakers: for notebook 04, and once more from a passport."""

from __future__ import annotations

import datetime
from pathlib import Path

import pandas as pd

from ser_lib import adapt, bundle, evaluate, guard, tables
from ser_lib.corpus import emotion_list
from ser_lib.errors import BundleError
from ser_lib.features import FeatureConfig, feature_names


def fit(rows: pd.DataFrame, model: str, *, seed: int = 0, enroll: int = 0, intensity: str = "") -> dict:
    """Models of all speakers, and what else `bundle.save` takes: `models`, `typical`, `speakers`.

    Parameters
    ----------
    rows : DataFrame
        Feature table with the copies to be trained with, as `tables.for_training` gives it.
    model : str
        Of `models.MODELS`, for the emotion.
    enroll : int
        Neutral clips a speaker for the model that hears them first; 0 for none.
    intensity : str
        Of `models.MODELS`, for normal or strong; empty for none.
    """
    models, speakers = {"emotion": evaluate.fit_all(rows, model, seed=seed)}, None
    if enroll:
        models["enrolled"] = evaluate.fit_all(adapt.enrolled(rows, n=enroll), model, seed=seed)
        speakers = adapt.speakers(adapt.neutral_clips(rows, n=enroll))
    if intensity:
        models["intensity"] = evaluate.fit_all(evaluate.by_intensity(rows), intensity, seed=seed)
    values = rows.loc[guard.originals(rows), evaluate.feature_columns(rows)].to_numpy(float)
    return {"models": models, "typical": bundle.Typical.of(values), "speakers": speakers}


def again(path: Path) -> dict:
    """Fit a model of RAVDESS again from the shipped tables and write it in its place; return the new passport.

    The choice, the calibration and the scores are those of the passport: they were measured on the same clips
    and features. What may differ are the library versions.

    Raises
    ------
    BundleError
        No readable passport, or it is of other clips or features.
    """
    passport = bundle.read_passport(path)
    about = {key: value for key, value in passport.items() if key not in bundle.REQUIRED}
    trained = about["training"]
    table = evaluate.select(tables.shipped(), emotion_list(about["headline"]["emotions"]))
    if (trained.get("corpus"), trained["clips"]) != ("ravdess", len(table)):
        raise BundleError(f"{path}: trained on other clips than the shipped tables hold; {bundle.CHOOSE}")
    if passport["feature_names"] != list(feature_names()):
        raise BundleError(f"{path}: its features are not those of this ser_lib; {bundle.CHOOSE}")
    rows = tables.with_shipped_copies(table) if trained["copies"] else table
    parts = fit(
        rows,
        about["estimator"],
        seed=trained["seed"],
        enroll=(about["enrolled"] or {}).get("clips", 0),
        intensity=(about["intensity"] or {}).get("estimator", ""),
    )
    kept = {key: passport[key] for key in ("temperatures", "abstain_below", "conformal")}
    today = datetime.date.today().isoformat()
    return bundle.save(path=path, config=FeatureConfig(), created=today, **parts, **kept, **about)
