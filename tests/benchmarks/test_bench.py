"""bench: medians and ratios with known times, a fair comparison, and the quick run with its report."""

from __future__ import annotations

import platform
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose
from synth import speech
from test_bundle import save_tiny
from threadpoolctl import threadpool_limits

from benchmarks import bench, bench_report
from ser_lib import audio, corpora, features, plots
from ser_lib.features import lld


class Clock:
    """A clock that only `work` moves on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, *seconds: float):
        """A side that takes these times, one a call."""
        left = list(seconds)

        def side(path: str) -> None:
            self.now += left.pop(0)

        return side


def test_alternate_gives_the_median_of_each_side_without_the_start():
    clock = Clock()
    result = bench.alternate(
        {"ours": clock.work(100, 1, 2, 9, 1), "other": clock.work(100, 20, 30, 10, 80)},
        ["a", "b"],
        rounds=2,
        clock=clock,
    )
    assert result == {"ours": 1.5, "other": 25}


def test_the_sides_take_turns_on_each_clip():
    calls = []
    sides = {name: lambda path, name=name: calls.append(name + path) for name in "xy"}
    bench.alternate(sides, ["1", "2"], rounds=2)
    assert calls == ["x1", "y1", *("x1", "y1", "y2", "x2", "x1", "y1", "y2", "x2")]  # the start, then turns


def planted() -> dict:
    """Possible measurements of `run`, each of them recognisable."""
    sides = {
        "classic, from the file": 0.004, "tutorials, from the file": 0.040,
        "classic, from the waveform": 0.001, "librosa one by one, from the waveform": 0.008,
        "full, from the file": 0.006, "floor: decode, resample, one STFT": 0.003,
        "openSMILE eGeMAPS, from the file": 0.120,
    }  # fmt: skip
    one = {"clips": 10, "seconds": 10.0, "seconds_again": 9.0, "peak_mb": 200.0}
    server = {"called": [0.01] * 100, "served": [0.012] * 98 + [0.5] * 2, "processes": [(1, 50.0), (2, 95.0)]}
    server |= {"statuses": {200: 9_000, 503: 1_000}, "memory_mb": [200.0] * 5 + [202.0] * 5}
    two = one | {"seconds": 5.0, "seconds_again": 4.0}
    return {
        "sides": sides, "stages": {"pitch": 0.003, "the rest": 0.001}, "clips": 60, "clip_s": 3.5, "kind": "wav",
        "real": False, "cold": {"import ser_lib": 0.04}, "server": server,
        "corpus": [(1, one | {"seconds": 9.0}), (2, two), (2, two), (1, one | {"seconds": 11.0})],
        "growth": [{"clips": 10_000, "seconds": 31.0, "peak_mib": 900.0, "own_mib": 300.0}],
    }  # fmt: skip


def test_ratios_are_ours_over_the_other():
    ratios = {other: ratio for _, other, _, ratio in bench_report.compared(planted()["sides"])}
    assert ratios == pytest.approx(
        {
            "tutorials, from the file": 0.1,
            "librosa one by one, from the waveform": 0.125,
            "openSMILE eGeMAPS, from the file": 0.05,
            "floor: decode, resample, one STFT": 2,
        }
    )


def test_the_report_says_what_was_found():
    text = bench_report.markdown(planted())
    for line in (
        "| classic, from the file | 4.0 | tutorials, from the file | 40.0 | 0.10 | 0.20 |",
        "| full, from the file | 6.0 | floor: decode, resample, one STFT | 3.0 | 2.00 | 3.50 |",
        "| pitch | 3.00 | 75% |",
        "| `import ser_lib` | 0.04 |",
        "| 2 | 5.0 | 4.0 | 200.0 |",
        "| 10,000 | 31 | 900 | 300 |",
        "Two processes are 2.00 times as fast as one with the start of the processes, 2.25 times once they run.",
        "| HTTP / Python, medians | 1.20 | at most 1.5 |",
        "| 99th percentile / median, over HTTP | 41.67 | at most 3 |",
        "| two processes / one, clips a second | 95 / 50 = 1.90 | at least 1.8 |",
        "| 10000 requests of 32 clients | 9000 of 200, 1000 of 503 | 200, and 503 beyond the limit |",
        "| resident memory after a tenth and at the end | 200, 202 MB | the same |",
    ):
        assert line in text, line
    assert platform.node() not in text


def test_the_report_says_what_was_left_out():
    result = planted() | {"server": None}
    del result["sides"]["openSMILE eGeMAPS, from the file"]
    text = bench_report.markdown(result)
    assert "| openSMILE eGeMAPS, from the file | left out: `pip install opensmile` | – | 0.10 |" in text
    assert "Left out: it did not start" in text


def test_opensmile_is_not_needed(monkeypatch, tiny_corpus):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    files = [str(next(tiny_corpus.rglob("*.wav")))]
    result = bench.sides(files)
    asked = {name for ours, other, *_ in bench_report.ASKED for name in (ours, other)}
    assert asked - set(result) == {"openSMILE eGeMAPS, from the file"}
    for side in result.values():
        assert len(side(files[0]))


@pytest.mark.parametrize(("emotion", "speaker"), [("happy", 1), ("sad", 2), ("angry", 3)])
def test_the_tutorials_compute_what_classic_computes(emotion, speaker):
    """From the same waveform and with the same tuning, or the comparison would not be fair."""
    y = speech(emotion, speaker)
    clip = audio.Audio(y, 16_000, "clip", 1.2, 16_000, 1)
    ours = np.array(list(features.extract(clip, bench.CLASSIC).values()))
    theirs = bench.tutorial(y, 16_000, tuning=0)
    assert_allclose(ours, theirs, rtol=1e-4, atol=1e-2)
    assert_allclose(ours[40:52], theirs[40:52], rtol=1e-4, atol=1e-5)
    mel = theirs[52:]
    assert_allclose(ours[52:], mel, rtol=1e-4, atol=1e-7 * mel.max())


def test_the_profile_finds_the_slow_stage(monkeypatch, tiny_corpus):
    quick = lld.contrast

    def slow(*args, **kwargs):
        for _ in range(200):
            result = quick(*args, **kwargs)
        return result

    monkeypatch.setattr(lld, "contrast", slow)
    files = [str(path) for path in sorted(tiny_corpus.rglob("*.wav"))[:3]]
    with threadpool_limits(1):  # idle threads would count as time of `pitch`
        result = bench.profile(files, rounds=1)
    assert set(result) == {*bench.STAGES, "the rest"}
    assert max(result, key=result.get) == "contrast"
    assert min(result.values()) >= 0
    assert lld.contrast is slow  # what was wrapped is whole again


def test_synthesised_clips_are_a_corpus(tmp_path):
    clips, problems = corpora.listing(bench.write_speech(tmp_path, 30))
    assert len(clips) == 30
    assert problems.empty
    assert set(clips["corpus"]) == {"ravdess"}
    loaded = [audio.load(path) for path in clips["path"]]
    assert len({clip.audio_sha256 for clip in loaded}) == 30
    clip = loaded[0]
    assert clip.source_rate == 48_000
    assert 1 < len(clip.samples) / clip.sample_rate < 3  # of 3.5 s, the ends are silent


def test_ours_are_told_from_the_others_by_colour():
    _, ax = plots.plt.subplots()
    bench_report._draw_times(ax, {"ours": 2.0, "other": 30.0}, [True, False], title="t")
    assert [bar.get_width() for bar in ax.patches] == [2, 30]
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()
    assert [text.get_text() for text in ax.texts] == ["2", "30"]
    plots.plt.close(ax.figure)


@pytest.mark.slow
def test_the_quick_run_writes_the_report_and_its_figure(tmp_path, monkeypatch):
    monkeypatch.setenv("SER_RAVDESS_DIR", str(tmp_path / "not there"))  # not asked for
    save_tiny(tmp_path / "tiny.json")
    out = tmp_path / "out"
    done = CliRunner().invoke(
        bench.main, ["--quick", "--out", str(out), "--model", str(tmp_path / "tiny.json")]
    )
    assert done.exit_code == 0, done.output
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "bench.md").read_text(encoding="utf-8")
    assert "6 clips of synthesised speech (3.5 s, wav)" in text
    for part in ("tutorials, from the file", "| pitch |", "predict clip.wav", "| 2 | ", "99th percentile"):
        assert part in text, part
    assert str(tmp_path) not in text
    assert platform.node() not in text
