"""Feature tables of clips: rows come from a cache; missing rows are computed and stored there.

A cached row is found by what it was made from: the decoded samples (`audio_sha256`), the configuration, the source
code that computes it, and the versions of the libraries. A change of any of these computes the row again.
Rows are stored in parts, so that an interrupted run continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs

from ser_lib import ROOT, __version__, audio, writable
from ser_lib.corpora import AUDIO_COLUMNS
from ser_lib.errors import AudioError, CorpusError, explain
from ser_lib.features import FeatureConfig, extract, feature_names
from ser_lib.parallel import map_parallel
from ser_lib.provenance import code_hash

CACHE = writable(ROOT / "data" / "cache")
PART = 250  # clips per process, computed and stored together
CHUNK = 4  # clips sent to a process at a time
WAIT_S = 60.0  # seconds to wait while another run writes to the same file


def build(
    clips: pd.DataFrame,
    config: FeatureConfig = FeatureConfig(),
    *,
    cache_dir: Path = CACHE,
    n_jobs: int = -1,
    change: audio.Change | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build the feature table of `clips`; only rows missing from the cache are computed.

    Parameters
    ----------
    clips : DataFrame
        From `corpora.listing`. A file is decoded once for its `AUDIO_COLUMNS` and its features, and not again
        until its size or time changes. A table that has the `AUDIO_COLUMNS` is looked up by content.
    change, seed
        Applied to each waveform first, as in `audio.load`.

    Returns
    -------
    table : DataFrame
        The clip columns except `path`, then the feature columns (float32).
    problems : DataFrame
        `path, problem` of clips without features (silent, too short); they are not in `table`.
    """
    whole = max(1, len(clips))
    [(table, problems)] = build_in_parts(clips, config, whole, cache_dir, n_jobs, change, seed)
    return table, problems


