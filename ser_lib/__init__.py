"""Speech emotion recognition, scored on speakers never heard in training.

The data flow one way: corpus, audio, features, splits, models, evaluate, metrics, plots. `bundle`
holds the chosen model that serve.py serves; `reruns` regenerates the reports.
"""

from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[1]
