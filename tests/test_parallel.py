"""map_parallel: processes of one thread each, and the other items when a process dies."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_info

from ser_lib.parallel import map_parallel


def about(i: int) -> tuple[int, int, list[int]]:
    np.ones((300, 300)) @ np.ones((300, 300))
    return i, os.getpid(), [pool["num_threads"] for pool in threadpool_info()]


def test_every_process_has_one_thread():
    results = map_parallel(about, range(12), n_jobs=2)
    assert [i for i, *_ in results] == list(range(12))
    assert os.getpid() not in {process for _, process, _ in results}
    assert {threads for *_, pools in results for threads in pools} == {1}


def test_boosting_in_a_process_has_one_thread():
    from ser_lib import models

    trees = models.make("xgboost")[-1].estimator
    assert isinstance(trees, BaseEstimator)
    assert trees.n_jobs == 1


def test_one_process_is_this_one():
    assert {process for _, process, _ in map_parallel(about, range(3), n_jobs=1)} == {os.getpid()}


def fatal(i: int) -> int:
    if i in (3, 11):
        os._exit(1)
    return i * i


@pytest.mark.parametrize("chunk", [1, 4])
def test_an_item_that_ends_its_process_costs_itself(chunk):
    results = map_parallel(fatal, range(60), n_jobs=2, chunk=chunk, lost=lambda i: -i)
    assert results == [-i if i in (3, 11) else i * i for i in range(60)]


def test_a_single_item_that_ends_its_process_costs_itself():
    assert map_parallel(fatal, [3], n_jobs=2, lost=lambda i: -i) == [-3]


def test_without_lost_a_dead_process_is_an_error():
    with pytest.raises(BrokenProcessPool):
        map_parallel(fatal, range(8), n_jobs=2)
    assert map_parallel(fatal, range(3), n_jobs=2) == [0, 1, 4]  # and the next call works


@pytest.mark.parametrize("disable", ["1", ""])
def test_tqdm_disable_turns_the_progress_bar_off(disable):
    code = (
        "import time; from ser_lib.parallel import map_parallel\n"
        "map_parallel(lambda i: time.sleep(1.1), range(3), n_jobs=1, what='counting')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    environment |= {"TQDM_DISABLE": disable} if disable else {}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    assert ("counting" in done.stderr) is not bool(disable)
