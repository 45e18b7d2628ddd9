"""The chosen model and its passport: save, verify, load, predict.

`models/<name>.pkl` holds the fitted pipelines; `models/<name>.json`, its passport, says what they are:
SHA-256 of the pickle, library versions, class order, feature configuration, training data, metrics.
A pickle runs code when it is loaded, so `load` reads it only if its hash is the passport's.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ser_lib import ROOT, __version__, audio, calibration
from ser_lib.audio import Audio, AudioConfig
from ser_lib.errors import BundleError, SerError
from ser_lib.features import FeatureConfig, extract, feature_names

DEFAULT = ROOT / "models" / "ser.json"
LIBRARIES = ("numpy", "scipy", "scikit-learn", "xgboost-cpu", "soxr")
REQUIRED = (
    "name", "version", "created", "temperatures", "abstain_below", "conformal", "sha256", "libraries",
    "feature_config", "feature_hash", "feature_names",
)  # fmt: skip
RETRAIN = "retrain it from the shipped table with `python -m ser_lib reports --notebook 04`"


@dataclass(frozen=True)
class Bundle:
    """A verified model, ready to predict.

    Attributes
    ----------
    models : dict of estimators
        ``emotion`` and, where it was trained, ``intensity``: each with `predict_proba` over
        `passport["feature_names"]`.
    passport : dict
        As in the JSON file.
    config : FeatureConfig
        What the models' features are.
    """

    models: dict[str, Any]
    passport: dict
    config: FeatureConfig

    def predict(self, source: audio.Source, *, name: str | None = None) -> dict:
        """Hear one clip.

        Returns
        -------
        dict
            `emotion`, `confidence` (calibrated, 0 to 1), `probabilities` by emotion (summing to 1),
            `prediction_set` (the emotions among which the true one is nine times in ten, likeliest first),
            `abstained` (whether the confidence is below the threshold at which four in five are
            right), `intensity` (probabilities of normal and strong, where there is a model of it),
            `duration_s` of the file, `model` with its name and version.

        Raises
        ------
        AudioError
            As `audio.load`.
        """
        clip = audio.load(source, self.config.audio, name=name)
        found = self.probabilities(clip)
        p = found.pop("emotion")
        ranked = sorted(p, key=p.__getitem__, reverse=True)
        best = ranked[0]
        widest = self.passport["conformal"]["0.9"]
        return {
            "emotion": best,
            "confidence": p[best],
            "probabilities": p,
            "prediction_set": [label for label in ranked if label == best or 1 - p[label] <= widest],
            "abstained": p[best] < self.passport["abstain_below"],
            **found,
            "duration_s": round(clip.duration_s, 3),
            "model": {key: self.passport[key] for key in ("name", "version", "created")},
        }

    def probabilities(self, clip: Audio) -> dict[str, dict[str, float]]:
        """For each model (emotion, intensity) the calibrated probability of each class."""
        row = extract(clip, self.config)
        x = np.array([[row[name] for name in self.passport["feature_names"]]], np.float32)
        found = {}
        for what, model in self.models.items():
            p = calibration.sharpen(model.predict_proba(x), self.passport["temperatures"][what])[0]
            found[what] = {
                str(label): round(float(value), 4) for label, value in zip(model.classes_, p, strict=True)
            }
        return found


def versions() -> dict[str, str]:
    """The installed versions of the libraries that a pickle depends on."""
    found = {"ser_lib": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def save(
    models: dict[str, Any],
    path: Path,
    *,
    config: FeatureConfig,
    temperatures: dict[str, float],
    abstain_below: float,
    conformal: dict[str, float],
    created: str,
    **about: Any,
) -> dict:
    """Write `path` (the passport, .json) and the pickle beside it; return the passport.

    Parameters
    ----------
    models : dict of fitted estimators
        ``emotion`` and, if there is one, ``intensity``.
    temperatures : dict of float
        Of each model, from `calibration.fit_temperature` on out-of-fold predictions.
    abstain_below : float
        From `calibration.abstain_threshold`.
    conformal : dict of float
        From `calibration.conformal_threshold`, by level ("0.9").
    created : str
        The date, ISO 8601.
    **about
        What else the passport says: training data, metrics, licence.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = pickle.dumps(models, protocol=5)
    passport = {
        "name": path.stem,
        "version": __version__,
        "created": created,
        **about,
        "classes": [str(label) for label in models["emotion"].classes_],
        "temperatures": temperatures,
        "abstain_below": abstain_below,
        "conformal": conformal,
        "sha256": sha256(content).hexdigest(),
        "libraries": versions(),
        "feature_config": dataclasses.asdict(config),
        "feature_hash": config.hash,
        "feature_names": list(feature_names(config)),
    }
    path.with_suffix(".pkl").write_bytes(content)
    path.write_text(json.dumps(passport, indent=1) + "\n")
    return passport


def load(path: str | Path = DEFAULT) -> Bundle:
    """Read a model by its passport, after checking the pickle's hash and the library versions.

    Raises
    ------
    BundleError
        Missing or unreadable files, a pickle whose hash is not the passport's, other library
        versions, or features that this `ser_lib` computes differently.
    """
    path = Path(path)
    try:
        passport = json.loads(path.read_text())
        content = path.with_suffix(".pkl").read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{error.filename}: no such file; {RETRAIN}") from error
    except OSError as error:
        raise BundleError(f"{error.filename}: cannot be read ({error.strerror}); {RETRAIN}") from error
    except ValueError as error:
        raise BundleError(f"{path}: not a passport ({error}); {RETRAIN}") from error
    lacking = [name for name in REQUIRED if not isinstance(passport, dict) or name not in passport]
    if lacking:
        raise BundleError(f"{path}: not a passport (it lacks {', '.join(lacking)}); {RETRAIN}")
    found = sha256(content).hexdigest()
    if found != passport["sha256"]:
        raise BundleError(
            f"{path.with_suffix('.pkl')}: SHA-256 {found[:12]}… is not the passport's; "
            f"the file was altered and is not loaded; {RETRAIN}"
        )
    here = versions()
    other = {name: made for name, made in passport["libraries"].items() if here.get(name) != made}
    if other:
        listed = ", ".join(f"{name} {made} (here {here.get(name)})" for name, made in other.items())
        raise BundleError(f"{path}: made with {listed}; install requirements.lock or {RETRAIN}")
    settings = dict(passport["feature_config"])
    try:
        config = FeatureConfig(**settings | {"audio": AudioConfig(**settings["audio"])})
    except (TypeError, KeyError, SerError) as error:
        raise BundleError(
            f"{path}: its features are not those of this ser_lib ({error}); {RETRAIN}"
        ) from error
    if config.hash != passport["feature_hash"] or list(feature_names(config)) != passport["feature_names"]:
        raise BundleError(f"{path}: its features are not those of this ser_lib; {RETRAIN}")
    return Bundle(pickle.loads(content), passport, config)
