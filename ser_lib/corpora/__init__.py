"""Folders and CSV files of recordings to one clip table, whatever the corpus."""

from ser_lib.corpora.clips import (
    CLIP_COLUMNS,
    EIGHT,
    FACTS,
    FOUR,
    RAVDESS,
    SUFFIXES,
    Corpus,
    emotion_list,
    find_audio,
    listing,
    recordings,
    sources,
)

__all__ = [
    "CLIP_COLUMNS",
    "EIGHT",
    "FACTS",
    "FOUR",
    "RAVDESS",
    "SUFFIXES",
    "Corpus",
    "emotion_list",
    "find_audio",
    "listing",
    "recordings",
    "sources",
]
