"""Run the notebooks headlessly through papermill, one at a time or in parallel.

A run goes into `<out>/<run>.running/` and takes its place at the end, so that a failure never costs
the last good report: the partly executed copy stays in `<out>/<run>.failed/`. Each is executed by a process
of its own, which ends with the one that started it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import psutil
import yaml
from joblib import cpu_count

from ser_lib.errors import ReportError, SerError
from ser_lib.runs import index, ledger, parameters, report
from ser_lib.runs.ledger import REPORTS

LONGEST = 48  # characters of a parameter in the name of a folder
POLL_S = 0.5  # seconds between looks at a run that another process has, and at the memory of a run


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
STANDARD = [run.name for run in RUNS if not run.on_request]


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
    runs: dict[tuple[str, str], Run] = {}
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
        lists = yaml.safe_load(path.read_text(encoding="utf-8"))
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
    run: Run,
    out: Path = REPORTS,
    *,
    force: bool = False,
    processes: int | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Execute one run, unless it is done and nothing it depends on has changed, and return its folder.

    Where it finds the same as before, the report that is there stays. What another process is running is waited for.

    Parameters
    ----------
    force : bool
        Execute it in any case.
    processes : int
        Its share of the machine, where several runs are executed at a time; their output is kept in a file.

    Raises
    ------
    SerError
        As `provenance.about`, or a cell failed: names the notebook, the cell and the error.
    """
    row = ledger.about(run.notebook, run.parameters, out)
    waited = False
    while True:
        changed = ledger.changed(run.name, row, out)
        if changed == [] and not force:
            say(f"{run.name}: unchanged, skipped (--force runs it again)")
            return out / run.name
        if report.fuller(run.name, row, out) and not force:
            say(f"{run.name}: kept, since recordings it is made from are not here (--force runs it without)")
            return out / run.name
        if running := ledger.start(run.name, row, out):
            break
        if not waited:
            say(f"{run.name}: another process is running it; waiting")
        waited = True
        time.sleep(POLL_S)
    again = f", since its {', '.join(changed)} changed" if changed else ""
    given = "".join(f" {name}={value}" for name, value in run.parameters.items())
    say(f"{run.name}: {run.notebook}{given}{again}")
    started = time.perf_counter()
    code = _in_a_process(running, processes)
    seconds = round(time.perf_counter() - started, 1)
    row = ledger.read(running)["run"]
    if code:
        error = row.get("error", f"its process ended with {code}")
        folder = ledger.finish(running, "failed", seconds=seconds, error=error)
        raise ReportError(f"run {run.name} of {run.notebook}: {error}; what there is of it is in {folder}")
    place, told = report.settle(running, seconds)
    say(f"{run.name}: done in {seconds:.0f} s{told}")
    return place


def read_by(run: Run) -> list[str]:
    """The names of the runs whose results a run reads."""
    values = parameters.defaults(run.notebook) | dict(run.parameters)
    return [values[name] for name, one in parameters.read(run.notebook).items() if one.kind == "RUN"]


def _in_a_process(running: Path, processes: int | None) -> int:
    """Execute the run of a folder in a process of its own; its exit code."""
    environment = {ledger.FOLDER_VARIABLE: str(running.resolve()), "TQDM_DISABLE": "1"}
    if processes:
        environment |= {"LOKY_MAX_CPU_COUNT": str(processes), "OMP_NUM_THREADS": str(processes)}
    log = running / "stderr.txt"
    with log.open("w", encoding="utf-8") as errors:
        command = [sys.executable, "-m", "ser_lib.runs.report", str(running)]
        quiet: dict[str, Any] = {"stdout": errors, "stderr": errors} if processes else {}
        # its standard input ends when this process does, and then it ends
        child = subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | environment, **quiet)
        with child:
            code = child.wait()
    if not code or not log.stat().st_size:
        log.unlink()
    return code


