"""A served model at work: a clip, a window of a recording, or a clip beside neutral ones of its speaker to an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ser_lib import audio
from ser_lib.audio import decoding, quality
from ser_lib.errors import AudioError, SerError
from ser_lib.evaluation import calibration
from ser_lib.features import FeatureConfig, extract
from ser_lib.features.relative import Speakers

WINDOW_S, STEP_S = 3.0, 1.5  # seconds, of `Bundle.timeline`; clips of RAVDESS have about two seconds of sound


@dataclass(frozen=True)
class Typical:
    """The training clips by feature, shapes (n_features,), and how far from their mean the farthest hundredth is.

    Examples
    --------
    >>> typical = Typical.of(np.random.default_rng(0).normal(size=(1000, 5)))
    >>> typical.distance(np.array([[0.0] * 5, [4.0] * 5])).round(1)
    array([0. , 2.4])
    """

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
class Model:
    """A verified model, ready to predict.

    Attributes
    ----------
    models : dict of estimators
        ``emotion`` and, where they were trained, ``intensity`` and ``enrolled`` (of the emotion, on features
        relative to the speaker's neutral clips): each with `predict_proba` over `metadata["feature_names"]`.
    metadata : dict
        As in the JSON file.
    config : FeatureConfig
        What the models' features are.
    typical : Typical
        Of the training clips.
    speakers : Speakers, optional
        What ``enrolled`` needs.
    """

    models: dict[str, Any]
    metadata: dict[str, Any]
    config: FeatureConfig
    typical: Typical
    speakers: Speakers | None = None

    def predict(
        self, source: decoding.Source, *, name: str | None = None, references: Sequence[decoding.Source] = ()
    ) -> dict[str, Any]:
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
        name = name or decoding.name_of(source)
        raw, rate = decoding.decode(source, name=name)
        clip = audio.prepare(raw, rate, self.config.audio, name=name)
        x = self._features(clip)
        heard = quality.describe(raw, rate, clip) | {"distance": round(float(self.typical.distance(x)[0]), 2)}
        answer = self._emotion(x, self._neutral(references))
        if "intensity" in self.models:
            answer["intensity"] = self._probabilities("intensity", self.models["intensity"].predict_proba(x))
        about = {key: self.metadata[key] for key in ("name", "version", "created")}
        return answer | {"heard": heard, "warnings": quality.warnings(heard), "model": about}

    def timeline(self, source: decoding.Source, *, name: str | None = None) -> Iterator[dict[str, Any]]:
        """Hear a long recording in overlapping windows, in memory that does not grow with its length.

        Yields
        ------
        dict
            `start_s`, `end_s` and, of that window, `emotion`, `confidence`, `probabilities`, `abstained`; an
            `emotion` of None and `silent` where it holds no sound.

        Raises
        ------
        AudioError
            As `decoding.blocks`, or some samples are not numbers.
        """
        name = name or decoding.name_of(source)
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

    def _window(self, samples: np.ndarray, start_s: float, name: str) -> dict[str, Any]:
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
        return np.array([[row[name] for name in self.metadata["feature_names"]]], np.float32)

    def _neutral(self, references: Sequence[decoding.Source]) -> np.ndarray | None:
        if not references:
            return None
        if self.speakers is None:
            raise SerError("this model was not trained for reference clips; send the clip without them")
        clips = (audio.load(source, self.config.audio) for source in references)
        return np.concatenate([self._features(clip) for clip in clips])

    def _emotion(self, x: np.ndarray, neutral: np.ndarray | None = None) -> dict[str, Any]:
        if neutral is None or self.speakers is None:
            p = self._probabilities("emotion", self.models["emotion"].predict_proba(x))
        else:
            near = self.models["enrolled"].predict_proba(self.speakers.relative_to(neutral, x))
            p = self._probabilities(
                "enrolled", calibration.geometric_mean([self.models["emotion"].predict_proba(x), near])
            )
        ranked = sorted(p, key=p.__getitem__, reverse=True)
        best, widest, least = ranked[0], self.metadata["conformal"]["0.9"], self.metadata["abstain_below"]
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
        p = calibration.apply_temperature(raw, self.metadata["temperatures"][what])[0]
        labels = self.models[what].classes_
        return {str(label): round(float(value), 8) for label, value in zip(labels, p, strict=True)}