def build_in_parts(
    clips: pd.DataFrame,
    config: FeatureConfig,
    size: int,
    cache_dir: Path,
    n_jobs: int = -1,
    change: audio.Change | None = None,
    seed: int = 0,
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Compute all missing rows, then yield the two tables of `build` for `size` clips at a time.

    Raises
    ------
    CorpusError
        The cache cannot be read or written.
    """
    key = cache_key(config, change, seed)
    read = partial(read_clip, config=config, change=change, seed=seed, expected_key=key)
    folder = Path(cache_dir) / f"{config.name}-{key}"
    with _cache_errors(folder), closing(Cache(folder)) as cache:
        errors = _compute_missing(cache, clips, read, n_jobs)
        for start in range(0, max(1, len(clips)), size):
            yield _collect(cache, clips.iloc[start : start + size], list(feature_names(config)), errors)


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    """Name the cache in an error of SQLite, which does not."""
    try:
        yield
    except sqlite3.Error as error:
        raise CorpusError(
            f"{folder}: the cache of features cannot be read or written ({error}); "
            "make room on the disk, or allow it to be written"
        ) from error


def _compute_missing(
    cache: Cache, clips: pd.DataFrame, read: Callable[..., Any], n_jobs: int
) -> dict[str, str]:
    """Compute and store the rows that the cache lacks; return the error of each unreadable clip, by `_key`."""
    errors: dict[str, str] = {}
    step = PART * effective_n_jobs(n_jobs)
    for start in range(0, len(clips), step):
        part = cache.with_audio_columns(clips.iloc[start : start + step])
        keys = _key(part)
        missing = ~cache.contains(part["audio_sha256"]) & ~keys.duplicated()
        paths = part["path"][missing]
        title = f"features {start + len(part)}/{len(clips)}"
        results = map_parallel(read, paths, n_jobs=n_jobs, what=title, chunk=CHUNK, lost=process_died)
        computed = []
        for path, key, result in zip(paths, keys[missing], results, strict=True):
            if isinstance(result, str):
                errors[key] = result
            else:
                computed.append((path, result))
        cache.add(computed)
    return errors


def _collect(
    cache: Cache, clips: pd.DataFrame, names: list[str], errors: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of `build` for clips whose rows are in the cache, or in `errors`."""
    clips = cache.with_audio_columns(clips)
    cached = cache.contains(clips["audio_sha256"])
    table, rest = clips[cached].reset_index(drop=True), clips[~cached].reset_index(drop=True)
    table = table.drop(columns="path").astype(AUDIO_COLUMNS)
    values = pd.DataFrame(cache.rows(table["audio_sha256"], len(names)), columns=names)
    problems = [errors.get(key, "changed while it was read; run it again") for key in _key(rest)]
    return pd.concat([table, values], axis=1), rest[["path"]].assign(problem=problems)


def _key(clips: pd.DataFrame) -> pd.Series:
    """The content hash of each clip, or its path if the hash is not known yet."""
    return clips["audio_sha256"].fillna(clips["path"])


class Cache:
    """The feature rows of one configuration, and the audio columns of files, in one SQLite file.

    Rows added together are stored all or not at all. A damaged file in `folder` is replaced by an empty one.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "rows.sqlite"
        try:
            self._open(path)
        except sqlite3.OperationalError:  # no space, no permission
            raise
        except sqlite3.DatabaseError:
            self.close()
            path.unlink()
            self._open(path)

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=WAIT_S)
        if self._db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError(f"{path}: damaged")
        with self._db:
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS files "
                f"(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, {', '.join(AUDIO_COLUMNS)})"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS rows (audio_sha256 TEXT PRIMARY KEY, row BLOB)")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def with_audio_columns(self, clips: pd.DataFrame) -> pd.DataFrame:
        """Add the `AUDIO_COLUMNS`, if `clips` lacks them; missing values for files that are new or changed."""
        if "audio_sha256" in clips:
            return clips
        query = f"SELECT {', '.join(AUDIO_COLUMNS)} FROM files WHERE path = ? AND size = ? AND mtime_ns = ?"
        unknown = (None,) * len(AUDIO_COLUMNS)
        rows = [
            self._db.execute(query, (os.path.abspath(path), *stamp(path))).fetchone() or unknown
            for path in clips["path"]
        ]
        return clips.assign(**pd.DataFrame(rows, clips.index, list(AUDIO_COLUMNS)))

    def contains(self, hashes: Iterable[str | None]) -> np.ndarray:
        """Whether there is a row for each content hash, shape (n_clips,)."""
        query = "SELECT 1 FROM rows WHERE audio_sha256 = ?"
        return np.array([self._db.execute(query, (h,)).fetchone() is not None for h in hashes], dtype=bool)

    def rows(self, hashes: Sequence[str], n_features: int) -> np.ndarray:
        """The rows of content hashes that are there, float32 of shape (n_clips, n_features)."""
        query = "SELECT row FROM rows WHERE audio_sha256 = ?"
        values = np.empty((len(hashes), n_features), np.float32)
        for i, content in enumerate(hashes):
            values[i] = np.frombuffer(self._db.execute(query, (content,)).fetchone()[0], np.float32)
        return values

    def add(self, clips: Iterable[tuple[str, Read]]) -> None:
        """Store what `read_clip` returned for each path."""
        files, rows = [], []
        for path, (size_and_time, audio_values, row) in clips:
            files.append((os.path.abspath(path), *size_and_time, *audio_values))
            rows.append((audio_values[-1], row.tobytes()))
        with self._db:
            self._db.executemany(f"INSERT OR REPLACE INTO files VALUES ({', '.join('?' * 7)})", files)
            self._db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", rows)


# --- one clip --------------------------------------------------------------------------------------

LIBRARIES = ("numpy", "scipy", "soxr", "soundfile", "av")
COMPUTE = "from ser_lib.features.sets import extract"  # the code that computes a row
CHANGE = "from ser_lib.augmentation import changes, stress"  # the code that changes a waveform first

# of a file: its `stamp`, the values of its `AUDIO_COLUMNS`, and its features
Read = tuple[tuple[int, int], tuple[float, int, int, str], np.ndarray]


def recipe(config: FeatureConfig) -> dict[str, Any]:
    """What a feature table depends on: configuration, its hash, code hash and library versions."""
    return {
        "config": dataclasses.asdict(config),
        "config_hash": config.hash,
        "code_hash": code_hash(COMPUTE),
        "ser_lib": __version__,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def cache_key(config: FeatureConfig, change: audio.Change | None, seed: int) -> str:
    """A hash of everything that decides the rows of a cache, except the clips."""
    made_from = recipe(config)
    if change is not None:
        made_from |= {"change": repr(change), "seed": seed, "change_code": code_hash(CHANGE)}
    return sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def read_clip(
    path: str, config: FeatureConfig, change: audio.Change | None, seed: int, expected_key: str
) -> Read | str:
    """Decode a file once and compute its features; return a message if that fails."""
    _check_worker(expected_key, config, change, seed)
    size_and_time = stamp(path)
    try:
        clip = audio.load(path, config.audio, change=change, seed=seed)
        row = np.fromiter(extract(clip, config).values(), np.float32)
    except AudioError as error:
        return str(error)
    except OSError as error:
        return explain(error, path)
    except Exception as error:  # one odd file in a million must not end the run
        return f"{path}: {error!r}"
    audio_values = (round(clip.duration_s, 4), clip.source_rate, clip.channels, clip.audio_sha256)
    return size_and_time, audio_values, row


def process_died(path: str) -> str:
    """The message for a file whose worker process died."""
    return f"{path}: the process that read it died; try the file alone, it may be damaged or too large"


@functools.cache
def _check_worker(expected_key: str, config: FeatureConfig, change: audio.Change | None, seed: int) -> None:
    """Raise CorpusError if this process would compute other rows than the one that started the run."""
    if cache_key(config, change, seed) != expected_key:
        raise CorpusError(
            f"{platform.node()}: ser_lib or a library differs from where the run was started; install the same "
            "versions there, and start again if files were edited meanwhile"
        )


def stamp(path: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; zeros if there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that this system cannot encode
        return 0, 0
    return status.st_size, status.st_mtime_ns
