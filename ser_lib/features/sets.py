"""Feature sets: one waveform to one row of named columns.

`classic` is the field's tutorial set (180 columns, equal to librosa's functions), `compact` has 105 columns, and
`full`, the default, has functionals and correlations of all descriptors from one STFT. Values are float32, and finite
for every clip that `audio.load` accepts. For networks, `melpitch` and `mfcc` contain the frames one after another:
NaN after the end of the clip, and longer clips are cut.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256

import numpy as np

from ser_lib.audio import Audio, AudioConfig
from ser_lib.errors import SerError
from ser_lib.features import functionals, lld, pitch

SETS = ("classic", "compact", "full")
FRAMES = {"melpitch": (160, 66), "mfcc": (173, 40)}  # frames, values per frame
COMPACT_S = 3.5  # seconds of sound in the compact set
CORRELATED = 6  # MFCC that are correlated with each other, pitch and voicing


@dataclass(frozen=True)
class FeatureConfig:
    """The settings that decide the values of features."""

    name: str = "full"  # one of SETS or FRAMES
    audio: AudioConfig = field(default_factory=AudioConfig)
    n_fft: int = 400  # samples (25 ms), full only; classic and compact use librosa's 2048
    hop: int = 160  # samples (10 ms), full only; classic and compact use librosa's 512
    n_mfcc: int = 13  # full only
    n_mels: int = 40  # full only

    def __post_init__(self) -> None:
        if self.name not in (*SETS, *FRAMES):
            raise SerError(
                f"feature set {self.name!r} is unknown; choose one of {', '.join((*SETS, *FRAMES))}"
            )

    @property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of the configuration's SHA-256."""
        return sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def extract(clip: Audio, config: FeatureConfig = FeatureConfig()) -> dict[str, float]:
    """All features of one clip, in the order of `feature_names`.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000).astype(np.float32)
    >>> row = extract(Audio(y, 16_000, "a3", 1.0, 16_000, 1))
    >>> round(row["f0_semitone_p50"])  # 220 Hz is 36 semitones above 27.5 Hz
    36
    """
    rate = config.audio.sample_rate
    if clip.sample_rate != rate:
        raise SerError(f"{clip.name}: sample rate {clip.sample_rate} Hz, the features expect {rate} Hz")
    compute = {
        "classic": _classic, "compact": _compact, "full": _full, "melpitch": _melpitch, "mfcc": _mfcc
    }[config.name]  # fmt: skip
    row = compute(clip.samples, rate, config)
    return dict(zip(row, _rounded(np.fromiter(row.values(), np.float32)).tolist(), strict=True))


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round float32 to 16 significant bits: lower bits differ between processors, and cost storage."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x80)) & np.uint32(0xFFFFFF00)).view(np.float32)


@cache
def feature_names(config: FeatureConfig = FeatureConfig()) -> tuple[str, ...]:
    """The column names of a configuration, in order.

    Examples
    --------
    >>> names = feature_names(FeatureConfig("classic"))
    >>> len(names), names[0], names[-1]
    (180, 'mfcc_01_mean', 'mel_128_mean')
    """
    rate = config.audio.sample_rate
    noise = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    return tuple(extract(Audio(noise, rate, "noise", 1.0, rate, 1), config))


def family(column: str) -> str:
    """The feature family of a column: mfcc, mel, chroma, spectral, pitch, voice, energy, timing or correlation.

    Examples
    --------
    >>> family("dmfcc_01_mean"), family("jitter_p95"), family("centroid_std")
    ('mfcc', 'voice', 'spectral')
    """
    stem = column.split("_")[0]
    families = {
        "mfcc": "mfcc", "dmfcc": "mfcc", "mel": "mel", "chroma": "chroma",
        "f0": "pitch", "voicing": "voice", "hnr": "voice", "jitter": "voice", "shimmer": "voice",
        "h1h2": "voice", "h1a3": "voice", "level": "energy", "zcr": "energy", "time": "timing",
        "corr": "correlation",
    }  # fmt: skip
    return families.get(stem, "spectral")


