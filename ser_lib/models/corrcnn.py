"""`corrcnn`, a network on correlations between tracks over time. Needs PyTorch (`python -m pip install torch`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor, nn
from torch.nn import functional as F

from ser_lib.features import FRAMES
from ser_lib.models.estimators import WCCN
from ser_lib.models.networks import Network, cross_entropy


class CorrelationCNN(Network):
    """Classify a clip by the correlations between its tracks, which differ more between emotions than between voices.

    Two views of the frames. The fixed view has the tracks of the feature family `correlation`: cepstra, pitch,
    voicing and their slopes at two time scales, normalised by WCCN. The learned view has tracks from residual
    convolutions along time, and the channels' mean and deviation by attention. The views' logits are added; each
    view also has a loss of its own. Training clips are augmented: speed, shifted and stretched bands (another
    vocal tract), pitch, level, colour, noise, masks; mixup mixes the pooled values of two clips.

    Source: Stafylakis, Rohdin, Burget (2021), Speaker embeddings by modeling channel-wise correlations; Zhang et al.
    (2018), mixup; Park et al. (2019), SpecAugment.
    """

    shape = FRAMES["melpitch"]

    def _module(self, n_classes: int) -> nn.Module:
        return _TwoViews(n_classes)

    def _prepare(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        length = (~frames[..., 0].isnan()).sum(dim=1)
        return torch.nan_to_num(frames[:, : int(length.max())]), length

    def _augment(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        out = torch.full_like(frames, torch.nan)
        for i, one in enumerate(frames.numpy()):
            one = _other_voice(one[~np.isnan(one[:, 0])], rng)
            out[i, : len(one)] = torch.from_numpy(one[: frames.shape[1]])
        return out

    def _initialise(self, module: Any, frames: Tensor, target: Tensor, rng: np.random.Generator) -> None:
        with torch.inference_mode():
            versions = [frames, self._augment(frames, rng), self._augment(frames, rng)]
            parts = [part for version in versions for part in version.split(64)]
            pooled = torch.cat([module.fixed(*self._prepare(part)) for part in parts])
        wccn = WCCN(0.5).fit(pooled.numpy(), np.tile(target.argmax(1).numpy(), 3))
        module.wccn.weight.copy_(torch.from_numpy(wccn.projection_.T))
        module.wccn.bias.copy_(torch.from_numpy(-wccn.mean_ @ wccn.projection_))

    def _loss(
        self, module: Any, x: Tensor, length: Tensor, target: Tensor, weight: Tensor, rng: np.random.Generator
    ) -> Tensor:
        mix = None
        if rng.random() < 0.5:
            share, other = float(rng.beta(0.4, 0.4)), torch.from_numpy(rng.permutation(len(x)))
            mix = max(share, 1 - share), other
            target, weight = _mixup(target, mix), _mixup(weight, mix)
        views = module.views(x, length, mix)
        alone = sum(cross_entropy(view, target, weight) for view in views)
        return cross_entropy(sum(views), target, weight) + alone / 2


def _mixup(values: Tensor, mix: tuple[float, Tensor] | None) -> Tensor:
    """Return share * row + (1 - share) * other row, for `mix` = (share, other rows)."""
    return values if mix is None else mix[0] * values + (1 - mix[0]) * values[mix[1]]


def _other_voice(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a clip's frames (feature set `melpitch`) as if from another speaker, room and device."""
    n, bands = len(x), x.shape[1] - 2
    x = _interpolate(x, np.linspace(0, n - 1, max(24, round(n * rng.uniform(0.83, 1.25)))))
    mel, pitch, voicing = x[:, :bands], x[:, bands], x[:, bands + 1]
    mel = _interpolate(mel.T, np.arange(bands) * rng.uniform(0.96, 1.04) + rng.uniform(-3, 3)).T
    colour = np.linspace(-1, 1, bands) * rng.normal(0, 2)
    height, phases = 1.5 * rng.normal(), np.linspace(0, np.pi * rng.uniform(1, 4), bands)
    colour += height * np.sin(phases + rng.uniform(0, 6))
    mel = mel + rng.normal(0, 3) + colour
    if rng.random() < 0.1:
        floor = mel.max() - rng.uniform(35, 70) + rng.normal(0, 3, mel.shape)
        mel = 10 * np.logaddexp(mel * np.log(10) / 10, floor * np.log(10) / 10) / np.log(10)
    pitch = pitch.mean() + (pitch - pitch.mean()) * np.exp(rng.normal(0, 0.15)) + rng.normal(0, 2)
    voicing = voicing + rng.normal(0, 0.03, len(x))
    mean = mel.mean(axis=0)
    for _ in range(2):
        width = rng.integers(0, 9)
        start = rng.integers(0, bands - width + 1)
        mel[:, start : start + width] = mean[start : start + width]
        width = rng.integers(0, min(12, len(x) // 4) + 1)
        start = rng.integers(0, len(x) - width + 1)
        mel[start : start + width] = mean
    return np.column_stack([mel, pitch, voicing]).astype(np.float32)


def _interpolate(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return rows of `x` at fractional places, by linear interpolation."""
    places = np.clip(places, 0, len(x) - 1)
    low = places.astype(int)
    part = (places - low)[:, None].astype(np.float32)
    return x[low] * (1 - part) + x[np.minimum(low + 1, len(x) - 1)] * part


class _TwoViews(nn.Module):
    cepstra, slopes, tracks, channels = 6, (2, 6), 24, 64  # slopes in frames to each side

    def __init__(self, n_classes: int):
        super().__init__()
        bands = CorrelationCNN.shape[1] - 2
        self.register_buffer(
            "dct", torch.tensor(dct(np.eye(bands), norm="ortho", axis=0)[: self.cepstra]).float()
        )
        centred = (self.cepstra + 2) * (1 + len(self.slopes))
        fixed = centred * (centred - 1) // 2 + centred + self.cepstra + 2
        learned = self.tracks * (self.tracks - 1) // 2 + 2 * self.channels
        self.wccn = nn.Linear(fixed, fixed).requires_grad_(False)
        self.stem = nn.Sequential(
            nn.Conv1d(bands + 2, self.channels, 5, 2, 2, bias=False), nn.BatchNorm1d(self.channels), nn.ReLU()
        )
        self.blocks = nn.ModuleList([_Block(self.channels, dilation) for dilation in (1, 2, 3)])
        self.dropout = nn.Dropout(0.2)
        self.narrow = nn.Conv1d(self.channels, self.tracks, 1)
        self.attention = nn.Sequential(nn.Conv1d(self.channels, 64, 1), nn.Tanh(), nn.Conv1d(64, 1, 1))
        self.norm = nn.BatchNorm1d(learned, affine=False)
        self.out = nn.ModuleList([_Out(size, n_classes) for size in (fixed, learned)])

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        return sum(self.views(x, length))

    def views(self, x: Tensor, length: Tensor, mix: tuple[float, Tensor] | None = None) -> list[Tensor]:
        """Return the logits of each view."""
        pooled = self.wccn(self.fixed(x, length)), self.norm(self.learned(x, length))
        return [out(_mixup(values, mix)) for out, values in zip(self.out, pooled, strict=True)]

    def fixed(self, x: Tensor, length: Tensor) -> Tensor:
        """Return correlations and deviations of cepstra, pitch, voicing and their slopes, and the means of the first three."""
        centred, mean, mask = self._centred(x, length)
        scale = torch.cat([self.dct / 20 @ centred[:, :-2], centred[:, -2:-1] / 4, centred[:, -1:] * 4], 1)
        means = [mean[:, :-2, 0] @ self.dct.T / 20, (mean[:, -2:-1, 0] - 36) / 6, mean[:, -1:, 0] * 4]
        tracks, widest = [scale], max(self.slopes)
        places = torch.arange(-widest, x.shape[1] + widest)[None].clamp(min=0).minimum(length[:, None] - 1)
        longer = scale.gather(2, places[:, None].expand(-1, scale.shape[1], -1))
        for width in self.slopes:
            line = torch.arange(-width, width + 1.0)
            line = (line * width / line.square().sum()).expand(scale.shape[1], 1, -1)
            inner = longer[..., widest - width : longer.shape[2] - (widest - width)]
            tracks.append(F.conv1d(inner, line, groups=scale.shape[1]) * mask)
        correlation, deviation = _correlation(torch.cat(tracks, 1), mask)
        return torch.cat([correlation, deviation.log(), *means], 1)

    def learned(self, x: Tensor, length: Tensor) -> Tensor:
        """Return correlations of learned tracks, and the mean and deviation of all channels, weighted by attention."""
        centred, _, mask = self._centred(x, length)
        h = self.stem(torch.cat([centred[:, :-2] / 10, centred[:, -2:-1] / 4, centred[:, -1:] * 4], 1))
        mask = mask[..., ::2]
        h = h * mask
        for block in self.blocks:
            h = block(h, mask)
        h = self.dropout(h)
        weight = self.attention(h).masked_fill(mask == 0, -1e4).softmax(2)
        mean = (weight * h).sum(2)
        deviation = ((weight * h * h).sum(2) - mean * mean).clamp_min(1e-4).sqrt()
        return torch.cat([_correlation(self.narrow(h), mask)[0], mean, deviation], 1)

    @staticmethod
    def _centred(x: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the values minus the clip's mean, shape (n, values, n_frames), the mean, and a mask of the clip's frames."""
        mask = (torch.arange(x.shape[1])[None] < length[:, None])[:, None].float()
        x = x.transpose(1, 2)
        mean = (x * mask).sum(2, keepdim=True) / mask.sum(2, keepdim=True)
        return (x - mean) * mask, mean, mask


class _Out(nn.Sequential):
    def __init__(self, size: int, n_classes: int):
        super().__init__(nn.Dropout(0.5), nn.Linear(size, n_classes))
        nn.init.normal_(self[1].weight, std=0.01)
        nn.init.zeros_(self[1].bias)


def _correlation(tracks: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the correlations of all pairs of tracks, shape (n, n_tracks, n_frames), within the mask; and deviations."""
    share = mask / mask.sum(2, keepdim=True)
    centred = tracks - (tracks * share).sum(2, keepdim=True)
    covariance = (centred * share) @ centred.transpose(1, 2)
    deviation = (covariance.diagonal(dim1=1, dim2=2) + 0.05**2).sqrt()
    i, j = np.triu_indices(tracks.shape[1], 1)
    return (covariance / (deviation[:, :, None] * deviation[:, None]))[:, i, j], deviation


class _Block(nn.Module):
    """Two dilated convolutions and a gate by channel, added to the input."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.first = _convolution(channels, dilation)
        self.second = _convolution(channels, dilation)
        self.dropout = nn.Dropout1d(0.1)
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.second(self.dropout(F.relu(self.first(x))) * mask) * mask
        gate = self.gate(h.sum(2) / mask.sum(2))[..., None]
        return F.relu(x + gate * h)


def _convolution(channels: int, dilation: int) -> nn.Sequential:
    convolution = nn.Conv1d(channels, channels, 3, 1, dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(channels))
