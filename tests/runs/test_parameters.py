"""The notebooks' parameters: described there, checked before anything runs."""

from __future__ import annotations

import json

import pytest

from ser_lib import features
from ser_lib.errors import CorpusError, ReportError
from ser_lib.evaluation import splits
from ser_lib.runs import parameters

NAMES = sorted(path.stem for path in parameters.NOTEBOOKS.glob("*.ipynb"))


def notebook(folder, *lines):
    cells = [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "\n".join(lines)}]
    (folder / "mine.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A notebook of one's own, of these lines."""
    monkeypatch.setattr(parameters, "NOTEBOOKS", tmp_path)
    return lambda *lines: notebook(tmp_path, *lines)


@pytest.fixture
def sheep(tmp_path):
    """The manifest of a corpus whose emotions and speakers nobody else has."""
    rows = [f"{who}{what}.wav,{who},{what}" for who in ("dolly", "shaun") for what in ("bored", "proud")]
    (tmp_path / "sheep.csv").write_text("\n".join(["path,speaker,emotion", *rows]), encoding="utf-8")
    return str(tmp_path / "sheep.csv")


@pytest.mark.parametrize("name", NAMES)
def test_every_default_is_what_its_line_allows(name):
    for one in parameters.read_parameters(name).values():
        text = str(one.default).lower() if isinstance(one.default, bool) else str(one.default)
        if text and text not in one.words:
            assert one.kind
            for item in one.items(one.default):
                assert parameters._valid_instead(one.kind, item, "", ["03_eight"]) is None, (one, item)


@pytest.mark.parametrize("name", NAMES)
def test_words_are_the_librarys_own(name):
    described = parameters.read_parameters(name)
    for parameter, known in (("protocol", splits.PROTOCOLS), ("feature_set", features.SETS)):
        if parameter in described:
            assert set(described[parameter].words) <= set(known)


def test_the_help_tells_name_default_alternatives_and_meaning():
    rows = dict(parameters.help_rows("03_mlp_vs_boosting"))
    assert rows["emotions=eight"].startswith("four | eight | EMOTION,…: ")
    assert rows["PROTOCOL"] == "actors5, loso, random"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("x = 1", "the line of x does not end in"),
        ("x = 1  # a number of things", "the line of x does not end in"),
        ("x = 1  # THING: what", "the kinds are EMOTION, FEATURE_SET, MODEL"),
    ],
)
def test_a_line_that_says_too_little_is_refused(mine, line, complaint):
    mine(line)
    with pytest.raises(ReportError, match=complaint):
        parameters.read_parameters("mine")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"emotion": "four"}, r"has no parameter emotion; it has corpus='', emotions='eight'"),
        ({"emotions": "hapy,sad"}, r"'hapy' is not valid; give four \| eight \| EMOTION: angry, calm"),
        ({"emotions": "happy,"}, "at least two different names"),
        ({"protocol": "actors"}, "'actors' is not valid; give PROTOCOL: actors5, loso, random"),
        ({"models": "mlp,none"}, "'none' is not valid; give MODEL: mlp, xgboost"),
        ({"seeds": "0,-1"}, "'-1' is not valid; give NUMBER: a whole number from 0"),
        ({"seeds": "0,,1"}, "'' is not valid; give NUMBER"),
        ({"search": "maybe"}, r"'maybe' is not of the type of its default, False \(bool\)"),
        ({"search": 1}, "1 is not of the type"),
        ({"feature_set": True}, "True is not of the type"),
        ({"feature_set": "none"}, "give FEATURE_SET: classic, compact, full"),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line_with_what_is(given, complaint, monkeypatch):
    monkeypatch.delenv("SER_RAVDESS_DIR", raising=False)
    with pytest.raises((ReportError, CorpusError), match=complaint) as caught:
        parameters.check_values("03_mlp_vs_boosting", given)
    assert "\n" not in str(caught.value)


def test_what_is_allowed_passes():
    for given in (
        {},
        {"emotions": "angry, sad", "protocol": "random", "seeds": "3", "models": "majority"},
        {"seeds": 7},  # what papermill makes of -p seeds 7
        {"search": True},
    ):
        parameters.check_values("03_mlp_vs_boosting", given)
    parameters.check_values("07_sequence_models", {"budget": "smoke", "networks": "dense", "enroll": 0})


def test_a_literal_alternative_is_listed(mine):
    mine('size = "small"  # small | large: of the thing')
    with pytest.raises(ReportError, match=r"size='big': give small \| large"):
        parameters.check_values("mine", {"size": "big"})


def test_a_corpus_has_its_own_emotions_and_speakers(sheep):
    parameters.check_values("01_eda", {"corpus": sheep, "emotions": "bored,proud", "speaker": "dolly"})
    with pytest.raises(ReportError, match=r"'happy' is not valid; give four .* EMOTION: bored, proud"):
        parameters.check_values("01_eda", {"corpus": sheep, "emotions": "happy,proud"})
    with pytest.raises(ReportError, match=r"'bored' is not valid; give four .* EMOTION: angry"):
        parameters.check_values("01_eda", {"emotions": "bored,proud"})
    with pytest.raises(ReportError, match="give SPEAKER: dolly, shaun"):
        parameters.check_values("01_eda", {"corpus": sheep, "speaker": "01"})


def test_a_corpus_must_be_there_and_be_one(tmp_path):
    with pytest.raises(CorpusError, match="nowhere: no such folder"):
        parameters.check_values("01_eda", {"corpus": str(tmp_path / "nowhere")})
    with pytest.raises(CorpusError, match="no recordings"):
        parameters.check_values("05_leakage_audit", {"other": str(tmp_path)})


def test_a_run_must_be_among_the_reports():
    parameters.check_values("04_choose_and_export", {"run": "03_mine"}, ["03_mine"])
    with pytest.raises(ReportError, match="'03_yours' is not valid; give RUN: 03_mine"):
        parameters.check_values("04_choose_and_export", {"run": "03_yours"}, ["03_mine"])
