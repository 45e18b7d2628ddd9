"""Folders and CSV files of recordings to one clip table, whatever the corpus."""

from ser_lib.corpora.clips import (
    AUDIO_COLUMNS,
    CLIP_COLUMNS,
    EIGHT,
    FOUR,
    RAVDESS,
    Corpus,
    default_audio,
    emotion_list,
    find_audio,
    listing,
    sources,
)

__all__ = [
    "AUDIO_COLUMNS",
    "CLIP_COLUMNS",
    "EIGHT",
    "FOUR",
    "RAVDESS",
    "Corpus",
    "default_audio",
    "emotion_list",
    "find_audio",
    "listing",
    "sources",
]
