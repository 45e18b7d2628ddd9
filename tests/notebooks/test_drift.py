"""No figure is typed by hand: README, cards and index agree with predictions, metrics, tables and code.

Every figure in prose is part of a phrase in `PHRASES`, which is computed here. A figure without a phrase fails, so a
new figure needs its line. Tables between marks, code, names and addresses are not prose.
"""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from ser_lib import ROOT, __version__, augmentation, models
from ser_lib.audio import decoding
from ser_lib.corpora import EIGHT, FOUR, ravdess
from ser_lib.evaluation import calibration, metrics, splits
from ser_lib.features import FeatureConfig, feature_names, sets
from ser_lib.runs import index, ledger
from ser_lib.runs.report import REPORTS
from ser_lib.serving import bundle, card, command, model

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
FIGURE = re.compile(
    rf"(?<![\w.])\d[\w.,%-]*|\b(?:{'|'.join(WORDS[3:])}|[a-z]+teen|half|hundred|thousand)\b"
    r"|\b(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)\b",
    flags=re.IGNORECASE,
)
TIMES = (
    "in three lines",
    "two hours)",
    "half an hour)",
    "half a minute)",
    "0.5 GB, 1 to 2 minutes",
    "0.7 GB, 1 to 2 minutes",
    "0.4 GB, 1 minute",
)  # machines differ
FULL = ROOT / "data" / "ravdess_full.parquet"
CITED = (  # of other people's papers, and conventions
    "Livingstone & Russo 2018", "Russo FA (2018)", "PLoS ONE 13(5)", "Zenodo record 1188976", "90 % and more",
    "of seven emotions", "the 95 % interval", "The 95 % interval", "Luna-Jiménez et al. 2021", "answer is 503", "exits with 1", "[Report 04]", "[report 07]", "Notebooks 07 and 08",
    "notebook 08", "(Author 2020)", "within half a point", "07 needs PyTorch", "[report 06]", "Report 07,", "UTF-8", "UTF-16", "MP4, 3GP", "M4A, WebM,",
)  # fmt: skip


@cache
def metadata() -> dict:
    return json.loads(bundle.DEFAULT.read_text(encoding="utf-8"))


@cache
def clips() -> pd.DataFrame:
    """The description of each shipped clip."""
    names = [name for name in pq.read_schema(FULL).names if name not in feature_names()]
    return pd.read_parquet(FULL, columns=names)


def results(run: str, **about: object) -> pd.DataFrame:
    """The rows of one run's `metrics.json` with these values in these columns."""
    rows = pd.DataFrame(json.loads((REPORTS / run / "metrics.json").read_text(encoding="utf-8"))["results"])
    for column, value in about.items():
        rows = rows[rows[column] == value]
    return rows


def shares(column: str) -> pd.Series:
    return clips().drop_duplicates("speaker")[column].value_counts()


def phrases_of_readme() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"3\.\d+ to (3\.\d+)", (ROOT / "requirements-test.lock").read_text(encoding="utf-8"))[
        1
    ]
    openapi = json.loads((ROOT / "ser_lib" / "serving" / "web" / "openapi.json").read_text(encoding="utf-8"))[
        "openapi"
    ]
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(calibration.calibrate).parameters.items()
    }
    kept = {"accuracy": results("04_choose_and_export", metric="accuracy_of_kept")["value"].item()}
    kept["level"] = results("04_choose_and_export", metric="coverage", level=0.9)["value"].item()
    assert {name: defaults[name] for name in kept} == pytest.approx(kept, abs=0.02)
    limits = command.serve.make_context("serve", []).params
    return [
        f"chance is {100 / len(FOUR):g} % for four emotions and {100 / len(EIGHT):g} % for eight",
        "for four and for eight emotions",
        f"network under {WORDS[results('05_leakage_audit')['rung'].nunique()]} protocols",
        f"Python {project['requires-python'].removeprefix('>=')} to {newest}",
        f"downloads {ravdess.SIZE / 1e6:.0f} MB",
        f"up to {WORDS[round(decoding.MAX_S / 60)]} minutes",
        f"windows of {WORDS[round(model.WINDOW_S)]} seconds",
        f"OpenAPI {openapi.rpartition('.')[0]}",
        f"{WORDS[round(5 * defaults['accuracy'])]} answers in five",
        f"{WORDS[round(10 * defaults['level'])]} times in ten",
        f"by {metadata()['training']['speakers']} North American actors",
        f"is {card.LICENCE.partition(',')[0]}",
        f"may hold {limits['max_seconds_per_request']} seconds of audio",
    ]


