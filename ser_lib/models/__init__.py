"""Classifiers by name: scikit-learn pipelines, XGBoost and PyTorch networks."""

from ser_lib.models.registry import DETERMINISTIC, MODELS, NETWORKS, SEARCH, last_step, make

__all__ = ["DETERMINISTIC", "MODELS", "NETWORKS", "SEARCH", "last_step", "make"]
