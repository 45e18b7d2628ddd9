"""Save, check and load the served model.

`models/<name>.pkl` holds the fitted pipelines. `models/<name>.json` holds the model metadata: SHA-256 of the
pickle, library versions, class order, feature configuration, training data, metrics, and the predictions for
three synthesised clips (the self-test); and a SHA-256 of all this, so that no score can be altered. Unpickling can run code, so the pickle is read only if its SHA-256
matches the metadata, and only names in `ALLOWED` are loaded. Under other library versions the self-test
decides: if it passes, the model is loaded with a warning, else refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import pickle
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ser_lib import SERVED, __version__, audio, replacing, write_file
from ser_lib.audio import AudioConfig
from ser_lib.audio.quality import VOICE_LEAST_S
from ser_lib.errors import BundleError, SerError
from ser_lib.features import FeatureConfig, feature_names
from ser_lib.features.relative import Speakers
from ser_lib.provenance import BOOSTER, versions
from ser_lib.serving.model import Model, Typical

DEFAULT = SERVED
REQUIRED = (
    "name", "version", "created", "classes", "temperatures", "abstain_below", "conformal", "least_speech_s", "self_test", "sha256",
    "libraries", "feature_config", "feature_hash", "feature_names",
)  # fmt: skip
HASH = "metadata_sha256"  # of all other fields
RETRAIN = "train it again from the repository's tables with `python -m ser_lib retrain`"
CHOOSE = "choose and train it anew with `python -m ser_lib reports --notebook 04`"
OTHER_FEATURES = "trained on features that this ser_lib does not compute"
SELF_TEST_TOLERANCE = 0.005  # of a probability; processors differ in the last bits of a feature

# All that a pickle may name.
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
    """A model was made with other library versions, and its self-test passes."""


# --- the self-test --------------------------------------------------------------------------------


def self_test_clips() -> list[bytes]:
    """Synthesise three clips, as WAV files: buzzes that differ in pitch, movement, tempo and breath.

    Examples
    --------
    >>> [len(clip) for clip in self_test_clips()]
    [192044, 192044, 192044]
    """
    import soundfile

    rate, clips = 48_000, []
    kinds = (110, 0.05, 3.0, 0.02), (220, 0.3, 5.0, 0.05), (330, 0.15, 4.0, 0.2)
    for pitch, movement, tempo, breath in kinds:
        time = np.arange(2 * rate) / rate
        phase = np.cumsum(pitch * (1 + movement * np.sin(2 * np.pi * time))) / rate
        buzz = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 20))
        noise = np.random.default_rng(0).standard_normal(len(time))
        level = 0.1 * np.maximum(np.sin(np.pi * tempo * time) ** 2, 0.01)
        out = io.BytesIO()
        soundfile.write(out, level * (buzz + breath * noise), rate, format="WAV")
        clips.append(out.getvalue())
    return clips


def self_test(model: Model) -> None:
    """Check that a model still predicts the self-test clips as its metadata says.

    Raises
    ------
    BundleError
        A probability differs by more than `SELF_TEST_TOLERANCE`, or the number of clips does.
    """
    name, expected, predictions = (
        model.metadata["name"],
        model.metadata["self_test"],
        _self_test_predictions(model),
    )
    if len(expected) != len(predictions):
        raise BundleError(
            f"{name}: the metadata has {len(expected)} self-test clips, {len(predictions)} are needed; {RETRAIN}"
        )
    for clip_expected, clip_predictions in zip(expected, predictions, strict=True):
        for label, p in clip_expected.items():
            if not abs(clip_predictions.get(label, np.nan) - p) <= SELF_TEST_TOLERANCE:
                raise BundleError(
                    f"{name}: self-test failed: {label} has probability {clip_predictions.get(label)}, the metadata "
                    f"has {p}; features or libraries differ; {RETRAIN}"
                )


def _self_test_predictions(model: Model) -> list[dict[str, float]]:
    """Probabilities of each self-test clip; for the first also with the second as reference."""
    clips = self_test_clips()
    predictions = []
    for clip in clips:
        answer = model.answer(audio.load(clip, model.config.audio), check_voice=False)  # buzzes are no speech
        intensity = {f"of {label} intensity": p for label, p in answer.get("intensity", {}).items()}
        predictions.append(answer["probabilities"] | intensity)
    if model.speakers:
        first, second = (audio.load(clip, model.config.audio) for clip in clips[:2])
        relative = model.answer(first, model.features(second), check_voice=False)["probabilities"]
        predictions[0] |= {f"{label} beside another": p for label, p in relative.items()}
    return predictions


# --- files ----------------------------------------------------------------------------------------


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
    least_speech_s: float = VOICE_LEAST_S,
    **about: Any,
) -> dict[str, Any]:
    """Write `path` (the metadata, .json) and the pickle beside it; return the metadata.

    Parameters
    ----------
    models : dict of fitted estimators
        ``emotion`` and, where trained, ``intensity`` and ``enrolled``.
    temperatures : dict of float
        Of each model, from `calibration.fit_temperature` on out-of-fold predictions.
    abstain_below : float
        From `calibration.abstain_threshold`.
    conformal : dict of float
        From `calibration.conformal_threshold`, by level ("0.9").
    created : str
        The date, ISO 8601. If the same model is there already, its date stays.
    speakers : Speakers, optional
        Needed by ``enrolled``.
    least_speech_s : float
        Seconds; a clip with less speech gets no answer. 0 for a model of sounds that are no speech.
    **about
        More metadata: training data, metrics, licence.
    """
    path = Path(path)
    of_speakers = {"mean": speakers.mean, "variance": speakers.variance} if speakers else None
    parts = {"models": models, "typical": dataclasses.asdict(typical), "speakers": of_speakers}
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
        "least_speech_s": least_speech_s,
        "sha256": sha256(content).hexdigest(),
        "libraries": {k: v for k, v in versions().items() if k != BOOSTER or b"xgboost" in content},
        "feature_config": dataclasses.asdict(config),
        "feature_hash": config.hash,
        "feature_names": list(feature_names(config)),
    }
    metadata["self_test"] = _self_test_predictions(Model(models, metadata, config, typical, speakers))
    metadata = json.loads(json.dumps(metadata))
    with contextlib.suppress(BundleError):  # no model there yet
        before = read_metadata(path)
        before.pop(HASH, None)
        if before | {"created": created} == metadata:
            metadata["created"] = before["created"]
    metadata[HASH] = metadata_hash(metadata)
    _write_pair(path, content, json.dumps(metadata, indent=1).encode() + b"\n")
    return metadata


def _write_pair(path: Path, content: bytes, metadata: bytes) -> None:
    """Write the pickle and its metadata, `path`; a failure leaves both as they were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pickled = path.with_suffix(".pkl")
    before = pickled.read_bytes() if pickled.is_file() else None
    try:
        with replacing(path) as new, replacing(pickled) as new_pickled:  # the last is moved first
            new.write_bytes(metadata)
            new_pickled.write_bytes(content)
    except OSError:  # the pickle may be in its place, and its metadata not
        if before is None:
            pickled.unlink(missing_ok=True)
        elif pickled.read_bytes() != before:
            write_file(pickled, before)
        raise


