"""The server's memory under long recordings, over real HTTP."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import requests
from synth import speech
from test_bundle import save_tiny
from test_serve import RATE, problem, serving

from ser_lib import audio

SECONDS = 300
PEAK_MB = 600  # of the server, with four requests of 16 such files
GROWTH_MB = 80  # from a short clip to one of `SECONDS`; its samples as stereo at 48 kHz would take 115

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="reads the memory of a process in /proc"
    ),
]


def opus(seconds: int) -> bytes:
    """Speech in OGG/Opus, stereo."""
    once = audio.resample(speech("happy", 1), 16_000, RATE)
    samples = np.resize(once, (1, RATE))
    out = io.BytesIO()
    with av.open(out, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=RATE, layout="stereo")
        stream.bit_rate = 16_000
        for second in range(seconds):
            frame = av.AudioFrame.from_ndarray(np.repeat(samples, 2, axis=1), format="flt", layout="stereo")
            frame.sample_rate, frame.pts = RATE, second * RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def peak_mb(pid: int) -> float:
    """The largest resident memory that the process has had."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def test_memory_is_flat(tmp_path):
    save_tiny(tmp_path / "tiny.json")
    process, address = serving("--model", tmp_path / "tiny.json", "--max-seconds-per-request", "400")

    def ask(content: bytes, n: int = 1) -> requests.Response:
        return requests.post(f"{address}/predict", files=[("file", ("long.opus", content))] * n, timeout=120)

    try:
        assert ask(opus(10)).status_code == 200
        before = peak_mb(process.pid)
        long = opus(SECONDS)
        answer = ask(long).json()
        assert answer["quality"]["duration_s"] == pytest.approx(SECONDS, abs=0.1)
        assert answer["quality"]["channels"] == 2
        assert peak_mb(process.pid) - before < GROWTH_MB
        with ThreadPoolExecutor(4) as pool:
            requested = [pool.submit(ask, long, 16) for _ in range(4)]
            assert requests.get(f"{address}/health", timeout=10).status_code == 200
            for each in requested:
                assert problem(each.result(), 413).startswith("more than 400 s of audio in a request")
        assert peak_mb(process.pid) < PEAK_MB
    finally:
        process.terminate()
    assert process.wait(30) == 0