def _numbered(stem: str, values: np.ndarray, suffix: str = "") -> dict[str, float]:
    return {f"{stem}_{i:02d}{suffix}": value for i, value in enumerate(values.tolist(), start=1)}


def _classic(y: np.ndarray, rate: int, config: FeatureConfig) -> dict[str, float]:
    """Means over time of 40 MFCC, 12 chroma and 128 mel bands; librosa's defaults, one STFT."""
    spectrum = lld.magnitudes(y, n_fft=2048, hop=512, center=True)
    mel = np.square(spectrum) @ lld.mel_filters(rate, 2048, 128)
    mfcc = lld.cepstrum(lld.power_db(mel), 40)
    chroma = lld.chroma(spectrum, lld.chroma_filters(rate, 2048))
    return (
        _numbered("mfcc", mfcc.mean(axis=0), "_mean")
        | _numbered("chroma", chroma.mean(axis=0), "_mean")
        | _numbered("mel", mel.mean(axis=0), "_mean")
    )


def _compact(y: np.ndarray, rate: int, config: FeatureConfig) -> dict[str, float]:
    """105 columns of the first 3.5 s of sound."""
    y = y[: int(COMPACT_S * rate)]
    spectrum = lld.magnitudes(y, n_fft=2048, hop=512, center=True)
    power = np.square(spectrum)
    mfcc = lld.cepstrum(lld.power_db(power @ lld.mel_filters(rate, 2048, 128)), 13)
    mel_db = lld.power_db(power @ lld.mel_filters(rate, 2048, 48))
    shape = lld.spectral_shape(spectrum, rate=rate)
    row = (
        _numbered("mfcc", mfcc.mean(axis=0), "_mean")
        | _numbered("mfcc", mfcc.std(axis=0), "_std")
        | _numbered("dmfcc", np.gradient(mfcc, axis=0).mean(axis=0), "_mean")
        | _numbered("mel", mel_db.mean(axis=0), "_mean")
    )
    for name, values in (
        ("centroid", shape["centroid"]),
        ("rolloff85", shape["rolloff85"]),
        ("zcr", lld.zero_crossings(np.pad(y, 1024), n=2048, hop=512)),
    ):
        row |= {f"{name}_mean": float(values.mean()), f"{name}_std": float(values.std())}
    chroma = lld.chroma(spectrum, lld.chroma_filters(rate, 2048))
    return row | _numbered("chroma", chroma.mean(axis=0), "_mean")


def _melpitch(y: np.ndarray, rate: int, config: FeatureConfig) -> dict[str, float]:
    """64 mel bands in decibels, interpolated pitch in semitones, and voicing every 20 ms, for 3.2 s of sound."""
    n_fft, hop = rate // 25, rate // 100
    power = np.square(lld.magnitudes(y, n_fft=n_fft, hop=hop))
    bands = lld.power_db(power @ lld.mel_filters(rate, n_fft, 64), top_db=None)
    level = lld.power_db(power.mean(axis=1))
    f0, strength = (_fit(track, len(bands)) for track in pitch.pitch(np.pad(y, n_fft), rate=rate, hop=hop))
    voiced = (strength > pitch.VOICED) & (level > level.max() - lld.ACTIVE_DB)
    semitone = _between(12 * np.log2(f0 / lld.F0_REFERENCE), voiced)
    return _framewise("melpitch", np.column_stack([bands, semitone, strength])[::2])


def _mfcc(y: np.ndarray, rate: int, config: FeatureConfig) -> dict[str, float]:
    """40 MFCC every 23 ms, for 4 s of sound: the frames of tutorials at 22,050 Hz."""
    hop = round(rate * 512 / 22_050)
    power = np.square(lld.magnitudes(y, n_fft=4 * hop, hop=hop, center=True))
    return _framewise("mfcc", lld.cepstrum(lld.power_db(power @ lld.mel_filters(rate, 4 * hop, 128)), 40))


