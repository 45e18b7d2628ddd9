"""Speech emotion recognition, scored on speakers that the model has never met.

The data flow one way: corpora, audio, features, augmentation and models, evaluation, serving, runs.
"""

import os
from pathlib import Path

from ser_lib.errors import SerError

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = any((ROOT / "notebooks").glob("*.ipynb"))  # else the package is installed, or in an image
_PACKAGED = Path(__file__).with_name("shipped") / "ser.json"  # where a wheel has models/, see pyproject.toml
SERVED = _PACKAGED if _PACKAGED.is_file() else ROOT / "models" / "ser.json"


def writable(folder: Path) -> Path:
    """Return a folder of the repository or, where it cannot be written to, the user's own folder for it.

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
    """Raise SerError where the package is installed without the repository that has `what`."""
    if not REPOSITORY:
        raise SerError(
            f"{what} are in the repository, not in the installed package; clone it and run this there"
        )
