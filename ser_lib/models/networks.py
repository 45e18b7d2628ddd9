"""Neural networks published in tutorials, as scikit-learn estimators. Need PyTorch (`python -m pip install torch`).

`CNNBiLSTM` takes frames, rows of a set in `features.FRAMES`; `Dense` takes functionals. A network trains for a
fixed number of steps on one thread, so a seed gives the same network again. Augmented copies among the rows add
variety, not steps. Predictions use the exponential moving average of the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lib.features import FRAMES
from ser_lib.models.estimators import MostProbable

EMA = 0.99  # share of the moving average of the weights that a step keeps
SMOOTHING = 0.05  # label smoothing of the one-hot targets


class Network(MostProbable):
    """Trains a torch module on rows of frames.

    Parameters
    ----------
    steps : int
        Training batches.
    batch : int
        Rows in a batch.
    rate : float
        Highest learning rate of the one-cycle schedule.
    validation_share : float
        Share of the training speakers left out for early stopping: of twenty checkpoints the one with the best
        UAR on them is kept, and `fit` needs `speakers`. 0: no early stopping.
    seed : int
        Seed of the initial weights, the batches, dropout and all other randomness.
    """

    shape: tuple[int, int]  # frames, values a frame
    keeps_padding = False  # whether a batch keeps the zeros after its longest clip, up to `shape`

    def __init__(
        self,
        steps: int = 5000,
        batch: int = 16,
        rate: float = 2e-3,
        validation_share: float = 0.0,
        seed: int = 0,
    ):
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.validation_share = validation_share
        self.seed = seed

    def _module(self, n_classes: int) -> nn.Module:
        """Return a new module from (x, length) to logits; x of shape (n, n_frames, values), length (n,) in frames."""
        raise NotImplementedError

    def _augment(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the frames of a training batch, altered."""
        return frames

    def _initialise(
        self, module: nn.Module, frames: Tensor, target: Tensor, rng: np.random.Generator
    ) -> None:
        """Fit what is fitted before the first step."""

    def _loss(
        self, module: Any, x: Tensor, length: Tensor, target: Tensor, weight: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Return the loss of a batch; target of shape (n, n_classes), weight (n,)."""
        return cross_entropy(module(x, length), target, weight)

    def fit(self, X: np.ndarray, y: np.ndarray, speakers: Any = None) -> Self:
        self.classes_, code = np.unique(y, return_inverse=True)
        self.n_features_in_, n = np.shape(X)[1], len(self.classes_)
        frames = self._frames(X)
        present = frames[~frames[..., 0].isnan()]
        self.mean_, self.std_ = present.mean(dim=0), present.std(dim=0)
        self.std_ = torch.where(self.std_ > 0, self.std_, 1.0)
        validation = np.zeros(len(code), bool)
        if self.validation_share:
            names = np.random.default_rng(self.seed).permutation(np.unique(speakers))
            n_validation = max(1, round(self.validation_share * len(names)))
            validation = np.isin(speakers, names[:n_validation])
        weight = torch.tensor(len(code) / (n * np.bincount(code)), dtype=torch.float32)[code]
        target = F.one_hot(torch.tensor(code), n) * (1 - SMOOTHING) + SMOOTHING / n
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self._train(frames, target, weight, validation)
        finally:
            torch.set_num_threads(threads)
        return self

    def _train(self, frames: Tensor, target: Tensor, weight: Tensor, validation: np.ndarray) -> None:
        rng, module = np.random.default_rng(self.seed), self._module(target.shape[1])
        self._initialise(module, frames[~validation], target[~validation], rng)
        optimizer = torch.optim.AdamW(module.parameters(), self.rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, self.steps, pct_start=0.25)
        averaged, best = copy.deepcopy(module), -1.0
        self.losses_ = np.zeros(self.steps, np.float32)  # by step
        self.validation_uar_: list[float] = []  # by checkpoint
        batches = _batches(np.flatnonzero(~validation), self.batch, rng)
        for step in range(1, 1 + self.steps):
            rows = next(batches)
            x, length = self._prepare(self._augment(frames[rows], rng))
            loss = self._loss(module.train(), x, length, target[rows], weight[rows], rng)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            self.losses_[step - 1] = loss.item()
            _update_average(averaged, module, min(EMA, step / (9 + step)))
            if not validation.any():
                self.state_ = averaged.state_dict()
            elif step % max(1, self.steps // 20) == 0:
                predicted = self._logits(averaged, frames[validation]).argmax(1)
                uar = balanced_accuracy_score(target[validation].argmax(1), predicted)
                self.validation_uar_.append(uar)
                if uar > best:
                    best, self.state_ = uar, copy.deepcopy(averaged.state_dict())

    def _frames(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(X, np.float32)).reshape(len(X), *self.shape)

    def _prepare(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise, replace NaN by zeros, cut after the longest clip; also return the lengths in frames."""
        length = (~frames[..., 0].isnan()).sum(dim=1)
        end = frames.shape[1] if self.keeps_padding else int(length.max())
        return torch.nan_to_num((frames[:, :end] - self.mean_) / self.std_), length

    def _logits(self, module: nn.Module, frames: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([module.eval()(*self._prepare(part)) for part in frames.split(64)])

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        module = self._module(len(self.classes_))
        module.load_state_dict(self.state_)
        return self._logits(module, self._frames(X)).softmax(1).numpy()


def _batches(rows: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield batches without end: all rows in random order, then in another order, and so on."""
    while True:
        order = rng.permutation(rows)
        yield from (order[i : i + size] for i in range(0, max(1, len(rows) - size + 1), size))


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over a batch; logits and target of shape (n, n_classes), weight (n,)."""
    return -(weight * (target * logits.log_softmax(1)).sum(1)).mean()


def _update_average(averaged: nn.Module, module: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mean, now in zip(averaged.state_dict().values(), module.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)


# --- networks of tutorials ------------------------------------------------------------------------


class CNNBiLSTM(Network):
    """Convolutions over 40 MFCC, then a bidirectional LSTM."""

    shape = FRAMES["mfcc"]
    keeps_padding = True

    def _module(self, n_classes: int) -> nn.Module:
        return _CNNBiLSTM(self.shape[1], n_classes)


class _CNNBiLSTM(nn.Module):
    def __init__(self, width: int, n_classes: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(width, 64, 5, 1, 2), nn.BatchNorm1d(64), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(0.3),
            nn.Conv1d(64, 128, 5, 1, 2), nn.BatchNorm1d(128), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(0.3),
        )  # fmt: skip
        self.lstm = nn.LSTM(128, 64, batch_first=True, bidirectional=True)
        self.out = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, n_classes))

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        h = self.convolutions(x.transpose(1, 2))
        return self.out(self.lstm(h.transpose(1, 2))[1][0].transpose(0, 1).flatten(1))


class Dense(Network):
    """512-256-128-64 units with batch normalisation and dropout on the `compact` columns."""

    shape = (1, 105)

    def _module(self, n_classes: int) -> nn.Module:
        return _Dense(self.shape[1], n_classes)


class _Dense(nn.Sequential):
    def __init__(self, width: int, n_classes: int):
        layers: list[nn.Module] = []
        for size in (512, 256, 128, 64):
            layers += [nn.Linear(width, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Dropout(0.3)]
            width = size
        super().__init__(*layers, nn.Linear(width, n_classes))

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        return super().forward(x[:, 0])
