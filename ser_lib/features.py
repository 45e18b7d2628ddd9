"""One waveform to one row of named columns.

Three sets: `classic` (the field's tutorial set, 180 columns, equal to librosa's own functions),
`compact` (105 columns) and `full` (the default: one STFT shared by all descriptors, several
functionals each, and how the main ones move together). Values are float32 and finite for every clip that `audio.load` accepts.

Two more hold the frames themselves, for `ser_lib.sequence`: `logmel` and `mfcc`, one frame's values after
another's, NaN after the end of the clip; what is longer is cut.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import combinations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ser_lib import lld
from ser_lib.audio import Audio, AudioConfig
from ser_lib.errors import SerError

SETS = ("classic", "compact", "full")
FRAMES = {"logmel": (160, 64), "mfcc": (173, 40)}  # frames and values a frame
COMPACT_S = 3.5  # seconds of sound that the compact set hears
CORRELATED = 6  # MFCC, beside pitch and voicing
SLOPES = {"fast": 4, "slow": 12}  # frames to each side of the lines whose slopes are correlated
STILL = 1e-3  # decibels, semitones or strength (a frame): what deviates by less does not move
FUNCTIONALS = ("mean", "std", "p05", "p50", "p95", "skew", "slope", "bend", "dmean", "dstd")


@dataclass(frozen=True)
class FeatureConfig:
    """Everything that decides the value of a feature; its hash names a table."""

    name: str = "full"  # one of SETS or FRAMES
    audio: AudioConfig = field(default_factory=AudioConfig)
    n_fft: int = 400  # samples (25 ms), full only; classic and compact use librosa's 2048
    hop: int = 160  # samples (10 ms), full only; classic and compact use librosa's 512
    n_mfcc: int = 13  # full only
    n_mels: int = 40  # full only

    def __post_init__(self):
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
        "classic": _classic, "compact": _compact, "full": _full, "logmel": _logmel, "mfcc": _mfcc
    }[config.name]  # fmt: skip
    row = compute(clip.samples, rate, config)
    return dict(zip(row, _rounded(np.fromiter(row.values(), np.float32)).tolist(), strict=True))


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round float32 to 16 significant bits: what is below differs between processors, and costs storage."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x80)) & np.uint32(0xFFFFFF00)).view(np.float32)


@cache
def feature_names(config: FeatureConfig = FeatureConfig()) -> tuple[str, ...]:
    """The column names of a configuration, in order."""
    rate = config.audio.sample_rate
    noise = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    return tuple(extract(Audio(noise, rate, "noise", 1.0, rate, 1), config))


def family(column: str) -> str:
    """The feature family of a column: mfcc, mel, chroma, spectral, pitch, voice, energy, timing or correlation."""
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


def _logmel(y: np.ndarray, rate: int, config: FeatureConfig) -> dict[str, float]:
    """64 mel bands in decibels every 20 ms, of the first 3.2 s of sound."""
    n_fft, hop = rate // 25, rate // 50
    power = np.square(lld.magnitudes(y, n_fft=n_fft, hop=hop))
    return _framewise("logmel", lld.power_db(power @ lld.mel_filters(rate, n_fft, 64), top_db=None))


def _mfcc(y: np.ndarray, rate: int, config: FeatureConfig) -> dict[str, float]:
    """40 MFCC every 23 ms, of the first 4 s of sound: the frames that tutorials have at 22,050 Hz."""
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
    f0, strength = lld.pitch(np.pad(y, (n_fft, n_fft)), rate=rate, hop=hop)
    f0, strength = _fit(f0, len(spectrum)), _fit(strength, len(spectrum))
    active = level > level.max() - lld.ACTIVE_DB
    voiced = (strength > lld.VOICED) & active

    columns: dict[str, np.ndarray] = {"level": level, "zcr": lld.zero_crossings(y, n=n_fft, hop=hop)}
    columns |= lld.spectral_shape(spectrum, rate=rate)
    for stem, block in (
        ("mfcc", lld.cepstrum(mel_db, config.n_mfcc)),
        ("mel", mel_db),
        ("contrast", lld.contrast(spectrum, rate=rate)),
    ):
        columns |= {f"{stem}_{i:02d}": values for i, values in enumerate(block.T, start=1)}
    row = functionals(columns)
    chroma = lld.chroma(spectrum, lld.chroma_filters(rate, n_fft))
    row |= _numbered("chroma", chroma.mean(axis=0), "_mean") | _numbered("chroma", chroma.std(axis=0), "_std")

    semitone = 12 * np.log2(f0 / lld.F0_REFERENCE)
    clear = np.clip(strength, 0.01, 0.99)
    of_voice: dict[str, np.ndarray] = {
        "f0_semitone": semitone,
        "voicing": strength,
        "hnr": 10 * np.log10(clear / (1 - clear)),
        "jitter": np.abs(np.gradient(semitone)),
        "shimmer": np.abs(np.gradient(level)),
    }
    of_voice |= lld.harmonic_levels(spectrum, f0, rate=rate, n_fft=n_fft)
    row |= functionals({name: values[voiced] for name, values in of_voice.items()})
    cepstra = np.stack([columns[f"mfcc_{i:02d}"] for i in range(1, config.n_mfcc + 1)], axis=1)
    heard = cepstra[voiced] if voiced.any() else cepstra
    row |= _numbered("mfcc", heard.mean(axis=0), "_vmean") | _numbered("mfcc", heard.std(axis=0), "_vstd")
    row |= _timing(voiced, active, level, seconds=len(y) / rate, step=hop / rate)
    tracks = {f"mfcc_{i:02d}": columns[f"mfcc_{i:02d}"] for i in range(1, 1 + min(CORRELATED, config.n_mfcc))}
    tracks |= {"f0": _between(semitone, voiced), "voicing": strength}
    first, last = np.flatnonzero(active)[[0, -1]]
    return row | correlations({name: track[first : last + 1] for name, track in tracks.items()})


def _between(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`values` where they are known, on straight lines elsewhere; zeros where none is."""
    at = np.flatnonzero(known)
    if not len(at):
        return np.zeros_like(values)
    return np.interp(np.arange(len(values)), at, values[at]).astype(np.float32)


