"""No figure is typed by hand: README, cards and index say what predictions, metrics, tables and code say.

Every figure in prose is one of the phrases in `SAID`, computed here. One that is not there is refused, so that
a new figure needs its line. Tables between marks, code, names and addresses are not prose.
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

from ser_lib import ROOT, __version__, augmentation
from ser_lib.audio import decoding
from ser_lib.corpora import EIGHT, FOUR, ravdess
from ser_lib.evaluation import calibration, metrics
from ser_lib.features import FeatureConfig, feature_names, sets
from ser_lib.runs import index, ledger
from ser_lib.runs.report import REPORTS
from ser_lib.serving import bundle, card, model

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
    "0.2 GB, 1 minute",
)  # machines differ
FULL = ROOT / "data" / "ravdess_full.parquet"
CITED = (  # of other people's papers, and conventions
    "Livingstone & Russo 2018", "Russo FA (2018)", "PLoS ONE 13(5)", "Zenodo record 1188976", "90 % and more",
    "of seven emotions", "the 95 % interval", "answer is 503", "ends with 1", "[report 04]", "[report 07]", "Notebooks 07 and 08",
    "notebook 08", "(Author 2020)", "within half a point", "07 needs PyTorch",
)  # fmt: skip


@cache
def metadata() -> dict:
    return json.loads(bundle.DEFAULT.read_text(encoding="utf-8"))


@cache
def clips() -> pd.DataFrame:
    """The description of each shipped clip."""
    names = [name for name in pq.read_schema(FULL).names if name not in feature_names()]
    return pd.read_parquet(FULL, columns=names)


def found(run: str, **about: object) -> pd.DataFrame:
    """The rows of one run's `metrics.json` that are about something."""
    rows = pd.DataFrame(json.loads((REPORTS / run / "metrics.json").read_text(encoding="utf-8"))["results"])
    for column, value in about.items():
        rows = rows[rows[column] == value]
    return rows


def shares(column: str) -> pd.Series:
    return clips().drop_duplicates("speaker")[column].value_counts()


def of_readme() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"3\.\d+ to (3\.\d+)", (ROOT / "requirements-test.lock").read_text(encoding="utf-8"))[
        1
    ]
    openapi = json.loads((ROOT / "ser_lib" / "serving" / "web" / "openapi.json").read_text(encoding="utf-8"))[
        "openapi"
    ]
    asked = inspect.signature(calibration.calibrate).parameters
    kept = {"accuracy": found("04_choose_and_export", metric="accuracy_of_kept")["value"].item()}
    kept["level"] = found("04_choose_and_export", metric="coverage", level=0.9)["value"].item()
    assert {name: asked[name].default for name in kept} == pytest.approx(kept, abs=0.02)
    return [
        f"chance is {100 / len(FOUR):g} % for four emotions and {100 / len(EIGHT):g} % for eight",
        "for four and for eight emotions",
        f"network under {WORDS[found('05_leakage_audit')['rung'].nunique()]} protocols",
        f"Python {project['requires-python'].removeprefix('>=')} to {newest}",
        f"downloads {ravdess.SIZE / 1e6:.0f} MB",
        f"up to {WORDS[round(decoding.MAX_S / 60)]} minutes",
        f"windows of {WORDS[round(model.WINDOW_S)]} seconds",
        f"OpenAPI {openapi.rpartition('.')[0]}",
        f"{WORDS[round(5 * asked['accuracy'].default)]} answers in five",
        f"{WORDS[round(10 * asked['level'].default)]} times in ten",
        f"by {metadata()['training']['speakers']} North American actors",
        f"is {card.LICENCE.partition(',')[0]}",
    ]


def of_data_card() -> list[str]:
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
        f"{WORDS[len(augmentation.TRAINING)]} changed copies",
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


def of_contributing() -> list[str]:
    return [of_readme()[3].removeprefix("Python ")]


SAID = {"README.md": of_readme, "data/README.md": of_data_card, "CONTRIBUTING.md": of_contributing}


def prose(text: str) -> str:
    """What is left without code, generated tables and addresses, in one line."""
    text = re.sub(r"<!-- results -->.*?<!-- /results -->|```.*?```|`[^`]*`", " ", text, flags=re.DOTALL)
    text = re.sub(r"^\d\. ", " ", text, flags=re.MULTILINE)  # the steps of a list
    return re.sub(r"\s+", " ", re.sub(r"\]\([^)]*\)", "]", text))


