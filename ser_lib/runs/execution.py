"""Run notebooks through papermill: plan the runs, execute each in its own process, show the progress.

A run goes into `<out>/<run>.running/` and moves to its place at the end, so that a failure never costs the last
good report; a failed run leaves its partly executed notebook in `<out>/<run>.failed/`. The process of a run ends
with the process that started it.
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
from typing import Any, TextIO

import psutil
import yaml
from joblib import cpu_count

from ser_lib import write_file
from ser_lib.errors import ReportError, SerError, explain
from ser_lib.runs import index, ledger, parameters, report
from ser_lib.runs.ledger import REPORTS

# --- planning -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One execution of a notebook."""

    name: str  # of its folder in reports/
    notebook: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    on_request: bool = False  # runs only if its notebook is named


# What `make reports` runs, in this order: later runs read the results of earlier ones.
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
NEED_RECORDINGS = ("05_leakage_audit", "06_stress_and_transfer")  # notebooks with fewer results without
LONGEST = 48  # characters of a parameter in a folder's name


def plan(
    notebooks: Sequence[str] = (),
    given: Mapping[str, str] | None = None,
    *,
    name: str = "",
    out: Path = REPORTS,
) -> list[Run]:
    """Return the runs that a command asks for, with every parameter name and value checked.

    Parameters
    ----------
    notebooks : sequence of str
        Names of runs or notebooks, or their beginnings ("03", "03_four"). Without: all `RUNS` but those `on_request`.
    given : mapping of str to str
        Parameters from the command line. They replace those of `RUNS`, and the run gets its own folder. A notebook
        with several `RUNS` runs once if `given` sets the parameters in which these differ.
    name : str
        Name of the report folder, for a single run.
    """
    given = dict(given or {})
    for wanted in notebooks:
        if not any(_is_named(run, [wanted]) for run in RUNS):
            listed = ", ".join(dict.fromkeys([run.name for run in RUNS] + [run.notebook for run in RUNS]))
            raise ReportError(f"no notebook {wanted!r}; there are {listed}")
    chosen = [run for run in RUNS if (_is_named(run, notebooks) if notebooks else not run.on_request)]
    for run in chosen:
        parameters.check_names(run.notebook, list(given))
    if not re.fullmatch(r"[\w-]*", name):
        raise ReportError(f"--name {name}: use letters, digits, - and _")
    runs: dict[tuple[str, str], Run] = {}
    known = {*ledger.done_names(out), *(run.name for run in RUNS)}
    for run in chosen:
        values = {key: parameters.convert(run.notebook, key, text) for key, text in given.items()}
        merged = {**run.parameters, **values}
        parameters.check_values(run.notebook, merged, known)
        folder = name or _folder_name(run, values)
        runs.setdefault((run.notebook, json.dumps(merged, sort_keys=True)), Run(folder, run.notebook, merged))
    if name and len(runs) > 1:
        raise ReportError(f"--name {name} is for one run; {len(runs)} are asked for, narrow --notebook")
    return list(runs.values())


def _is_named(run: Run, beginnings: Sequence[str]) -> bool:
    return run.name.startswith(tuple(beginnings)) or run.notebook.startswith(tuple(beginnings))


def _folder_name(run: Run, given: Mapping[str, Any]) -> str:
    """Return a name that tells the given parameters: `03_four_seeds-5`, `03_seeds-5_emotions-sad-angry`."""
    base = run.notebook[:2] if set(run.parameters) & set(given) else run.name
    return "_".join([base, *(_short(key, str(value)) for key, value in given.items())])


def _short(key: str, value: str) -> str:
    """Return `seeds-5`; for a path or a long value its last name or beginning, and six digits of its hash."""
    text = re.sub(r"[^A-Za-z0-9]+", "-", f"{key}={value}").strip("-")
    if len(text) <= LONGEST and os.sep not in value:
        return text
    last = re.sub(r"[^A-Za-z0-9]+", "-", Path(value).name[:24]).strip("-")
    return f"{key}-{last}-{sha256(value.encode()).hexdigest()[:6]}"


