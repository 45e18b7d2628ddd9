"""One file's row of the feature table, and what such a row is made by. Worker processes load nothing heavier."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ser_lib import __version__, audio
from ser_lib.errors import AudioError, CorpusError
from ser_lib.features import FeatureConfig, extract

LIBRARIES = ("numpy", "scipy", "soxr", "soundfile", "av")
COMPUTE = ("audio", "decoding", "features", "functionals", "lld", "pitch")  # the modules that decide on a row
CHANGE = ("augment", "quality", "stress")  # and on what is done to a waveform first

# what was read from a file: its stamp, its duration, rate, channels and content hash, and its features
Read = tuple[tuple[int, int], tuple[float, int, int, str], np.ndarray]


@functools.cache
def code_hash(*modules: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of these modules' sources."""
    sources = (Path(__file__).with_name(f"{name}.py") for name in modules)
    return sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def provenance(config: FeatureConfig) -> dict[str, Any]:
    """What a feature table is made by: configuration, its hash, code hash and library versions."""
    return {
        "config": dataclasses.asdict(config),
        "config_hash": config.hash,
        "code_hash": code_hash(*COMPUTE),
        "ser_lib": __version__,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def key(config: FeatureConfig, change: audio.Change | None, seed: int) -> str:
    """What finds the cached rows that are made in one way."""
    made = provenance(config)
    if change is not None:
        made |= {"change": repr(change), "seed": seed, "change_code": code_hash(*CHANGE)}
    return sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def read(
    path: str, config: FeatureConfig, change: audio.Change | None, seed: int, expected: str
) -> Read | str:
    """One file decoded once: its stamp, its facts and its features, or what is wrong with it."""
    _check_worker(expected, config, change, seed)
    when = stamp(path)
    try:
        clip = audio.load(path, config.audio, change=change, seed=seed)
        row = np.fromiter(extract(clip, config).values(), np.float32)
    except AudioError as error:
        return str(error)
    except Exception as error:  # one odd file in a million costs itself, not the run
        return f"{path}: {error!r}"
    return when, (round(clip.duration_s, 4), clip.source_rate, clip.channels, clip.audio_sha256), row


def lost(path: str) -> str:
    """What is wrong with a file whose reader died."""
    return f"{path}: the process that read it was ended; try the file alone, it may be damaged or too large"


@functools.cache
def _check_worker(expected: str, config: FeatureConfig, change: audio.Change | None, seed: int) -> None:
    """A row is kept under the key of the process that asked for it; this one must be of the same key."""
    if key(config, change, seed) != expected:
        raise CorpusError(
            f"{platform.node()}: ser_lib or a library differs from where this was started; install the same "
            "versions there, and start again where files were edited meanwhile"
        )


def stamp(path: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; zeros if there is no such file."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):  # the latter, of a name that this system cannot encode
        return 0, 0
    return about.st_size, about.st_mtime_ns
