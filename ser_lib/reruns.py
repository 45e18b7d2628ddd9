"""Run the notebooks headlessly through papermill, and index what they left.

A run goes into `<out>/<run>.running/` and takes its place at the end, so that a failure never costs
the last good report: the partly executed copy stays in `<out>/<run>.failed/`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ser_lib import ROOT
from ser_lib.errors import ReportError
from ser_lib.report import FOLDER_VARIABLE, NOTEBOOKS, REPORTS, check_names, paletted, parameters


@dataclass(frozen=True)
class Run:
    """One execution of a notebook."""

    name: str  # of its folder in reports/
    notebook: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    on_request: bool = False  # only where its notebook is named


# What `make reports` runs, in this order: later ones read what earlier ones left.
RUNS = (
    Run("01_eda", "01_eda"),
    Run("02_features", "02_features"),
    Run("03_four", "03_mlp_vs_boosting", {"emotions": "four"}),
    Run("03_eight", "03_mlp_vs_boosting", {"emotions": "eight"}),
    Run("04_choose_and_export", "04_choose_and_export"),
    Run("05_leakage_audit", "05_leakage_audit"),
    Run("06_stress_and_transfer", "06_stress_and_transfer"),
    Run("07_sequence_models", "07_sequence_models", on_request=True),
    Run("08_what_helps", "08_what_helps", on_request=True),
)


def plan(
    notebooks: Sequence[str] = (), given: Mapping[str, str] | None = None, *, name: str = ""
) -> list[Run]:
    """The runs that a command asks for, with every parameter name and value checked.

    Parameters
    ----------
    notebooks : sequence of str
        Run or notebook names, or their beginnings ("03", "03_four"); all of `RUNS` but those `on_request`
        if empty.
    given : mapping of str to str
        Parameters as typed; they replace those of `RUNS`, and the run gets a folder of its own. A
        notebook that `RUNS` holds several times is run once where `given` sets what they differ in.
    name : str
        Of the report folder, where one run is left.

    Raises
    ------
    ReportError
        An unknown notebook or parameter, or a value of the wrong type.
    """
    given = dict(given or {})
    for wanted in notebooks:
        if not any(run.name.startswith(wanted) or run.notebook.startswith(wanted) for run in RUNS):
            listed = ", ".join(dict.fromkeys([run.name for run in RUNS] + [run.notebook for run in RUNS]))
            raise ReportError(f"no notebook {wanted!r}; there are {listed}")
    chosen = [
        run
        for run in RUNS
        if (not notebooks and not run.on_request)
        or any(run.name.startswith(n) or run.notebook.startswith(n) for n in notebooks)
    ]
    for run in chosen:
        check_names(run.notebook, list(given))
    runs: dict[tuple, Run] = {}
    for run in chosen:
        values = {key: convert(run.notebook, key, text) for key, text in given.items()}
        merged = {**run.parameters, **values}
        label = name or _label(run, values)
        runs.setdefault((run.notebook, json.dumps(merged, sort_keys=True)), Run(label, run.notebook, merged))
    if name and len(runs) > 1:
        raise ReportError(f"--name {name} is for one run; {len(runs)} are asked for, narrow --notebook")
    return list(runs.values())


def _label(run: Run, given: Mapping[str, Any]) -> str:
    """A folder of its own for other parameters: `03_four_seeds-5`; `03_seeds-5_emotions-sad-angry`."""
    base = run.notebook[:2] if set(run.parameters) & set(given) else run.name
    return "_".join(
        [base, *(re.sub(r"[^A-Za-z0-9]+", "-", f"{key}={value}").strip("-") for key, value in given.items())]
    )


def convert(notebook: str, name: str, text: str) -> Any:
    """A typed parameter as the type of its default.

    Raises
    ------
    ReportError
        The text is of another type.
    """
    default = parameters(notebook)[name]
    if isinstance(default, str):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    allowed = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, allowed) or isinstance(value, bool) != isinstance(default, bool):
        raise ReportError(
            f"{notebook}: {name}={text!r} is not of the type of its default, {default!r} ({type(default).__name__})"
        )
    return value


def execute(run: Run, out: Path = REPORTS) -> Path:
    """Execute one run and return its folder.

    Raises
    ------
    ReportError
        A cell failed: names the notebook, the cell and the error.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    running, done, failed = (out / f"{run.name}{suffix}" for suffix in (".running", "", ".failed"))
    for folder in (running, failed):
        shutil.rmtree(folder, ignore_errors=True)
    running.mkdir(parents=True)
    executed = running / "notebook.ipynb"
    try:
        with _environment(FOLDER_VARIABLE, str(running.resolve())):
            papermill.execute_notebook(
                str(NOTEBOOKS / f"{run.notebook}.ipynb"),
                str(executed),
                parameters=dict(run.parameters),
                config=Config(KernelManager={"transport": "tcp" if os.name == "nt" else "ipc"}),
            )
    except PapermillExecutionError as error:
        running.rename(failed)
        raise ReportError(
            f"{run.notebook}, cell {error.cell_index + 1} of run {run.name}: {error.ename}: {error.evalue}\n"
            f"The partly executed copy is {failed / 'notebook.ipynb'}"
        ) from error
    _to_html(executed, running / "index.html", title=run.name)
    executed.unlink()
    shutil.rmtree(done, ignore_errors=True)
    running.rename(done)
    return done


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """An environment variable for the kernel that starts inside; as before afterwards."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _to_html(executed: Path, page: Path, *, title: str) -> None:
    """The executed notebook as one page that loads nothing from elsewhere."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = exporter.mermaid_js_url = ""
    html, _ = exporter.from_filename(str(executed), resources={"metadata": {"name": title}})
    html = re.sub(r'<script src="">\s*</script>', "", html)
    page.write_text(re.sub(r"(?<=data:image/png;base64,)[^\"]+", _smaller, html))


