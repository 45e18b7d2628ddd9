"""The plan of a rerun: names and values are checked before anything runs."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from ser_lib import evaluate, reruns
from ser_lib.cli import main
from ser_lib.errors import ReportError
from ser_lib.report import parameters


def test_the_whole_plan_is_the_main_job():
    assert [run.name for run in reruns.plan()] == [
        "01_eda",
        "02_features",
        "03_four",
        "03_eight",
        "04_choose_and_export",
        "05_leakage_audit",
        "06_stress_and_transfer",
    ]


def test_a_long_notebook_runs_where_it_is_named():
    assert [run.name for run in reruns.plan(["07"])] == ["07_sequence_models"]


def test_a_parameter_that_tells_two_runs_apart_makes_one_run():
    (run,) = reruns.plan(["03"], {"emotions": "calm,happy", "protocol": "loso"})
    assert dict(run.parameters) == {"emotions": "calm,happy", "protocol": "loso"}
    assert run.name == "03_emotions-calm-happy_protocol-loso"


def test_another_parameter_keeps_both_runs_apart_from_the_standard_ones():
    runs = reruns.plan(["03"], {"seeds": "5"})
    assert [(run.name, run.parameters["emotions"], run.parameters["seeds"]) for run in runs] == [
        ("03_four_seeds-5", "four", "5"),
        ("03_eight_seeds-5", "eight", "5"),
    ]


def test_values_take_the_type_of_the_default():
    (run,) = reruns.plan(["03_four"], {"search": "true"})
    assert run.parameters["search"] is True
    with pytest.raises(
        ReportError, match=r"search='maybe' is not of the type of its default, False \(bool\)"
    ):
        reruns.plan(["03"], {"search": "maybe"})
    with pytest.raises(ReportError, match=r"seed='x' is not of the type of its default, 0 \(int\)"):
        reruns.plan(["02"], {"seed": "x"})


def test_unknown_names_are_refused_with_the_valid_ones():
    with pytest.raises(
        ReportError, match=r"03_mlp_vs_boosting has no parameter emotion; it has corpus='', emotions="
    ):
        reruns.plan(["03"], {"emotion": "four"})
    with pytest.raises(ReportError, match=r"no notebook '09'; there are 01_eda, 02_features, 03_four"):
        reruns.plan(["09"])
    with pytest.raises(ReportError, match=r"--name x is for one run; 2 are asked for"):
        reruns.plan(["03"], name="x")


def test_the_command_line_refuses_on_one_line_and_exits_non_zero():
    for arguments, message in (
        (["reports", "--notebook", "03", "-p", "protocoll=loso"], "has no parameter protocoll"),
        (["reports", "-p", "seed"], "'seed' is not NAME=VALUE"),
        (["predict", "no-such.wav"], "no-such.wav: no such file"),
        (["features", "no-such-folder", "t.parquet"], "no-such-folder: no such folder"),
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code != 0
        assert message in done.output
        assert "Traceback" not in done.output


def test_predict_goes_on_after_a_bad_file(tmp_path, tiny_corpus):
    good = next(tiny_corpus.rglob("*.wav"))
    (tmp_path / "bad.wav").write_text("not audio")
    done = CliRunner().invoke(main, ["predict", str(tmp_path / "bad.wav"), str(good)])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["file"] == str(good)
    assert "bad.wav: not audio" in done.stderr


def test_features_writes_a_table_that_loads(tmp_path, tiny_corpus):
    from ser_lib import tables
    from ser_lib.features import FeatureConfig

    done = CliRunner().invoke(
        main, ["features", str(tiny_corpus), str(tmp_path / "t.parquet"), "--set", "classic"]
    )
    assert done.exit_code == 0, done.output
    assert len(tables.load(tmp_path / "t.parquet", FeatureConfig("classic"))) == 108


def test_features_of_one_family_and_their_copies(tmp_path, tiny_corpus):
    from ser_lib import augment, tables

    command = ["features", str(tiny_corpus), str(tmp_path / "t.parquet"), "--family", "timing"]
    for extra, n_clips in (([], 108), (["--copies"], 108 * len(augment.TRAINING))):
        done = CliRunner().invoke(main, [*command, *extra])
        assert done.exit_code == 0, done.output
        table = tables.load(tmp_path / "t.parquet")
        assert len(table) == n_clips
        assert all(name.startswith("time_") for name in evaluate.feature_columns(table))
    done = CliRunner().invoke(main, [*command[:-1], "melody"])
    assert done.exit_code == 2
    assert "no melody in full; it has chroma, correlation, energy" in done.output


def test_the_main_table_marks_the_random_split(tmp_path):
    def row(protocol, value):
        about = {"emotions": "four", "model": "mlp", "metric": "uar", "protocol": protocol}
        return about | {"value": value, "low": value - 0.1, "high": value + 0.1}

    (tmp_path / "03_four").mkdir()
    content = {"run": {}, "results": [row("actors5", 0.5), row("random", 0.8)]}
    (tmp_path / "03_four" / "metrics.json").write_text(json.dumps(content))
    table = reruns.main_table(reruns.read_results(tmp_path)).splitlines()
    assert table[0] == "| emotions | model | unheard speakers (`actors5`) | random split ✗ |"
    assert table[2] == "| four | mlp | 50.0 % (40.0 to 60.0) | 80.0 % (70.0 to 90.0) |"


def test_the_readme_keeps_its_text_around_the_table(tmp_path):
    (tmp_path / "03_other").mkdir()
    content = {"run": {}, "results": [{"metric": "uar", "emotions": "x", "model": "m", "protocol": "loso"}]}
    (tmp_path / "03_other" / "metrics.json").write_text(json.dumps(content))
    (tmp_path / "README.md").write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    reruns.write_readme(tmp_path / "README.md", tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n<!-- results -->\n| emotions |")
    assert "loso" not in text  # a rerun with other parameters is no headline
    assert text.endswith("<!-- /results -->\nafter\n")
    assert "old" not in text


def test_the_honest_table_has_people_and_no_rung_that_leaks(tmp_path):
    shares = {"value": 0.6, "low": 0.5, "high": 0.7}
    both, rung = ("uar", "accuracy"), {"model": "m", "chance": 0.125} | shares
    chosen = [
        {"metric": "accuracy_listeners_options", "group": "all clips", "model": "n", "listeners": 0.4}
        | shares,
        {"metric": "accuracy_listeners_options", "group": "sad", "model": "n", "listeners": 0.2} | shares,
        *({"metric": name, "model": "n", "protocol": "actors5"} | shares for name in both),
        *({"metric": name, "model": "n", "protocol": "loso"} | shares for name in both),
    ]
    ladder = [
        *({"rung": "2 leaks", "metric": name, "same_speaker": 0.9} | rung for name in both),
        *({"rung": "3 unheard", "metric": name, "same_speaker": 0.0} | rung for name in both),
    ]
    for run, content in (("04_choose_and_export", chosen), ("05_leakage_audit", ladder)):
        assert reruns.honest_table(tmp_path) == ""
        (tmp_path / run).mkdir()
        (tmp_path / run / "metrics.json").write_text(json.dumps({"results": content}))
    cells = "60.0 % (50.0 to 70.0)"
    assert reruns.honest_table(tmp_path).splitlines()[2:] == [
        "| people | these clips; neutral and calm are one | | 40.0 % |",
        f"| `n`, served | unheard speakers; neutral and calm are one | | {cells} |",
        f"| `n`, served | unheard speakers | {cells} | {cells} |",
        f"| `n`, served | unheard speakers, each left out in turn | {cells} | {cells} |",
        f"| `m` | unheard; chance 12.5 % | {cells} | {cells} |",
        "",
    ]


def test_parameters_are_flat_literals():
    assert parameters("03_mlp_vs_boosting")["protocol"] == "actors5"
    with pytest.raises(ReportError, match="no such notebook"):
        parameters("05_none")
