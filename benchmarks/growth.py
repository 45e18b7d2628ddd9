"""Measure how time and memory of an extraction grow with the archive."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from ser_lib import ROOT, audio, corpora
from ser_lib.features import FeatureConfig, tables

CLIP_S = 0.4  # seconds of sound in each file
RATE = 16_000  # hertz
CONFIG = FeatureConfig("compact")


def growth(n: int, folder: Path) -> dict[str, float]:
    """Extract an archive of `n` different short clips in a new process with an empty cache.

    Parameters
    ----------
    folder : Path
        Recordings; the clips are their first `CLIP_S` seconds at different levels.

    Returns
    -------
    dict
        `clips, seconds, peak_mib` (the largest resident memory of all processes together, sampled) and
        `own_mib` (of the process that writes the table).
    """
    with tempfile.TemporaryDirectory() as place:
        _archive(Path(place), n, _voices(folder))
        command = [sys.executable, "-m", "benchmarks.growth", place]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    return {"clips": n, **json.loads(done.stdout)}


def _voices(folder: Path) -> list[np.ndarray]:
    """Return waveforms of `CLIP_S` seconds, float32 of shape (n_samples,), with a peak of 1."""
    clips, _ = corpora.listing(folder)
    starts = [audio.load(path).samples[: int(CLIP_S * RATE)] for path in clips["path"][::50]]
    return [(y / np.abs(y).max()).astype(np.float32) for y in starts]


def _archive(folder: Path, n: int, voices: list[np.ndarray]) -> None:
    """Write `n` WAV files, a thousand in each folder, and their manifest."""
    import soundfile

    lines = ["path,speaker,emotion"]
    for i in range(n):
        name = f"{i // 1000:04d}/{i:07d}.wav"
        if i % 1000 == 0:
            (folder / name).parent.mkdir()
        level = 0.2 + 0.7 * i / n
        soundfile.write(folder / name, level * voices[i % len(voices)], RATE, subtype="FLOAT")
        lines.append(f"{name},{i % len(voices)},calm")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measure(folder: Path) -> dict[str, float]:
    own, peaks, done = psutil.Process(), np.zeros(2), threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            resident = [own.memory_info().rss]
            for process in own.children(recursive=True):
                try:
                    resident.append(process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            peaks[:] = np.maximum(peaks, (sum(resident), resident[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        tables.extract_to_file(
            folder / "clips.csv", folder / "table.parquet", CONFIG, cache_dir=folder / "cache"
        )
    finally:
        done.set()
    seconds = time.perf_counter() - started
    watcher.join()
    return dict(zip(("seconds", "peak_mib", "own_mib"), (seconds, *peaks / 2**20), strict=True))


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]))))