def _framewise(name: str, values: np.ndarray) -> dict[str, float]:
    shape = FRAMES[name]
    row = np.full(shape, np.nan, np.float32)
    row[: len(values)] = values[: len(row)]
    return dict(zip(_frame_names(name, shape), row.ravel().tolist(), strict=True))


@cache
def _frame_names(name: str, shape: tuple[int, int]) -> list[str]:
    return [f"{name}_{t:03d}_{i:02d}" for t in range(1, 1 + shape[0]) for i in range(1, 1 + shape[1])]


def _full(y: np.ndarray, rate: int, config: FeatureConfig) -> dict[str, float]:
    n_fft, hop = config.n_fft, config.hop
    spectrum = lld.magnitudes(y, n_fft=n_fft, hop=hop)
    power = np.square(spectrum)
    level = lld.power_db(power.mean(axis=1))
    mel_db = lld.power_db(power @ lld.mel_filters(rate, n_fft, config.n_mels))
    f0, strength = pitch.pitch(np.pad(y, (n_fft, n_fft)), rate=rate, hop=hop)
    f0, strength = _fit(f0, len(spectrum)), _fit(strength, len(spectrum))
    active = level > level.max() - lld.ACTIVE_DB
    voiced = (strength > pitch.VOICED) & active

    columns: dict[str, np.ndarray] = {"level": level, "zcr": lld.zero_crossings(y, n=n_fft, hop=hop)}
    columns |= lld.spectral_shape(spectrum, rate=rate)
    for stem, block in (
        ("mfcc", lld.cepstrum(mel_db, config.n_mfcc)),
        ("mel", mel_db),
        ("contrast", lld.contrast(spectrum, rate=rate)),
    ):
        columns |= {f"{stem}_{i:02d}": values for i, values in enumerate(block.T, start=1)}
    row = functionals.statistics(columns)
    chroma = lld.chroma(spectrum, lld.chroma_filters(rate, n_fft))
    row |= _numbered("chroma", chroma.mean(axis=0), "_mean") | _numbered("chroma", chroma.std(axis=0), "_std")

    semitone = 12 * np.log2(f0 / lld.F0_REFERENCE)
    clear = np.clip(strength, 0.01, 0.99)
    voice: dict[str, np.ndarray] = {
        "f0_semitone": semitone,
        "voicing": strength,
        "hnr": 10 * np.log10(clear / (1 - clear)),
        "jitter": np.abs(np.gradient(semitone)),
        "shimmer": np.abs(np.gradient(level)),
    }
    voice |= pitch.harmonic_levels(spectrum, f0, rate=rate, n_fft=n_fft)
    row |= functionals.statistics({name: values[voiced] for name, values in voice.items()})
    cepstra = np.stack([columns[f"mfcc_{i:02d}"] for i in range(1, config.n_mfcc + 1)], axis=1)
    if voiced.any():
        cepstra = cepstra[voiced]
    row |= _numbered("mfcc", cepstra.mean(axis=0), "_vmean") | _numbered("mfcc", cepstra.std(axis=0), "_vstd")
    row |= functionals.timing(voiced, active, level, seconds=len(y) / rate, step=hop / rate)
    tracks = {f"mfcc_{i:02d}": columns[f"mfcc_{i:02d}"] for i in range(1, 1 + min(CORRELATED, config.n_mfcc))}
    tracks |= {"f0": _between(semitone, voiced), "voicing": strength}
    first, last = np.flatnonzero(active)[[0, -1]]
    return row | functionals.correlations({name: track[first : last + 1] for name, track in tracks.items()})


def _between(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Interpolate linearly between known values; zeros if none is known."""
    at = np.flatnonzero(known)
    if not len(at):
        return np.zeros_like(values)
    return np.interp(np.arange(len(values)), at, values[at]).astype(np.float32)


def _fit(values: np.ndarray, n: int) -> np.ndarray:
    """The middle `n` frames of a descriptor, or all of them and the last one repeated."""
    start = max(0, (len(values) - n) // 2)
    return values[np.minimum(np.arange(start, start + n), len(values) - 1)]