def _fit(values: np.ndarray, n: int) -> np.ndarray:
    """The middle `n` frames of a descriptor whose frames are longer than the spectrum's."""
    start = max(0, (len(values) - n) // 2)
    return values[np.minimum(np.arange(start, start + n), len(values) - 1)]


def functionals(columns: dict[str, np.ndarray]) -> dict[str, float]:
    """Ten statistics over time of each descriptor; zeros where there are fewer than three frames.

    Parameters
    ----------
    columns : dict of ndarray, all of shape (n_frames,)

    Returns
    -------
    dict of float
        `name_mean`, `_std`, `_p05`, `_p50`, `_p95`, `_skew`, `_slope` (change from start to end by
        least squares), `_bend` (the ends over the middle, least-squares parabola), `_dmean` (mean
        absolute change a frame) and `_dstd` (the changes' deviation).
    """
    x = np.stack(list(columns.values()), dtype=np.float32)  # (n_columns, n_frames)
    names = _functional_names(tuple(columns))
    n = x.shape[1]
    if n < 3:
        return dict.fromkeys(names, 0.0)
    mean = x.mean(axis=1)
    z = x - mean[:, None]
    z -= z.mean(axis=1, keepdims=True)  # what rounding left in the mean: a constant column has no skewness
    std = np.sqrt(np.vecdot(z, z) / n)
    z /= np.maximum(std, np.float32(1e-6))[:, None]
    time = np.arange(n, dtype=np.float32) * np.float32(2 / (n - 1)) - 1
    arch = np.square(time) - np.square(time).mean()
    change = np.diff(x, axis=1)
    ordered = np.sort(x, axis=1)
    table = np.stack(
        [
            mean,
            std,
            *(_percentile(ordered, share) for share in (5, 50, 95)),
            np.vecdot(z * z, z) / n,
            2 * (x @ time) / (time @ time),
            (x @ arch) / (arch @ arch),
            np.abs(change).mean(axis=1),
            change.std(axis=1),
        ],
        axis=1,
    )
    return dict(zip(names, table.ravel().tolist(), strict=True))


def correlations(tracks: dict[str, np.ndarray]) -> dict[str, float]:
    """How descriptors move together: the correlations over time of all, and of their slopes at two scales.

    The slope of a frame is that of the least-squares line through it and `SLOPES` frames to each side
    (librosa's delta). What never moves is correlated with nothing. Source: after Williamson et al.
    (2013), Vocal biomarkers of depression based on motor incoordination.

    Parameters
    ----------
    tracks : dict of ndarray, all of shape (n_frames,)

    Returns
    -------
    dict of float
        `corr_a_with_b`, -1 to 1, in steps of 1/256, far below what a few seconds of speech tell.
        Zeros where there are fewer than three frames.
    """
    names = _correlation_names(tuple(tracks))
    x = np.stack(list(tracks.values()), dtype=np.float32)  # (n_tracks, n_frames)
    if x.shape[1] < 3:
        return dict.fromkeys(names, 0.0)
    x = np.concatenate([x, *(_slopes(x, width) for width in SLOPES.values())])
    x -= x.mean(axis=1, keepdims=True)
    x -= x.mean(axis=1, keepdims=True)  # as in `functionals`
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(STILL * math.sqrt(x.shape[1])))
    above = np.triu_indices(len(x), 1)
    return dict(zip(names, (np.round((x @ x.T)[above] * 256) / 256).tolist(), strict=True))