@pytest.mark.parametrize("document", SAID)
def test_every_figure_in_prose_is_computed(document):
    text = prose((ROOT / document).read_text(encoding="utf-8"))
    for phrase in SAID[document]():
        assert phrase in text, f"{document}: should say {phrase!r}"
        text = text.replace(phrase, "")
    for phrase in (*CITED, *TIMES):
        text = text.replace(phrase, "")
    assert FIGURE.findall(text) == [], f"{document}: neither computed in SAID nor listed as cited"


def test_a_figure_typed_by_hand_is_seen():
    assert FIGURE.findall("it has 71.0 % of actors5, and in three of fifty runs 1,440 of mlp300") == [
        "71.0", "three", "fifty", "1,440",
    ]  # fmt: skip


def test_a_table_typed_by_hand_is_refused_too():
    """Beside the generated ones, README's tables hold no figure but those of prose."""
    rest = prose((ROOT / "README.md").read_text(encoding="utf-8"))
    assert "<!-- results" not in rest
    assert not re.search(r"\d\.\d %", rest.replace("12.5 %", ""))


def test_the_model_card_is_what_the_passport_and_the_predictions_make():
    folder = REPORTS / "04_choose_and_export"
    unseen = pd.read_parquet(folder / "predictions.parquet")
    groups = found("04_choose_and_export", metric="uar_group")
    text = card.model_card(metadata(), metrics.per_class(unseen, EIGHT), groups[groups["kind"] != "speaker"])
    assert (folder / "MODEL_CARD.md").read_text(encoding="utf-8") == text


def test_the_passport_holds_the_metrics_of_the_report():
    run = "04_choose_and_export"
    told, bounds = metadata(), ["value", "low", "high"]
    for metric, held in told["metrics"].items():
        (row,) = found(run, metric=metric, protocol=told["headline"]["protocol"]).to_dict("records")
        assert held == {name: row[name] for name in bounds}, metric
    for held, about in (
        (told["chosen"]["gain_of_copies"], {"metric": "uar_gain_of_copies"}),
        (told["intensity"], {"metric": "uar_intensity"}),
        (told["enrolled"], {"metric": "uar_known_speaker", "mode": "enrolled, 3 neutral clips"}),
    ):
        (row,) = found(
            run, model=told["estimator"] if held is not told["intensity"] else held["estimator"], **about
        )[bounds].to_numpy()
        assert [held[name] for name in ("uar", "low", "high")] == list(row), about
    assert told["ece"] == found(run, metric="ece", probabilities="calibrated")["value"].item()
    assert list(told["feature_names"]) == list(feature_names(FeatureConfig()))
    assert told["training"]["clips"] == len(clips())


@pytest.mark.parametrize("run", ["03_eight", "03_four", "04_choose_and_export", "07_sequence_models"])
def test_the_metrics_are_those_of_the_predictions(run):
    labels = FOUR if run == "03_four" else EIGHT
    predictions = pd.read_parquet(REPORTS / run / "predictions.parquet")
    told = found(run, metric="uar").set_index(["protocol", "model"])[["value", "low", "high"]]
    seen = 0
    for key, part in predictions.groupby(["protocol", "model"]):
        if key in told.index:
            assert list(told.loc[key]) == pytest.approx(metrics.score(part, labels), abs=1e-9), key
            seen += 1
    assert seen


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
    index.write(tmp_path)
    for name in ("README.md", "index.html"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (REPORTS / name).read_text(
            encoding="utf-8"
        ), f"{name}: run `make reports`"


@pytest.mark.parametrize("page", finished("**/*.html"), ids=lambda page: page.parent.name)
def test_a_report_names_no_place_of_the_machine_that_made_it(page):
    found = re.findall(r"(?:/home|/root|/tmp|/Users|site-packages)/[^<\s]*", page.read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize("name", ["classic", "compact"])
def test_a_set_has_the_columns_that_its_module_says(name):
    (said,) = re.findall(rf"`{name}` \([^()]*?(\d+) columns", sets.__doc__)
    assert len(feature_names(FeatureConfig(name))) == int(said)


def test_the_version_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    assert licence == f"{citation['license']} AND CC-BY-NC-SA-4.0"  # of the code, and of the model beside it


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "data/README.md", "reports/README.md"])
def test_links_to_files_lead_somewhere(document):
    path = ROOT / document
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link