def load(path: str | Path = DEFAULT) -> Model:
    """Read and check the model whose metadata is at `path`.

    Warns
    -----
    VersionWarning
        It was made with other library versions.

    Raises
    ------
    BundleError
        Missing or unreadable files, a pickle that does not match the metadata or names anything not in `ALLOWED`,
        other features than this `ser_lib` computes, a model that fails with the installed libraries, or a
        failed self-test.

    Examples
    --------
    >>> model = load()  # the shipped one
    >>> answer = model.predict(self_test_clips()[0], name="buzz")
    >>> list(answer)[:5]
    ['emotion', 'confidence', 'probabilities', 'prediction_set', 'abstained']
    """
    path = Path(path)
    metadata = read_metadata(path)
    if HASH not in metadata:
        raise BundleError(f"{path}: without {HASH}, so its scores cannot be checked; {RETRAIN}")
    pickled = path.with_suffix(".pkl")
    content = _read(pickled, RETRAIN)
    digest = sha256(content).hexdigest()
    if digest != metadata["sha256"]:
        raise BundleError(
            f"{pickled}: SHA-256 {digest[:12]}… does not match the metadata; the file was altered and is not loaded; {RETRAIN}"
        )
    config = _feature_config(path, metadata)
    here = versions()
    made = metadata["libraries"]
    other = [f"{name} {made[name]} (here {here.get(name)})" for name in made if here.get(name) != made[name]]
    prefix = f"{path}: made with {', '.join(other)}; " if other else ""
    try:
        with warnings.catch_warnings():
            if other:  # one warning of ours below instead of one of scikit-learn's for each part
                warnings.simplefilter("ignore")
            parts = unpickled(content)
            speakers = Speakers(**parts["speakers"]) if parts["speakers"] else None
            _check_models(path, metadata, parts["models"])
            model = Model(parts["models"], metadata, config, Typical(**parts["typical"]), speakers)
            self_test(model)
    except BundleError as error:
        raise BundleError(f"{prefix}{error}") from error
    except Exception as error:  # whatever a model of other versions raises
        raise BundleError(f"{prefix}{pickled}: {error}; it is not loaded; {RETRAIN}") from error
    if other:
        warnings.warn(f"{prefix}its self-test passes", VersionWarning, stacklevel=2)
    return model


