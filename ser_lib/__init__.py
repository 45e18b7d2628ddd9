"""Speech emotion recognition, scored on speakers that the model has never met.

The data flow one way: corpora, audio, features, augmentation and models, evaluation, serving, runs.
"""

import contextlib
import errno
import functools
import importlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path`; at the end it takes the place of `path`, after a failure it is deleted.

    So a full disk never leaves a part of a file, nor costs the one that was there.

    Raises
    ------
    OSError
        The file cannot be written; `filename` is `path`.
    SerError
        `path` is a device or a pipe.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.txt")) as new:
    ...         _ = new.write_text("content")
    ...     [path.name for path in Path(folder).iterdir()]
    ['a.txt']
    """
    path = Path(os.path.realpath(path))  # a link stays one
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise SerError(f"{path}: a device or a pipe, no place for a file; give the name of a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    new = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        new.touch()  # fails before the work, not after it, where the folder cannot be written to
        yield new
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    except OSError as error:
        if error.errno is None or str(error.filename or new) != str(new):
            raise
        text = error.strerror if error.filename else os.strerror(error.errno)
        raise OSError(error.errno, text, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes with `replacing`."""
    with replacing(path) as new:
        new.write_bytes(content.encode() if isinstance(content, str) else content)


def need_repository(what: str) -> None:
    """Raise SerError where the package is installed without the repository that has `what`."""
    if not REPOSITORY:
        raise SerError(
            f"{what} are in the repository, not in the installed package; clone it and run this there"
        )


def predict(
    source: Any, sample_rate: float | None = None, *, name: str | None = None, references: Any = ()
) -> dict[str, Any]:
    """Predict the emotion of a recording with the shipped model.

    The parameters and the keys of the answer are those of `serving.model.Model.predict`: `source` is a path, the
    bytes of a file, a binary file, or an array of samples with its `sample_rate`.

    Raises
    ------
    AudioError
        As `audio.load`.
    BundleError
        As `serving.bundle.load`.
    TypeError
        `source` or a reference is something else.

    Examples
    --------
    >>> from ser_lib.serving.bundle import self_test_clips
    >>> round(sum(predict(self_test_clips()[0])["probabilities"].values()), 6)
    1.0
    """
    return _shipped_model().predict(source, sample_rate, name=name, references=references)


@functools.cache
def _shipped_model() -> Any:
    # Not an import statement: `provenance.modules` follows those from here for every notebook, whose reports
    # would then depend on the serving code.
    return importlib.import_module("ser_lib.serving.bundle").load()
