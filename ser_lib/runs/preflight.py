"""What `corpus check` tells: what a corpus holds, and whether a report on it could be trusted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ser_lib import corpora
from ser_lib.corpora import Corpus
from ser_lib.corpora.clips import LEFT_OUT, SAME_SPEAKERS, list_source
from ser_lib.corpora.schemes import label_map
from ser_lib.errors import CorpusError
from ser_lib.evaluation import splits
from ser_lib.features import tables

MIN_CLIPS = 10  # of an emotion: its recall then goes in steps of a tenth
MIN_SPEAKERS = 5  # the intervals resample speakers, and `actors5` has five folds
MIN_EACH = 3  # speakers of an emotion: one is tested, and what the others have in common is learnt
SHOWN = 30  # speakers, problems…, and no more; a report is to be read


def examine(source: str, protocol: str = "actors5", emotions: Sequence[str] | None = None) -> dict[str, Any]:
    """What there is to say of a corpus before a report; its features are computed on the way, and kept.

    Parameters
    ----------
    source : str
        As `corpus.listing`.
    protocol : one of splits.PROTOCOLS
        Of the report to come.
    emotions : sequence of str, optional
        Whose clips the report is to be of; all that there are if not given.

    Returns
    -------
    dict
        `describe`, and `source`, `protocol`, the emotions `asked`, `labels` (as `label_changes`) and `doubts`.

    Raises
    ------
    CorpusError
        As `tables.load_data`.
    """
    data = tables.load_data(source)
    table = tables.select(data.table, emotions) if emotions else data.table
    found: dict[str, Any] = {
        "source": source,
        "protocol": protocol,
        "asked": sorted(table["emotion"].unique()),
    }
    found |= describe(data.corpus) | {"labels": label_changes(source), "doubts": doubts(table, protocol)}
    if n := len(found["problems"]):
        found["doubts"].insert(0, f"{n} file(s) cannot be used, see above; repair them or take them out")
    return found


def describe(held: Corpus) -> dict[str, Any]:
    """What a corpus holds, as JSON has it.

    Returns
    -------
    dict
        `summary`; `emotions` and `speakers`, by name, with their `clips`; `duration_s`, `sample_rates`,
        `channels`; `duplicates`, lists of sample-identical clips; `problems`.
    """
    clips = held.clips
    counts = pd.crosstab(clips["speaker"], clips["emotion"])
    about = clips.groupby("speaker")[["corpus", "gender"]].agg(lambda told: "+".join(sorted(set(told))))
    length = clips["duration_s"]
    emotions = {
        emotion: {
            "clips": int(n.sum()),
            "speakers": int((n > 0).sum()),
            "fewest": int(n.min()),
            "most": int(n.max()),
        }
        for emotion, n in counts.items()
    }
    speakers = {
        speaker: {**about.loc[speaker], "clips": {emotion: int(n) for emotion, n in row.items()}}
        for speaker, row in counts.iterrows()
    }
    return {
        "summary": held.summary(),
        "emotions": emotions,
        "speakers": speakers,
        "duration_s": {
            "min": length.min(),
            "median": length.median(),
            "max": length.max(),
            "sum": length.sum(),
        },
        "sample_rates": {str(rate): int(n) for rate, n in clips["sample_rate"].value_counts().items()},
        "channels": {str(count): int(n) for count, n in clips["channels"].value_counts().items()},
        "duplicates": [list(part) for _, part in held.duplicates.groupby("audio_sha256")["clip_id"]],
        "problems": [text for text in held.problems["problem"] if not text.endswith(LEFT_OUT)],
    }


def label_changes(source: str | Path) -> list[dict[str, Any]]:
    """What the label maps of a source do, by name alone: `label`, its `emotion` (None: left out), `clips`."""
    rows = []
    for part in corpora.sources(source):
        if labels := label_map(part):
            counts = list_source(part)[0]["emotion"].value_counts()
            rows += [
                {"label": label, "emotion": emotion, "clips": int(counts.get(label, 0))}
                for label, emotion in labels.items()
            ]
    return rows


def written(found: dict[str, Any]) -> str:
    """What a check found, to be read.

    Parameters
    ----------
    found : dict
        From `examine`.
    """
    emotions, people, length = found["emotions"], list(found["speakers"].items()), found["duration_s"]
    width = max(len(name) for name in ("speaker", *found["speakers"]))
    lines = [f"{found['source']}: {found['summary']}", ""]
    for emotion, n in emotions.items():
        each = f"{n['fewest']} to {n['most']} each"
        lines.append(
            f"{emotion:<{max(map(len, emotions))}} {n['clips']:7} clips of {n['speakers']} speakers, {each}"
        )
    lines += ["", f"{'speaker':<{width}}  gender   {'  '.join(emotions)}"]
    counts = {
        name: "  ".join(f"{about['clips'][emotion]:{len(emotion)}}" for emotion in emotions)
        for name, about in people
    }
    lines += _shown([f"{name:<{width}}  {about['gender']:<7}  {counts[name]}" for name, about in people])
    rates = ", ".join(f"{rate} Hz ({n})" for rate, n in found["sample_rates"].items())
    lines += [
        "",
        f"durations: {length['min']:.1f} to {length['max']:.1f} s, median {length['median']:.1f} s, "
        f"{length['sum'] / 60:.1f} min in all; {rates}",
        *_shown([f"sample-identical: {', '.join(names)}" for names in found["duplicates"]]),
        *(
            f"labels.yaml: {row['label']} {'→ ' + row['emotion'] if row['emotion'] else 'is left out'}, {row['clips']} clip(s)"
            for row in found["labels"]
        ),
        *_shown([f"cannot be used: {problem}" for problem in found["problems"]]),
        "",
    ]
    if found["doubts"]:
        doubts = _shown([f"- {doubt}" for doubt in found["doubts"]])
        return "\n".join([*lines, f"A report under {found['protocol']} could not be trusted:", *doubts])
    command = ["python", "-m", "ser_lib", "reports", "--notebook", "03", "-p", f"corpus={found['source']}"]
    command += ["-p", f"emotions={','.join(found['asked'])}", "-p", f"protocol={found['protocol']}"]
    return "\n".join([*lines, "Nothing speaks against a report:", "  " + shlex.join(command)])


def _shown(lines: list[str]) -> list[str]:
    """The first `SHOWN`, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"… and {more} more (--json has all)"] if more > 0 else lines