def _check_models(path: Path, metadata: dict[str, Any], models: dict[str, Any]) -> None:
    """Check what the metadata says about the pickle's models."""
    classes = [str(label) for label in models["emotion"].classes_]
    if metadata["classes"] != classes:
        raise BundleError(f"{path}: classes are {metadata['classes']}, the model has {classes}; {RETRAIN}")
    missing = [name for name in models if name not in metadata["temperatures"]]
    if missing:
        raise BundleError(f"{path}: no temperature of {', '.join(missing)}; {RETRAIN}")


def _feature_config(path: Path, metadata: dict[str, Any]) -> FeatureConfig:
    settings = dict(metadata["feature_config"])
    try:
        config = FeatureConfig(**settings | {"audio": AudioConfig(**settings["audio"])})
        names = list(feature_names(config))
    except (TypeError, ValueError, KeyError, SerError) as error:
        raise BundleError(f"{path}: {OTHER_FEATURES} ({error}); {CHOOSE}") from error
    if config.hash != metadata["feature_hash"] or names != metadata["feature_names"]:
        raise BundleError(f"{path}: {OTHER_FEATURES}; {CHOOSE}")
    return config


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no model contains")
        return super().find_class(module, name)


def unpickled(content: bytes) -> Any:
    """Unpickle a model; a name not in `ALLOWED`, which could run code, is a `pickle.UnpicklingError`."""
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # whatever a damaged pickle raises
        raise pickle.UnpicklingError(f"not a pickle of a model ({type(error).__name__})") from error


def metadata_hash(metadata: dict[str, Any]) -> str:
    """SHA-256 of all fields but the hash itself, in any order.

    Examples
    --------
    >>> metadata_hash({"a": 1, "b": 2.5}) == metadata_hash({"b": 2.5, "a": 1, "metadata_sha256": "…"})
    True
    """
    fields = {name: value for name, value in metadata.items() if name != HASH}
    return sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_metadata(path: Path) -> dict[str, Any]:
    """Read model metadata, and check the fields that every model has, and its hash if there is one.

    Raises
    ------
    BundleError
        Missing, unreadable, not model metadata, a malformed field, or altered.
    """
    try:
        metadata = json.loads(_read(path, CHOOSE))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not model metadata ({error}); {CHOOSE}") from error
    missing = [name for name in REQUIRED if not isinstance(metadata, dict) or name not in metadata]
    if missing:
        raise BundleError(f"{path}: not model metadata (without {', '.join(missing)}); {CHOOSE}")
    for name, (is_right, what) in FIELDS.items():
        if not is_right(metadata[name]):
            raise BundleError(f"{path}: {name} is {repr(metadata[name])[:60]}, not {what}; {RETRAIN}")
    if HASH in metadata and metadata[HASH] != metadata_hash(metadata):
        raise BundleError(f"{path}: its content does not match its {HASH}; the file was altered; {RETRAIN}")
    return metadata


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


# What each field of `REQUIRED` must be: a check, and words for the message.
TEXT, NUMBER, TEXTS = (_is_text, "a text"), (_is_number, "a number"), (_are_texts, "a list of texts")
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": TEXT,
    "version": TEXT,
    "created": TEXT,
    "classes": TEXTS,
    "temperatures": (
        lambda value: _are_numbers(value) and "emotion" in value and min(value.values()) > 0,
        "positive numbers by model",
    ),
    "abstain_below": NUMBER,
    "least_speech_s": NUMBER,
    "conformal": (lambda value: _are_numbers(value) and "0.9" in value, "numbers by level, with 0.9"),
    "self_test": (
        lambda value: isinstance(value, list) and all(map(_are_numbers, value)),
        "a list of numbers by emotion",
    ),
    "sha256": TEXT,
    "libraries": (
        lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
        "versions by library",
    ),
    "feature_config": (lambda value: isinstance(value, dict), "settings by name"),
    "feature_hash": TEXT,
    "feature_names": TEXTS,
}


def export(path: Path, out: Path) -> None:
    """Copy the model whose metadata is at `path` to `out` (.pkl), with its metadata beside it.

    Raises
    ------
    BundleError
        As `load`.
    SerError
        `out` does not end in .pkl, or is the model itself.
    """
    load(path)
    pickled = path.with_suffix(".pkl")
    if out.suffix != ".pkl":
        raise SerError(f"{out}: not a name for a pickle; let it end in .pkl")
    if out.resolve() == pickled.resolve():
        raise SerError(f"{out}: is the model itself; give another name")
    _write_pair(out.with_suffix(".json"), pickled.read_bytes(), path.read_bytes())


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no such file; {remedy}") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