def execute_all(
    runs: Sequence[Run],
    out: Path = REPORTS,
    *,
    jobs: int = 1,
    force: bool = False,
    keep_going: bool = False,
    mlflow: str = "",
    say: Callable[[str], object] = print,
) -> None:
    """Execute the runs, `jobs` at a time, then rebuild the index.

    Runs that others read come first and the others wait for them; else the order is as given.

    Parameters
    ----------
    jobs : int
        -1 for as many as there are processor cores. Two share all the cores, which one alone leaves idle a third of the time;
        more have a part of them each.
    keep_going : bool
        Whether one that failed leaves the others going.
    mlflow : str
        URI of a tracking store in which each is logged when it ends, as `tracking.connect`.

    Raises
    ------
    SerError
        As `execute`; of several, how many failed and how to take them up.
    """
    cores = cpu_count()
    jobs = min(cores if jobs < 0 else jobs, len(runs))
    processes = {1: None, 2: cores}.get(jobs, max(1, cores // jobs))
    log = ledger.connect(mlflow, out) if mlflow else lambda name: None
    errors = []
    with Display([run.name for run in runs], out, say) as shown, ThreadPoolExecutor(jobs) as pool:
        started: dict[Future[Path], Run] = {}

        def execute_after(those: list[Future[Path]], run: Run) -> Path:
            wait(those)
            return execute(run, out, force=force, processes=processes, say=shown.say)

        waited_for = {name for run in runs for name in read_by(run)}
        for run in sorted(runs, key=lambda run: run.name not in waited_for):
            those = [future for future, other in started.items() if other.name in read_by(run)]
            started[pool.submit(execute_after, those, run)] = run
        try:
            for done in as_completed(started):
                try:
                    log(started[done].name)
                    done.result()
                except SerError as error:
                    errors.append(str(error))
                    if not keep_going:
                        break
                    shown.say(errors[-1])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    index.write(out)
    if out.resolve() == REPORTS:
        index.write_readme(STANDARD)
    say(f"index: {out / 'README.md'} and {out / 'index.html'}")
    if errors:
        how = "take them up with `python -m ser_lib reports --failed`"
        first = len(runs) == 1 or not keep_going
        raise ReportError(errors[0] if first else f"{len(errors)} of {len(runs)} runs failed; {how}")


# --- in its own process ---------------------------------------------------------------------------------


def execute_here(running: Path) -> None:
    """Execute the run of a folder in this process, which ends when its standard input does."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    row = ledger.read(running)["run"]
    usual, memory = parameters.defaults(row["notebook"]), [0]
    given = {name: value for name, value in row["parameters"].items() if value != usual[name]}
    path, since = parameters.NOTEBOOKS / f"{row['notebook']}.ipynb", time.time()
    cells = len(json.loads(path.read_text(encoding="utf-8"))["cells"]) + bool(
        given
    )  # which papermill puts into one of their own
    threading.Thread(target=_end_with_input, daemon=True).start()
    threading.Thread(target=_watch_memory, args=(memory,), daemon=True).start()
    executed = running / "notebook.ipynb"
    try:
        with tempfile.TemporaryDirectory() as sockets:  # else those of kernels in one folder are the same
            ipc = {"transport": "ipc", "ip": str(Path(sockets, "kernel"))}
            quiet = {
                "extra_arguments": ["--log-level=CRITICAL"]
            }  # its end is an interrupt, which it calls an error
            papermill.execute_notebook(
                str(path),
                str(executed),
                parameters=given,
                progress_bar=False,
                on_cell_start=lambda cell, cell_index: note_progress(running, cell_index + 1, cells, since),
                config=Config(
                    KernelManager={"transport": "tcp"} if os.name == "nt" else ipc, NotebookClient=quiet
                ),
            )
        ledger.update(running, peak_memory_mb=memory[0])
        report.page(executed, running.stem)
    except PapermillExecutionError as error:
        told = f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}".strip().partition("\n")[0]
        ledger.update(running, peak_memory_mb=memory[0], cell=error.cell_index + 1, error=told)
        raise SystemExit(1) from error
    except Exception as error:
        ledger.update(running, peak_memory_mb=memory[0], error=repr(error))
        raise
    executed.unlink()
    (running / PROGRESS).unlink(missing_ok=True)


def _end_with_input() -> None:
    """End this process and its kernel, whose own processes then end, at the end of the standard input."""
    if not os.read(0, 1):
        for kernel in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # it has just ended
                kernel.kill()
        os._exit(1)


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


# --- progress -------------------------------------------------------------------------------------

PROGRESS = (
    "progress"  # in the folder of a run: the cell that is executed, of how many, since when the run goes
)
REWRITE_S = 1.0  # seconds between rewritings of the line
LOG_S = 60.0  # and between lines in a log
CLEAR = "\r\x1b[K"


def note_progress(running: Path, cell: int, cells: int, since: float) -> None:
    """Say which cell a run has come to, for a `Display`, which may be of another process."""
    new = running / f"{PROGRESS}.new"
    new.write_text(f"{cell} {cells} {since}", encoding="utf-8")
    new.replace(running / PROGRESS)


class Display:
    """Shows how far the runs of some names are, until it is left.

    Parameters
    ----------
    names : sequence of str
    out : Path
        Folder of the reports.
    say : callable
        What `say` passes lines on to, so that they do not run into that of the terminal.
    stream : text file, optional
        Instead of standard error.
    """

    def __init__(
        self,
        names: Sequence[str],
        out: Path,
        say: Callable[[str], object],
        stream: TextIO | None = None,
    ):
        self.names, self.out, self.pass_on = names, out, say
        self.stream = stream or sys.stderr
        self.terminal, self.begun = self.stream.isatty(), time.time()
        self.lock, self.left = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Display:
        """Begin."""
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Take the line away."""
        self.left.set()
        self.thread.join()
        self._write("")

    def say(self, text: str) -> None:
        """Say a line that stays."""
        with self.lock:
            if self.terminal:
                print(CLEAR, end="", file=self.stream, flush=True)
            self.pass_on(text)

    def _follow(self) -> None:
        while not self.left.wait(REWRITE_S if self.terminal else LOG_S):
            told = [line for name in self.names if (line := self._told(name))]
            self._write("; ".join(told) if self.terminal else "\n".join(told))

    def _told(self, name: str) -> str:
        path = self.out / f"{name}{ledger.RUNNING}" / PROGRESS
        try:
            if path.stat().st_mtime < self.begun - 1:  # left by a run that was killed
                return ""
            cell, cells, since = path.read_text(encoding="utf-8").split()
        except OSError:  # it has not begun, or has ended
            return ""
        return f"{name}: cell {cell} of {cells}, {time.time() - float(since):.0f} s"

    def _write(self, text: str) -> None:
        with self.lock:
            if self.terminal:
                width = shutil.get_terminal_size().columns - 1  # a line that wraps is not cleared whole
                print(CLEAR, text[:width], sep="", end="", file=self.stream, flush=True)
            elif text:
                print(text, file=self.stream, flush=True)


if __name__ == "__main__":
    execute_here(Path(sys.argv[1]))
