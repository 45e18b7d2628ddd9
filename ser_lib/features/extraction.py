"""Feature rows of clips: from the cache where it holds them, computed and kept where not.

A cached row is found by what made it: the decoded samples (`audio_sha256`), the configuration, the
source of the modules that compute, and the versions of the libraries they call. Change any of them
and the row is computed again. Rows are kept in parts, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs

from ser_lib import ROOT, __version__, audio, writable
from ser_lib.corpora import FACTS
from ser_lib.errors import AudioError, CorpusError
from ser_lib.features import FeatureConfig, extract, feature_names
from ser_lib.parallel import map_parallel
from ser_lib.provenance import code_hash

CACHE = writable(ROOT / "data" / "cache")
PART = 250  # clips a process, computed and kept together
CHUNK = 4  # clips sent to a process at a time
WAIT_S = 60.0  # seconds for another run that is writing to the same file


def build(
    clips: pd.DataFrame,
    config: FeatureConfig = FeatureConfig(),
    *,
    cache_dir: Path = CACHE,
    n_jobs: int = -1,
    change: audio.Change | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The feature table of `clips`, computing only the rows that the cache does not hold.

    Parameters
    ----------
    clips : DataFrame
        From `corpus.listing`: a file is decoded once, for its facts and its features, and not at all while
        neither its size nor its time has changed; with `FACTS` it is found by its content.
    change, seed
        What is done to each waveform first, as in `audio.load`; part of what finds a cached row.

    Returns
    -------
    table : DataFrame
        The clip columns but `path`, then the feature columns (float32).
    problems : DataFrame
        `path, problem` of clips without features (silent, too short); they are not in `table`.
    """
    whole = max(1, len(clips))
    ((table, problems),) = parts(clips, config, whole, cache_dir, n_jobs, change, seed)
    return table, problems


