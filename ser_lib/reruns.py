"""Run the notebooks headlessly through papermill, one at a time or in parallel, and index what they left.

A run goes into `<out>/<run>.running/` and takes its place at the end, so that a failure never costs
the last good report: the partly executed copy stays in `<out>/<run>.failed/`. Each is executed by a process
of its own, which ends with the one that started it.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from joblib import cpu_count

from ser_lib import ROOT, ledger, parameters
from ser_lib.errors import ReportError, SerError
from ser_lib.ledger import REPORTS
from ser_lib.report import FOLDER_VARIABLE, paletted

WEB = Path(__file__).with_name("web")
LONGEST = 48  # characters of a parameter in the name of a folder
POLL_S = 0.5  # seconds between looks at the memory, or at a run that another process has


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
    notebooks: Sequence[str] = (),
    given: Mapping[str, str] | None = None,
    *,
    name: str = "",
    out: Path = REPORTS,
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
    SerError
        An unknown notebook, or as `parameters.check`.
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
        parameters.check_names(run.notebook, list(given))
    if not re.fullmatch(r"[\w-]*", name):
        raise ReportError(f"--name {name}: letters, digits, - and _ make the name of a folder")
    runs: dict[tuple, Run] = {}
    known = {*ledger.done(out), *(run.name for run in RUNS)}
    for run in chosen:
        values = {key: parameters.convert(run.notebook, key, text) for key, text in given.items()}
        merged = {**run.parameters, **values}
        parameters.check(run.notebook, merged, known)
        label = name or _label(run, values)
        runs.setdefault((run.notebook, json.dumps(merged, sort_keys=True)), Run(label, run.notebook, merged))
    if name and len(runs) > 1:
        raise ReportError(f"--name {name} is for one run; {len(runs)} are asked for, narrow --notebook")
    return list(runs.values())


def _label(run: Run, given: Mapping[str, Any]) -> str:
    """A folder of its own for other parameters: `03_four_seeds-5`; `03_seeds-5_emotions-sad-angry`."""
    base = run.notebook[:2] if set(run.parameters) & set(given) else run.name
    return "_".join([base, *(_short(key, str(value)) for key, value in given.items())])


def _short(key: str, value: str) -> str:
    """`seeds-5`; of a path or what is long, its last name or beginning and six digits of its hash."""
    said = re.sub(r"[^A-Za-z0-9]+", "-", f"{key}={value}").strip("-")
    if len(said) <= LONGEST and os.sep not in value:
        return said
    last = re.sub(r"[^A-Za-z0-9]+", "-", Path(value).name[:24]).strip("-")
    return f"{key}-{last}-{sha256(value.encode()).hexdigest()[:6]}"


def grid(path: Path, notebooks: Sequence[str], given: Mapping[str, str], out: Path = REPORTS) -> list[Run]:
    """The runs of every combination of values in a YAML file, `parameter: [value, …]`, as `plan` gives them.

    Raises
    ------
    SerError
        As `plan`, or the file is not such a list, or two combinations would share a folder.
    """
    try:
        lists = yaml.safe_load(path.read_text())
        wrong = [name for name, values in lists.items() if not isinstance(values, list) or not values]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise ReportError(
            f"{path}: not a YAML file of lines like 'seeds: [0, 1]' ({type(error).__name__})"
        ) from error
    if wrong:
        raise ReportError(f"{path}: {', '.join(map(str, wrong))} is no list of values, as in 'seeds: [0, 1]'")
    combinations = [
        dict(zip(lists, map(str, values), strict=True)) for values in itertools.product(*lists.values())
    ]
    runs = [run for values in combinations for run in plan(notebooks, {**given, **values}, out=out)]
    names = [run.name for run in runs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ReportError(f"{path}: two combinations would be {twice[0]}; leave one out")
    return runs


def failed(out: Path = REPORTS, notebooks: Sequence[str] = ()) -> list[Run]:
    """The runs that failed and have not been taken up since.

    Raises
    ------
    ReportError
        There is none.
    """
    rows = [row for row in ledger.runs(out) if row["status"] == "failed" and "notebook" in row]
    rows = [row for row in rows if not notebooks or row["name"].startswith(tuple(notebooks))]
    if not rows:
        raise ReportError(f"{out}: no run has failed")
    return [Run(row["name"], row["notebook"], row["parameters"]) for row in rows]


def execute(
    run: Run, out: Path = REPORTS, *, force: bool = False, processes: int | None = None, say=print
) -> Path:
    """Execute one run, unless it is done and nothing it depends on has changed, and return its folder.

    What another process is running already is waited for.

    Parameters
    ----------
    force : bool
        Execute it in any case.
    processes : int
        Its share of the machine, where several runs are executed at a time; their output is kept in a file.

    Raises
    ------
    SerError
        As `ledger.about`, or a cell failed: names the notebook, the cell and the error.
    """
    row = ledger.about(run.notebook, run.parameters, out)
    waited = False
    while True:
        changed = ledger.changed(run.name, row, out)
        if changed == [] and not force:
            say(f"{run.name}: unchanged, skipped (--force runs it again)")
            return out / run.name
        if running := ledger.start(run.name, row, out):
            break
        if not waited:
            say(f"{run.name}: another process is running it; waiting")
        waited = True
        time.sleep(POLL_S)
    again = f", since its {', '.join(changed)} changed" if changed else ""
    say(f"{run.name}: {run.notebook} {dict(run.parameters) or ''}{again}")
    started = time.perf_counter()
    code = _in_a_process(running, processes)
    seconds = round(time.perf_counter() - started, 1)
    row = ledger.read(running)["run"]
    if code:
        error = row.get("error", f"its process ended with {code}")
        folder = ledger.finish(running, "failed", seconds=seconds, error=error)
        raise ReportError(f"run {run.name} of {run.notebook}: {error}; what there is of it is in {folder}")
    say(f"{run.name}: done in {seconds:.0f} s")
    return ledger.finish(running, "done", seconds=seconds)


def _in_a_process(running: Path, processes: int | None) -> int:
    """Execute the run of a folder in a process of its own; its exit code."""
    environment = {FOLDER_VARIABLE: str(running.resolve())}
    if processes:
        environment |= {"LOKY_MAX_CPU_COUNT": str(processes), "OMP_NUM_THREADS": str(processes)}
    log = running / "stderr.txt"
    with log.open("w") as errors:
        command = [sys.executable, "-m", "ser_lib.reruns", str(running)]
        quiet = {"stdout": errors, "stderr": errors} if processes else {}
        # its standard input ends when this process does, and then it ends
        child = subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | environment, **quiet)
        with child:
            code = child.wait()
    if not code or not log.stat().st_size:
        log.unlink()
    return code


def _execute_here(running: Path) -> None:
    """Execute the run of a folder in this process, which ends when its standard input does."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    row = ledger.read(running)["run"]
    usual, memory = parameters.defaults(row["notebook"]), [0]
    threading.Thread(target=lambda: os._exit(1) if not os.read(0, 1) else None, daemon=True).start()
    threading.Thread(target=_watch_memory, args=(memory,), daemon=True).start()
    executed = running / "notebook.ipynb"
    try:
        with tempfile.TemporaryDirectory() as sockets:  # else those of kernels in one folder are the same
            ipc = {"transport": "ipc", "ip": str(Path(sockets, "kernel"))}
            papermill.execute_notebook(
                str(parameters.NOTEBOOKS / f"{row['notebook']}.ipynb"),
                str(executed),
                parameters={name: value for name, value in row["parameters"].items() if value != usual[name]},
                progress_bar=sys.stderr.isatty(),
                config=Config(KernelManager={"transport": "tcp"} if os.name == "nt" else ipc),
            )
        _to_html(executed, running / "index.html", title=running.stem)
    except PapermillExecutionError as error:
        told = f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}".strip().partition("\n")[0]
        ledger.update(running, peak_memory_mb=memory[0], cell=error.cell_index + 1, error=told)
        raise SystemExit(1) from error
    except Exception as error:
        ledger.update(running, peak_memory_mb=memory[0], error=repr(error))
        raise
    executed.unlink()
    ledger.update(running, peak_memory_mb=memory[0])


