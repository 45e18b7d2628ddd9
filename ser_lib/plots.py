"""Figures of clips and features, and the look of all: numbers in, axes out; those of results are in `score_plots`.

Every function draws on `ax`, or on a new figure's axes, and returns it. An emotion has the same
colour in every figure and on the web page. Nothing here computes a result or shows a figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib_inline.backend_inline import set_matplotlib_formats

PALETTE = {
    "neutral": "#8c8c8c",
    "calm": "#4c9f9a",
    "happy": "#e8a917",
    "sad": "#3b6fb6",
    "angry": "#c8352b",
    "fearful": "#7b4fa3",
    "disgust": "#6a8d2f",
    "surprised": "#e0679b",
}


def style() -> None:
    """Set the look of all figures of a notebook."""
    sns.set_theme(style="whitegrid", font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.dpi": 80,
            "savefig.dpi": 130,
            "savefig.bbox": "tight",
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
        }
    )
    if get_ipython():
        set_matplotlib_formats("retina")  # twice the pixels, shown at half their size


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label: the emotions' own, other names from a neutral cycle.

    Examples
    --------
    >>> colours(["happy", "sad"])
    {'happy': '#e8a917', 'sad': '#3b6fb6'}
    """
    spare = iter(sns.color_palette("husl", max(1, len(labels))).as_hex())
    return {label: PALETTE.get(label) or next(spare) for label in labels}


def axes(ax: Axes | None, width: float = 6, height: float = 4) -> Axes:
    """`ax`, or that of a new figure of so many inches."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def plot_counts(counts: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Stacked bars: one bar a row of `counts` (an emotion), one segment a column.

    Examples
    --------
    >>> counts = pd.DataFrame({"female": [8, 4], "male": [8, 3]}, index=["sad", "calm"])
    >>> ax = plot_counts(counts)
    >>> [label.get_text() for label in ax.get_yticklabels()], len(ax.patches)  # two bars of two segments
    (['sad', 'calm'], 4)
    """
    ax = axes(ax)
    shades = sns.color_palette("crest", counts.shape[1])
    counts.plot.barh(stacked=True, ax=ax, color=shades, width=0.75)
    ax.invert_yaxis()
    ax.set(xlabel="clips", ylabel="", title=title)
    ax.legend(frameon=False, title=counts.columns.name, loc="upper left", bbox_to_anchor=(1, 1))
    ax.grid(axis="y", visible=False)
    return ax


def plot_by_emotion(
    values: pd.Series,
    emotions: pd.Series,
    order: Sequence[str],
    *,
    label: str,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Box plots of one number a clip, by emotion.

    Examples
    --------
    >>> level, emotion = pd.Series([-30.0, -28.0, -20.0]), pd.Series(["sad", "sad", "happy"])
    >>> ax = plot_by_emotion(level, emotion, ["happy", "sad"], label="level in dB")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['happy', 'sad']
    """
    ax = axes(ax)
    sns.boxplot(
        x=values.to_numpy(), y=emotions.to_numpy(), order=list(order), hue=emotions.to_numpy(),
        hue_order=list(order), palette=colours(order), legend=False, fliersize=2, linewidth=0.8, ax=ax,
    )  # fmt: skip
    ax.set(xlabel=label, ylabel="", title=title)
    return ax


def plot_waveform(samples: np.ndarray, rate: int, *, label: str, ax: Axes | None = None) -> Axes:
    """Amplitude over seconds.

    Examples
    --------
    >>> ax = plot_waveform(np.sin(np.arange(8_000) / 20), 16_000, label="happy")
    >>> [float(x) for x in ax.get_xlim()]  # seconds
    [0.0, 0.5]
    """
    ax = axes(ax, 4, 1.6)
    ax.plot(np.arange(len(samples)) / rate, samples, linewidth=0.4, color=PALETTE.get(label, "#333333"))
    ax.set(title=label, xlim=(0, len(samples) / rate), xlabel="s")
    ax.grid(visible=False)
    return ax


def plot_bands(
    bands: np.ndarray, *, seconds: float, label: str, ylabel: str = "mel band", ax: Axes | None = None
) -> Axes:
    """An image of shape (n_frames, n_bands): time to the right, bands upwards.

    Examples
    --------
    >>> ax = plot_bands(np.random.default_rng(0).normal(size=(100, 40)), seconds=1.0, label="happy")
    >>> [float(edge) for edge in ax.images[0].get_extent()]  # seconds, bands
    [0.0, 1.0, 0.5, 40.5]
    """
    ax = axes(ax, 4, 2)
    ax.imshow(
        bands.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        extent=(0, seconds, 0.5, bands.shape[1] + 0.5),
    )
    ax.set(title=label, xlabel="s", ylabel=ylabel)
    ax.grid(visible=False)
    return ax


def plot_projection(
    points: np.ndarray,
    groups: pd.Series,
    *,
    palette: Mapping[str, str] | str,
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """A point a clip at `points` (n_clips, 2), coloured by group.

    Examples
    --------
    >>> groups = pd.Series(["sad", "happy", "sad"])
    >>> ax = plot_projection(np.eye(3, 2), groups, palette=colours(groups.unique()), title="by emotion")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['sad', 'happy']
    """
    ax = axes(ax, 5, 4.5)
    sns.scatterplot(
        x=points[:, 0], y=points[:, 1], hue=groups.to_numpy(), palette=palette, s=12, linewidth=0,
        alpha=0.8, legend="full", ax=ax,
    )  # fmt: skip
    ax.set(title=title, xticks=[], yticks=[], xlabel="", ylabel="")
    ax.legend(
        frameon=False, markerscale=1.6, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1),
        ncols=2 if groups.nunique() > 12 else 1,
    )  # fmt: skip
    return ax


def plot_correlation(correlation: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """A correlation matrix from -1 (blue) to 1 (red); the columns are named as the rows, in their order.

    Examples
    --------
    >>> table = pd.DataFrame({"level_mean": [-30.0, -25.0, -20.0], "zcr_mean": [0.3, 0.2, 0.1]})
    >>> ax = plot_correlation(table.corr("spearman"))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['level_mean', 'zcr_mean']
    """
    ax = axes(ax, 9, 1 + 0.24 * len(correlation))
    sns.heatmap(
        correlation, cmap="RdBu_r", center=0, vmin=-1, vmax=1, square=True, xticklabels=False, ax=ax,
        cbar_kws={"label": "Spearman correlation", "shrink": 0.7},
    )  # fmt: skip
    ax.set(title=title, xlabel="", ylabel="")
    return ax


def plot_shares(shares: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """A point a feature: variance between speakers (x) and between emotions (y), coloured by family.

    Parameters
    ----------
    shares : DataFrame
        `family, emotion, speaker`, fractions.

    Examples
    --------
    >>> shares = pd.DataFrame({"family": ["mfcc", "energy"], "emotion": [0.2, 0.4], "speaker": [0.5, 0.1]})
    >>> ax = plot_shares(shares)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('variance between speakers', 'between emotions')
    """
    ax = axes(ax, 6.5, 4)
    sns.scatterplot(
        data=shares, x="speaker", y="emotion", hue="family", palette="tab10", s=14, linewidth=0, ax=ax
    )
    limit = 1.05 * shares[["speaker", "emotion"]].max().max()
    ax.plot([0, limit], [0, limit], color="#999999", linestyle=":")
    ax.set(
        xlim=(0, limit),
        ylim=(0, limit),
        xlabel="variance between speakers",
        ylabel="between emotions",
        title=title,
    )
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return ax