def _slopes(x: np.ndarray, width: int) -> np.ndarray:
    """Change a frame of the line through `width` frames to each side; the ends go on as they are."""
    offsets = np.arange(-width, width + 1, dtype=np.float32)
    padded = np.pad(x, ((0, 0), (width, width)), "edge")
    return sliding_window_view(padded, len(offsets), axis=1) @ (offsets / (offsets @ offsets))


@cache
def _correlation_names(tracks: tuple[str, ...]) -> list[str]:
    moving = [*tracks, *(f"{name}_{how}" for how in SLOPES for name in tracks)]
    return [f"corr_{a}_with_{b}" for a, b in combinations(moving, 2)]


@cache
def _functional_names(columns: tuple[str, ...]) -> list[str]:
    return [f"{name}_{how}" for name in columns for how in FUNCTIONALS]


def _percentile(ordered: np.ndarray, share: float) -> np.ndarray:
    """Of each sorted row, between the two nearest values in proportion, as np.percentile."""
    at = share / 100 * (ordered.shape[1] - 1)
    low, high = ordered[:, math.floor(at)], ordered[:, math.ceil(at)]
    return low + (at - math.floor(at)) * (high - low)


def _runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of True in `mask`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return edges[1::2] - edges[::2]


def _timing(voiced, active, level, *, seconds: float, step: float) -> dict[str, float]:
    """Duration, pauses, voiced segments and the rhythm of the level; seconds and events a second."""
    row = {
        "time_duration": seconds,
        "time_voiced_share": voiced.mean(),
        "time_pause_share": 1 - active.mean(),
    }
    for name, mask in (("voiced", voiced), ("unvoiced", ~voiced), ("pause", ~active)):
        runs = _runs(mask) * step
        row[f"time_{name}_rate"] = len(runs) / seconds
        row[f"time_{name}_mean"] = runs.mean() if len(runs) else 0.0
        row[f"time_{name}_std"] = runs.std() if len(runs) else 0.0
        row[f"time_{name}_max"] = runs.max() if len(runs) else 0.0
    smooth = np.convolve(level, np.ones(5, np.float32) / 5, mode="same")
    inner = smooth[1:-1]
    peaks = (inner > smooth[:-2]) & (inner >= smooth[2:]) & (inner > level.max() - 20)
    row["time_peak_rate"] = peaks.sum() / seconds
    envelope = np.square(np.abs(np.fft.rfft(level - level.mean(), 512)))
    shares = (envelope @ _rhythm_bands(step)).tolist()
    for high, share in zip((2, 4, 8, 20), shares, strict=True):
        row[f"time_rhythm{high}hz"] = share / (sum(shares) + 1e-6)
    return {name: float(value) for name, value in row.items()}


@cache
def _rhythm_bands(step: float) -> np.ndarray:
    """Sum the bins of a 512-point spectrum of frames `step` seconds apart to four octaves or so, (257, 4)."""
    hertz = np.fft.rfftfreq(512, step)[:, None]
    return ((hertz > (0.5, 2, 4, 8)) & (hertz <= (2, 4, 8, 20))).astype(np.float64)
