"""Measure how long things take, and write `bench.md` and `bench.png`.

The compared functions take turns on the same clips in one child process of one thread on one core. They are timed in
processor time, so that other work on the machine does not count; ratios are of medians. All times are in seconds.
Without RAVDESS the clips are synthesised.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import psutil
import soundfile

from benchmarks import bench_report, bench_server
from benchmarks.growth import growth
from ser_lib import ROOT, audio, corpora
from ser_lib.audio import clip, decoding
from ser_lib.errors import BundleError
from ser_lib.features import FeatureConfig, extract, functionals, lld, pitch
from ser_lib.serving import bundle

CLASSIC, FULL = FeatureConfig("classic"), FeatureConfig("full")
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
STAGES = {
    "decode": (decoding, "decode"), "resample": (clip, "resample"), "trim": (clip, "trim"),
    "STFT": (lld, "magnitudes"), "decibels of bands": (lld, "power_db"), "cepstrum": (lld, "cepstrum"),
    "pitch": (pitch, "pitch"), "spectral shape": (lld, "spectral_shape"), "contrast": (lld, "contrast"),
    "chroma": (lld, "chroma"), "zero crossings": (lld, "zero_crossings"),
    "harmonics": (pitch, "harmonic_levels"), "functionals": (functionals, "statistics"),
    "timing": (functionals, "timing"), "correlations": (functionals, "correlations"),
}  # fmt: skip


# --- the compared functions -----------------------------------------------------------------------


def tutorial(y: np.ndarray, rate: int, *, tuning: float | None = None) -> np.ndarray:
    """The 180 features as tutorials write them, one librosa function after the other.

    `tuning=0` gives the values of the `classic` set; None estimates the tuning, as tutorials do.
    """
    import librosa

    stft = np.abs(librosa.stft(y))
    mfcc = np.mean(librosa.feature.mfcc(y=y, sr=rate, n_mfcc=40).T, axis=0)
    chroma = np.mean(librosa.feature.chroma_stft(S=stft, sr=rate, tuning=tuning).T, axis=0)
    mel = np.mean(librosa.feature.melspectrogram(y=y, sr=rate).T, axis=0)
    return np.hstack([mfcc, chroma, mel])


def sides(files: Sequence[str]) -> dict[str, Callable[[str], Any]]:
    """Return the timed functions of a file, by their names in `bench_report.ASKED`; openSMILE only where installed."""
    loaded = {path: audio.load(path) for path in files}

    def tutorial_file(path: str) -> np.ndarray:
        y, rate = soundfile.read(path, dtype="float32")
        return tutorial(y if y.ndim == 1 else y.mean(axis=1), rate)

    def floor(path: str) -> np.ndarray:
        raw, rate = decoding.decode(path)
        y = audio.resample(audio.mix_down(raw), rate, FULL.audio.sample_rate)
        return lld.magnitudes(y, n_fft=FULL.n_fft, hop=FULL.hop)

    functions: dict[str, Callable[[str], Any]] = {
        "classic, from the file": lambda path: extract(audio.load(path), CLASSIC),
        "tutorials, from the file": tutorial_file,
        "classic, from the waveform": lambda path: extract(loaded[path], CLASSIC),
        "librosa one by one, from the waveform": lambda path: tutorial(
            loaded[path].samples, loaded[path].sample_rate, tuning=0
        ),
        "full, from the file": lambda path: extract(audio.load(path), FULL),
        "floor: decode, resample, one STFT": floor,
    }
    with suppress(ImportError):
        import opensmile

        smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
        functions["openSMILE eGeMAPS, from the file"] = smile.process_file
    return functions


def alternate(
    sides: dict[str, Callable[[str], Any]],
    files: Sequence[str],
    *,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Return the median time of each function for one file. They take turns on each file, after an untimed call."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work(files[0])
    for turn, path in enumerate([*files] * rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            start = clock()
            sides[name](path)
            spent[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in spent.items()}


def profile(files: Sequence[str], *, rounds: int) -> dict[str, float]:
    """Return the median time of each of `STAGES` within `full` from the file, and the remaining time."""
    rows: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = function(*args, **kwargs)
            spent[name] += time.process_time() - start
            return result

        return call

    with ExitStack() as stack:
        for name, (module, attribute) in STAGES.items():
            function = timed(name, getattr(module, attribute))
            stack.enter_context(mock.patch.object(module, attribute, function))
        whole = timed("whole", lambda path: extract(audio.load(path), FULL))
        for path in [*files] * rounds:
            spent.clear()
            whole(path)
            for name in STAGES:
                rows[name].append(spent[name])
            rows["the rest"].append(2 * spent["whole"] - sum(spent.values()))
    return {name: statistics.median(times) for name, times in rows.items()}


# --- in child processes ---------------------------------------------------------------------------


def warm(files: list[str], rounds: int) -> dict[str, Any]:
    """Time all functions and the stages on one core, in a process that started with `ONE_THREAD`."""
    here = psutil.Process()
    if hasattr(here, "cpu_affinity"):  # macOS has none
        here.cpu_affinity([max(here.cpu_affinity())])
    return {
        "sides": alternate(sides(files), files, rounds=rounds),
        "stages": profile(files, rounds=rounds),
        "clip_s": statistics.median(audio.load(path).duration_s for path in files),
    }


def extraction(source: str, n_jobs: int) -> dict[str, Any]:
    """Return the seconds to write the `full` table of a corpus twice, and the peak memory of the processes in MB.

    The first time includes the start of the worker processes.
    """
    from joblib.externals.loky import get_reusable_executor

    from ser_lib.features import tables

    result = {"peak_mb": float("nan")}
    for what in ("seconds", "seconds_again"):
        with tempfile.TemporaryDirectory() as place:
            start = time.perf_counter()
            table = Path(place) / "table.parquet"
            result["clips"], _ = tables.extract_to_file(
                source, table, FULL, cache_dir=Path(place), n_jobs=n_jobs
            )
            result[what] = time.perf_counter() - start
    if sys.platform != "win32":
        import resource

        get_reusable_executor().shutdown(wait=True)
        main, worker = (
            resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
        result["peak_mb"] = (main + (n_jobs * worker if n_jobs > 1 else 0)) / unit
    return result


def child(work: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    """Return `work(**arguments)` from a new process of one thread."""
    command = [sys.executable, "-m", "benchmarks.bench", "child", work.__name__, json.dumps(arguments)]
    environment = os.environ | ONE_THREAD
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def cold(path: str, model: Path, times: int) -> dict[str, float]:
    """Return the median seconds of new processes from start to end, by what they do; the files are in memory."""
    code = "import sys; from ser_lib import audio, features; features.extract(audio.load(sys.argv[1]))"
    commands = {
        "python -c pass": ["-c", "pass"],
        "import ser_lib": ["-c", "import ser_lib"],
        "full features of a first clip": ["-c", code, path],
    }
    with suppress(BundleError):
        bundle.load(model)
        commands["python -m ser_lib predict clip.wav"] = [
            "-m",
            "ser_lib",
            "predict",
            "--model",
            str(model),
            path,
        ]

    def start(name: str) -> Callable[[str], Any]:
        command = [sys.executable, *commands[name]]
        return lambda _: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    return alternate({name: start(name) for name in commands}, [path], rounds=times, clock=time.perf_counter)


# --- clips -----------------------------------------------------------------------------------------


def speech(seed: int, *, rate: int = 48_000, seconds: float = 3.5) -> np.ndarray:
    """Synthesise a sound like speech, float32: pulses of a moving pitch, resonances, syllables, silent ends."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(seed)
    at = np.arange(int(seconds * rate)) / rate
    f0 = rng.uniform(100, 250) * 2 ** (0.3 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * at))
    y = np.diff(np.floor(np.cumsum(f0) / rate), prepend=0) + 0.02 * rng.standard_normal(len(at))
    for formant in rng.uniform((300, 900, 2200), (800, 2000, 3000)):
        radius, angle = np.exp(-np.pi * 100 / rate), 2 * np.pi * formant / rate
        y = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], y)
    y *= np.clip(3 * np.sin(2 * np.pi * rng.uniform(2, 4) * at), 0, 1) * (at > 0.6) * (at < seconds - 0.6)
    return (0.3 * y / np.abs(y).max() + 1e-4 * rng.standard_normal(len(at))).astype(np.float32)


