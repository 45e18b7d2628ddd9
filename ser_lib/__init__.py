"""Speech emotion recognition, scored on speakers that the model has never met.

The data flow one way: corpora, audio, features, augmentation and models, evaluation, serving, runs.
"""

import functools
import importlib
import os
from pathlib import Path
from typing import Any, BinaryIO

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


def predict(source: str | Path | bytes | BinaryIO) -> dict[str, Any]:
    """Predict the emotion of a recording with the shipped model; for the keys see `serving.model.Model.predict`.

    Raises
    ------
    AudioError
        As `audio.load`.
    BundleError
        As `serving.bundle.load`.

    Examples
    --------
    >>> from ser_lib.serving.bundle import self_test_clips
    >>> round(sum(predict(self_test_clips()[0])["probabilities"].values()), 6)
    1.0
    """
    return _shipped_model().predict(source)


@functools.cache
def _shipped_model() -> Any:
    # Not an import statement: `provenance.modules` follows those from here for every notebook, whose reports
    # would then depend on the serving code.
    return importlib.import_module("ser_lib.serving.bundle").load()
