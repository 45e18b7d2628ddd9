"""Mutated clips of every format, and bytes of no format, against a running server: never a 5xx, a hang or growth.

300 of them by default; `SER_FUZZ=20000 make test ARGS="tests/serving/test_fuzz.py"` for a night.
"""

from __future__ import annotations

import os
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from synth import speech
from test_bundle import save_tiny
from test_serve import RATE, encode, serving

from ser_lib import audio

N = int(os.environ.get("SER_FUZZ", 300))
KINDS = ("wav", "flac", "mp3", "ogg", "m4a", "webm")
CRASHED = (16377,)  # seeds that once took the server down: an M4A file that turns to 57 channels
PATIENCE_S = 20
GROWTH_KB = 40_000  # of the server's resident memory from the first fifth of the inputs to the end


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Process and address."""
    path = tmp_path_factory.mktemp("model") / "tiny.json"
    save_tiny(path)
    process, address = serving("--model", path, "--threads", "1")
    yield process, address.removeprefix("http://")
    process.terminate()
    assert process.wait(30) == 0


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The file after one to four accidents: bits, bytes, cuts, repeats, numbers in the header, other files."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        data = data or bytearray(b"\0")
        size = len(data)
        at, length = int(rng.integers(size)), int(rng.integers(1, 2 + size // 8))
        kind = rng.integers(7)
        if kind == 0:
            for place in rng.integers(size, size=rng.integers(1, 40)):
                data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + length] = rng.bytes(length)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif kind == 5:
            place = int(rng.integers(min(size, 200)))
            extreme = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)[rng.integers(9)]
            data[place : place + 4] = extreme.to_bytes(4, ("little", "big")[rng.integers(2)])
        else:
            data[: at % 64] = rng.bytes(at % 64)
    return bytes(data)


def inputs(n: int):
    """Content and query of each request; the seed alone decides."""
    clip = audio.resample(speech("fearful", 1), 16_000, RATE)
    whole = {kind: encode(clip, kind) for kind in KINDS}
    for seed in (*CRASHED, *range(n)):
        rng = np.random.default_rng(seed)
        kind = (*KINDS, "noise")[seed % 7]
        content = rng.bytes(int(rng.integers(1, 5000))) if kind == "noise" else mutated(whole[kind], rng)
        yield seed, content, "?timeline=1" if rng.random() < 0.2 else ""


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    return next(
        int(line.split()[1])
        for line in status.read_text(encoding="utf-8").splitlines()
        if line.startswith("VmRSS")
    )


def test_nothing_takes_the_server_down(server):
    process, address = server
    statuses, early = {}, 0
    connection = HTTPConnection(address, timeout=PATIENCE_S)
    for seed, content, query in inputs(N):
        connection.request("POST", f"/predict{query}", content, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        body = response.read()
        statuses[response.status] = statuses.get(response.status, 0) + 1
        assert response.status in (200, 422), (seed, response.status, body)
        if seed == max(50, N // 5):
            early = resident_kb(process.pid)
    assert process.poll() is None
    assert resident_kb(process.pid) - early < GROWTH_KB
    assert (
        statuses[200] > N / 20
    )  # some survive what was done to them, so that decoders and features were reached
    assert statuses[422] > N / 20
    connection.request("GET", "/ready")
    assert connection.getresponse().status == 200
