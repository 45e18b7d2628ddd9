"""Networks that tutorials publish, as scikit-learn estimators. Needs PyTorch (`python -m pip install torch`).

`CNNBiLSTM` hears frames, rows of a set in `features.FRAMES`; `Dense` hears functionals. A network trains for a
fixed number of steps on one thread, so that a seed gives the same network again; altered copies of clips among
the rows widen what it draws from, at no more steps. What predicts is the running mean of its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lib.features import FRAMES

EMA = 0.99  # share of the running mean of the weights that is kept at a step
SMOOTHING = 0.05  # of the one-hot targets


class Network(ClassifierMixin, BaseEstimator):
    """Trains a torch module on rows of frames; `predict_proba` in the order of `classes_`.

    Parameters
    ----------
    steps : int
        Batches it is trained on.
    batch, rate : int, float
        Rows a batch; the highest learning rate of the one-cycle schedule.
    held : float
        Share of the training speakers on whom the best of twenty moments is chosen (early stopping); 0 for
        the end of training. Otherwise `fit` needs `speakers`.
    seed : int
        Of the weights' start, the batches, dropout and all else that is random.
    """

    shape: tuple[int, int]  # frames, values a frame
    whole = False  # whether it hears the zeros up to the last frame of `shape`

    def __init__(
        self, steps: int = 5000, batch: int = 16, rate: float = 2e-3, held: float = 0.0, seed: int = 0
    ):
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.held = held
        self.seed = seed

    def _module(self, n_classes: int) -> nn.Module:
        """A new network from (x, length) to logits; x of shape (n, n_frames, values), length (n,) in frames."""
        raise NotImplementedError

    def _varied(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        """What is done to the frames of a training batch."""
        return frames

    def _start(self, module: nn.Module, frames: Tensor, target: Tensor, rng: np.random.Generator) -> None:
        """What is fitted before the first step."""

    def _loss(
        self,
        module: nn.Module,
        x: Tensor,
        length: Tensor,
        target: Tensor,
        weight: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        """Of a batch; target of shape (n, n_classes), weight (n,)."""
        return cross_entropy(module(x, length), target, weight)

    def fit(self, X: np.ndarray, y: np.ndarray, speakers: Any = None) -> Self:
        self.classes_, code = np.unique(y, return_inverse=True)
        self.n_features_in_, n = np.shape(X)[1], len(self.classes_)
        frames = self._frames(X)
        self.mean_, self.std_ = (f(frames[~frames[..., 0].isnan()], dim=0) for f in (torch.mean, torch.std))
        self.std_ = torch.where(self.std_ > 0, self.std_, 1.0)
        apart = np.zeros(len(code), bool)
        if self.held:
            names = np.random.default_rng(self.seed).permutation(np.unique(speakers))
            apart = np.isin(speakers, names[: max(1, round(self.held * len(names)))])
        weight = torch.tensor(len(code) / (n * np.bincount(code)), dtype=torch.float32)[code]
        target = F.one_hot(torch.tensor(code), n) * (1 - SMOOTHING) + SMOOTHING / n
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self._train(frames, target, weight, apart)
        finally:
            torch.set_num_threads(threads)
        return self

    def _train(self, frames: Tensor, target: Tensor, weight: Tensor, apart: np.ndarray) -> None:
        rng, module = np.random.default_rng(self.seed), self._module(target.shape[1])
        self._start(module, frames[~apart], target[~apart], rng)
        optimizer = torch.optim.AdamW(module.parameters(), self.rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, self.steps, pct_start=0.25)
        averaged, best = copy.deepcopy(module), -1.0
        self.losses_, self.heard_ = np.zeros(self.steps, np.float32), []  # by step; UAR of those kept apart
        batches = _batches(np.flatnonzero(~apart), self.batch, rng)
        for step, rows in zip(range(1, 1 + self.steps), batches, strict=False):
            x, length = self._ready(self._varied(frames[rows], rng))
            wanted, share = target[rows], weight[rows]
            loss = self._loss(module.train(), x, length, wanted, share, rng)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            self.losses_[step - 1] = loss.item()
            _follow(averaged, module, min(EMA, step / (9 + step)))
            if not apart.any():
                self.state_ = averaged.state_dict()
            elif step % max(1, self.steps // 20) == 0:
                said = self._logits(averaged, frames[apart]).argmax(1)
                self.heard_.append(balanced_accuracy_score(target[apart].argmax(1), said))
                if self.heard_[-1] > best:
                    best, self.state_ = self.heard_[-1], copy.deepcopy(averaged.state_dict())

    def _frames(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(X, np.float32)).reshape(len(X), *self.shape)

    def _ready(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised, zeros in place of NaN, no longer than the longest clip; and the lengths in frames."""
        length = (~frames[..., 0].isnan()).sum(dim=1)
        end = frames.shape[1] if self.whole else int(length.max())
        return torch.nan_to_num((frames[:, :end] - self.mean_) / self.std_), length

    def _logits(self, module: nn.Module, frames: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([module.eval()(*self._ready(part)) for part in frames.split(64)])

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        module = self._module(len(self.classes_))
        module.load_state_dict(self.state_)
        return self._logits(module, self._frames(X)).softmax(1).numpy()

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def _batches(rows: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """`rows` in random order again and again, each once before any comes twice."""
    while True:
        order = rng.permutation(rows)
        yield from (order[i : i + size] for i in range(0, max(1, len(rows) - size + 1), size))


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over a batch; logits and target of shape (n, n_classes), weight (n,)."""
    return -(weight * (target * logits.log_softmax(1)).sum(1)).mean()


def _follow(averaged: nn.Module, module: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mean, now in zip(averaged.state_dict().values(), module.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)


# --- the tutorials' networks -----------------------------------------------------------------------


class CNNBiLSTM(Network):
    """The tutorials' network: convolutions over 40 MFCC, then a bidirectional LSTM."""

    shape = FRAMES["mfcc"]
    whole = True

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
