"""Figures: numbers in, axes out. Nothing here computes a result or shows a figure.

Every function draws on `ax`, or on the axes of a new figure, and returns it. An emotion has the same colour in every
figure and on the web page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib_inline.backend_inline import set_matplotlib_formats

PALETTE = {
    "neutral": "#8c8c8c", "calm": "#4c9f9a", "happy": "#e8a917", "sad": "#3b6fb6",
    "angry": "#c8352b", "fearful": "#7b4fa3", "disgust": "#6a8d2f", "surprised": "#e0679b",
}  # fmt: skip
MODEL_COLOURS = {
    "mlp": "#1f5f8b", "xgboost": "#d9772b", "mlp300": "#7aa6c2", "logistic": "#7d7d7d", "majority": "#c4c4c4",
    "wccn": "#5d8a94", "corrcnn": "#7b4fa3", "cnn_bilstm": "#a68bbf", "dense": "#c3b1d1",
}  # fmt: skip
DARK, LIGHT = "#333333", "#999999"  # other models and names; chance and diagonals
OUTSIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # a legend beside the axes

# --- style ----------------------------------------------------------------------------------------


def style() -> None:
    """Set the style of all figures of a notebook."""
    sns.set_theme(style="whitegrid", font_scale=0.9)
    plt.rcParams.update({
        "figure.dpi": 80, "savefig.dpi": 130, "savefig.bbox": "tight", "figure.constrained_layout.use": True,
        "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.spines.top": False, "axes.spines.right": False,
    })  # fmt: skip
    if get_ipython():
        set_matplotlib_formats("retina")  # twice the pixels, shown at half their size


def colours(labels: Sequence[str]) -> dict[str, str]:
    """Return a colour for each label: the palette's for an emotion, another for any other name.

    Examples
    --------
    >>> colours(["happy", "sad"])
    {'happy': '#e8a917', 'sad': '#3b6fb6'}
    """
    spare = iter(sns.color_palette("husl", max(1, len(labels))).as_hex())
    return {label: PALETTE.get(label) or next(spare) for label in labels}


def axes(ax: Axes | None, width: float = 6, height: float = 4) -> Axes:
    """Return `ax`, or the axes of a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def _percent(axis: Axis, form: str = ".0%") -> None:
    """Write the numbers at an axis as percent."""
    axis.set_major_formatter(lambda value, _: format(value, form))


def _write_score(ax: Axes, value: float, at: tuple[float, float], right: float, **how: Any) -> None:
    how |= {"textcoords": "offset points", "va": "center", "fontsize": 8}
    ax.annotate(f"{value:.1%}", at, (right, 0), **how)


def _list_rows(ax: Axes, names: Sequence[str], **how: Any) -> None:
    """Name the rows of a chart of points, the first on top."""
    ax.set_yticks(range(len(names)), names, **how)
    ax.set_ylim(len(names) - 0.4, -0.6)


# --- clips and features ---------------------------------------------------------------------------


