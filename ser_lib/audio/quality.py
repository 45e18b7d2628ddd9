"""What a recording is like, beside what is said in it: level, clipping, silence, bandwidth; and what may mislead."""

from __future__ import annotations

import numpy as np

from ser_lib.audio import Audio, mix_down
from ser_lib.features import lld

FRAME_S = 0.025  # seconds, of silence
LEVEL_FRAME_S = 0.02  # seconds, of levels
SILENT_DB = 40.0  # decibels below the loudest frame
BAND_DB = 65.0  # decibels below the strongest band; what is weaker does not count as heard
FLAT = 0.999  # of the peak: two samples in a row that are higher were cut off

QUIET_DB = -55.0  # decibels relative to full scale; softer than all but a hundredth of RAVDESS
CLIPPED = 0.001  # share of the samples
SILENCE = 0.65  # share of the time; more than in any clip of RAVDESS
NARROW_HZ = 4_200.0  # a telephone line ends at 3400
LONG_S = 10.0  # seconds; the clips of RAVDESS have 3 to 5
FAR = 1.3  # of `distance`, see `hearing`


def describe(raw: np.ndarray, rate: int, clip: Audio) -> dict[str, float]:
    """Measure a recording.

    Parameters
    ----------
    raw : ndarray, shape (n_samples, n_channels)
        As it was decoded, at `rate` hertz.
    clip : Audio
        The same, prepared.

    Returns
    -------
    dict
        `duration_s`, `sample_rate`, `channels`; `loudness_db`, of the active speech relative to full scale;
        `clipped`, the share of the samples; `silence`, the share of the time; `bandwidth_hz`, up to where
        anything is heard, at most half of the clip's rate.

    Examples
    --------
    >>> from ser_lib.audio.clip import prepare
    >>> raw = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)[:, None] * np.repeat([0.0, 0.1], 8_000)[:, None]
    >>> heard = describe(raw, 16_000, prepare(raw, 16_000, name="tone"))
    >>> heard["duration_s"], float(heard["loudness_db"]), heard["silence"]
    (1.0, -23.0, 0.5)
    """
    mono = mix_down(raw)
    size = np.abs(mono)
    high = size >= FLAT * size.max()
    n = int(FRAME_S * rate)
    power = np.square(lld.frames(mono, n, n)).mean(axis=1)
    spectrum = np.square(lld.magnitudes(clip.samples, n_fft=512, hop=256)).mean(axis=0)
    heard = np.flatnonzero(spectrum >= spectrum.max() * 10 ** (-BAND_DB / 10))
    return {
        "duration_s": round(clip.duration_s, 3),
        "sample_rate": rate,
        "channels": raw.shape[1],
        "loudness_db": round(20 * np.log10(active_level(mono, rate)), 1),
        "clipped": round(float((high[1:] & high[:-1]).mean()), 5),
        "silence": round(float((power < power.max() * 10 ** (-SILENT_DB / 10)).mean()), 3),
        "bandwidth_hz": round(float(heard[-1] * clip.sample_rate / 512)),
    }


def active_level(y: np.ndarray, rate: int) -> float:
    """Root mean square of the frames less than `lld.ACTIVE_DB` below the loudest: speech without pauses.

    Silence around the speech does not lower it. After the idea of ITU-T P.56, in fixed frames.

    Examples
    --------
    >>> active_level(np.repeat([0.0, 0.5, 0.0], 16_000), 16_000)
    0.5
    """
    power = frame_power(y, rate)
    return float(np.sqrt(power[power >= power.max() * 10 ** (-lld.ACTIVE_DB / 10)].mean()))


def frame_power(y: np.ndarray, rate: int) -> np.ndarray:
    """Mean squares of frames of `LEVEL_FRAME_S` that do not overlap, shape (n_frames,).

    Examples
    --------
    >>> frame_power(np.repeat([0.0, 0.5], 320), 16_000)
    array([0.  , 0.25])
    """
    n = int(LEVEL_FRAME_S * rate)
    return np.square(lld.frames(y, n, n)).mean(axis=1)


def warnings(heard: dict[str, float]) -> list[str]:
    """What of `describe`, and of the `distance` from the training clips, makes the answer doubtful.

    Examples
    --------
    >>> heard = {"loudness_db": -30.0, "clipped": 0.0, "silence": 0.7, "bandwidth_hz": 8000, "duration_s": 3.0}
    >>> warnings(heard)
    ['most of this is silence (70%)']
    """
    found = {
        f"very quiet ({heard['loudness_db']:.0f} dB): speak closer to the microphone, or raise its level": heard[
            "loudness_db"
        ]
        < QUIET_DB,
        f"clipped ({heard['clipped']:.1%} of the samples are cut off): lower the recording level": heard[
            "clipped"
        ]
        > CLIPPED,
        f"most of this is silence ({heard['silence']:.0%})": heard["silence"] > SILENCE,
        f"narrow band (nothing above {heard['bandwidth_hz'] / 1000:.1f} kHz), as of a telephone": heard[
            "bandwidth_hz"
        ]
        < NARROW_HZ,
        f"long ({heard['duration_s']:.0f} s): the emotion may change; ask for the timeline": heard[
            "duration_s"
        ]
        > LONG_S,
        "unlike the recordings that the model learnt from": heard.get("distance", 0) > FAR,
    }
    return [text for text, holds in found.items() if holds]
