"""The chosen model and its passport: save, verify, load, predict.

`models/<name>.pkl` holds the fitted pipelines; `models/<name>.json`, its passport, says what they are:
SHA-256 of the pickle, library versions, class order, feature configuration, training data, metrics, and
what three synthesised clips (`golden_clips`) must be heard as. `load` checks all of them. Since a pickle
can run code, it is read only if its hash is the passport's, and then only names in `pickles` are loaded.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ser_lib import ROOT, __version__, audio, calibration, pickles, quality
from ser_lib.audio import AudioConfig
from ser_lib.errors import AudioError, BundleError, SerError
from ser_lib.features import FeatureConfig, extract, feature_names
from ser_lib.speakers import Speakers

DEFAULT = ROOT / "models" / "ser.json"
BOOSTER = "xgboost-cpu"
LIBRARIES = ("numpy", "scipy", "scikit-learn", "soxr", BOOSTER)
REQUIRED = (
    "name", "version", "created", "classes", "temperatures", "abstain_below", "conformal", "golden", "sha256",
    "libraries", "feature_config", "feature_hash", "feature_names",
)  # fmt: skip
RETRAIN = "train it again from the shipped tables with `python -m ser_lib retrain`"
CHOOSE = "choose and train it anew with `python -m ser_lib reports --notebook 04`"
GOLDEN_TOLERANCE = 0.005  # of a probability; processors differ in the last bits of a feature
WINDOW_S, STEP_S = 3.0, 1.5  # seconds, of `Bundle.timeline`; clips of RAVDESS have about two seconds of sound


@dataclass(frozen=True)
class Typical:
    """The training clips by feature, shapes (n_features,), and how far from their mean the farthest hundredth is."""

    mean: np.ndarray
    deviation: np.ndarray
    far: float = 1.0

    @classmethod
    def of(cls, values: np.ndarray) -> Typical:
        """Of training clips, shape (n_clips, n_features)."""
        found = cls(values.mean(axis=0), values.std(axis=0))
        return dataclasses.replace(found, far=float(np.quantile(found.distance(values), 0.99)))

    def distance(self, values: np.ndarray) -> np.ndarray:
        """Root mean square of the standardised features, 1 at the farthest hundredth; shape (n_clips,)."""
        z = (values - self.mean) / np.where(self.deviation > 0, self.deviation, np.inf)
        return np.sqrt(np.square(z).mean(axis=1)) / self.far


@dataclass(frozen=True)
class Bundle:
    """A verified model, ready to predict.

    Attributes
    ----------
    models : dict of estimators
        ``emotion`` and, where they were trained, ``intensity`` and ``enrolled`` (of the emotion, on features
        relative to the speaker's neutral clips): each with `predict_proba` over `passport["feature_names"]`.
    passport : dict
        As in the JSON file.
    config : FeatureConfig
        What the models' features are.
    typical : Typical
        Of the training clips.
    speakers : Speakers, optional
        What ``enrolled`` needs.
    """

    models: dict[str, Any]
    passport: dict
    config: FeatureConfig
    typical: Typical
    speakers: Speakers | None = None

    def predict(
        self, source: audio.Source, *, name: str | None = None, references: Sequence[audio.Source] = ()
    ) -> dict:
        """Hear one clip.

        Parameters
        ----------
        source : path, bytes or binary file object
        name : str, optional
            What messages call the clip.
        references : sequence of sources
            Neutral clips of the same speaker: what the ``enrolled`` model hears relative to them counts as
            much as what ``emotion`` hears.

        Returns
        -------
        dict
            `emotion`, `confidence` (calibrated, 0 to 1), `probabilities` by emotion (summing to 1),
            `prediction_set` (the emotions among which the true one is nine times in ten, likeliest first),
            `abstained` (whether the confidence is below the threshold at which four in five are right) and the
            `reason`, `intensity` (probabilities of normal and strong, where there is a model of it), `heard`
            (`quality.describe`, and the `distance` from the training clips: 1 at their farthest hundredth),
            `warnings` in words, `model` with its name and version.

        Raises
        ------
        AudioError
            As `audio.load`, of the clip or a reference.
        SerError
            References, and the model has no ``enrolled``.
        """
        name = name or audio.name_of(source)
        raw, rate = audio.decode(source, name=name)
        clip = audio.prepare(raw, rate, self.config.audio, name=name)
        x = self._features(clip)
        heard = quality.describe(raw, rate, clip) | {"distance": round(float(self.typical.distance(x)[0]), 2)}
        answer = self._emotion(x, self._neutral(references))
        if "intensity" in self.models:
            answer["intensity"] = self._probabilities("intensity", self.models["intensity"].predict_proba(x))
        about = {key: self.passport[key] for key in ("name", "version", "created")}
        return answer | {"heard": heard, "warnings": quality.warnings(heard), "model": about}

    def timeline(self, source: audio.Source, *, name: str | None = None) -> Iterator[dict]:
        """Hear a long recording in overlapping windows, in memory that does not grow with its length.

        Yields
        ------
        dict
            `start_s`, `end_s` and, of that window, `emotion`, `confidence`, `probabilities`, `abstained`; an
            `emotion` of None and `silent` where it holds no sound.

        Raises
        ------
        AudioError
            As `audio.blocks`, or some samples are not numbers.
        """
        name = name or audio.name_of(source)
        rate = self.config.audio.sample_rate
        size, step = int(WINDOW_S * rate), int(STEP_S * rate)
        held, start = np.empty(0, np.float32), 0
        for part in audio.stream(source, self.config.audio, name=name):
            held = np.concatenate([held, part])
            while len(held) >= size:
                yield self._window(held[:size], start / rate, name)
                held, start = held[step:], start + step
        if start == 0 or len(held) > size - step:  # what no window has heard
            yield self._window(held, start / rate, name)

    def _window(self, samples: np.ndarray, start_s: float, name: str) -> dict:
        rate = self.config.audio.sample_rate
        about = {"start_s": round(start_s, 2), "end_s": round(start_s + len(samples) / rate, 2)}
        if not np.isfinite(samples).all():
            raise AudioError(f"{name}: some samples are not numbers (NaN or infinite); export the clip again")
        try:
            clip = audio.prepare(samples[:, None], rate, self.config.audio, name=name)
        except AudioError:  # silent, or next to it
            return about | {"emotion": None, "silent": True}
        answer = self._emotion(self._features(clip))
        return about | {key: answer[key] for key in ("emotion", "confidence", "probabilities", "abstained")}

    def _features(self, clip: audio.Audio) -> np.ndarray:
        row = extract(clip, self.config)
        return np.array([[row[name] for name in self.passport["feature_names"]]], np.float32)

    def _neutral(self, references: Sequence[audio.Source]) -> np.ndarray | None:
        if not references:
            return None
        if self.speakers is None:
            raise SerError("this model was not trained for reference clips; send the clip without them")
        clips = (audio.load(source, self.config.audio) for source in references)
        return np.concatenate([self._features(clip) for clip in clips])

    def _emotion(self, x: np.ndarray, neutral: np.ndarray | None = None) -> dict:
        if neutral is None or self.speakers is None:
            p = self._probabilities("emotion", self.models["emotion"].predict_proba(x))
        else:
            near = self.models["enrolled"].predict_proba(self.speakers.relative_to(neutral, x))
            p = self._probabilities(
                "enrolled", calibration.log_mean([self.models["emotion"].predict_proba(x), near])
            )
        ranked = sorted(p, key=p.__getitem__, reverse=True)
        best, widest, least = ranked[0], self.passport["conformal"]["0.9"], self.passport["abstain_below"]
        unsure = p[best] < least
        return {
            "emotion": best,
            "confidence": p[best],
            "probabilities": p,
            "prediction_set": [label for label in ranked if label == best or 1 - p[label] <= widest],
            "abstained": unsure,
            "reason": f"confidence {p[best]:.2f}; four answers in five are right from {least:.2f} on"
            if unsure
            else None,
        }

    def _probabilities(self, what: str, raw: np.ndarray) -> dict[str, float]:
        """The calibrated probability of each class of a model, from what it says of one clip."""
        p = calibration.sharpen(raw, self.passport["temperatures"][what])[0]
        labels = self.models[what].classes_
        return {str(label): round(float(value), 8) for label, value in zip(labels, p, strict=True)}

    def check(self) -> None:
        """Hear the golden clips again.

        Raises
        ------
        BundleError
            A probability is not that of the passport.
        """
        for clip, expected in zip(golden_clips(), self.passport["golden"], strict=True):
            found = self.predict(clip, name="golden clip")["probabilities"]
            for label, p in expected.items():
                if not abs(found.get(label, np.nan) - p) <= GOLDEN_TOLERANCE:
                    raise BundleError(
                        f"{self.passport['name']}: a golden clip is {label} with {found.get(label)}, the passport says {p}; "
                        f"features or libraries differ; {RETRAIN}"
                    )


def golden_clips() -> list[bytes]:
    """Three synthesised clips, as WAV files: buzzes of another pitch, movement, tempo and breath."""
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
        soundfile.write(out, level * (buzz + breath * noise), rate, format="WAV", subtype="PCM_16")
        found.append(out.getvalue())
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
    typical: Typical,
    temperatures: dict[str, float],
    abstain_below: float,
    conformal: dict[str, float],
    created: str,
    speakers: Speakers | None = None,
    **about: Any,
) -> dict:
    """Write `path` (the passport, .json) and the pickle beside it; return the passport.

    Parameters
    ----------
    models : dict of fitted estimators
        ``emotion`` and, if they are there, ``intensity`` and ``enrolled``.
    typical : Typical
        Of the training clips.
    temperatures : dict of float
        Of each model, from `calibration.fit_temperature` on out-of-fold predictions.
    abstain_below : float
        From `calibration.abstain_threshold`.
    conformal : dict of float
        From `calibration.conformal_threshold`, by level ("0.9").
    created : str
        The date, ISO 8601.
    speakers : Speakers, optional
        What ``enrolled`` needs.
    **about
        What else the passport says: training data, metrics, licence.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {"mean": speakers.mean, "variance": speakers.variance} if speakers else None
    parts = {"models": models, "typical": dataclasses.asdict(typical), "speakers": known}
    content = pickle.dumps(parts, protocol=5)
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
        "libraries": {
            name: made for name, made in versions().items() if name != BOOSTER or b"xgboost" in content
        },
        "feature_config": dataclasses.asdict(config),
        "feature_hash": config.hash,
        "feature_names": list(feature_names(config)),
    }
    fresh = Bundle(models, passport, config, typical, speakers)
    passport["golden"] = [fresh.predict(clip)["probabilities"] for clip in golden_clips()]
    path.with_suffix(".pkl").write_bytes(content)
    path.write_text(json.dumps(passport, indent=1) + "\n")
    return passport


