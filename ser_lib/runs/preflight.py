"""`corpus check`: what a corpus contains, and whether a report on it would be reliable."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ser_lib import corpora
from ser_lib.audio import decoding
from ser_lib.corpora import Corpus
from ser_lib.corpora.clips import LEFT_OUT, SAME_SPEAKERS, list_source, plain_name
from ser_lib.corpora.schemes import label_map
from ser_lib.errors import CorpusError
from ser_lib.evaluation import splits
from ser_lib.features import tables

MIN_CLIPS = 10  # of an emotion: one clip is then at most a tenth of its recall
MIN_SPEAKERS = 5  # the intervals resample speakers, and `actors5` has five folds
MIN_EACH = 3  # speakers of an emotion: one to test, and at least two to train
SHOWN = 30  # lines of each list in the text


def examine(source: str, protocol: str = "actors5", emotions: Sequence[str] | None = None) -> dict[str, Any]:
    """Examine a corpus (as in `corpora.listing`) before a report with this protocol and these emotions.

    Its features are computed on the way and cached.

    Returns
    -------
    dict
        As `describe`, with `source`, `protocol`, the emotions `asked`, `labels` (as `label_changes`), `doubts`
        and `other_files`, by folder and suffix.
    """
    if not source.strip():
        raise CorpusError("an empty name where a corpus belongs; give a folder or a CSV manifest")
    data = tables.load_data(source)
    table = tables.select(data.table, emotions) if emotions else data.table
    asked = sorted(table["emotion"].unique())
    result: dict[str, Any] = {"source": source, "protocol": protocol, "asked": asked} | describe(data.corpus)
    others = {
        str(part): decoding.other_files(part) for part in corpora.sources(source) if os.path.isdir(part)
    }
    result |= {"labels": label_changes(source), "doubts": doubts(table, protocol), "other_files": others}
    if n := len(result["problems"]):
        result["doubts"].insert(0, f"{n} file(s) cannot be used, see above; repair or remove them")
    return result


def describe(corpus: Corpus) -> dict[str, Any]:
    """Describe a corpus in JSON types.

    Returns
    -------
    dict
        `summary`; `emotions` and `speakers`, by name, with their `clips`; `duration_s`, `sample_rates`,
        `channels`; `duplicates`, lists of sample-identical clips; `problems`.
    """
    clips = corpus.clips
    counts = pd.crosstab(clips["speaker"], clips["emotion"])
    about = clips.groupby("speaker")[["corpus", "gender"]].agg(lambda values: "+".join(sorted(set(values))))
    emotions = {
        emotion: {"clips": int(n.sum()), "speakers": int((n > 0).sum()), "fewest": int(n.min()), "most": int(n.max())}
        for emotion, n in counts.items()
    }  # fmt: skip
    speakers = {
        speaker: {**about.loc[speaker], "clips": {emotion: int(n) for emotion, n in row.items()}}
        for speaker, row in counts.iterrows()
    }
    return {
        "summary": corpus.summary(),
        "emotions": emotions,
        "speakers": speakers,
        "duration_s": {name: clips["duration_s"].agg(name) for name in ("min", "median", "max", "sum")},
        "sample_rates": {str(rate): int(n) for rate, n in clips["sample_rate"].value_counts().items()},
        "channels": {str(count): int(n) for count, n in clips["channels"].value_counts().items()},
        "duplicates": [list(part) for _, part in corpus.duplicates.groupby("audio_sha256")["clip_id"]],
        "problems": [text for text in corpus.problems["problem"] if not text.endswith(LEFT_OUT)],
    }


def label_changes(source: str | Path) -> list[dict[str, Any]]:
    """Return what the label maps of a source change: `label`, its `emotion` (None: left out), `clips`."""
    rows = []
    for part in corpora.sources(source):
        if labels := label_map(part):
            counts = list_source(part)[0]["emotion"].value_counts()
            for label, emotion in labels.items():
                rows.append(
                    {"label": label, "emotion": emotion, "clips": int(counts.get(plain_name(label), 0))}
                )
    return rows


def as_text(result: dict[str, Any]) -> str:
    """Return the result of `examine` as text."""
    emotions, speakers, length = result["emotions"], result["speakers"], result["duration_s"]
    lines = [f"{result['source']}: {result['summary']}", ""]
    for emotion, n in emotions.items():
        name = f"{emotion:<{max(map(len, emotions))}} {n['clips']:7}"
        lines.append(f"{name} clips of {n['speakers']} speakers, {n['fewest']} to {n['most']} each")
    width = max(len(name) for name in ("speaker", *speakers))
    lines += ["", f"{'speaker':<{width}}  gender   {'  '.join(emotions)}"]
    rows = []
    for name, about in speakers.items():
        counts = "  ".join(f"{about['clips'][emotion]:{len(emotion)}}" for emotion in emotions)
        rows.append(f"{name:<{width}}  {about['gender']:<7}  {counts}")
    rates = ", ".join(f"{rate} Hz ({n})" for rate, n in result["sample_rates"].items())
    lines += [
        *_first(rows),
        "",
        f"durations: {length['min']:.1f} to {length['max']:.1f} s, median {length['median']:.1f} s, "
        f"{length['sum'] / 60:.1f} min in all; {rates}",
        *_first([f"sample-identical: {', '.join(names)}" for names in result["duplicates"]]),
    ]
    for row in result["labels"]:
        change = f"→ {row['emotion']}" if row["emotion"] else "is left out"
        lines.append(f"labels.yaml: {row['label']} {change}, {row['clips']} clip(s)")
    for place, counts in result["other_files"].items():
        if counts:
            lines.append(f"{place}: {decoding.other_files_text(counts)}")
    lines += [*_first([f"cannot be used: {problem}" for problem in result["problems"]]), ""]
    if result["doubts"]:
        reasons = _first([f"- {doubt}" for doubt in result["doubts"]])
        return "\n".join([*lines, f"A report under {result['protocol']} would not be reliable:", *reasons])
    command = [
        sys.executable,
        "-m",
        "ser_lib",
        "reports",
        "--notebook",
        "03",
        "-p",
        f"corpus={result['source']}",
    ]
    command += ["-p", f"emotions={','.join(result['asked'])}", "-p", f"protocol={result['protocol']}"]
    text = subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)
    return "\n".join([*lines, "No problem for a report:", f"  {text}"])


def _first(lines: list[str]) -> list[str]:
    """Return the first `SHOWN` lines, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"… and {more} more (--json has all)"] if more > 0 else lines