def doubts(clips: pd.DataFrame, protocol: str = "actors5") -> list[str]:
    """Why a report under a protocol could not be run or trusted, each with the remedy; empty where it could.

    Parameters
    ----------
    clips : DataFrame
        With the columns of `CLIP_COLUMNS` that tell a clip apart: id, corpus, speaker, emotion, content.
    protocol : one of splits.PROTOCOLS
    """
    apart = protocol != "random"
    emotions, speakers = clips["emotion"].value_counts(), clips["speaker"].nunique()
    found = []
    if len(emotions) < 2:
        found.append(f"one emotion, {emotions.index[0]}: nothing to tell apart; add clips of another")
    if apart and speakers < MIN_SPEAKERS:
        found.append(
            f"{speakers} speaker(s): {protocol} tests on unseen speakers, and below {MIN_SPEAKERS} says little of "
            "the next one; add recordings of others"
        )
    remedy = "add some, or leave the label out (null in labels.yaml, or without it in emotions=…)"
    for emotion, part in clips.groupby("emotion"):
        n, who = len(part), sorted(part["speaker"].unique())
        if n < MIN_CLIPS:
            found.append(f"{emotion}: {n} clip(s), at least {MIN_CLIPS} are needed; {remedy}")
        elif apart and len(who) < min(MIN_EACH, speakers):
            found.append(
                f"{emotion}: only of {', '.join(who)}, at least {MIN_EACH} speakers are needed; {remedy}"
            )
    found += [*_written_twice(emotions.index), *_mixed_up(clips)]
    return found or _untaught(clips, protocol)


def _written_twice(emotions: pd.Index) -> list[str]:
    alike = emotions.to_series().groupby(emotions.str.strip().str.lower())
    return [
        f"{' and '.join(repr(name) for name in names)} differ only in writing; make one of them the other in labels.yaml"
        for _, names in alike
        if len(names) > 1
    ]


def _mixed_up(clips: pd.DataFrame) -> list[str]:
    """Clips of the same samples that are told differently, and speakers that may be two."""
    found = []
    for _, twins in clips[clips["audio_sha256"].duplicated(keep=False)].groupby("audio_sha256"):
        for column in ("emotion", "speaker"):
            if len(told := twins[column].unique()) > 1:
                found.append(
                    f"{' and '.join(twins['clip_id'])}: the same samples, but {column} {' and '.join(told)}; "
                    "correct one, or take both out"
                )
    of = clips.assign(corpus=clips["corpus"].replace(SAME_SPEAKERS)).groupby("speaker")["corpus"].unique()
    return found + [
        f"speaker {speaker} is in {' and '.join(corpora)} and taken for one person; name two people differently, "
        "and give one person one corpus"
        for speaker, corpora in of.items()
        if len(corpora) > 1
    ]


def _untaught(clips: pd.DataFrame, protocol: str) -> list[str]:
    """Emotions that a fold tests and never trains."""
    try:
        found = splits.sides(clips, protocol)
    except CorpusError as error:
        return [str(error)]
    emotion = clips["emotion"].to_numpy()
    alone = {name for train, test in found.values() for name in set(emotion[test]) - set(emotion[train])}
    return [
        f"{name}: a fold tests all speakers that say it; add recordings of others, or use protocol=loso"
        for name in sorted(alone)
    ]