def phrases_of_data_card() -> list[str]:
    speakers, (stereo, twins) = (
        clips()["speaker"].nunique(),
        [clips()[mask] for mask in (clips()["channels"] > 1, clips()["audio_sha256"].duplicated(keep=False))],
    )
    women, men = (WORDS[n] for n in shares("gender")[["female", "male"]])
    spoken = clips()["emotion"].value_counts()
    assert spoken["neutral"] * 2 == spoken.drop("neutral").min() == spoken.drop("neutral").max()
    assert len(twins) == 2
    assert (speakers, clips()["statement"].nunique()) == (24, 2)
    return [
        f"the {len(clips()):,} speech clips",
        f"({speakers} actors, {WORDS[clips()['emotion'].nunique()]} emotions)",
        f"the {len(feature_names()):,} numbers",
        f"{WORDS[len(augmentation.TRAINING)]} augmented copies",
        f"keep {_significant_bits()} significant bits",
        f"{WORDS[len(stereo)].capitalize()} clips are stereo",
        " and ".join(sorted(twins["clip_id"])),
        "Neutral has half",
        f"Twenty-four professional actors, {women} women and {men} men",
        f"{card.LICENCE.partition(',')[0]}, as the corpus",
    ]


def _significant_bits() -> int:
    """Of float32, which has 24, less those that are zero in every shipped value."""
    values = pd.read_parquet(FULL, columns=["level_mean", "f0_semitone_p50"]).to_numpy(np.float32)
    used = int(np.bitwise_or.reduce(values.view(np.uint32), axis=None))
    return 24 - ((used & -used).bit_length() - 1)


def phrases_of_contributing() -> list[str]:
    return [phrases_of_readme()[3].removeprefix("Python ")]


def phrases_of_glossary() -> list[str]:
    (units,) = models.make("mlp300")[-1].hidden_layer_sizes
    folds = WORDS[len(splits.RAVDESS_FOLDS)]
    return [
        f"the {folds} published folds",
        f"{folds} folds of whole speakers",
        f"one hidden layer of {units} units",
    ]


PHRASES = {
    "README.md": phrases_of_readme,
    "data/README.md": phrases_of_data_card,
    "CONTRIBUTING.md": phrases_of_contributing,
    "notebooks/README.md": phrases_of_glossary,
}


def prose(text: str) -> str:
    """What is left without code, generated tables and addresses, in one line."""
    text = re.sub(r"<!-- results -->.*?<!-- /results -->|```.*?```|`[^`]*`", " ", text, flags=re.DOTALL)
    text = re.sub(r"^\d\. ", " ", text, flags=re.MULTILINE)  # the steps of a list
    return re.sub(r"\s+", " ", re.sub(r"\]\([^)]*\)", "]", text))


@pytest.mark.parametrize("document", PHRASES)
def test_every_figure_in_prose_is_computed(document):
    text = prose((ROOT / document).read_text(encoding="utf-8"))
    for phrase in PHRASES[document]():
        assert phrase in text, f"{document}: should say {phrase!r}"
        text = text.replace(phrase, "")
    for phrase in (*CITED, *TIMES):
        text = text.replace(phrase, "")
    assert FIGURE.findall(text) == [], f"{document}: neither computed in PHRASES nor listed as cited"


def test_a_figure_typed_by_hand_is_seen():
    assert FIGURE.findall("it has 71.0 % of actors5, and in three of fifty runs 1,440 of mlp300") == [
        "71.0", "three", "fifty", "1,440",
    ]  # fmt: skip


def test_a_table_typed_by_hand_is_refused_too():
    """Beside the generated ones, README's tables hold no figure but those of prose."""
    rest = prose((ROOT / "README.md").read_text(encoding="utf-8"))
    assert "<!-- results" not in rest
    assert not re.search(r"\d\.\d %", rest.replace("12.5 %", ""))