def _smaller(match: re.Match) -> str:
    return base64.b64encode(paletted(base64.b64decode(match[0]))).decode()


def execute_all(runs: Sequence[Run], out: Path = REPORTS, *, say=print) -> None:
    """Execute the runs in order, then rebuild the index."""
    for run in runs:
        started = time.perf_counter()
        say(f"{run.name}: {run.notebook} {dict(run.parameters) or ''}")
        execute(run, out)
        say(f"{run.name}: done in {time.perf_counter() - started:.0f} s")
    write_index(out)
    if out.resolve() == REPORTS:
        write_readme()
    say(f"index: {out / 'README.md'} and {out / 'index.html'}")


# --- index -----------------------------------------------------------------------------------------


def read_results(out: Path = REPORTS) -> pd.DataFrame:
    """The result rows of every run below `out`, with the run's name in `run`."""
    rows = [
        {"run": path.parent.name, **row}
        for path in sorted(out.glob("*/metrics.json"))
        if path.parent.suffix not in (".running", ".failed")
        for row in json.loads(path.read_text())["results"]
    ]
    columns = ["run", "emotions", "protocol", "model", "metric", "value", "low", "high"]
    return pd.DataFrame(rows).reindex(columns=columns)


def main_table(results: pd.DataFrame) -> str:
    """Markdown: UAR of each model on unheard speakers and, marked as such, on the random split."""
    names = {
        "actors5": "unheard speakers (`actors5`)",
        "loso": "unheard speakers (`loso`)",
        "random": "random split ✗",
    }
    uar = results[results["metric"] == "uar"].drop_duplicates(["emotions", "model", "protocol"])
    uar = uar[uar["protocol"].isin(list(names))].sort_values("emotions", kind="stable")
    protocols = [name for name in names if name in set(uar["protocol"])]
    lines = [
        "| emotions | model | " + " | ".join(names[name] for name in protocols) + " |",
        "|---|---|" + "---|" * len(protocols),
    ]
    for (emotions, model), part in uar.groupby(["emotions", "model"], sort=False):
        by_protocol = part.set_index("protocol")
        cells = [cell(by_protocol.loc[name]) if name in by_protocol.index else "" for name in protocols]
        lines.append(f"| {emotions} | {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def honest_table(out: Path = REPORTS) -> str:
    """Markdown: who hears what of speakers never heard before. People, the served model, the honest rungs of 05."""
    paths = [out / run / "metrics.json" for run in ("04_choose_and_export", "05_leakage_audit")]
    if not all(path.is_file() for path in paths):
        return ""
    chosen, ladder = (pd.DataFrame(json.loads(path.read_text())["results"]).astype(object) for path in paths)
    lines = ["| who listens | to whom | UAR | accuracy |", "|---|---|---|---|"]

    def add(who: str, whom: str, rows: pd.DataFrame) -> None:
        cells = [
            cell(row)
            for metric in ("uar", "accuracy")
            for _, row in rows[rows["metric"] == metric].iterrows()
        ]
        lines.append(f"| {who} | {whom} | " + " | ".join(cells) + " |")

    beside = chosen[chosen["metric"] == "accuracy_listeners_options"]
    for row in beside[beside["group"] == "all clips"].to_dict("records") if len(beside) else ():
        lines.append(f"| people | these clips; neutral and calm are one | | {100 * row['listeners']:.1f} % |")
        who = f"`{row['model']}`, served"
        lines.append(f"| {who} | unheard speakers; neutral and calm are one | | {cell(row)} |")
    served = chosen[chosen["metric"].isin(["uar", "accuracy"])]
    for (protocol, model), rows in served.groupby(["protocol", "model"], sort=False):
        left = ", each left out in turn" if protocol == "loso" else ""
        add(f"`{model}`, served", f"unheard speakers{left}", rows)
    rungs = ladder[ladder["metric"].isin(["uar", "accuracy"]) & (ladder["same_speaker"] == 0)]
    for (rung, model, chance), rows in rungs.groupby(["rung", "model", "chance"], sort=False):
        add(f"`{model}`", f"{rung.partition(' ')[2]}; chance {100 * chance:.1f} %", rows)
    return "\n".join(lines) + "\n\n"


def cell(row: Mapping[str, Any]) -> str:
    """`58.1 % (52.0 to 63.9)` of a result row."""
    return f"{100 * row['value']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def write_index(out: Path = REPORTS) -> None:
    """Write `README.md` (which GitHub shows) and `index.html`, the same text, from the runs' files."""
    import mistune

    runs = [path.parent for path in sorted(out.glob("*/metrics.json")) if "." not in path.parent.name]
    text = [
        "# Reports",
        "UAR (unweighted average recall) over all test clips, mean over seeds, with a 95 % interval from "
        "resampling speakers. Only the first protocol says what a new speaker will get; under the random "
        "split the same speakers are in training and test, and the figure is shown to be compared with.",
        main_table(read_results(out)),
    ]
    for run in runs:
        about = json.loads((run / "metrics.json").read_text())["run"]
        settings = ", ".join(f"{name}={value}" for name, value in about["parameters"].items() if value != "")
        text += [
            f"## [{run.name}]({run.name}/index.html)",
            f"`{about['notebook']}` with {settings or 'its defaults'}.",
        ]
        text += [f"![{figure.stem}]({run.name}/{figure.name})" for figure in sorted(run.glob("*.png"))]
    markdown = "\n\n".join(text) + "\n"
    (out / "README.md").write_text(markdown)
    body = mistune.create_markdown(plugins=["table"])(markdown)
    (out / "index.html").write_text(PAGE.format(body=body))


def readme_tables(out: Path = REPORTS) -> str:
    """The honest rungs beside human listeners, then every model; from the standard runs alone."""
    results = read_results(out)
    return honest_table(out) + main_table(results[results["run"].isin([run.name for run in RUNS])])


def write_readme(path: Path = ROOT / "README.md", out: Path = REPORTS) -> None:
    """Put the tables between the two `results` marks of the repository's README."""
    before, mark, rest = path.read_text().partition("<!-- results -->\n")
    _, end, after = rest.partition("<!-- /results -->")
    path.write_text(f"{before}{mark}{readme_tables(out)}\n{end}{after}")


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Speech emotion recognition: reports</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #ddd; white-space: nowrap; }}
img {{ max-width: 100%; height: auto; }}
</style>
{body}
</html>
"""
