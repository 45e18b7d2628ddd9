"""The commands that run notebooks and tell of their runs: `reports`, `runs`, `runs diff`, `runs rm`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


def key_values(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """`-p seed=1 -p emotions=four` as a dictionary."""
    for text in given:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return dict(text.split("=", 1) for text in given)


class Described(click.Command):
    """`--notebook 03 --help` lists the parameters of notebook 03 as well."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them."""
        named = context.params.get("notebooks")
        if not named:
            return
        from ser_lib import places

        places.need_repository("the notebooks")
        from ser_lib import parameters, reruns

        for notebook in dict.fromkeys(run.notebook for run in reruns.plan(named)):
            with formatter.section(f"Parameters of {notebook}"):
                formatter.write_dl(parameters.help_rows(notebook))


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends this process, and so its runs, without waiting for the threads that wait for them."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else it is ignored, as in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@click.command(cls=Described)
@click.option(
    "--notebook",
    "notebooks",
    multiple=True,
    is_eager=True,
    help="a run or notebook by its beginning: 03, 03_four; followed by --help, its parameters",
)
@click.option(
    "-p", "parameters", multiple=True, callback=key_values, help="NAME=VALUE of a notebook parameter"
)
@click.option(
    "--grid", type=click.Path(path_type=Path), help="YAML of PARAMETER: [VALUE, …]; every combination is run"
)
@click.option("--failed", is_flag=True, help="take up the runs that failed")
@click.option("--force", is_flag=True, help="run what is unchanged as well")
@click.option("--jobs", type=int, help="runs at a time; -1 for all cores [default: 2; with --grid -1]")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the reports [default: reports]")
@click.option("--name", default="", help="name of the run's folder, where there is one run")
@click.option(
    "--mlflow", default="", metavar="URI", help="log the runs in this MLflow store too; extra `mlflow`"
)
@click.option("--data", "corpus_folder", type=click.Path(exists=True), help="RAVDESS; as SER_RAVDESS_DIR")
def reports(
    notebooks: tuple[str, ...],
    parameters: dict[str, str],
    grid: Path | None,
    failed: bool,
    force: bool,
    jobs: int | None,
    out: Path | None,
    name: str,
    mlflow: str,
    corpus_folder: str | None,
) -> None:
    """Run the notebooks whose parameters, data, code or versions changed, and rebuild the index of the reports."""
    from ser_lib import places

    places.need_repository("the notebooks")
    from ser_lib import ledger, reruns

    if corpus_folder:
        os.environ["SER_RAVDESS_DIR"] = corpus_folder
    if (failed and (parameters or grid or name)) or (grid and name):
        raise click.UsageError("--failed goes with --notebook alone, and --grid names its runs itself")
    out = out or ledger.REPORTS
    if failed:
        runs = reruns.failed(out, notebooks)
    elif grid:
        runs = reruns.grid(grid, notebooks, parameters, out)
        click.echo(f"{len(runs)} runs:")
        for run in runs:
            click.echo(f"  {run.name}")
    else:
        runs = reruns.plan(notebooks, parameters, name=name, out=out)
    several = bool(grid or failed)
    with ended_at_once():
        reruns.execute_all(
            runs,
            out,
            jobs=jobs or (-1 if grid else 2),
            force=force,
            keep_going=several,
            mlflow=mlflow,
            say=click.echo,
        )


@click.group(invoke_without_command=True)
@click.option("--out", type=click.Path(path_type=Path), help="folder of the reports [default: reports]")
@click.option("--json", "as_json", is_flag=True, help="everything that is known of each, as one JSON array")
@click.pass_context
def runs(context: click.Context, out: Path | None, as_json: bool) -> None:
    """List the runs: what has been run, with what, how it ended."""
    from ser_lib import index, ledger

    context.obj = out = out or ledger.REPORTS
    if context.invoked_subcommand is None:
        found = ledger.runs(out)
        click.echo(json.dumps(found, indent=1) if as_json else index.listing(found))


@runs.command()
@click.argument("a")
@click.argument("b")
@click.pass_obj
def diff(out: Path, a: str, b: str) -> None:
    """Show two runs side by side: parameters, results, and their predictions of the same clips."""
    from ser_lib import index

    click.echo(index.comparison(a, b, out))


@runs.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def rm(out: Path, names: tuple[str, ...]) -> None:
    """Delete runs with all they left."""
    from ser_lib import index, ledger

    for name in names:
        ledger.remove(name, out)
        click.echo(f"{name}: removed")
    index.write(out)