def plan_grid(
    path: Path, notebooks: Sequence[str], given: Mapping[str, str], out: Path = REPORTS
) -> list[Run]:
    """Return, as `plan`, the runs of every combination of values in a YAML file, `parameter: [value, …]`."""
    try:
        lists = yaml.safe_load(path.read_text(encoding="utf-8"))
        wrong = [name for name, values in lists.items() if not isinstance(values, list) or not values]
    except OSError as error:
        raise ReportError(explain(error)) from error
    except (UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        kind = type(error).__name__
        raise ReportError(f"{path}: not a YAML file of lines like 'seeds: [0, 1]' ({kind})") from error
    if wrong:
        raise ReportError(f"{path}: {', '.join(map(str, wrong))} is no list of values, as in 'seeds: [0, 1]'")
    runs = []
    for values in itertools.product(*lists.values()):
        combination = dict(zip(lists, map(str, values), strict=True))
        runs += plan(notebooks, {**given, **combination}, out=out)
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ReportError(f"{path}: two combinations would be {name}; leave one out")
    return runs


def failed_runs(out: Path = REPORTS, notebooks: Sequence[str] = ()) -> list[Run]:
    """Return the runs that failed and have not run again since; ReportError if there is none."""
    rows = [row for row in ledger.runs(out) if row["status"] == "failed" and "notebook" in row]
    rows = [row for row in rows if not notebooks or row["name"].startswith(tuple(notebooks))]
    if not rows:
        raise ReportError(f"{out}: no run has failed")
    return [Run(row["name"], row["notebook"], row["parameters"]) for row in rows]


# --- executing ------------------------------------------------------------------------------------

POLL_S = 0.5  # seconds between looks at another process's run, and at the memory of a run


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
    """Execute the runs, `jobs` at a time, then rebuild the index. A run waits for the runs that it reads.

    Parameters
    ----------
    jobs : int
        -1 for one per processor core. Two jobs share all cores, since one alone leaves them idle a third of the
        time; each of more jobs gets a part of them.
    keep_going : bool
        Whether the others go on after a failure. Either way SerError is raised at the end.
    mlflow : str
        URI of a tracking store, as `ledger.mlflow_logger`; each run is logged when it ends.
    """
    log = ledger.mlflow_logger(mlflow, out) if mlflow else lambda name: None
    out.mkdir(parents=True, exist_ok=True)  # fails before the runs, not after them
    cores = cpu_count()
    jobs = min(cores if jobs < 0 else jobs, len(runs))
    processes = None if jobs == 1 else cores if jobs == 2 else max(1, cores // jobs)
    errors = []
    with Display([run.name for run in runs], out, say) as shown, ThreadPoolExecutor(jobs) as pool:

        def execute_after(earlier: list[Future[Path]], run: Run) -> Path:
            wait(earlier)
            return execute(run, out, force=force, processes=processes, say=shown.say)

        started: dict[Future[Path], Run] = {}
        read = {name for run in runs for name in read_by(run)}
        for run in sorted(runs, key=lambda run: run.name not in read):  # those that others read come first
            earlier = [future for future, other in started.items() if other.name in read_by(run)]
            started[pool.submit(execute_after, earlier, run)] = run
        try:
            for done in as_completed(started):
                try:
                    log(started[done].name)
                    done.result()
                except (SerError, OSError) as error:
                    errors.append(explain(error) if isinstance(error, OSError) else str(error))
                    if not keep_going:
                        break
                    shown.say(errors[-1])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    index.write_index(out)
    if out.resolve() == REPORTS:
        index.write_readme(STANDARD)
    say(f"index: {out / 'README.md'} and {out / 'index.html'}")
    if errors and (len(runs) == 1 or not keep_going):
        raise ReportError(errors[0])
    if errors:
        remedy = "repeat them with `python -m ser_lib reports --failed`"
        raise ReportError(f"{len(errors)} of {len(runs)} runs failed; {remedy}")


def read_by(run: Run) -> list[str]:
    """Return the names of the runs whose results a run reads."""
    values = parameters.defaults(run.notebook) | dict(run.parameters)
    return [
        values[name] for name, one in parameters.read_parameters(run.notebook).items() if one.kind == "RUN"
    ]


def execute(
    run: Run,
    out: Path = REPORTS,
    *,
    force: bool = False,
    processes: int | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Execute one run, unless nothing it depends on has changed since it was done, and return its folder.

    A report with the same results stays as it is. If another process has the run, this one waits for it.

    Parameters
    ----------
    force : bool
        Execute it in any case.
    processes : int
        Its share of the cores, where several runs are executed at a time; their output goes to a file.

    Raises
    ------
    SerError
        As `ledger.new_row`, or a cell failed: the message has the notebook, the cell and the error.
    """
    row = ledger.new_row(run.notebook, run.parameters, out)
    waiting = False
    while True:
        changed = ledger.changed_columns(run.name, row, out)
        if changed == [] and not force:
            say(f"{run.name}: unchanged, skipped (--force runs it again)")
            return out / run.name
        if _would_lose_results(run.name, row, out) and not force:
            say(f"{run.name}: kept, since its recordings are not here (--force runs it without them)")
            return out / run.name
        if running := ledger.start(run.name, row, out):
            break
        if not waiting:
            say(f"{run.name}: another process is running it; waiting")
        waiting = True
        time.sleep(POLL_S)
    again = f", since its {', '.join(changed)} changed" if changed else ""
    given = "".join(f" {name}={value}" for name, value in run.parameters.items())
    say(f"{run.name}: {run.notebook}{given}{again}")
    began = time.perf_counter()
    code = _execute_in_process(running, processes)
    seconds = round(time.perf_counter() - began, 1)
    if code:
        error = ledger.read_metrics(running)["run"].get("error", f"its process ended with {code}")
        folder = ledger.finish(running, "failed", seconds=seconds, error=error)
        raise ReportError(f"run {run.name} of {run.notebook}: {error}; see {folder}")
    place, note = report.settle(running, seconds)
    say(f"{run.name}: done in {seconds:.0f} s{note}")
    return place


def _would_lose_results(name: str, row: Mapping[str, Any], out: Path) -> bool:
    """Whether the finished run with these parameters has results from recordings that are missing now."""
    done = ledger.done_row(name, out)
    if done is None or row["notebook"] not in NEED_RECORDINGS or done["parameters"] != row["parameters"]:
        return False
    return bool(ledger.missing_recordings(done, row))


# --- in the run's own process ---------------------------------------------------------------------


def _execute_in_process(running: Path, processes: int | None) -> int:
    """Run `execute_here` in a new process and return its exit code."""
    environment = os.environ | {ledger.FOLDER_VARIABLE: str(running.resolve()), "TQDM_DISABLE": "1"}
    if processes:
        environment |= {"LOKY_MAX_CPU_COUNT": str(processes), "OMP_NUM_THREADS": str(processes)}
    log = running / "stderr.txt"
    with log.open("w", encoding="utf-8") as errors:
        command = [sys.executable, "-m", "ser_lib.runs.execution", str(running)]
        quiet: dict[str, Any] = {"stdout": errors, "stderr": errors} if processes else {}
        # its standard input ends when this process does, and then it ends too
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **quiet) as child:
            code = child.wait()
    if not code or not log.stat().st_size:
        log.unlink()
    return code


def execute_here(running: Path) -> None:
    """Execute the run of a folder in this process, which ends when its standard input does."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    row = ledger.read_metrics(running)["run"]
    defaults, memory, since = parameters.defaults(row["notebook"]), [0], time.time()
    given = {name: value for name, value in row["parameters"].items() if value != defaults[name]}
    path, executed = parameters.NOTEBOOKS / f"{row['notebook']}.ipynb", running / "notebook.ipynb"
    cells = len(json.loads(path.read_text(encoding="utf-8"))["cells"])
    if given:
        cells += 1  # papermill adds one with the parameters
    threading.Thread(target=_end_with_input, daemon=True).start()
    threading.Thread(target=_watch_memory, args=(memory,), daemon=True).start()
    config = Config()
    config.NotebookClient.extra_arguments = ["--log-level=CRITICAL"]  # a kernel logs its end as an error
    try:
        with tempfile.TemporaryDirectory() as sockets:  # kernels in one folder would share their sockets
            if os.name != "nt":
                config.KernelManager.transport, config.KernelManager.ip = "ipc", str(Path(sockets, "kernel"))
            papermill.execute_notebook(
                str(path),
                str(executed),
                parameters=given,
                progress_bar=False,
                on_cell_start=lambda cell, cell_index: note_progress(running, cell_index + 1, cells, since),
                config=config,
            )
        ledger.update_row(running, peak_memory_mb=memory[0])
        report.write_page(executed, running.stem)
    except PapermillExecutionError as error:
        message = f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}".strip().partition("\n")[0]
        with contextlib.suppress(OSError):  # a full disk, of which the caller tells
            ledger.update_row(running, peak_memory_mb=memory[0], cell=error.cell_index + 1, error=message)
        raise SystemExit(1) from error
    except OSError as error:
        with contextlib.suppress(OSError):
            ledger.update_row(running, peak_memory_mb=memory[0], error=explain(error))
        raise SystemExit(1) from error
    except Exception as error:
        ledger.update_row(running, peak_memory_mb=memory[0], error=repr(error))
        raise
    executed.unlink()
    (running / PROGRESS).unlink(missing_ok=True)


def _end_with_input() -> None:
    """At the end of the standard input, end this process and its kernel, which ends its own processes."""
    if not os.read(0, 1):
        for kernel in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # it has just ended
                kernel.kill()
        os._exit(1)


def _watch_memory(highest: list[int]) -> None:
    """Keep the highest memory of the kernel and its processes together, in megabytes, in `highest[0]`."""
    here = psutil.Process()
    while True:
        total = 0
        for process in here.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                total += process.memory_info().rss
        highest[0] = max(highest[0], total // 2**20)
        time.sleep(POLL_S)


# --- progress -------------------------------------------------------------------------------------

PROGRESS = "progress"  # a file in the run's folder: cell under way, number of cells, start time
REWRITE_S = 1.0  # seconds between updates of the line on a terminal
LOG_S = 60.0  # seconds between lines in a log
CLEAR = "\r\x1b[K"


def note_progress(running: Path, cell: int, cells: int, since: float) -> None:
    """Write which cell a run is at, for a `Display` in this or another process."""
    write_file(running / PROGRESS, f"{cell} {cells} {since}")


class Display:
    """Inside its `with` block, shows how far runs are: one line on a terminal, a line a minute in a log.

    Its method `say` prints with the given `say`, clear of the line on the terminal.
    """

    def __init__(
        self, names: Sequence[str], out: Path, say: Callable[[str], object], stream: TextIO | None = None
    ):
        self.names, self.out, self.print_line = names, out, say
        self.stream = stream or sys.stderr
        self.terminal, self.begun = self.stream.isatty(), time.time()
        self.lock, self.left = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Display:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.left.set()
        self.thread.join()
        self._write("")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        with self.lock:
            if self.terminal:
                print(CLEAR, end="", file=self.stream, flush=True)
            self.print_line(text)

    def _follow(self) -> None:
        while not self.left.wait(REWRITE_S if self.terminal else LOG_S):
            lines = [line for line in map(self._line, self.names) if line]
            self._write("; ".join(lines) if self.terminal else "\n".join(lines))

    def _line(self, name: str) -> str:
        path = self.out / f"{name}{ledger.RUNNING}" / PROGRESS
        try:
            if path.stat().st_mtime < self.begun - 1:  # left by a run that was killed
                return ""
            cell, cells, since = path.read_text(encoding="utf-8").split()
        except OSError:  # the run has not begun, or has ended
            return ""
        return f"{name}: cell {cell} of {cells}, {time.time() - float(since):.0f} s"

    def _write(self, text: str) -> None:
        with self.lock:
            if self.terminal:
                width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be cleared
                print(CLEAR, text[:width], sep="", end="", file=self.stream, flush=True)
            elif text:
                print(text, file=self.stream, flush=True)


if __name__ == "__main__":
    execute_here(Path(sys.argv[1]))
