"""The clip columns in file names, by each scheme."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ser_lib.corpora.ravdess import check_ravdess_grid
from ser_lib.corpora.schemes import CORPORA, NAMING

NAMES = [
    ("ravdess", "03-01-01-01-01-01-01", ("ravdess", "01", "male", "neutral", "normal", "kids", 1)),
    ("ravdess", "03-01-02-01-02-01-02", ("ravdess", "02", "female", "calm", "normal", "dogs", 1)),
    ("ravdess", "03-01-03-02-01-02-11", ("ravdess", "11", "male", "happy", "strong", "kids", 2)),
    ("ravdess", "03-01-04-01-01-01-24", ("ravdess", "24", "female", "sad", "normal", "kids", 1)),
    ("ravdess", "03-01-05-01-01-01-23", ("ravdess", "23", "male", "angry", "normal", "kids", 1)),
    ("ravdess", "03-01-06-01-01-01-10", ("ravdess", "10", "female", "fearful", "normal", "kids", 1)),
    ("ravdess", "03-01-07-01-01-01-09", ("ravdess", "09", "male", "disgust", "normal", "kids", 1)),
    ("ravdess", "03-01-08-02-02-02-16", ("ravdess", "16", "female", "surprised", "strong", "dogs", 2)),
    ("ravdess", "03-02-06-02-01-02-05", ("ravdess-song", "05", "male", "fearful", "strong", "kids", 2)),
    ("emodb", "03a01Wa", ("emodb", "03", "male", "angry", None, "a01", 1)),
    ("emodb", "08a02Lc", ("emodb", "08", "female", "bored", None, "a02", 3)),
    ("emodb", "09b03Ea", ("emodb", "09", "female", "disgust", None, "b03", 1)),
    ("emodb", "10a04Ab", ("emodb", "10", "male", "fearful", None, "a04", 2)),
    ("emodb", "11b10Fd", ("emodb", "11", "male", "happy", None, "b10", 4)),
    ("emodb", "16a05Ta", ("emodb", "16", "female", "sad", None, "a05", 1)),
    ("emodb", "15a07Na", ("emodb", "15", "male", "neutral", None, "a07", 1)),
    ("cremad", "1001_DFA_ANG_XX", ("cremad", "1001", None, "angry", "unspecified", "DFA", None)),
    ("cremad", "1091_IEO_DIS_LO", ("cremad", "1091", None, "disgust", "low", "IEO", None)),
    ("cremad", "1002_IEO_FEA_MD", ("cremad", "1002", None, "fearful", "medium", "IEO", None)),
    ("cremad", "1003_IEO_HAP_HI", ("cremad", "1003", None, "happy", "high", "IEO", None)),
    ("cremad", "1004_TAI_NEU_XX", ("cremad", "1004", None, "neutral", "unspecified", "TAI", None)),
    ("cremad", "1040_ITH_SAD_X", ("cremad", "1040", None, "sad", "unspecified", "ITH", None)),
    ("tess", "OAF_back_angry", ("tess", "OAF", "female", "angry", None, "back", None)),
    ("tess", "OA_bite_neutral", ("tess", "OAF", "female", "neutral", None, "bite", None)),
    ("tess", "YAF_youth_ps", ("tess", "YAF", "female", "surprised", None, "youth", None)),
    ("tess", "YAF_dog_fear", ("tess", "YAF", "female", "fearful", None, "dog", None)),
    ("tess", "OAF_fear_happy", ("tess", "OAF", "female", "happy", None, "fear", None)),
    ("tess", "OAF_sad_disgust", ("tess", "OAF", "female", "disgust", None, "sad", None)),
    ("tess", "YAF_ring_sad", ("tess", "YAF", "female", "sad", None, "ring", None)),
    ("savee", "DC_a01", ("savee", "DC", "male", "angry", None, "a01", None)),
    ("savee", "DC/d02", ("savee", "DC", "male", "disgust", None, "d02", None)),
    ("savee", "JE_f03", ("savee", "JE", "male", "fearful", None, "f03", None)),
    ("savee", "JE/h04", ("savee", "JE", "male", "happy", None, "h04", None)),
    ("savee", "JK/n30", ("savee", "JK", "male", "neutral", None, "n30", None)),
    ("savee", "KL/sa05", ("savee", "KL", "male", "sad", None, "sa05", None)),
    ("savee", "KL_su15", ("savee", "KL", "male", "surprised", None, "su15", None)),
    ("nemo", "EB0_anger_13", ("nemo", "EB0", None, "angry", None, "13", None)),
    ("nemo", "MK0_fear_1", ("nemo", "MK0", None, "fearful", None, "1", None)),
    ("nemo", "KS0_happiness_90", ("nemo", "KS0", None, "happy", None, "90", None)),
    ("nemo", "WR0_neutral_20", ("nemo", "WR0", None, "neutral", None, "20", None)),
    ("nemo", "TP0_sadness_7", ("nemo", "TP0", None, "sad", None, "7", None)),
    ("nemo", "IC0_surprised_31", ("nemo", "IC0", None, "surprised", None, "31", None)),
    ("korean", "ema00001", ("korean", "ema", None, "neutral", None, "01", None)),
    ("korean", "neo00105", ("korean", "neo", None, "happy", None, "05", None)),
    ("korean", "nec00203", ("korean", "nec", None, "angry", None, "03", None)),
    ("korean", "emh00302", ("korean", "emh", None, "sad", None, "02", None)),
]


@pytest.mark.parametrize(("scheme", "name", "expected"), NAMES)
def test_names_of_each_scheme(scheme, name, expected):
    path = Path(f"folder/{name}.wav")
    row = NAMING[scheme](path)
    columns = ("corpus", "speaker", "gender", "emotion", "intensity", "statement", "repetition")
    assert tuple(row.get(column) for column in columns) == expected
    assert [other for other, parse in NAMING.items() if parse(path)] == [scheme]


WRONG = [
    "02-01-01-01-01-01-01", "03-03-01-01-01-01-01", "03-01-09-01-01-01-01", "03-01-01-03-01-01-01",
    "03-01-01-01-03-01-01", "03-01-01-01-01-01-1", "03-01-01-01-01-01-01-01", "03-01-01-01-01-01-25",
    "03-01-01-01-01-01-00", "03a01Xa", "3a01Wa", "2001_DFA_ANG_XX", "1001_DFA_SUR_XX", "1001_DFA_ANG_HIGH",
    "MAF_back_angry", "OAF_back_calm", "XX_a01", "a01", "DC_x01", "speech",
]  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_names_of_no_scheme(name):
    assert [parse(Path(f"folder/{name}.wav")) for parse in NAMING.values()] == [None] * len(NAMING)


def test_the_grid_names_what_is_missing_and_what_is_extra():
    ids = [
        f"03-01-{e:02d}-{i:02d}-{s:02d}-{r:02d}-{a:02d}"
        for a in range(1, 25) for e in range(1, 9) for i in (1, 2)[: 1 if e == 1 else 2] for s in (1, 2) for r in (1, 2)
    ]  # fmt: skip
    assert len(ids) == 1_440
    assert check_ravdess_grid(pd.DataFrame({"clip_id": ids})) == ([], [])
    changed = pd.DataFrame({"clip_id": [*ids[1:-1], "03-01-01-02-01-01-01"]})
    assert check_ravdess_grid(changed) == (sorted([ids[0], ids[-1]]), ["03-01-01-02-01-01-01"])


def test_a_card_describes_each_corpus_that_is_known():
    assert set(NAMING) <= set(CORPORA)
    assert set(CORPORA) - set(NAMING) == {"ravdess-song"}  # of the same scheme
