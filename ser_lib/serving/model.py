"""The served model: predicts the emotion of a clip, or of each window of a long recording."""

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

WINDOW_S, STEP_S = 3.0, 1.5  # seconds, of `Model.timeline`; clips of RAVDESS have about two seconds of sound


@dataclass(frozen=True)
class Typical:
    """The distribution of the training clips: each feature's mean and deviation, shapes (n_features,).

    `far` is the distance that 1 % of the training clips exceed, in deviations.

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
        """Fit to training clips, shape (n_clips, n_features)."""
        typical = cls(values.mean(axis=0), values.std(axis=0))
        return dataclasses.replace(typical, far=float(np.quantile(typical.distance(values), 0.99)))

    def distance(self, values: np.ndarray) -> np.ndarray:
        """Root mean square of the standardised features, divided by `far`; shape (n_clips,)."""
        z = (values - self.mean) / np.where(self.deviation > 0, self.deviation, np.inf)
        return np.sqrt(np.square(z).mean(axis=1)) / self.far


@dataclass(frozen=True)
class Model:
    """A checked model, ready to predict.

    Attributes
    ----------
    models : dict of estimators
        ``emotion`` and, where trained, ``intensity`` and ``enrolled`` (of the emotion, on features relative
        to the speaker's neutral clips): each has `predict_proba` over `metadata["feature_names"]`.
    metadata : dict
        The content of the JSON file.
    config : FeatureConfig
        Of the features that the models take.
    typical : Typical
        Of the training clips.
    speakers : Speakers, optional
        Needed by ``enrolled``.
    """

    models: dict[str, Any]
    metadata: dict[str, Any]
    config: FeatureConfig
    typical: Typical
    speakers: Speakers | None = None

    def predict(
        self,
        source: decoding.Source,
        *,
        name: str | None = None,
        references: Sequence[decoding.Source | audio.Audio] = (),
    ) -> dict[str, Any]:
        """Predict the emotion of one clip.

        Parameters
        ----------
        source : path, bytes or binary file object
        name : str, optional
            The clip's name in messages.
        references : sequence of sources, or of loaded clips
            Neutral clips of the same speaker. The clip is also scored relative to them, and the two
            predictions are averaged.

        Returns
        -------
        dict
            `emotion`, `confidence` (calibrated, 0 to 1), `probabilities` by emotion (summing to 1),
            `prediction_set` (the likeliest emotions; it contains the true one about nine times in ten),
            `abstained` (the confidence is too low for four answers in five to be right) and the `reason`,
            `intensity` (probabilities of normal and strong, where trained), `quality`
            (`audio.quality.describe`, and the `distance` from the training clips, which is above 1 for 1 %
            of them), `warnings` (recording problems that make the answer unreliable), `model` (name, version
            and date).

        Raises
        ------
        AudioError
            As `audio.load`, of the clip or a reference.
        SerError
            References were given, and the model has no ``enrolled``.
        """
        clip = audio.load(source, self.config.audio, name=name)
        loaded = [self._reference(each, i) for i, each in enumerate(references, 1)]
        return self.answer(clip, loaded)

    def _reference(self, source: decoding.Source | audio.Audio, number: int) -> audio.Audio:
        if isinstance(source, audio.Audio):
            return source
        name = f"reference {number} ({decoding.name_of(source)})"
        return audio.load(source, self.config.audio, name=name)

    def answer(self, clip: audio.Audio, references: Sequence[audio.Audio] = ()) -> dict[str, Any]:
        """As `predict`, for loaded clips."""
        x = self._features(clip)
        answer = self._emotion(x, references)
        if "intensity" in self.models:
            answer["intensity"] = self._probabilities("intensity", self.models["intensity"].predict_proba(x))
        measured = clip.quality | {"distance": round(float(self.typical.distance(x)[0]), 2)}
        about = {key: self.metadata[key] for key in ("name", "version", "created")}
        return answer | {"quality": measured, "warnings": quality.warnings(measured), "model": about}

    def timeline(self, source: decoding.Source, *, name: str | None = None) -> Iterator[dict[str, Any]]:
        """Predict the emotion of overlapping windows of a recording, in little memory whatever its length.

        Yields
        ------
        dict
            `start_s`, `end_s` and, of that window, `emotion`, `confidence`, `probabilities`, `abstained`; a
            window without sound has an `emotion` of None and `silent`.

        Raises
        ------
        AudioError
            As `decoding.blocks`, or some samples are not numbers.
        """
        name = name or decoding.name_of(source)
        rate = self.config.audio.sample_rate
        size, step = int(WINDOW_S * rate), int(STEP_S * rate)
        waiting, start = np.empty(0, np.float32), 0  # samples, and their position in the recording
        for part in audio.stream(source, self.config.audio, name=name):
            waiting = np.concatenate([waiting, part])
            while len(waiting) >= size:
                yield self._window(waiting[:size], start / rate, name)
                waiting, start = waiting[step:], start + step
        if start == 0 or len(waiting) > size - step:  # the rest is in no window yet
            yield self._window(waiting, start / rate, name)

    def _window(self, samples: np.ndarray, start_s: float, name: str) -> dict[str, Any]:
        rate = self.config.audio.sample_rate
        times = {"start_s": round(start_s, 2), "end_s": round(start_s + len(samples) / rate, 2)}
        if not np.isfinite(samples).all():
            raise AudioError(f"{name}: some samples are not numbers (NaN or infinite); export the clip again")
        try:
            clip = audio.prepare(samples[:, None], rate, self.config.audio, name=name)
        except AudioError:  # silent or nearly so
            return times | {"emotion": None, "silent": True}
        answer = self._emotion(self._features(clip))
        return times | {key: answer[key] for key in ("emotion", "confidence", "probabilities", "abstained")}

    def _features(self, clip: audio.Audio) -> np.ndarray:
        row = extract(clip, self.config)
        return np.array([[row[name] for name in self.metadata["feature_names"]]], np.float32)

    def _emotion(self, x: np.ndarray, references: Sequence[audio.Audio] = ()) -> dict[str, Any]:
        if references and self.speakers is None:
            raise SerError("this model was not trained for reference clips; send the clip without them")
        raw, which = self.models["emotion"].predict_proba(x), "emotion"
        if references and self.speakers is not None:
            neutral = np.concatenate([self._features(clip) for clip in references])
            relative = self.models["enrolled"].predict_proba(self.speakers.relative_to(neutral, x))
            raw, which = calibration.geometric_mean([raw, relative]), "enrolled"
        p = self._probabilities(which, raw)
        ranked = sorted(p, key=p.__getitem__, reverse=True)
        best, widest, threshold = ranked[0], self.metadata["conformal"]["0.9"], self.metadata["abstain_below"]
        abstained = p[best] < threshold
        return {
            "emotion": best,
            "confidence": p[best],
            "probabilities": p,
            "prediction_set": [label for label in ranked if label == best or 1 - p[label] <= widest],
            "abstained": abstained,
            "reason": _reason(p[best], threshold) if abstained else None,
        }

    def _probabilities(self, which: str, raw: np.ndarray) -> dict[str, float]:
        """Calibrated probabilities by class, from the raw ones of one clip, shape (1, n_classes)."""
        p = calibration.apply_temperature(raw, self.metadata["temperatures"][which])[0]
        labels = self.models[which].classes_
        return {str(label): round(float(value), 8) for label, value in zip(labels, p, strict=True)}


def _reason(confidence: float, threshold: float) -> str:
    text = f"Too uncertain: {100 * confidence:.0f} %."
    return f"{text} I only commit from {100 * threshold:.0f} %." if threshold <= 1 else text
