"""Work spread over all cores, with a progress bar on standard error once it takes over two seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any


def parallel(
    work: Callable[[Any], Any], items: Iterable[Any], *, n_jobs: int = -1, what: str = ""
) -> list[Any]:
    """`[work(item) for item in items]` in worker processes of one thread each, in order.

    Parameters
    ----------
    n_jobs : int
        Processes; -1 for all cores, 1 for none beside this one.
    what : str
        The progress bar's title.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    items = list(items)
    bar = {
        "desc": what,
        "delay": 2,
        "leave": False,
        "disable": "SER_REPORT_DIR" in os.environ,
    }  # not in a report
    with Parallel(n_jobs=n_jobs if len(items) > 1 else 1, return_as="generator") as pool:
        results = pool(delayed(work)(item) for item in items)
        return list(tqdm(results, total=len(items), file=sys.stderr, **bar))
