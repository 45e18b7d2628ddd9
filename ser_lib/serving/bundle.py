"""The chosen model and its metadata: save, verify, load.

`models/<name>.pkl` holds the fitted pipelines; `models/<name>.json`, its metadata, says what they are:
SHA-256 of the pickle, library versions, class order, feature configuration, training data, metrics, and
what three synthesised clips (`self_test_clips`) must be heard as. Since a pickle can run code, it is read only
if its hash is the metadata's, and then only names in `ALLOWED` are loaded. Under other library versions the
self-test clips decide: heard as they must be, the model is loaded with a warning, else it is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pickle
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ser_lib import SERVED, __version__
from ser_lib.audio import AudioConfig
from ser_lib.errors import BundleError, SerError
from ser_lib.features import FeatureConfig, feature_names
from ser_lib.features.relative import Speakers
from ser_lib.provenance import BOOSTER, versions
from ser_lib.serving.model import Model, Typical

DEFAULT = SERVED
REQUIRED = (
    "name", "version", "created", "classes", "temperatures", "abstain_below", "conformal", "self_test", "sha256",
    "libraries", "feature_config", "feature_hash", "feature_names",
)  # fmt: skip
RETRAIN = "train it again from the repository's tables with `python -m ser_lib retrain`"
CHOOSE = "choose and train it anew with `python -m ser_lib reports --notebook 04`"
SELF_TEST_TOLERANCE = 0.005  # of a probability; processors differ in the last bits of a feature

# Of what a pickle may be made.
ALLOWED = {
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.random._mt19937": {"MT19937"},
    "numpy.random._pickle": {"__bit_generator_ctor", "__randomstate_ctor"},
    "ser_lib.models.estimators": {"Balanced", "NormalRanks", "WCCNRegression", "WCCN"},
    "sklearn.dummy": {"DummyClassifier"},
    "sklearn.linear_model._logistic": {"LogisticRegression"},
    "sklearn.neural_network._multilayer_perceptron": {"MLPClassifier"},
    "sklearn.neural_network._stochastic_optimizers": {"AdamOptimizer"},
    "sklearn.pipeline": {"Pipeline"},
    "sklearn.preprocessing._data": {"StandardScaler"},
    "sklearn.preprocessing._label": {"LabelBinarizer"},
    "xgboost.core": {"Booster"},
    "xgboost.sklearn": {"XGBClassifier"},
}


class VersionWarning(UserWarning):
    """A model is of other library versions and hears its self-test clips as it must."""


def self_test_clips() -> list[bytes]:
    """Three synthesised clips, as WAV files: buzzes of another pitch, movement, tempo and breath.

    Examples
    --------
    >>> [len(clip) for clip in self_test_clips()]
    [192044, 192044, 192044]
    """
    import soundfile

    rate, found = 48_000, []
    for pitch, movement, tempo, breath in (
        (110, 0.05, 3.0, 0.02),
        (220, 0.3, 5.0, 0.05),
        (330, 0.15, 4.0, 0.2),
    ):
        time = np.arange(2 * rate) / rate
        phase = np.cumsum(pitch * (1 + movement * np.sin(2 * np.pi * time))) / rate
        buzz = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 20))
        noise = np.random.default_rng(0).standard_normal(len(time))
        level = 0.1 * np.maximum(np.sin(np.pi * tempo * time) ** 2, 0.01)
        out = io.BytesIO()
        soundfile.write(out, level * (buzz + breath * noise), rate, format="WAV")
        found.append(out.getvalue())
    return found


def self_test(model: Model) -> None:
    """Let a model hear the self-test clips again.

    Raises
    ------
    BundleError
        A probability is not that of the metadata, or it tells of more or fewer clips.
    """
    name, golden, heard = (
        model.metadata["name"],
        model.metadata["self_test"],
        _predictions_of_self_test(model),
    )
    if len(golden) != len(heard):
        raise BundleError(
            f"{name}: its metadata has {len(golden)} self-test clips of {len(heard)}; {RETRAIN}"
        )
    for said, found in zip(golden, heard, strict=True):
        for label, p in said.items():
            if not abs(found.get(label, np.nan) - p) <= SELF_TEST_TOLERANCE:
                raise BundleError(
                    f"{name}: a self-test clip is {label} with {found.get(label)}, the metadata says {p}; "
                    f"features or libraries differ; {RETRAIN}"
                )


def _predictions_of_self_test(model: Model) -> list[dict[str, float]]:
    """What each model of a bundle says of the self-test clips: of the first, also when it is heard beside the second."""
    clips = self_test_clips()
    answers = [model.predict(clip) for clip in clips]
    found = [
        answer["probabilities"]
        | {f"of {label} intensity": p for label, p in answer.get("intensity", {}).items()}
        for answer in answers
    ]
    if model.speakers:
        beside = model.predict(clips[0], references=clips[1:2])["probabilities"]
        found[0] |= {f"{label} beside another": p for label, p in beside.items()}
    return found


def save(
    models: dict[str, Any],
    path: Path,
    *,
    config: FeatureConfig,
    typical: Typical,
    temperatures: dict[str, float],
    abstain_below: float,
    conformal: dict[str, float],
    created: str,
    speakers: Speakers | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Write `path` (the metadata, .json) and the pickle beside it; return the metadata.

    Parameters
    ----------
    models : dict of fitted estimators
        ``emotion`` and, if they are there, ``intensity`` and ``enrolled``.
    typical : Typical
        Of the training clips.
    temperatures : dict of float
        Of each model, from `calibration.fit_temperature` on out-of-fold predictions.
    abstain_below : float
        From `decisions.abstain_threshold`.
    conformal : dict of float
        From `decisions.conformal_threshold`, by level ("0.9").
    created : str
        The date, ISO 8601; where the very same model is there already, its own date stays.
    speakers : Speakers, optional
        What ``enrolled`` needs.
    **about
        What else the metadata says: training data, metrics, licence.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {"mean": speakers.mean, "variance": speakers.variance} if speakers else None
    parts = {"models": models, "typical": dataclasses.asdict(typical), "speakers": known}
    content = pickle.dumps(parts, protocol=5)
    metadata = {
        "name": path.stem,
        "version": __version__,
        "created": created,
        **about,
        "classes": [str(label) for label in models["emotion"].classes_],
        "temperatures": temperatures,
        "abstain_below": abstain_below,
        "conformal": conformal,
        "sha256": sha256(content).hexdigest(),
        "libraries": {
            name: made for name, made in versions().items() if name != BOOSTER or b"xgboost" in content
        },
        "feature_config": dataclasses.asdict(config),
        "feature_hash": config.hash,
        "feature_names": list(feature_names(config)),
    }
    metadata["self_test"] = _predictions_of_self_test(Model(models, metadata, config, typical, speakers))
    with contextlib.suppress(BundleError):  # there is none yet, or another
        before = read_metadata(path)
        if before | {"created": created} == json.loads(json.dumps(metadata)):
            metadata["created"] = before["created"]
    path.with_suffix(".pkl").write_bytes(content)
    path.write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    return metadata


def load(path: str | Path = DEFAULT) -> Model:
    """Read a model by its metadata: hash, features, the names in its pickle, self-test clips.

    Warns
    -----
    VersionWarning
        It was made with other library versions.

    Raises
    ------
    BundleError
        Missing or unreadable files, a pickle whose hash is not the metadata's or that names anything
        beside the parts of a model, features that this `ser_lib` computes differently, a model that does not
        run with the library versions of here, or self-test clips that are heard differently.

    Examples
    --------
    >>> model = load()  # the one that is shipped
    >>> answer = model.predict(self_test_clips()[0], name="buzz")
    >>> list(answer)[:5]
    ['emotion', 'confidence', 'probabilities', 'prediction_set', 'abstained']
    """
    path = Path(path)
    metadata = read_metadata(path)
    pickled = path.with_suffix(".pkl")
    content = _read(pickled, RETRAIN)
    found = sha256(content).hexdigest()
    if found != metadata["sha256"]:
        raise BundleError(
            f"{pickled}: SHA-256 {found[:12]}… is not the metadata's; "
            f"the file was altered and is not loaded; {RETRAIN}"
        )
    settings = dict(metadata["feature_config"])
    try:
        config = FeatureConfig(**settings | {"audio": AudioConfig(**settings["audio"])})
    except (TypeError, KeyError, SerError) as error:
        raise BundleError(
            f"{path}: its features are not those of this ser_lib ({error}); {CHOOSE}"
        ) from error
    if config.hash != metadata["feature_hash"] or list(feature_names(config)) != metadata["feature_names"]:
        raise BundleError(f"{path}: its features are not those of this ser_lib; {CHOOSE}")
    here = versions()
    other = [
        f"{name} {made} (here {here.get(name)})"
        for name, made in metadata["libraries"].items()
        if here.get(name) != made
    ]
    by = f"{path}: made with {', '.join(other)}; " if other else ""
    try:
        with warnings.catch_warnings():
            if other:  # scikit-learn's, one for each part; all of them are told below in one
                warnings.simplefilter("ignore")
            parts = unpickled(content)
            known = Speakers(**parts["speakers"]) if parts["speakers"] else None
            loaded = Model(parts["models"], metadata, config, Typical(**parts["typical"]), known)
            self_test(loaded)
    except BundleError as error:
        raise BundleError(f"{by}{error}") from error
    except Exception as error:  # whatever a model of other versions does
        raise BundleError(f"{by}{pickled}: {error}; it is not loaded; {RETRAIN}") from error
    if other:
        warnings.warn(f"{by}it hears its self-test clips as it must", VersionWarning, stacklevel=2)
    return loaded


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a model")
        return super().find_class(module, name)


def unpickled(content: bytes) -> Any:
    """As `pickle.loads`, for the parts of models; what `ALLOWED` does not name is not loaded, so it cannot run.

    Raises
    ------
    pickle.UnpicklingError
        Another name, or not a pickle.
    """
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # whatever a damaged pickle does
        raise pickle.UnpicklingError(f"not a pickle of a model ({type(error).__name__})") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """What a metadata says, with nothing of it checked but that it is one.

    Raises
    ------
    BundleError
        Missing, unreadable or not a metadata.

    Examples
    --------
    >>> metadata = read_metadata(DEFAULT)
    >>> metadata["name"], metadata["feature_config"]["name"]
    ('ser', 'full')
    """
    try:
        metadata = json.loads(_read(path, CHOOSE))
    except ValueError as error:
        raise BundleError(f"{path}: not a metadata ({error}); {CHOOSE}") from error
    lacking = [name for name in REQUIRED if not isinstance(metadata, dict) or name not in metadata]
    if lacking:
        raise BundleError(f"{path}: not a metadata (it lacks {', '.join(lacking)}); {CHOOSE}")
    return metadata


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no such file; {remedy}") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