def _watch_memory(highest: list[int]) -> None:
    """Keep the most memory that the kernel and its processes have held at a time, in megabytes."""
    here = psutil.Process()
    while True:
        held = 0
        for process in here.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                held += process.memory_info().rss
        highest[0] = max(highest[0], held // 2**20)
        time.sleep(POLL_S)


def _to_html(executed: Path, page: Path, *, title: str) -> None:
    """The executed notebook as one page that loads nothing from elsewhere; the template is in web/report."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    _name_figures(notebook.cells)
    kept = executed.parent / "metrics.json"
    about = json.loads(kept.read_text())["run"] if kept.is_file() else {}
    exporter = HTMLExporter(
        template_name="report", extra_template_basedirs=[str(Path(__file__).parent / "web")]
    )
    exporter.register_filter("sections", _sections)
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}, "run": about})
    page.write_text(re.sub(r"(?<=data:image/png;base64,)[^\"]+", _smaller, html))


def _name_figures(cells: Sequence[Any]) -> None:
    """Give each cell with a figure its alternative text: the figure's name and the section."""
    section = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            section = [section, *re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)][-1]
        elif name := re.search(r"report\.figure\(\w+, \"(\w+)\"\)", cell.source):
            cell.metadata.alt = f"Figure {name[1].replace('_', ' ')}: {section}"


def _sections(html: str) -> list[dict[str, Any]]:
    """Level, id and text of the headings that nbconvert made of Markdown."""
    found = re.findall(r'<h([1-6]) id="([^"]*)">(.*?)<a class="anchor-link"', html)
    return [{"level": int(level), "id": anchor, "text": text} for level, anchor, text in found]


