"""Speaker-independent cross-validation, metrics with intervals, calibration, and comparisons."""
