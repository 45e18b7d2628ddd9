"""Write the measurements of `bench` as `bench.md` and `bench.png`. All times are in seconds.

`measured` has `sides` and `stages` (median time a clip by name), `clips`, `clip_s`, `kind`, `real` of the
sample, `cold` (seconds by what a process does), `corpus` (runs with their number of processes), `growth` (runs by
size) and `server` (see `bench_server`).
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks import bench_server
from ser_lib import plots
from ser_lib.plots import MODEL_COLOURS

LIBRARIES = ("numpy", "scipy", "soundfile", "soxr", "librosa", "opensmile", "scikit-learn")
ASKED = (  # ours, the other side, at most this share of its time
    ("classic, from the file", "tutorials, from the file", 1 / 5),
    ("classic, from the waveform", "librosa one by one, from the waveform", 1 / 3),
    ("full, from the file", "openSMILE eGeMAPS, from the file", 1 / 10),
    ("full, from the file", "floor: decode, resample, one STFT", 3.5),
)


def compared(times: dict[str, float]) -> list[tuple[str, str, float, float | None]]:
    """Return for each pair in `ASKED`: ours, other, the limit, and the ratio of their medians if both were timed."""
    return [
        (ours, other, asked, times[ours] / times[other] if other in times else None)
        for ours, other, asked in ASKED
    ]


def markdown(measured: dict[str, Any]) -> str:
    """Return the text of the report."""
    times, stages = measured["sides"], measured["stages"]
    rows = []
    for ours, other, asked, ratio in compared(times):
        theirs = (
            ("left out: `pip install opensmile`", "–")
            if ratio is None
            else (_ms(times[other]), f"{ratio:.2f}")
        )
        rows.append((ours, _ms(times[ours]), other, *theirs, f"{asked:.2f}"))
    whole = sum(stages.values())
    kind = "RAVDESS" if measured["real"] else "synthesised speech"
    parts = [
        "# How long it takes",
        f"Made by `make bench` (`python -m benchmarks.bench`) on {_machine()}. {measured['clips']} clips of {kind} "
        f"({measured['clip_s']:.1f} s, {measured['kind']}). The two of a row take turns on each clip in one process "
        "of one thread on one core. Median milliseconds of processor time for each clip, and their ratio.",
        _table(("ours", "ms", "against", "ms", "ours / other", "asked: at most"), rows),
        "![Milliseconds a clip](bench.png)",
        "## Where the time of `full` goes",
        "From the file, timed within the extraction; the rest includes the time to read the clock.",
        _table(
            ("stage", "ms", "share"), [(name, _ms(s, 2), f"{s / whole:.0%}") for name, s in stages.items()]
        ),
        "## From cold",
        "New processes from start to end, with interpreter and imports. Median seconds.",
        _table(("process", "s"), [(f"`{name}`", f"{s:.2f}") for name, s in measured["cold"].items()]),
        *_corpus_parts(measured["corpus"]),
        *_growth_parts(measured["growth"]),
        "## The server",
        "Left out: it did not start; see `python serve.py`.",
    ]
    if measured["server"]:
        text = "A clip of 3.5 s (48 kHz WAV). Python and HTTP take turns; two threads serve the many clients."
        parts[-1] = text + "\n\n" + "\n".join(bench_server.lines(measured["server"]))
    return "\n\n".join(parts) + "\n"


def _corpus_parts(runs: Sequence[tuple[int, dict[str, Any]]]) -> list[str]:
    """Return the section on a corpus from disk; runs with the same number of processes are averaged."""
    mean = {
        n: {key: statistics.mean(run[key] for m, run in runs if m == n) for key in runs[0][1]} for n in (1, 2)
    }
    rows = [
        (f"{n}", *(f"{each[key]:.1f}" for key in ("seconds", "seconds_again", "peak_mb")))
        for n, each in mean.items()
    ]
    cold, warm = (mean[1][key] / mean[2][key] for key in ("seconds", "seconds_again"))
    return [
        "## A corpus from disk",
        f"{mean[1]['clips']:.0f} clips to their `full` table on disk, each decoded once. Two processes are "
        f"{cold:.2f} times as fast as one with the start of the processes, {warm:.2f} times once they run. Peak "
        "memory: the main process and, for two, twice the largest worker.",
        _table(("processes", "seconds", "once they run", "peak, MB"), rows),
    ]


def _growth_parts(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the section on archives of growing size."""
    rows = [
        (f"{run['clips']:,}", *(f"{run[key]:.0f}" for key in ("seconds", "peak_mib", "own_mib")))
        for run in runs
    ]
    text = "Clips of 0.4 s, all different, to their `compact` table, on all cores; memory is sampled."
    head = ("clips", "seconds", "peak of all processes, MiB", "of the one that writes, MiB")
    return ["## A growing archive", text, _table(head, rows)]


def _ms(seconds: float, digits: int = 1) -> str:
    return f"{1000 * seconds:.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


def _machine() -> str:
    """Return processor, cores and versions."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    here = []
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            here.append(f"{name} {version(name)}")
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(here)}"


def figure(measured: dict[str, Any], path: Path) -> None:
    """Draw the comparison, the stages and the growth beside each other."""
    plt.switch_backend("agg")
    plots.style()
    fig, axes = plt.subplots(1, 3, figsize=(16, 4.2), width_ratios=(5, 5, 3))
    ours = [name.startswith(("classic", "full")) for name in measured["sides"]]
    for ax, what, title, mine in (
        (axes[0], "sides", "Ours and others", ours),
        (axes[1], "stages", "Within full", [True] * len(measured["stages"])),
    ):
        times = {name: 1000 * seconds for name, seconds in measured[what].items()}
        _draw_times(ax, times, mine, title=title)
    _draw_growth(axes[2], measured["growth"], title="A growing archive")
    fig.savefig(path)
    plt.close(fig)


def _draw_times(ax: Axes, times: dict[str, float], ours: Sequence[bool], *, title: str) -> None:
    """Draw one bar for each name, with its milliseconds; ours in the network's colour, the others grey."""
    shades = [MODEL_COLOURS["mlp"] if mine else MODEL_COLOURS["majority"] for mine in ours]
    bars = ax.barh(list(times), list(times.values()), color=shades, height=0.7)
    ax.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set(xlabel="milliseconds a clip", title=title)
    ax.grid(axis="y", visible=False)


def _draw_growth(ax: Axes, runs: Sequence[dict[str, Any]], *, title: str) -> None:
    """Draw seconds (left) and peak memory (right) over the number of clips."""
    clips = [run["clips"] for run in runs]
    ax.loglog(clips, [run["seconds"] for run in runs], "o-", color=MODEL_COLOURS["mlp"], label="seconds")
    other = ax.twinx()
    memory = [run["peak_mib"] for run in runs]
    other.plot(clips, memory, "s--", color=MODEL_COLOURS["xgboost"], label="peak memory, MiB")
    other.set_ylim(0, 1.5 * max(memory))
    other.grid(visible=False)
    ax.set(xlabel="clips", ylabel="seconds", title=title)
    other.set_ylabel("MiB")
    handles = [line for axis in (ax, other) for line in axis.get_lines()]
    ax.legend(handles=handles, frameon=False, fontsize=8, loc="upper left")
