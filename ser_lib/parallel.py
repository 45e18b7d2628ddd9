"""Work spread over all cores, with a progress bar on standard error once it takes over two seconds.

Inside `cluster.connect` the same call spreads it over a Dask cluster.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

LOOK_S = 0.5  # seconds between looks at the process that started this one


def parallel(
    work: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    n_jobs: int = -1,
    what: str = "",
    chunk: int = 1,
    lost: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """`[work(item) for item in items]` in worker processes of one thread each, in order.

    Parameters
    ----------
    n_jobs : int
        Processes; -1 for all cores, 1 for none beside this one.
    what : str
        The progress bar's title.
    chunk : int
        Items sent to a process at a time, for work of milliseconds.
    lost : callable, optional
        Gives the result of an item whose process died. The others go on.

    Raises
    ------
    BrokenProcessPool
        A process died, and there is no `lost`.
    """
    from joblib import effective_n_jobs
    from tqdm import tqdm

    items = list(items)
    n_jobs = n_jobs if lost or len(items) > 1 else 1
    results: list[Any] = []
    singly = 0  # how many of the next items go one at a time, since one of them may have ended a process
    bar = {"desc": what, "delay": 2, "leave": False, "disable": "SER_REPORT_DIR" in os.environ}
    with tqdm(total=len(items), file=sys.stderr, **bar) as shown, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker stopped")  # loky replaces one whose memory has grown
        while len(results) < len(items):
            done = len(results)
            now = items[done : done + 1] if singly else items[done:]
            try:
                for result in _spread(work, now, n_jobs, chunk):
                    results.append(result)
                    shown.update()
            except BrokenProcessPool:
                if lost is None:
                    raise
                if singly:
                    results.append(lost(now[0]))
                else:
                    singly = 1 + 2 * chunk * effective_n_jobs(n_jobs)  # as many as were under way
            singly = max(0, singly - 1)
    return results


def _spread(work: Callable[[Any], Any], items: list[Any], n_jobs: int, chunk: int) -> Iterator[Any]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.parallel import get_active_backend

    backend, _ = get_active_backend()
    one_thread = {"inner_max_num_threads": 1} if backend.supports_inner_max_num_threads else {}
    with (
        parallel_config(backend, **one_thread),
        Parallel(
            n_jobs=n_jobs,
            return_as="generator",
            batch_size=chunk,
            pre_dispatch=f"{2 * chunk} * n_jobs",
            initializer=_end_with,
            initargs=(os.getpid(),),
        ) as pool,
    ):
        yield from pool(delayed(work)(item) for item in items)


def _end_with(parent: int) -> None:
    """End this process once `parent` has ended, however that did; loky's would stay for five minutes."""
    import psutil

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(parent)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
