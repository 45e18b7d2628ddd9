"""One waveform to one row of named columns; corpora to feature tables."""

from ser_lib.features.sets import (
    COMPACT_S,
    FRAMES,
    SETS,
    FeatureConfig,
    extract,
    family,
    feature_names,
)

__all__ = [
    "COMPACT_S",
    "FRAMES",
    "SETS",
    "FeatureConfig",
    "extract",
    "family",
    "feature_names",
]
