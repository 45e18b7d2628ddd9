"""card: training data, licence and limits are those of the corpus that was used."""

from __future__ import annotations

import json

import pytest

from ser_lib.runs.ledger import REPORTS
from ser_lib.serving import bundle, card


def metadata(corpus: str, **training) -> dict:
    """The shipped metadata, of another corpus."""
    shipped = json.loads(bundle.DEFAULT.read_text(encoding="utf-8"))
    about = {"corpus": corpus, "data_hash": "ab12", "clips": 339, "speakers": 10, "copies": 0, "seed": 0}
    chosen = shipped["chosen"] | {"gain_of_copies": None}
    return shipped | {"training": about | training, "licence": card.licence([corpus]), "chosen": chosen}


@pytest.mark.parametrize(
    ("corpora", "given", "expected"),
    [
        (["ravdess"], "", card.LICENCE),
        (["ravdess", "ravdess-song"], "", card.LICENCE),
        (["ravdess"], "as agreed", "as agreed"),
        (["emodb"], "", "not stated"),
        (["clips"], "CC0", "CC0"),
        (["emodb", "ravdess"], "", "not stated; for RAVDESS, a part of it, CC BY-NC-SA 4.0"),
    ],
)
def test_the_licence_is_that_of_the_recordings(corpora, given, expected):
    assert card.licence(corpora, given) == expected


def test_the_shipped_model_is_of_ravdess():
    shipped = json.loads(bundle.DEFAULT.read_text(encoding="utf-8"))
    text = card.model_card(shipped)
    assert "1440 clips of 24 speakers of RAVDESS (Livingstone & Russo 2018): acted, North American" in text
    assert f"and {shipped['training']['copies']} augmented copies of them at other speeds" in text
    assert "studio recordings. The report `06" in text
    assert shipped["licence"] == card.licence(["ravdess"])
    committed = (REPORTS / "04_choose_and_export" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert committed.split()[:20] == text.split()[:20]


def test_a_known_corpus_is_named_and_ravdess_is_not():
    text = card.model_card(metadata("emodb"))
    assert "339 clips of 10 speakers of EMO-DB (Burkhardt et al. 2005): acted, German" in text
    assert "**Licence.** not stated. The code" in text
    for other in ("RAVDESS", "copies", "for studio recordings", "06_stress"):
        assert other not in text


def test_a_users_own_corpus_is_not_described():
    text = card.model_card(metadata("patients_of_dr_x", copies=1017))
    assert "of a user's own corpus; its language" in text
    assert "and 1017 augmented copies of them" in text
    assert "dr_x" not in text  # the name of a file may be nobody's business


def test_several_corpora_are_all_named():
    text = card.model_card(metadata("emodb+mine+ravdess"))
    assert "EMO-DB (Burkhardt et al. 2005)" in text
    assert "; a user's own corpus" in text
    assert "; RAVDESS (Livingstone" in text
    assert "other speakers. Other languages" in text
