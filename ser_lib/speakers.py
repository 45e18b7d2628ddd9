"""A clip's features relative to neutral clips of the same speaker: the same in training and in the server."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# How many clips what is known of all speakers counts for, beside the n clips of one.
PRIOR_MEAN = 1  # the mean over speakers: n = 1 moves a feature half of the way, n = 3 three quarters
PRIOR_DEVIATION = 4  # the deviation pooled over speakers


@dataclass(frozen=True)
class Speakers:
    """What is known of the speakers that a model learnt from, by feature; shapes (n_features,)."""

    mean: np.ndarray  # over speakers, of the mean of their neutral clips
    variance: np.ndarray  # over speakers, of the variance of their neutral clips

    def relative_to(self, neutral: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Features as differences from a speaker's neutral clips.

        The mean of these is shrunk towards that of all speakers (`PRIOR_MEAN`), since that of few clips is
        mostly chance. With two clips or more the features are also divided by the deviation of the clips
        relative to the pooled one, shrunk towards 1 (`PRIOR_DEVIATION`); one clip has no deviation.

        Parameters
        ----------
        neutral : ndarray, shape (n, n_features)
            Of the speaker's neutral clips.
        values : ndarray, shape (n_clips, n_features)
            Of other clips of the speaker.
        """
        n = len(neutral)
        found = values - (self.mean + (neutral.mean(axis=0) - self.mean) * n / (n + PRIOR_MEAN))
        if n == 1:
            return found
        varies = self.variance > 0
        relative = np.divide(
            neutral.var(axis=0, ddof=1), self.variance, np.ones_like(self.mean), where=varies
        )
        return found / np.sqrt(((n - 1) * relative + PRIOR_DEVIATION) / (n - 1 + PRIOR_DEVIATION))