def test_the_model_card_follows_from_metadata_and_predictions():
    folder = REPORTS / "04_choose_and_export"
    unseen = pd.read_parquet(folder / "predictions.parquet")
    groups = results("04_choose_and_export", metric="uar_group")
    text = card.model_card(metadata(), metrics.per_class(unseen, EIGHT), groups[groups["kind"] != "speaker"])
    assert (folder / "MODEL_CARD.md").read_text(encoding="utf-8") == text


def test_the_metadata_hold_the_metrics_of_the_report():
    run, saved, bounds = "04_choose_and_export", metadata(), ["value", "low", "high"]
    for metric, score in saved["metrics"].items():
        (row,) = results(run, metric=metric, protocol=saved["headline"]["protocol"]).to_dict("records")
        assert score == {name: row[name] for name in bounds}, metric
    estimator, intensity = saved["estimator"], saved["intensity"]
    for score, model_name, about in (
        (saved["chosen"]["gain_of_copies"], estimator, {"metric": "uar_gain_of_copies"}),
        (intensity, intensity["estimator"], {"metric": "uar_intensity"}),
        (saved["enrolled"], estimator, {"metric": "uar_known_speaker", "mode": "enrolled, 3 neutral clips"}),
    ):
        (row,) = results(run, model=model_name, **about)[bounds].to_numpy()
        assert [score[name] for name in ("uar", "low", "high")] == list(row), about
    assert saved["ece"] == results(run, metric="ece", probabilities="calibrated")["value"].item()
    assert list(saved["feature_names"]) == list(feature_names(FeatureConfig()))
    assert saved["training"]["clips"] == len(clips())


@pytest.mark.parametrize("run", ["03_eight", "03_four", "04_choose_and_export", "07_sequence_models"])
def test_the_metrics_are_those_of_the_predictions(run):
    labels = FOUR if run == "03_four" else EIGHT
    predictions = pd.read_parquet(REPORTS / run / "predictions.parquet")
    reported = results(run, metric="uar").set_index(["protocol", "model"])[["value", "low", "high"]]
    compared = 0
    for key, part in predictions.groupby(["protocol", "model"]):
        if key in reported.index:
            assert list(reported.loc[key]) == pytest.approx(metrics.score(part, labels), abs=1e-9), key
            compared += 1
    assert compared


def finished(pattern: str, out: Path = REPORTS) -> list[Path]:
    """Files of the reports, without what an interrupted or failed run or one by hand left, which git ignores."""
    left = (ledger.RUNNING, ledger.FAILED)
    return [
        path
        for path in sorted(out.glob(pattern))
        if path.parent.suffix not in left and out / "interactive" not in path.parents
    ]


def test_what_an_interrupted_run_left_is_no_report(tmp_path):
    for name in (
        "index.html",
        "a/index.html",
        "a.running/index.html",
        "a.failed/x.html",
        "interactive/a/x.html",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    assert finished("**/*.html", tmp_path) == [tmp_path / "a" / "index.html", tmp_path / "index.html"]
    assert finished("*/*", tmp_path) == [tmp_path / "a" / "index.html"]


def test_the_index_of_the_reports_is_made_of_their_metrics(tmp_path):
    for path in finished("*/*"):
        if path.suffix in (".json", ".webp"):
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            (tmp_path / path.parent.name / path.name).symlink_to(path)
    index.write_index(tmp_path)
    for name in ("README.md", "index.html"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (REPORTS / name).read_text(
            encoding="utf-8"
        ), f"{name}: run `make reports`"


@pytest.mark.parametrize("page", finished("**/*.html"), ids=lambda page: page.parent.name)
def test_a_report_names_no_place_of_the_machine_that_made_it(page):
    paths = re.findall(r"(?:/home|/root|/tmp|/Users|site-packages)/[^<\s]*", page.read_text(encoding="utf-8"))
    assert paths == []


@pytest.mark.parametrize("name", ["classic", "compact"])
def test_a_set_has_the_columns_that_its_module_says(name):
    (number,) = re.findall(rf"`{name}`[^`]*?(\d+) columns", sets.__doc__)
    assert len(feature_names(FeatureConfig(name))) == int(number)


def test_the_version_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    assert licence == f"{citation['license']} AND CC-BY-NC-SA-4.0"  # of the code, and of the model beside it


@pytest.mark.parametrize("document", [*PHRASES, "reports/README.md"])
def test_links_to_files_lead_somewhere(document):
    path = ROOT / document
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link