def plot_counts(counts: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Stacked bars: one bar for each row of `counts` (an emotion), one segment for each column.

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
    ax.legend(frameon=False, title=counts.columns.name, **OUTSIDE)
    ax.grid(axis="y", visible=False)
    return ax


def plot_by_emotion(
    values: pd.Series, emotions: pd.Series, order: Sequence[str], *, label: str, title: str = "",
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Box plots of one number for each clip, by emotion.

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
    ax.plot(np.arange(len(samples)) / rate, samples, linewidth=0.4, color=PALETTE.get(label, DARK))
    ax.set(title=label, xlim=(0, len(samples) / rate), xlabel="s")
    ax.grid(visible=False)
    return ax


def plot_bands(
    bands: np.ndarray, *, seconds: float, label: str, ylabel: str = "mel band", ax: Axes | None = None
) -> Axes:
    """An image of `bands`, shape (n_frames, n_bands): time to the right, bands upwards.

    Examples
    --------
    >>> ax = plot_bands(np.random.default_rng(0).normal(size=(100, 40)), seconds=1.0, label="happy")
    >>> [float(edge) for edge in ax.images[0].get_extent()]  # seconds, bands
    [0.0, 1.0, 0.5, 40.5]
    """
    ax = axes(ax, 4, 2)
    extent = (0, seconds, 0.5, bands.shape[1] + 0.5)
    ax.imshow(bands.T, origin="lower", aspect="auto", interpolation="nearest", cmap="magma", extent=extent)
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
    """One point for each clip at `points`, shape (n_clips, 2), coloured by group.

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
    ncols = 2 if groups.nunique() > 12 else 1
    ax.legend(frameon=False, markerscale=1.6, fontsize=8, ncols=ncols, **OUTSIDE)
    return ax


def plot_correlation(correlation: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """A correlation matrix from -1 (blue) to 1 (red); only the rows are named.

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
    """One point for each feature: variance between speakers (x) and between emotions (y), coloured by family.

    `shares` has the columns `family, emotion, speaker`, fractions.

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
    ax.plot([0, limit], [0, limit], color=LIGHT, linestyle=":")
    ax.set(xlim=(0, limit), ylim=(0, limit), title=title)
    ax.set(xlabel="variance between speakers", ylabel="between emotions")
    _percent(ax.xaxis)
    _percent(ax.yaxis)
    ax.legend(frameon=False, fontsize=8, **OUTSIDE)
    return ax


# --- results --------------------------------------------------------------------------------------


def plot_confusion(matrix: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Percent of each true emotion's clips (rows) that are predicted as each emotion (columns).

    Examples
    --------
    >>> ax = plot_confusion(pd.DataFrame({"calm": [0.9, 0.4], "sad": [0.1, 0.6]}, index=["calm", "sad"]))
    >>> [text.get_text() for text in ax.texts]
    ['90', '10', '40', '60']
    """
    ax = axes(ax, 5, 4.3)
    sns.heatmap(
        100 * matrix, annot=True, fmt=".0f", cmap="Blues", vmin=0, vmax=100, cbar=False, square=True,
        linewidths=0.5, annot_kws={"fontsize": 8}, ax=ax,
    )  # fmt: skip
    ax.set(title=title, xlabel="predicted", ylabel="true emotion")
    ax.tick_params(axis="x", rotation=45)
    ax.tick_params(axis="y", rotation=0)
    return ax


def plot_scores(scores: pd.DataFrame, *, chance: float, title: str = "", ax: Axes | None = None) -> Axes:
    """UAR of each model with its interval: filled points for unseen speakers, hollow ones for the random split.

    `scores` has the columns `model, protocol, value, low, high`, fractions. The first word of `model` decides the colour.

    Examples
    --------
    >>> scores = pd.DataFrame({"model": "mlp", "protocol": ["loso", "random"], "value": [0.6, 0.8]})
    >>> ax = plot_scores(scores.assign(low=[0.5, 0.7], high=[0.7, 0.9]), chance=0.25)
    >>> [text.get_text() for text in ax.texts]
    ['60.0%', '80.0%', 'chance']
    """
    models = list(dict.fromkeys(scores["model"]))
    ax = axes(ax, 6.5, 1.4 + 0.36 * len(models))
    with_random = (scores["protocol"] == "random").any()  # else each model has one point and needs no legend
    for row in scores.itertuples():
        random = row.protocol == "random"
        shift = 0.17 if random else -0.17
        y = models.index(row.model) + (shift if with_random else 0)
        colour = MODEL_COLOURS.get(row.model.split()[0], DARK)
        ax.plot([row.low, row.high], [y, y], color=colour, linewidth=2, alpha=0.5 if random else 1)
        fill = "white" if random else colour
        ax.plot(row.value, y, "o", color=colour, markerfacecolor=fill, markersize=7)
        _write_score(
            ax, row.value, (row.high, y), 5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        )
    ax.axvline(chance, color=LIGHT, linestyle=":", linewidth=1)
    ax.annotate("chance", (chance, -0.45), (3, 0), textcoords="offset points", fontsize=8, color="#777777")
    _list_rows(ax, models)
    ax.set(xlim=(0, 1.04), xlabel="UAR, 95 % interval over speakers", title=title)
    _percent(ax.xaxis)
    if with_random:
        grey = "#555555"
        ax.plot([], [], "o", color=grey, markerfacecolor=grey, label="unseen speakers")
        ax.plot(
            [], [], "o", color=grey, markerfacecolor="white", label="random split (speakers on both sides)"
        )
        below = (0.5, -1.1 / len(models))
        ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=below, ncols=2)
    return ax


def plot_speaker_gaps(
    gaps: pd.Series, *, models: tuple[str, str], title: str = "", ax: Axes | None = None
) -> Axes:
    """One bar for each speaker: UAR of the first model minus that of the second, in the colour of the better one.

    Examples
    --------
    >>> plot_speaker_gaps(pd.Series({"ann": 0.1, "ben": -0.2}), models=("mlp", "xgboost")).get_ylabel()
    'UAR, mlp minus xgboost'
    """
    ax = axes(ax, 6.5, 3)
    gaps = gaps.sort_values()
    first, second = (MODEL_COLOURS.get(name, DARK) for name in models)
    ax.bar(gaps.index.astype(str), gaps, color=np.where(gaps > 0, first, second))
    ax.axhline(0, color=DARK, linewidth=0.8)
    ax.set(xlabel="speaker", ylabel=f"UAR, {models[0]} minus {models[1]}", title=title)
    _percent(ax.yaxis, "+.0%")
    ax.tick_params(axis="x", labelsize=7)
    ax.grid(axis="x", visible=False)
    return ax


def plot_learning_curve(curve: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """UAR over the number of training speakers; `curve` has `model, speakers, value, low, high`.

    Examples
    --------
    >>> curve = pd.DataFrame({"model": "mlp", "speakers": [5, 19], "value": [0.5, 0.6]})
    >>> ax = plot_learning_curve(curve.assign(low=[0.4, 0.5], high=[0.6, 0.7]))
    >>> ax.lines[0].get_xydata().tolist()
    [[5.0, 0.5], [19.0, 0.6]]
    """
    ax = axes(ax, 5.5, 3.6)
    for model, part in curve.groupby("model", sort=False):
        colour = MODEL_COLOURS.get(model, DARK)
        ax.plot(part["speakers"], part["value"], "o-", color=colour, label=model, markersize=5)
        ax.fill_between(part["speakers"], part["low"], part["high"], color=colour, alpha=0.12, linewidth=0)
    ax.set(xlabel="speakers in training", ylabel="UAR on unseen speakers", title=title)
    _percent(ax.yaxis)
    ax.legend(frameon=False)
    return ax


def plot_importance(importance: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Grouped bars: UAR lost when a family's columns are shuffled; rows are families, columns models.

    Examples
    --------
    >>> losses = pd.DataFrame({"mlp": [0.1, 0.0], "xgboost": [0.2, 0.1]}, index=["mfcc", "pitch"])
    >>> [label.get_text() for label in plot_importance(losses).get_yticklabels()]
    ['mfcc', 'pitch']
    """
    ax = axes(ax, 6, 3.4)
    importance.plot.barh(ax=ax, color=[MODEL_COLOURS.get(name, DARK) for name in importance], width=0.75)
    ax.invert_yaxis()
    ax.set(xlabel="UAR lost when the family is shuffled among the test clips", ylabel="", title=title)
    _percent(ax.xaxis)
    ax.legend(frameon=False)
    ax.grid(axis="y", visible=False)
    return ax


def plot_reliability(tables: Mapping[str, pd.DataFrame], *, title: str = "", ax: Axes | None = None) -> Axes:
    """Accuracy over confidence, one line for each table of `calibration.reliability`; the diagonal is perfect.

    Examples
    --------
    >>> table = pd.DataFrame({"confidence": [0.5, 0.9], "accuracy": [0.4, 0.7], "clips": [30, 90]})
    >>> plot_reliability({"as trained": table}).lines[1].get_xydata().tolist()
    [[0.5, 0.4], [0.9, 0.7]]
    """
    ax = axes(ax, 4.5, 4.2)
    ax.plot([0, 1], [0, 1], color=LIGHT, linestyle=":")
    for (name, table), colour in zip(tables.items(), ("#c8352b", "#1f5f8b"), strict=False):
        ax.plot(table["confidence"], table["accuracy"], color=colour, label=name, linewidth=1.4)
        ax.scatter(table["confidence"], table["accuracy"], s=8 + table["clips"] / 6, color=colour)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right", title=title)
    ax.legend(frameon=False)
    return ax


def plot_ladder(rungs: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """One point for each rung with its interval; hollow where the test speakers are in training too.

    `rungs` has the columns `rung, value, low, high, chance, same_speaker`, fractions.

    Examples
    --------
    >>> rungs = pd.DataFrame({"rung": ["random", "unseen"], "value": [0.9, 0.6], "same_speaker": [1, 0]})
    >>> ax = plot_ladder(rungs.assign(low=[0.8, 0.5], high=[1.0, 0.7], chance=0.25))
    >>> [text.get_text() for text in ax.texts]
    ['90.0%', '60.0%']
    """
    ax = axes(ax, 7, 0.5 * len(rungs) + 1.4)
    colour = MODEL_COLOURS["mlp"]
    for y, row in enumerate(rungs.itertuples()):
        ax.plot([row.low, row.high], [y, y], color=colour, linewidth=2)
        ax.plot(row.value, y, "o", color=colour, markerfacecolor="white" if row.same_speaker else colour)
        ax.plot([row.chance, row.chance], [y - 0.25, y + 0.25], color=LIGHT, linestyle=":")
        _write_score(ax, row.value, (row.high, y), 6)
    _list_rows(ax, rungs["rung"])
    ax.set(xlim=(0, 1.06), title=title)
    ax.set_xlabel("95 % interval over speakers; hollow: speakers on both sides; dotted: chance", fontsize=8)
    _percent(ax.xaxis)
    return ax


def plot_risk_coverage(
    curve: pd.DataFrame, *, chosen: tuple[float, float], title: str = "", ax: Axes | None = None
) -> Axes:
    """Errors among the answers over the share answered (`calibration.risk_coverage`); the dot is `chosen`.

    Examples
    --------
    >>> curve = pd.DataFrame({"coverage": [0.5, 1.0], "risk": [0.1, 0.4]})
    >>> plot_risk_coverage(curve, chosen=(0.5, 0.1)).texts[0].get_text()
    'answers 50%, wrong in 10%'
    """
    ax = axes(ax, 5.5, 3.6)
    ax.plot(curve["coverage"], curve["risk"], color=MODEL_COLOURS["mlp"])
    ax.plot(*chosen, "o", color=PALETTE["angry"])
    text = f"answers {chosen[0]:.0%}, wrong in {chosen[1]:.0%}"
    ax.annotate(text, chosen, (8, -12), textcoords="offset points", fontsize=9)
    ax.set(xlim=(0, 1), ylim=(0, 1.2 * curve["risk"].iloc[-1]), title=title)
    ax.set(xlabel="clips answered", ylabel="wrong among them")
    _percent(ax.xaxis)
    _percent(ax.yaxis)
    return ax


def plot_groups(
    groups: pd.DataFrame, *, xlabel: str, title: str = "", other: str = "",
    colours: Sequence[str] | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """One point for each group with its interval.

    Parameters
    ----------
    groups : DataFrame
        `group, value, low, high`, fractions; a row with an empty `group` leaves a gap.
    other : str
        A column of `groups` to show as diamonds, such as the accuracy of listeners.
    colours : sequence of str
        One for each row.

    Examples
    --------
    >>> groups = pd.DataFrame({"group": ["female", "male"], "value": [0.7, 0.6], "low": [0.6, 0.5], "high": [0.8, 0.7]})
    >>> ax = plot_groups(groups, xlabel="UAR")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['female', 'male']
    """
    ax = axes(ax, 6, 0.28 * len(groups) + 1)
    colours = list(colours) if colours is not None else [MODEL_COLOURS["mlp"]] * len(groups)
    for y, (row, colour) in enumerate(zip(groups.to_dict("records"), colours, strict=True)):
        ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2, alpha=0.6)
        ax.plot(row["value"], y, "o", color=colour, markersize=5)
        if other:
            ax.plot(row[other], y, "D", color=PALETTE["happy"], markeredgecolor="#555555", markersize=6)
    if other:
        ax.plot([], [], "o-", color=colours[0], label="model, 95 % interval")
        ax.plot([], [], "D", color=PALETTE["happy"], markeredgecolor="#555555", label=other)
        ax.legend(frameon=False, fontsize=8, **OUTSIDE)
    _list_rows(ax, groups["group"], fontsize=8)
    ax.set(xlim=(0, 1), xlabel=xlabel, title=title)
    _percent(ax.xaxis)
    ax.grid(axis="y", visible=False)
    return ax


def plot_conditions(scores: pd.DataFrame, *, chance: float, title: str = "", ax: Axes | None = None) -> Axes:
    """UAR: rows are conditions, points are ways of training (columns); the grey line joins the worst and the best.

    Examples
    --------
    >>> scores = pd.DataFrame({"as recorded": [0.6, 0.3], "with copies": [0.6, 0.5]}, index=["clean", "noise 5 dB"])
    >>> ax = plot_conditions(scores, chance=0.25)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['as recorded', 'with copies']
    """
    ax = axes(ax, 7, 0.3 * len(scores) + 1.2)
    ax.hlines(range(len(scores)), scores.min(axis=1), scores.max(axis=1), color="#dddddd", linewidth=3)
    shifts = np.linspace(-0.15, 0.15, scores.shape[1])  # so that equal scores stay visible
    shades = sns.color_palette("colorblind", len(shifts))
    for way, colour, shift in zip(scores, shades, shifts, strict=True):
        ax.plot(scores[way], np.arange(len(scores)) + shift, "o", color=colour, markersize=6, label=way)
    ax.axvline(chance, color=LIGHT, linestyle=":", linewidth=1)
    _list_rows(ax, scores.index)
    ax.set(xlim=(0, 1.1 * scores.max().max()), xlabel="UAR on unseen speakers; dotted: chance", title=title)
    _percent(ax.xaxis)
    ax.grid(axis="y", visible=False)
    ax.legend(frameon=False, fontsize=8, **OUTSIDE)
    return ax