def parts(
    clips: pd.DataFrame,
    config: FeatureConfig,
    size: int,
    cache_dir: Path,
    n_jobs: int = -1,
    change: audio.Change | None = None,
    seed: int = 0,
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """First everything into the cache, then from there the two tables of `build`, of `size` clips at a time."""
    key = cache_key(config, change, seed)
    names = list(feature_names(config))
    with closing(Cache(Path(cache_dir) / f"{config.name}-{key}")) as cache:
        wrong = _fill(
            cache, clips, partial(read_clip, config=config, change=change, seed=seed, expected=key), n_jobs
        )
        for start in range(0, max(1, len(clips)), size):
            yield _part(cache, clips.iloc[start : start + size], names, wrong)


def _part(
    cache: Cache, clips: pd.DataFrame, names: list[str], wrong: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of `build` for clips whose rows are in the cache, where nothing is wrong with them."""
    part = cache.known(clips)
    there = cache.holds(part["audio_sha256"])
    table, left_out = part[there].reset_index(drop=True), part[~there].reset_index(drop=True)
    table = table.drop(columns="path").astype(FACTS)
    values = pd.DataFrame(cache.rows(table["audio_sha256"], len(names)), columns=names)
    told = [wrong.get(name, "changed while it was read; run it again") for name in _content(left_out)]
    return pd.concat([table, values], axis=1), left_out[["path"]].assign(problem=told)


def _fill(cache: Cache, clips: pd.DataFrame, work: Callable[..., Any], n_jobs: int) -> dict[str, str]:
    """Compute the rows that the cache does not hold; what is wrong with a clip, by `_content`."""
    wrong: dict[str, str] = {}
    step = PART * effective_n_jobs(n_jobs)
    for start in range(0, len(clips), step):
        part = cache.known(clips.iloc[start : start + step])
        content = _content(part)
        todo = part["path"][~cache.holds(part["audio_sha256"]) & ~content.duplicated()]
        what = f"features {start + len(part)}/{len(clips)}"
        read = map_parallel(work, todo, n_jobs=n_jobs, what=what, chunk=CHUNK, lost=lost)
        for name, result in zip(content[todo.index], read, strict=True):
            if isinstance(result, str):
                wrong[name] = result
        good = zip(todo, read, strict=True)
        cache.add((path, result) for path, result in good if not isinstance(result, str))
    return wrong


def _content(clips: pd.DataFrame) -> pd.Series:
    """What tells clips apart: their content, or the path where that is not known. Identical clips fail alike."""
    return clips["audio_sha256"].fillna(clips["path"])


class Cache:
    """The rows of one configuration by content, and the facts of files, in one SQLite file.

    Only what is asked for is in memory. What is added together is there whole or not at all.

    Parameters
    ----------
    folder : Path
        Made if it is not there. A damaged file in it is replaced by an empty one.
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
                f"(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, {', '.join(FACTS)})"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS rows (audio_sha256 TEXT PRIMARY KEY, row BLOB)")

    def close(self) -> None:
        """Let the file go; for `contextlib.closing`."""
        self._db.close()

    def known(self, clips: pd.DataFrame) -> pd.DataFrame:
        """`clips` with `FACTS`: as they are there, else of the files that have not changed since they were read.

        Facts that are not known are missing values.
        """
        if "audio_sha256" in clips:
            return clips
        query = f"SELECT {', '.join(FACTS)} FROM files WHERE path = ? AND size = ? AND mtime_ns = ?"
        found = [
            self._db.execute(query, (os.path.abspath(path), *stamp(path))).fetchone() or (None,) * len(FACTS)
            for path in clips["path"]
        ]
        return clips.assign(**dict(zip(FACTS, zip(*found, strict=True), strict=True)))

    def holds(self, contents: Iterable[str | None]) -> np.ndarray:
        """Whether there is a row of each content, shape (n_clips,)."""
        query = "SELECT 1 FROM rows WHERE audio_sha256 = ?"
        return np.array([self._db.execute(query, (c,)).fetchone() is not None for c in contents], dtype=bool)

    def rows(self, contents: Sequence[str], n_features: int) -> np.ndarray:
        """The rows of contents that are held, float32 of shape (n_clips, n_features)."""
        query = "SELECT row FROM rows WHERE audio_sha256 = ?"
        values = np.empty((len(contents), n_features), np.float32)
        for i, content in enumerate(contents):
            values[i] = np.frombuffer(self._db.execute(query, (content,)).fetchone()[0], np.float32)
        return values

    def add(self, read: Iterable[tuple[str, Read]]) -> None:
        """Keep what was read from each file, by its path."""
        files, rows = [], []
        for path, (when, facts, row) in read:
            files.append((os.path.abspath(path), *when, *facts))
            rows.append((facts[-1], row.tobytes()))
        with self._db:
            self._db.executemany(f"INSERT OR REPLACE INTO files VALUES ({', '.join('?' * 7)})", files)
            self._db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", rows)


# --- one file's row -------------------------------------------------------------------------------

LIBRARIES = ("numpy", "scipy", "soxr", "soundfile", "av")
COMPUTE = "from ser_lib.features.sets import extract"  # the code that decides on a row
CHANGE = "from ser_lib.augmentation import changes, stress"  # and on what is done to a waveform first

# what was read from a file: its stamp, its duration, rate, channels and content hash, and its features
Read = tuple[tuple[int, int], tuple[float, int, int, str], np.ndarray]


def recipe(config: FeatureConfig) -> dict[str, Any]:
    """What a feature table is made by: configuration, its hash, code hash and library versions."""
    return {
        "config": dataclasses.asdict(config),
        "config_hash": config.hash,
        "code_hash": code_hash(COMPUTE),
        "ser_lib": __version__,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def cache_key(config: FeatureConfig, change: audio.Change | None, seed: int) -> str:
    """What finds the cached rows that are made in one way."""
    made = recipe(config)
    if change is not None:
        made |= {"change": repr(change), "seed": seed, "change_code": code_hash(CHANGE)}
    return sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def read_clip(
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
    if cache_key(config, change, seed) != expected:
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
