"""The served model: predicts the emotion of a clip, or of each window of a long recording."""

from __future__ import annotations

import dataclasses
import io
import numbers
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
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
NO_SPEECH: dict[str, Any] = {
    "emotion": None, "confidence": None, "probabilities": {}, "prediction_set": [], "abstained": True,
}  # fmt: skip

ACCEPTED = (
    "a path, the bytes of a file, a file opened with 'rb', or a numpy array of numbers, shape (n_samples,) or "
    "(n_samples, n_channels), with its sample_rate in hertz"
)
MAX_CHANNELS = 64  # of an array; more are samples, in an array to be transposed


def as_source(source: Any, sample_rate: float | None = None) -> Path | bytes:
    """Return a path or the content of an audio file for whatever a caller has as a recording.

    Parameters
    ----------
    source : str, path, bytes-like, binary file object or ndarray
        An array has shape (n_samples,) or (n_samples, n_channels): floats from -1 to 1, or integers, which are
        divided by the range of their type.
    sample_rate : float, optional
        Hertz, of an array.

    Raises
    ------
    TypeError
        Something else, an array without a rate, or of another shape.

    Examples
    --------
    >>> as_source("clip.wav").name
    'clip.wav'
    >>> len(as_source(np.zeros(16_000, np.int16), 16_000))  # of a WAV file of float32
    64080
    >>> as_source(3.5)
    Traceback (most recent call last):
    TypeError: float is no recording; give a path, the bytes of a file, a file opened with 'rb', ...
    """
    if isinstance(source, np.ndarray):
        return _wav(source, sample_rate)
    if isinstance(source, str | os.PathLike):
        return Path(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    content = source.read() if hasattr(source, "read") else None
    if not isinstance(content, bytes):
        what = "a file opened as text" if isinstance(content, str) else type(source).__name__
        raise TypeError(f"{what} is no recording; give {ACCEPTED}")
    return content


def _wav(samples: np.ndarray, rate: float | None) -> bytes:
    """Encode an array as a WAV file of float32, so that it is read and checked as every file is."""
    import soundfile

    if not isinstance(rate, numbers.Real) or not float(rate).is_integer():
        raise TypeError(f"an array with sample_rate {rate!r}; give {ACCEPTED}")
    if not 0 < rate < 2**31:
        raise AudioError(f"sample rate {rate} Hz; give that of the array")
    kind = samples.dtype.kind
    if (
        kind not in "iuf"
        or samples.ndim not in (1, 2)
        or (samples.ndim == 2 and not 0 < samples.shape[1] <= MAX_CHANNELS)
    ):
        raise TypeError(f"an array of {samples.dtype}, shape {samples.shape}; give {ACCEPTED}")
    if kind in "iu":
        full = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = (samples.astype(float) - (full if kind == "u" else 0)) / full
    out = io.BytesIO()
    soundfile.write(out, samples.astype(np.float32), int(rate), format="WAV", subtype="FLOAT")
    return out.getvalue()


def _as_list(references: Any) -> list[Any]:
    """Return the references as a list; one alone, given without a list, is a list of one."""
    if references is None:
        return []
    one = isinstance(references, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray)
    if one or hasattr(references, "read"):
        return [references]
    try:
        return list(references)
    except TypeError:
        raise TypeError(f"references: {type(references).__name__} is no recording; give {ACCEPTED}") from None


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
        source: Any,
        sample_rate: float | None = None,
        *,
        name: str | None = None,
        references: Any = (),
        reference_rows: np.ndarray | None = None,
        count: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Predict the emotion of one clip.

        A clip longer than `PART_S` is analysed in parts of that length. Its probabilities are the mean of those of
        the parts, weighted by their seconds of sound; parts without speech do not count.

        Parameters
        ----------
        source : str, path, bytes, bytearray, binary file object or ndarray
            An array has shape (n_samples,) or (n_samples, n_channels): floats from -1 to 1, or integers, which
            are divided by the range of their type.
        sample_rate : float, optional
            Hertz, of `source` and `references` that are arrays.
        name : str, optional
            The clip's name in messages.
        references : source or sequence of sources
            Neutral clips of the same speaker. The clip is also scored relative to them, and the two
            predictions are averaged.
        reference_rows : ndarray, optional
            What `reference_features` returned, instead of `references`.
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
            of them; `audio.quality.voice`), `warnings` (recording problems that make the answer unreliable), `model`
            (name, version and date). Without speech, `emotion` and `confidence` are None, and `abstained` is true.

        Raises
        ------
        AudioError
            As `audio.load`, of the clip or a reference.
        SerError
            References were given, and the model has no ``enrolled``.
        TypeError
            A source is something else, or `sample_rate` is given without an array or the other way round.
        """
        given = _as_list(references)
        if sample_rate is not None and not any(isinstance(each, np.ndarray) for each in [source, *given]):
            raise TypeError("sample_rate goes with an array; a file has its own")
        if given:
            reference_rows = self.reference_features(given, sample_rate=sample_rate, count=count)
        name = name or decoding.name_of(source)
        x, shares, measured, notes = self._measure(as_source(source, sample_rate), name, count)
        return self._answer(x, shares, measured, notes, reference_rows)

    def answer(
        self, clip: audio.Audio, reference_rows: np.ndarray | None = None, *, check_voice: bool = True
    ) -> dict[str, Any]:
        """As `predict`, for a loaded clip; without the voice check for sounds that are known to be no speech."""
        measured = clip.quality | (self._voice(clip) if check_voice else {})
        if self._lacks_speech(measured):
            x = np.empty((0, len(self.metadata["feature_names"])), np.float32)
        else:
            x = self.features(clip)
        return self._answer(x, np.ones(1), measured, clip.notes, reference_rows)

    def reference_features(
        self,
        references: Sequence[Any],
        *,
        names: Sequence[str] = (),
        sample_rate: float | None = None,
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
            rows.append(self._measure(as_source(source, sample_rate), f"reference {name}", count)[0])
            if not len(rows[-1]):
                raise AudioError(f"reference {name}: no speech found; record a neutral sentence")
        return np.concatenate(rows)

    def _measure(
        self, source: decoding.Source, name: str, count: Callable[[float], None] | None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any], list[str]]:
        """Features of each part with speech, shape (n_parts, n_features); shares of the sound; quality and notes."""
        rows = [np.empty((0, len(self.metadata["feature_names"])), np.float32)]
        notes: list[str] = []
        sound_s, measured, silent_s = [], [], 0.0
        refused = None
        for raw, rate in _parts(decoding.blocks(source, name=name, seconds=PART_S, notes=notes), count):
            try:
                clip = audio.prepare(raw, rate, self.config.audio, name=name)
            except AudioError as error:
                if not np.abs(raw).max() < MAX_PEAK:  # not numbers, or not scaled
                    raise
                refused = refused or error  # silent, or a short rest
                silent_s += len(raw) / rate
                continue
            measured.append(clip.quality | self._voice(clip))
            notes += [note for note in clip.notes if note not in notes]
            if not self._lacks_speech(measured[-1]):
                rows.append(self.features(clip))
                sound_s.append(len(clip.samples) / clip.sample_rate)
        if refused and not measured:
            raise refused
        whole = measured[0] if len(measured) == 1 and not silent_s else _whole(measured, silent_s)
        return np.concatenate(rows), np.array(sound_s), whole, notes

    def _answer(
        self,
        x: np.ndarray,
        shares: np.ndarray,
        measured: dict[str, Any],
        notes: Sequence[str],
        reference_rows: np.ndarray | None = None,
    ) -> dict[str, Any]:
        if len(x):
            answer = self._emotion(x, shares, reference_rows)
            if "intensity" in self.models:
                raw = _mean(self.models["intensity"].predict_proba(x), shares)
                answer["intensity"] = self._probabilities("intensity", raw)
            distance = float(np.average(self.typical.distance(x), weights=shares))
            measured = measured | {"distance": round(distance, 2)}
        else:
            answer = NO_SPEECH | {"reason": f"No speech found ({measured['speech_s']:.1f} s)."}
        about = {key: self.metadata[key] for key in ("name", "version", "created")}
        problems = [*notes, *quality.warnings(measured)]
        return answer | {"quality": measured, "warnings": problems, "model": about}

    def _voice(self, clip: audio.Audio) -> dict[str, float]:
        if not self.metadata["least_speech_s"]:  # the check is off
            return {}
        return quality.voice(clip.samples, clip.sample_rate)

    def _lacks_speech(self, measured: dict[str, float]) -> bool:
        return measured.get("speech_s", np.inf) < self.metadata["least_speech_s"]

    def timeline(
        self,
        source: Any,
        sample_rate: float | None = None,
        *,
        name: str | None = None,
        count: Callable[[float], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Predict the emotion of overlapping windows of a recording, in little memory whatever its length.

        `source`, `sample_rate` and `count` are as in `predict`.

        Yields
        ------
        dict
            `start_s`, `end_s` and, of that window, `emotion`, `confidence`, `probabilities`, `abstained`; a
            window without speech has an `emotion` of None and `silent`.

        Raises
        ------
        AudioError
            As `decoding.blocks`, or some samples are not numbers.
        """
        name = name or decoding.name_of(source)
        content = as_source(source, sample_rate)
        rate = self.config.audio.sample_rate
        size, step = int(WINDOW_S * rate), int(STEP_S * rate)
        waiting, start = np.empty(0, np.float32), 0  # samples, and their position in the recording
        for part in audio.stream(content, self.config.audio, name=name):
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
        if self._lacks_speech(self._voice(clip)):
            return times | {"emotion": None, "silent": True}
        answer = self._emotion(self.features(clip), np.ones(1))
        return times | {key: answer[key] for key in ("emotion", "confidence", "probabilities", "abstained")}

    def features(self, clip: audio.Audio) -> np.ndarray:
        """The feature row of a clip, shape (1, n_features)."""
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
        "hum_hz": max(part["hum_hz"] for part in parts),
        **({"speech_s": round(sum(part["speech_s"] for part in parts), 2)} if "speech_s" in parts[0] else {}),
    }


def _reason(confidence: float, threshold: float) -> str:
    text = f"Too uncertain: {100 * confidence:.0f} %."
    return f"{text} I only commit from {100 * threshold:.0f} %." if threshold <= 1 else text
