"""Folders and CSV files of recordings to one clip table, whatever the corpus."""

from ser_lib.corpora.clips import (
    CLIP_COLUMNS,
    EIGHT,
    FACTS,
    FOUR,
    RAVDESS,
    Corpus,
    emotion_list,
    find_audio,
    listing,
    sources,
)

__all__ = [
    "CLIP_COLUMNS",
    "EIGHT",
    "FACTS",
    "FOUR",
    "RAVDESS",
    "Corpus",
    "emotion_list",
    "find_audio",
    "listing",
    "sources",
]
