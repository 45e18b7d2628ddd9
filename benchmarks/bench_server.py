"""Time the server: what HTTP adds to a prediction, two processes against one, and many clients at a time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from ser_lib import ROOT
from ser_lib.errors import BundleError
from ser_lib.serving import bundle
from ser_lib.serving.model import Model

CLIENTS = 32
THREADS = 2  # clips analysed at a time, with many clients


@contextmanager
def running(model: Path, **settings: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server and give its process and address; SystemExit if it does not start."""
    environment = {f"SER_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, ROOT / "serve.py"],
        env=os.environ | {"SER_PORT": "0", "SER_MODEL": str(model)} | environment,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stderr is not None  # a pipe
    try:
        address = next((line.split()[-1] for line in process.stderr if "Serving on" in line), None)
        if address is None:
            raise SystemExit("the server does not start; see `python serve.py`")
        Thread(target=process.stderr.read, daemon=True).start()  # else a full pipe would stop the server
        yield process, address.removeprefix("http://")
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


def post(connection: HTTPConnection, clip: bytes) -> int:
    """Post a clip, read the whole answer and return its status."""
    connection.request("POST", "/predict", clip, {"Content-Type": "audio/wav"})
    response = connection.getresponse()
    response.read()
    return response.status


def measure(clip: bytes, model: Path, n: int) -> dict[str, Any] | None:
    """Measure seconds, rates and memory with `n` requests or part of them; None if the model cannot be loaded.

    Returns
    -------
    dict
        `called`, `served`: seconds a clip, turn by turn, in Python and over HTTP with one thread;
        `processes`: clips a second of one and of two servers of one thread; `statuses`: how many answers of
        each under `CLIENTS` clients; `memory_mb`: resident after each tenth of these.
    """
    try:
        called_model = bundle.load(model)
    except BundleError:
        return None
    with threadpool_limits(1), running(model, threads=1) as (_, address):
        result = _turns(called_model, clip, address, max(10, n // 20))
    result["processes"] = [_throughput(model, clip, k, max(20, n // 20)) for k in (1, 2, 2, 1)]
    with running(model, threads=THREADS, wait=0.1) as (process, address):
        return result | _many(process.pid, address, clip, n)


def _turns(model: Model, clip: bytes, address: str, n: int) -> dict[str, Any]:
    called, served = [], []
    with closing(HTTPConnection(address, timeout=60)) as connection:
        for _ in range(n):
            start = time.perf_counter()
            model.predict(clip)
            middle = time.perf_counter()
            assert post(connection, clip) == 200
            called.append(middle - start)
            served.append(time.perf_counter() - middle)
    return {"called": called, "served": served}


def _throughput(model: Path, clip: bytes, k: int, n: int) -> tuple[int, float]:
    """Return `k` and the clips per second of `k` servers, each with two busy clients."""
    with ExitStack() as servers, ThreadPoolExecutor(2 * k) as pool:
        addresses = [servers.enter_context(running(model, threads=1, wait=60))[1] for _ in range(k)]
        start = time.perf_counter()
        list(pool.map(_ask, [(address, clip, n // 2) for address in 2 * addresses]))
        return k, k * 2 * (n // 2) / (time.perf_counter() - start)


def _ask(job: tuple[str, bytes, int]) -> list[int]:
    address, clip, n = job
    with closing(HTTPConnection(address, timeout=120)) as connection:
        return [post(connection, clip) for _ in range(n)]


def _many(pid: int, address: str, clip: bytes, n: int) -> dict[str, Any]:
    statuses, memory = [], []
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(10):
            share = [(address, clip, max(1, n // 10 // CLIENTS))] * CLIENTS
            statuses += [status for part in pool.map(_ask, share) for status in part]
            memory.append(psutil.Process(pid).memory_info().rss / 2**20)
    return {"statuses": {code: statuses.count(code) for code in sorted(set(statuses))}, "memory_mb": memory}


def lines(measured: dict[str, Any]) -> list[str]:
    """Return the section of `bench.md`."""
    called, served = statistics.median(measured["called"]), statistics.median(measured["served"])
    p99 = float(np.quantile(measured["served"], 0.99))
    rate = {k: statistics.mean(r for m, r in measured["processes"] if m == k) for k in (1, 2)}
    memory, total = measured["memory_mb"], sum(measured["statuses"].values())
    answers = ", ".join(f"{n} of {code}" for code, n in measured["statuses"].items())
    return [
        "| what | measured | asked |\n|---|---|---|",
        f"| a clip in Python, `Model.predict` | {1000 * called:.1f} ms | |",
        f"| the same over HTTP, one thread | {1000 * served:.1f} ms | |",
        f"| HTTP / Python, medians | {served / called:.2f} | at most 1.5 |",
        f"| 99th percentile / median, over HTTP | {p99 / served:.2f} | at most 3 |",
        f"| two processes / one, clips a second | {rate[2]:.0f} / {rate[1]:.0f} = {rate[2] / rate[1]:.2f} | at least 1.8 |",
        f"| {total} requests of {CLIENTS} clients | {answers} | 200, and 503 beyond the limit |",
        f"| resident memory after a tenth and at the end | {memory[0]:.0f}, {memory[-1]:.0f} MB | the same |",
    ]
