"""The versions of what a result and a pickled model depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ser_lib import __version__

BOOSTER = "xgboost-cpu"
LIBRARIES = ("numpy", "scipy", "scikit-learn", "soxr", BOOSTER)


def versions() -> dict[str, str]:
    """The installed versions of the libraries that a pickle depends on."""
    found = {"ser_lib": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
