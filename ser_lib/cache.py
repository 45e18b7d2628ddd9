"""Feature rows by content, and the facts of files, in one SQLite file.

Only what is asked for is in memory. What is added together is there whole or not at all.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ser_lib.rows import Read, stamp

# clip columns that need decoding
FACTS = {"duration_s": float, "sample_rate": int, "channels": int, "audio_sha256": str}
WAIT_S = 60.0  # seconds for another run that is writing to the same file


class Cache:
    """The rows of one configuration.

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