def load(path: str | Path = DEFAULT) -> Bundle:
    """Read a model by its passport: hash, versions, features, the names in its pickle, golden clips.

    Raises
    ------
    BundleError
        Missing or unreadable files, a pickle whose hash is not the passport's or that names anything
        beside the parts of a model, other library versions, features that this `ser_lib` computes
        differently, or golden clips that are heard differently.
    """
    path = Path(path)
    passport = read_passport(path)
    content = _read(path.with_suffix(".pkl"), RETRAIN)
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
            f"{path}: its features are not those of this ser_lib ({error}); {CHOOSE}"
        ) from error
    if config.hash != passport["feature_hash"] or list(feature_names(config)) != passport["feature_names"]:
        raise BundleError(f"{path}: its features are not those of this ser_lib; {CHOOSE}")
    try:
        parts = pickles.loads(content)
        known = parts["speakers"]
        loaded = Bundle(
            parts["models"],
            passport,
            config,
            Typical(**parts["typical"]),
            Speakers(**known) if known else None,
        )
    except (pickle.UnpicklingError, KeyError, TypeError) as error:
        raise BundleError(f"{path.with_suffix('.pkl')}: {error}; it is not loaded; {RETRAIN}") from error
    loaded.check()
    return loaded


def read_passport(path: Path) -> dict:
    """What a passport says, with nothing of it checked but that it is one.

    Raises
    ------
    BundleError
        Missing, unreadable or not a passport.
    """
    try:
        passport = json.loads(_read(path, CHOOSE))
    except ValueError as error:
        raise BundleError(f"{path}: not a passport ({error}); {CHOOSE}") from error
    lacking = [name for name in REQUIRED if not isinstance(passport, dict) or name not in passport]
    if lacking:
        raise BundleError(f"{path}: not a passport (it lacks {', '.join(lacking)}); {CHOOSE}")
    return passport


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no such file; {remedy}") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