def _smaller(match: re.Match) -> str:
    return base64.b64encode(paletted(base64.b64decode(match[0]))).decode()


def execute_all(
    runs: Sequence[Run],
    out: Path = REPORTS,
    *,
    jobs: int = 1,
    force: bool = False,
    keep_going: bool = False,
    say=print,
) -> None:
    """Execute the runs in order, `jobs` at a time, then rebuild the index.

    Parameters
    ----------
    jobs : int
        -1 for as many as there are processor cores.
    keep_going : bool
        Whether one that failed leaves the others going.

    Raises
    ------
    SerError
        As `execute`; of several, how many failed and how to take them up.
    """
    cores = cpu_count()
    jobs = min(cores if jobs < 0 else jobs, len(runs))
    processes = max(1, cores // jobs) if jobs > 1 else None
    errors = []
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(execute, r, out, force=force, processes=processes, say=say) for r in runs]
        try:
            for done in as_completed(started):
                if isinstance(error := done.exception(), SerError):
                    errors.append(str(error))
                    if not keep_going:
                        break
                    say(errors[-1])
                else:
                    done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    write_index(out)
    if out.resolve() == REPORTS:
        write_readme()
    say(f"index: {out / 'README.md'} and {out / 'index.html'}")
    if errors:
        how = "take them up with `python -m ser_lib reports --failed`"
        raise ReportError(
            errors[0]
            if len(runs) == 1 or not keep_going
            else f"{len(errors)} of {len(runs)} runs failed; {how}"
        )


# --- index -----------------------------------------------------------------------------------------


def read_results(out: Path = REPORTS) -> pd.DataFrame:
    """The result rows of every run below `out`, with the run's name in `run`."""
    done = [run for run in ledger.runs(out) if run["status"] == "done"]
    rows = [{"run": run["name"], **row} for run in done for row in run["results"]]
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
    """`58.1 % (52.0 to 63.9)` of a result row; a count as it is."""
    if row["low"] is None:
        return f"{100 * row['value']:.1f} %" if abs(row["value"]) <= 1 else f"{row['value']:g}"
    return f"{100 * row['value']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def listing(runs: Sequence[dict]) -> str:
    """The ledger's rows as a table of text."""
    rows = [
        {
            "run": run["name"],
            "status": run["status"],
            "what": " ".join(str(score[name]) for name in ("metric", "model") if score.get(name)),
            "score": cell(score) if score else "",
            "seconds": f"{run['seconds']:.0f}" if "seconds" in run else "",
            "MB": run.get("peak_memory_mb", ""),
            "commit": (run.get("commit") or "")[:7] + "*" * bool(run.get("uncommitted_changes")),
            "started": run.get("started", "")[:16],
            "error": run.get("error", ""),
        }
        for run in runs
        for score in [run["score"] or {}]
    ]
    return pd.DataFrame(rows).to_string(index=False) if rows else "no runs"


def write_index(out: Path = REPORTS) -> None:
    """Write `README.md` (which GitHub shows) and `index.html`, the same text, from the runs' files."""
    import jinja2
    import mistune

    runs = ledger.runs(out)
    text = [
        "# Reports",
        "UAR (unweighted average recall) over all test clips, mean over seeds, with a 95 % interval from "
        "resampling speakers. Only the first protocol says what a new speaker will get; under the random "
        "split the same speakers are in training and test, and the figure is shown to be compared with.",
        main_table(read_results(out)),
    ]
    for run in [run for run in runs if run["status"] == "done"]:
        settings = ", ".join(f"{name}={value}" for name, value in run["parameters"].items() if value != "")
        text += [
            f"## [{run['name']}]({run['name']}/index.html)",
            f"`{run['notebook']}` with {settings or 'its defaults'}.",
        ]
        figures = sorted((out / run["name"]).glob("*.png"))
        text += [f"![{figure.stem}]({run['name']}/{figure.name})" for figure in figures]
    markdown = "\n\n".join(text) + "\n"
    _replace(out / "README.md", markdown)
    body = mistune.create_markdown(plugins=["table"])(markdown)
    page = jinja2.Environment(autoescape=True).from_string((WEB / "runs.html").read_text())
    _replace(out / "index.html", page.render(runs=runs, body=body, cell=cell))


def _replace(path: Path, text: str) -> None:
    """Write a file in one step, since other runs may write it too."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


def readme_tables(out: Path = REPORTS) -> str:
    """The honest rungs beside human listeners, then every model; from the standard runs alone."""
    results = read_results(out)
    return honest_table(out) + main_table(results[results["run"].isin([run.name for run in RUNS])])


def write_readme(path: Path = ROOT / "README.md", out: Path = REPORTS) -> None:
    """Put the tables between the two `results` marks of the repository's README."""
    before, mark, rest = path.read_text().partition("<!-- results -->\n")
    _, end, after = rest.partition("<!-- /results -->")
    path.write_text(f"{before}{mark}{readme_tables(out)}\n{end}{after}")


if __name__ == "__main__":
    _execute_here(Path(sys.argv[1]))
