"""growth: ten times the clips need no more memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np

from benchmarks import growth
from ser_lib.features import FeatureConfig, extraction, feature_names, tables

CONFIG = FeatureConfig("full")
N_FEATURES = len(feature_names(CONFIG))


def counted(path: str, **how) -> tuple:
    """Stands in for the reading of a file; its features are its number."""
    number = int(Path(path).stem)
    return (0, 0), (1.0, 16_000, 1, f"{number:064x}"), np.full(N_FEATURES, number, np.float32)


def peak(n: int, folder: Path) -> int:
    """Most bytes in memory while a table of `n` rows is written."""
    folder.mkdir()
    lines = ["path,speaker,emotion", *(f"{i}.wav,a,sad" for i in range(n))]
    (folder / "clips.csv").write_text("\n".join(lines), encoding="utf-8")
    tracemalloc.start()
    try:
        n_rows, problems = tables.extract_to_file(
            folder / "clips.csv", folder / "t.parquet", CONFIG, cache_dir=folder / "cache", n_jobs=1
        )
        result = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_rows == n
    assert problems.empty
    column = tables.read_table(folder / "t.parquet", CONFIG)[feature_names(CONFIG)[-1]]
    assert (column == np.arange(n)).all()
    return result


def test_memory_does_not_grow_with_the_rows():
    """In a process of its own: here other tests' garbage and threads would be counted too."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout)
    assert small > 500 * N_FEATURES * 4
    assert (large - small) / 4_500 < 300  # bytes a row: its line in the listing; the table has 3,700


def test_growth_is_measured_in_a_process_of_its_own(tiny_corpus):
    result = growth.growth(40, tiny_corpus)
    assert result["clips"] == 40
    assert result["seconds"] > 0
    assert 50 < result["own_mib"] <= result["peak_mib"] < 4_000


if __name__ == "__main__":
    extraction.read_clip, tables.ROW_GROUP = counted, 500
    with tempfile.TemporaryDirectory() as place:
        peak(500, Path(place) / "first")  # what is loaded once
        print(json.dumps([peak(n, Path(place) / str(n)) for n in (500, 5_000)]))
