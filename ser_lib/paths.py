"""Where files are kept: in the repository, or among the user's where there is none that can be written to."""

from __future__ import annotations

import os
from pathlib import Path

from ser_lib import ROOT
from ser_lib.errors import SerError

REPOSITORY = any((ROOT / "notebooks").glob("*.ipynb"))  # else the package is installed, or in an image
_PACKAGED = Path(__file__).with_name("shipped") / "ser.json"  # where pyproject.toml has a wheel put models/
SERVED = _PACKAGED if _PACKAGED.is_file() else ROOT / "models" / "ser.json"


def writable(folder: Path) -> Path:
    """A folder of the repository, or one of the user's in its place where it cannot be written to.

    Examples
    --------
    >>> writable(ROOT / "data" / "cache").name
    'cache'
    """
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if REPOSITORY and os.access(nearest, os.W_OK):
        return folder
    import platformdirs

    if folder.name == "cache":
        return platformdirs.user_cache_path("ser_lib", appauthor=False)
    return platformdirs.user_data_path("ser_lib", appauthor=False) / folder.name


def need_repository(what: str) -> None:
    """Refuse where there is no repository.

    Raises
    ------
    SerError
        The package is installed, so that `what` is not there.
    """
    if not REPOSITORY:
        raise SerError(
            f"{what} are in the repository and not in the installed package; clone it and run this there"
        )
