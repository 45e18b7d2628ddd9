"""map_parallel: processes of one thread each, and the other items when a process dies."""

from __future__ import annotations

import os
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
    found = map_parallel(about, range(12), n_jobs=2)
    assert [i for i, *_ in found] == list(range(12))
    assert os.getpid() not in {process for _, process, _ in found}
    assert {threads for *_, pools in found for threads in pools} == {1}


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
    found = map_parallel(fatal, range(60), n_jobs=2, chunk=chunk, lost=lambda i: -i)
    assert found == [-i if i in (3, 11) else i * i for i in range(60)]


def test_a_single_item_that_ends_its_process_costs_itself():
    assert map_parallel(fatal, [3], n_jobs=2, lost=lambda i: -i) == [-3]


def test_without_a_stand_in_the_death_is_told():
    with pytest.raises(BrokenProcessPool):
        map_parallel(fatal, range(8), n_jobs=2)
    assert map_parallel(fatal, range(3), n_jobs=2) == [0, 1, 4]  # and the next call works
