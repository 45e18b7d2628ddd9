"""Speech emotion recognition, scored on speakers never heard in training.

The data flow one way: corpus, audio, features, splits, models, evaluate, metrics, plots. `bundle`
holds the chosen model that serve.py serves; `reruns` regenerates the reports.
"""

import functools
import importlib
from pathlib import Path
from typing import Any, BinaryIO

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[1]


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
