"""The served model: predicts the emotion of a clip, or of each window of a long recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ser_lib import audio
from ser_lib.audio import decoding, quality
from ser_lib.audio.clip import MAX_PEAK
from ser_lib.errors import AudioError, SerError
from ser_lib.evaluation import calibration
from ser_lib.features import FeatureConfig, extract
from ser_lib.features.relative import Speakers

WINDOW_S, STEP_S = 3.0, 1.5  # seconds, of `Model.timeline`; clips of RAVDESS have about two seconds of sound
PART_S = (
    30.0  # seconds; a longer clip is analysed in parts of this length, so that memory does not grow with it
)


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
        references: Sequence[decoding.Source] | np.ndarray = (),
        count: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Predict the emotion of one clip.

        A clip longer than `PART_S` is analysed in parts of that length. Its probabilities are the mean of those of
        the parts, weighted by their seconds of sound; parts without sound do not count.

        Parameters
        ----------
        source : path, bytes or binary file object
        name : str, optional
            The clip's name in messages.
        references : sequence of sources, or their `reference_features`
            Neutral clips of the same speaker. The clip is also scored relative to them, and the two
            predictions are averaged.
        count : callable, optional
            Gets the seconds of each decoded part before it is analysed; it may raise to end the prediction.

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
        if not isinstance(references, np.ndarray):
            references = self.reference_features(references, count=count)
        return self._answer(*self._measure(source, name, count), references)

    def answer(self, clip: audio.Audio) -> dict[str, Any]:
        """As `predict`, for a loaded clip."""
        return self._answer(self._features(clip), np.ones(1), clip.quality)

    def reference_features(
        self,
        references: Sequence[decoding.Source],
        *,
        names: Sequence[str] = (),
        count: Callable[[float], None] | None = None,
    ) -> np.ndarray:
        """Features of reference clips, shape (n_parts, n_features), for several predictions.

        Raises
        ------
        AudioError
            As `audio.load`; it names the reference.
        """
        rows = [np.empty((0, len(self.metadata["feature_names"])), np.float32)]
        for i, source in enumerate(references):
            name = names[i] if names else f"{i + 1} ({decoding.name_of(source)})"
            rows.append(self._measure(source, f"reference {name}", count)[0])
        return np.concatenate(rows)

    def _measure(
        self, source: decoding.Source, name: str | None, count: Callable[[float], None] | None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Features of each part with sound, shape (n_parts, n_features); shares of the sound; quality of the whole."""
        name = name or decoding.name_of(source)
        rows, sound_s, measured, silent_s = [], [], [], 0.0
        refused = None
        for raw, rate in _parts(decoding.blocks(source, name=name, seconds=PART_S), count):
            try:
                clip = audio.prepare(raw, rate, self.config.audio, name=name)
            except AudioError as error:
                if not np.abs(raw).max() < MAX_PEAK:  # not numbers, or not scaled
                    raise
                refused = refused or error  # silent, or a short rest
                silent_s += len(raw) / rate
            else:
                rows.append(self._features(clip))
                sound_s.append(len(clip.samples) / clip.sample_rate)
                measured.append(clip.quality)
        if refused and not rows:
            raise refused
        shares = np.array(sound_s) / sum(sound_s)
        whole = measured[0] if len(measured) == 1 and not silent_s else _whole(measured, silent_s)
        return np.concatenate(rows), shares, whole

    def _answer(
        self,
        x: np.ndarray,
        shares: np.ndarray,
        measured: dict[str, Any],
        references: np.ndarray | None = None,
    ) -> dict[str, Any]:
        answer = self._emotion(x, shares, references)
        if "intensity" in self.models:
            raw = _mean(self.models["intensity"].predict_proba(x), shares)
            answer["intensity"] = self._probabilities("intensity", raw)
        distance = float(np.average(self.typical.distance(x), weights=shares))
        measured = measured | {"distance": round(distance, 2)}
        about = {key: self.metadata[key] for key in ("name", "version", "created")}
        return answer | {"quality": measured, "warnings": quality.warnings(measured), "model": about}

    def timeline(
        self,
        source: decoding.Source,
        *,
        name: str | None = None,
        count: Callable[[float], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Predict the emotion of overlapping windows of a recording, in little memory whatever its length.

        `count` is as in `predict`.

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
            if count:
                count(len(part) / rate)
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
        answer = self._emotion(self._features(clip), np.ones(1))
        return times | {key: answer[key] for key in ("emotion", "confidence", "probabilities", "abstained")}

    def _features(self, clip: audio.Audio) -> np.ndarray:
        row = extract(clip, self.config)
        return np.array([[row[name] for name in self.metadata["feature_names"]]], np.float32)

    def _emotion(
        self, x: np.ndarray, shares: np.ndarray, references: np.ndarray | None = None
    ) -> dict[str, Any]:
        raw, which = self.models["emotion"].predict_proba(x), "emotion"
        if references is not None and len(references):
            if self.speakers is None:
                raise SerError("this model was not trained for reference clips; send the clip without them")
            relative = self.models["enrolled"].predict_proba(self.speakers.relative_to(references, x))
            raw, which = calibration.geometric_mean([raw, relative]), "enrolled"
        raw = _mean(raw, shares)
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


def _parts(
    blocks: Iterator[tuple[np.ndarray, int]], count: Callable[[float], None] | None
) -> Iterator[tuple[np.ndarray, int]]:
    """Join blocks of samples, shape (n_samples, n_channels), to parts of `PART_S`, and a last shorter one."""
    waiting: list[np.ndarray] = []
    n_samples, rate = 0, 0
    for block, rate in blocks:
        if count:
            count(len(block) / rate)
        waiting.append(block)
        n_samples += len(block)
        while n_samples > (size := int(PART_S * rate)):
            joined = np.concatenate(waiting)
            yield joined[:size], rate
            waiting, n_samples = [joined[size:]], n_samples - size
    if n_samples:
        yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting), rate


def _mean(raw: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean of the parts' probabilities, shape (n_parts, n_classes), weighted by `shares`; shape (1, n_classes)."""
    return np.average(raw, axis=0, weights=shares, keepdims=True)


def _whole(parts: Sequence[dict[str, Any]], silent_s: float) -> dict[str, Any]:
    """Quality of a clip from those of its parts, and from the seconds of the parts without sound."""
    seconds = np.array([part["duration_s"] for part in parts])
    total = seconds.sum() + silent_s

    def mean(name: str, digits: int) -> float:
        return round(float(np.average([part[name] for part in parts], weights=seconds)), digits)

    power = [10 ** (part["loudness_db"] / 10) for part in parts]
    silent = (np.dot(seconds, [part["silence"] for part in parts]) + silent_s) / total
    return parts[0] | {
        "duration_s": round(float(total), 3),
        "loudness_db": round(float(10 * np.log10(np.average(power, weights=seconds))), 1),
        "clipped": mean("clipped", 5),
        "silence": round(float(silent), 3),
        "bandwidth_hz": max(part["bandwidth_hz"] for part in parts),
    }


def _reason(confidence: float, threshold: float) -> str:
    text = f"Too uncertain: {100 * confidence:.0f} %."
    return f"{text} I only commit from {100 * threshold:.0f} %." if threshold <= 1 else text
