"""Fixtures: a synthesised corpus for every test, the real ones where the environment names them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

here = Path(__file__).parent
sys.path[:0] = map(
    str, (here, *(path for path in here.iterdir() if path.is_dir()))
)  # so that tests can `import synth`


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory) -> Path:
    """A folder of 108 synthesised clips with RAVDESS names, 6 actors; to be read, not changed."""
    import synth

    return synth.write_ravdess(tmp_path_factory.mktemp("tiny") / "ravdess")


def _named(variable: str, what: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set: give it the folder of {what} to run this test")
    return Path(folder).expanduser()


@pytest.fixture(scope="session")
def ravdess() -> Path:
    """The folder of the real RAVDESS speech clips."""
    return _named("SER_RAVDESS_DIR", "RAVDESS speech (Actor_01 … Actor_24)")


@pytest.fixture(scope="session")
def emodb() -> Path:
    """The folder of the real EMO-DB clips."""
    return _named("SER_EMODB_DIR", "EMO-DB")
