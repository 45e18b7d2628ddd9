"""Where files are kept when the repository cannot be written to, or is not there."""

from __future__ import annotations

import os

import pytest

import ser_lib
from ser_lib import ROOT, corpora, need_repository, writable
from ser_lib.corpora import clips
from ser_lib.errors import SerError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "SER_RAVDESS_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(params=["read-only", "installed"])
def without(request, monkeypatch):
    """No repository that can be written to."""
    if request.param == "installed":
        monkeypatch.setattr(ser_lib, "REPOSITORY", False)
    else:
        monkeypatch.setattr(
            os, "access", lambda path, mode: not (mode == os.W_OK and ROOT in [path, *path.parents])
        )


def test_the_repository_keeps_them_where_it_can(home, tmp_path):
    for folder in (tmp_path / "data" / "cache", tmp_path / "data", ROOT / "data" / "ravdess"):
        assert writable(folder) == folder


@pytest.mark.parametrize("name", ["data/cache", "data/ravdess", "reports/interactive"])
def test_the_user_keeps_them_otherwise(home, without, name):
    place = writable(ROOT / name)
    assert home in place.parents
    assert "ser_lib" in place.parts
    assert place.name == ("ser_lib" if name == "data/cache" else name.rpartition("/")[2]) or os.name == "nt"


def test_a_download_is_found_where_it_was_put(home, without, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "ROOT", tmp_path / "clone")
    monkeypatch.setattr(ser_lib, "REPOSITORY", False)
    assert corpora.find_audio() is None
    theirs = writable(ROOT / "data" / "ravdess")
    theirs.mkdir(parents=True)
    assert corpora.find_audio() == theirs
    ours = tmp_path / "clone" / "data" / "ravdess"
    ours.mkdir(parents=True)
    assert corpora.find_audio() == ours  # read, though nothing could be written there


def test_what_needs_the_repository_says_so(monkeypatch):
    need_repository("the tables")
    monkeypatch.setattr(ser_lib, "REPOSITORY", False)
    with pytest.raises(
        SerError, match=r"^the tables are in the repository, not in the installed package; clone it"
    ):
        need_repository("the tables")