# --- doubts ---------------------------------------------------------------------------------------


def doubts(clips: pd.DataFrame, protocol: str = "actors5") -> list[str]:
    """Return why a report on these clips would fail or not be reliable, each reason with its remedy."""
    apart = protocol != "random"
    emotions, speakers = clips["emotion"].value_counts(), clips["speaker"].nunique()
    reasons = []
    if len(emotions) < 2:
        reasons.append(f"one emotion, {emotions.index[0]}: nothing to classify; add clips of another")
    if apart and speakers < MIN_SPEAKERS:
        reasons.append(
            f"{speakers} speaker(s): {protocol} tests on unseen speakers, and fewer than {MIN_SPEAKERS} tell little "
            "about the next one; add recordings of others"
        )
    remedy = "add some, or leave the label out (null in labels.yaml, or without it in emotions=…)"
    for emotion, part in clips.groupby("emotion"):
        n, who = len(part), sorted(part["speaker"].unique())
        if n < MIN_CLIPS:
            reasons.append(f"{emotion}: {n} clip(s), at least {MIN_CLIPS} are needed; {remedy}")
        elif apart and len(who) < min(MIN_EACH, speakers):
            by = ", ".join(who)
            reasons.append(f"{emotion}: only of {by}, at least {MIN_EACH} speakers are needed; {remedy}")
    reasons += [*_similar_labels(emotions.index), *_contradictions(clips)]
    return reasons or _never_trained(clips, protocol)


def _similar_labels(emotions: pd.Index) -> list[str]:
    alike = emotions.to_series().groupby(emotions.str.strip().str.lower())
    return [
        f"{' and '.join(repr(name) for name in names)} differ only in spelling; map one to the other in labels.yaml"
        for _, names in alike
        if len(names) > 1
    ]


def _contradictions(clips: pd.DataFrame) -> list[str]:
    """Find clips with the same samples and different labels, and speaker names in several corpora."""
    reasons = []
    for _, twins in clips[clips["audio_sha256"].duplicated(keep=False)].groupby("audio_sha256"):
        for column in ("emotion", "speaker"):
            values = twins[column].unique()
            if len(values) > 1:
                what = f"{' and '.join(twins['clip_id'])}: the same samples"
                remedy = "correct one, or remove both"
                reasons.append(f"{what}, but {column} {' and '.join(values)}; {remedy}")
    corpus = clips["corpus"].replace(SAME_SPEAKERS)
    for speaker, names in clips.assign(corpus=corpus).groupby("speaker")["corpus"].unique().items():
        if len(names) > 1:
            reasons.append(
                f"speaker {speaker} is in {' and '.join(names)} and counts as one person; give two people two "
                "names, and one person one corpus"
            )
    return reasons


def _never_trained(clips: pd.DataFrame, protocol: str) -> list[str]:
    """Find emotions that are in the test clips of a fold and not in its training clips."""
    try:
        sides = splits.folds(clips, protocol)
    except CorpusError as error:
        return [str(error)]
    emotion = clips["emotion"].to_numpy()
    missing = {name for train, test in sides.values() for name in set(emotion[test]) - set(emotion[train])}
    return [
        f"{name}: a fold tests all its speakers; add recordings of others, or use protocol=loso"
        for name in sorted(missing)
    ]
