"""Networks over the frames of a clip, as scikit-learn estimators. Needs PyTorch (`pip install 'ser_lib[deep]'`).

Rows are those of the feature sets in `features.FRAMES`. A network trains for a fixed number of steps on one
thread, so that a seed gives the same network again; altered copies of clips among the rows widen what
it draws from, at no more steps. What predicts is the running mean of its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

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
    mixup = False
    whole = False  # whether it hears the zeros up to the last frame of `shape`

    def __init__(self, steps=5000, batch=16, rate=2e-3, held=0.0, seed=0):
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

    def fit(self, X, y, speakers=None):
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
        optimizer = torch.optim.AdamW(module.parameters(), self.rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, self.steps, pct_start=0.25)
        averaged, best = copy.deepcopy(module), -1.0
        self.losses_, self.heard_ = np.zeros(self.steps, np.float32), []  # by step; UAR of those kept apart
        batches = _batches(np.flatnonzero(~apart), self.batch, rng)
        for step, rows in zip(range(1, 1 + self.steps), batches, strict=False):
            x, length = self._ready(self._varied(frames[rows], rng))
            wanted, share = target[rows], weight[rows]
            if self.mixup and rng.random() < 0.5:
                x, length, wanted, share = _mixed(x, length, wanted, share, rng)
            loss = -(share * (wanted * module.train()(x, length).log_softmax(1)).sum(1)).mean()
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

    def _frames(self, X) -> Tensor:
        return torch.from_numpy(np.array(X, np.float32)).reshape(len(X), *self.shape)

    def _ready(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised, zeros in place of NaN, no longer than the longest clip; and the lengths in frames."""
        length = (~frames[..., 0].isnan()).sum(dim=1)
        end = frames.shape[1] if self.whole else int(length.max())
        return torch.nan_to_num((frames[:, :end] - self.mean_) / self.std_), length

    def _logits(self, module: nn.Module, frames: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([module.eval()(*self._ready(part)) for part in frames.split(64)])

    def predict_proba(self, X):
        module = self._module(len(self.classes_))
        module.load_state_dict(self.state_)
        return self._logits(module, self._frames(X)).softmax(1).numpy()

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def _batches(rows: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """`rows` in random order again and again, each once before any comes twice."""
    while True:
        order = rng.permutation(rows)
        yield from (order[i : i + size] for i in range(0, max(1, len(rows) - size + 1), size))


def _mixed(x: Tensor, length: Tensor, target: Tensor, weight: Tensor, rng: np.random.Generator):
    """A batch mixed with itself in another order. Source: Zhang et al. (2018), mixup."""
    share, other = rng.beta(0.3, 0.3), torch.from_numpy(rng.permutation(len(x)))
    share = float(max(share, 1 - share))
    x, target, weight = (share * one + (1 - share) * one[other] for one in (x, target, weight))
    return x, torch.maximum(length, length[other]), target, weight


@torch.no_grad()
def _follow(averaged: nn.Module, module: nn.Module, keep: float) -> None:
    for mean, now in zip(averaged.state_dict().values(), module.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(now, 1 - keep)
        else:
            mean.copy_(now)


# --- networks --------------------------------------------------------------------------------------


class ResidualCNN(Network):
    """Ours: convolutions along time with growing gaps, gated by channel, pooled by attention (mean, deviation).

    A training clip is heard at another speed, with its bands shifted and stretched as by another pitch and
    vocal tract, at another level and colour, with a noise floor, and with parts masked (SpecAugment).
    """

    shape = FRAMES["logmel"]
    mixup = True

    def _module(self, n_classes):
        return _Residual(self.shape[1], n_classes)

    def _varied(self, frames, rng):
        out = torch.full_like(frames, torch.nan)
        for i, one in enumerate(frames.numpy()):
            one = _other_voice(one[~np.isnan(one[:, 0])], rng, self.mean_.numpy())
            out[i, : len(one)] = torch.from_numpy(one[: frames.shape[1]])
        return out


def _other_voice(x: np.ndarray, rng: np.random.Generator, mean: np.ndarray) -> np.ndarray:
    """A clip's bands in decibels, shape (n_frames, n_bands), as another speaker, room and device might give them."""
    n, bands = x.shape
    x = _at(x, np.linspace(0, n - 1, max(8, round(n * rng.uniform(0.83, 1.25)))))
    x = _at(x.T, np.arange(bands) * rng.uniform(0.96, 1.04) + rng.uniform(-3, 3)).T
    colour = np.linspace(-1, 1, bands) * rng.normal(0, 2)
    colour += (
        1.5 * rng.normal() * np.sin(np.linspace(0, np.pi * rng.uniform(1, 4), bands) + rng.uniform(0, 6))
    )
    x = x + rng.normal(0, 3) + colour
    if rng.random() < 0.3:
        floor = x.max() - rng.uniform(35, 70) + rng.normal(0, 3, x.shape)
        x = 10 * np.logaddexp(x * np.log(10) / 10, floor * np.log(10) / 10) / np.log(10)
    for _ in range(2):
        width = rng.integers(0, 9)
        start = rng.integers(0, bands - width + 1)
        x[:, start : start + width] = mean[start : start + width]
        width = rng.integers(0, min(12, len(x) // 4) + 1)
        start = rng.integers(0, len(x) - width + 1)
        x[start : start + width] = mean
    return x.astype(np.float32)


def _at(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows of `x` at fractional places, linear in between."""
    places = np.clip(places, 0, len(x) - 1)
    low = places.astype(int)
    part = (places - low)[:, None].astype(np.float32)
    return x[low] * (1 - part) + x[np.minimum(low + 1, len(x) - 1)] * part


class _Residual(nn.Module):
    def __init__(self, width: int, n_classes: int, channels: int = 96, dropout: float = 0.4):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(width, channels, 5, 2, 2, bias=False), nn.BatchNorm1d(channels), nn.ReLU()
        )
        self.blocks = nn.ModuleList([_Block(channels, gap) for gap in (1, 2, 3, 4)])
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.Sequential(nn.Linear(channels, 64), nn.Tanh(), nn.Linear(64, 1))
        self.out = nn.Linear(2 * channels, n_classes)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        h = self.stem(x.transpose(1, 2))
        heard = (torch.arange(h.shape[2])[None] < ((length + 1) // 2)[:, None])[:, None].float()
        h = h * heard
        for block in self.blocks:
            h = block(h, heard)
        h = self.dropout(h.transpose(1, 2))
        score = self.attention(h)[..., 0].masked_fill(heard[:, 0] == 0, -1e4)
        weight = score.softmax(1)[..., None]
        mean = (weight * h).sum(1)
        deviation = ((weight * h * h).sum(1) - mean * mean).clamp_min(1e-4).sqrt()
        return self.out(self.dropout(torch.cat([mean, deviation], 1)))


class _Block(nn.Module):
    def __init__(self, channels: int, gap: int):
        super().__init__()
        self.first, self.second = (
            nn.Sequential(
                nn.Conv1d(channels, channels, 3, 1, gap, dilation=gap, bias=False), nn.BatchNorm1d(channels)
            )
            for _ in range(2)
        )
        self.dropout = nn.Dropout1d(0.1)
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        h = self.second(self.dropout(F.relu(self.first(x))) * heard) * heard
        gate = self.gate(h.sum(2) / heard.sum(2))[..., None]
        return F.relu(x + gate * h)


class CNNBiLSTM(Network):
    """The tutorials' network: convolutions over 40 MFCC, then a bidirectional LSTM."""

    shape = FRAMES["mfcc"]
    whole = True

    def _module(self, n_classes):
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

    def _module(self, n_classes):
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