def write_speech(folder: Path, n: int) -> Path:
    """Write `n` clips of `speech`, at most 1,536, with RAVDESS names."""
    renditions = product((1, 2), range(1, 9), (1, 2), (1, 2), range(1, 25))
    for seed, (strength, emotion, statement, again, actor) in zip(range(n), renditions, strict=False):
        name = f"03-01-{emotion:02d}-{strength:02d}-{statement:02d}-{again:02d}-{actor:02d}.wav"
        soundfile.write(folder / name, speech(seed), 48_000, subtype="PCM_16")
    return folder


# --- report ----------------------------------------------------------------------------------------


def run(out: Path, *, clips: int = 60, model: Path = bundle.DEFAULT, quick: bool = False) -> Path:
    """Measure everything, write `bench.md` and `bench.png` into `out` and return the path of `bench.md`.

    Parameters
    ----------
    clips : int
        Size of the sample for the comparison; the corpus benchmark extracts all clips.
    quick : bool
        A few synthesised clips, once each: a test that everything runs.
    """
    rounds, starts, posts, turns = (1, 1, 40, (1, 2)) if quick else (3, 5, 10_000, (1, 2, 2, 1))
    model = Path(model).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        real = None if quick else corpora.find_audio()
        source = (real or write_speech(Path(scratch), 6 if quick else 240)).resolve()
        files = sorted(map(str, decoding.recordings(source)))
        sample = files[:: max(1, len(files) // clips)][:clips]
        result = {"clips": len(sample), "kind": Path(sample[0]).suffix[1:], "real": real is not None}
        result |= child(warm, files=sample, rounds=rounds) | {"cold": cold(sample[0], model, starts)}
        for path in files:
            Path(path).read_bytes()  # so that the first turn reads from memory, too
        result["corpus"] = [(n, child(extraction, source=str(source), n_jobs=n)) for n in turns]
        sizes = (100,) if quick else (1_000, 10_000, 100_000)
        result["growth"] = [growth(n, source) for n in sizes]
    wav = io.BytesIO()
    soundfile.write(wav, speech(0), 48_000, format="WAV", subtype="PCM_16")
    result["server"] = bench_server.measure(wav.getvalue(), model, posts)
    out.mkdir(parents=True, exist_ok=True)
    bench_report.figure(result, out / "bench.png")
    (out / "bench.md").write_text(bench_report.markdown(result), encoding="utf-8")
    return out / "bench.md"


@click.command()
@click.option(
    "--out",
    default=ROOT / "reports",
    type=click.Path(path_type=Path),
    help="folder of bench.md and bench.png",
)
@click.option("--clips", default=60, help="clips in the comparison")
@click.option("--model", default=bundle.DEFAULT, type=click.Path(path_type=Path), help="model metadata")
@click.option("--quick", is_flag=True, help="a few synthesised clips, once each, to test that it runs")
def main(**options: Any) -> None:
    """Time extraction, start and server, and compare with librosa and openSMILE; write bench.md and bench.png."""
    click.echo(run(**options))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(globals()[sys.argv[2]](**json.loads(sys.argv[3]))))
    else:
        main()
