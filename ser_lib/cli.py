"""The command line: `python -m ser_lib data · corpus · features · reports · runs · predict · listen · export · card · …`.

Exit codes: 0, all is well; 1, something failed or is doubtful, and a line says what; 2, the command is wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ser_lib import __version__, cli_reports, console
from ser_lib.errors import BundleError, SerError


class Commands(click.Group):
    """Shows a `SerError` as one message and exits with 1; every terminal takes what is printed."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run as a program."""
        console.tolerant()  # before the help, too
        return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except SerError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="ser_lib")
def main() -> None:
    """Speech emotion recognition, scored on speakers never heard in training."""


main.add_command(cli_reports.reports)
main.add_command(cli_reports.runs)


@main.command()
def data() -> None:
    """Download RAVDESS speech (208 MB) into data/ravdess; goes on where it was interrupted."""
    from ser_lib.download import fetch_ravdess

    click.echo(f"RAVDESS is in {fetch_ravdess()}")


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--set", "feature_set", default="full", help="classic, compact, full or your own")
@click.option("--jobs", default=-1, help="processes; -1 for all cores")
@click.option("--copies", is_flag=True, help="of the changed copies that the served model is trained with")
@click.option("--family", "families", multiple=True, help="write only its columns: mfcc, pitch, …")
@click.option("--dask", "scheduler", help="a Dask scheduler, tcp://HOST:PORT, whose workers see SOURCE")
def features(
    source: Path,
    table: Path,
    feature_set: str,
    jobs: int,
    copies: bool,
    families: tuple[str, ...],
    scheduler: str | None,
) -> None:
    """Extract the feature TABLE (.parquet) of a folder or manifest SOURCE; goes on where it was interrupted."""
    from contextlib import nullcontext

    from ser_lib import altered, augment, corpus, extraction, guard, tables
    from ser_lib.features import FeatureConfig, family, feature_names

    config = FeatureConfig(feature_set)
    named = {family(name) for name in feature_names(config)}
    if unknown := set(families) - named:
        raise click.BadParameter(
            f"no {', '.join(unknown)} in {feature_set}; it has {', '.join(sorted(named))}"
        )
    others = [name for name in feature_names(config) if families and family(name) not in families]
    if scheduler:
        from ser_lib import cluster
    with cluster.connect(scheduler) if scheduler else nullcontext():
        if copies or others:
            clips, unnamed = corpus.listing(source)
            rows, unusable = extraction.build(clips, config, n_jobs=jobs)
            if copies:
                rows = altered.with_copies(rows, clips, augment.TRAINING, config)
                rows = altered.coarse(rows[~guard.originals(rows)], config)
            tables.save(rows.drop(columns=others), table, config)
            n_rows, left_out = len(rows), [*unnamed["problem"], *unusable["problem"]]
        else:
            n_rows, problems = tables.write(source, table, config, n_jobs=jobs)
            left_out = list(problems["problem"])
    for problem in left_out:
        click.echo(f"left out: {problem}", err=True)
    click.echo(f"{table}: {n_rows} rows of the {feature_set} set; {len(left_out)} file(s) left out")


@main.group()
def corpus() -> None:
    """One's own recordings: a folder, a CSV of path, speaker and emotion, or several with commas between."""


@corpus.command()
@click.argument("source")
@click.option("--protocol", default="actors5", help="of the report to come: actors5, loso or random")
@click.option("--emotions", help="four, eight or a comma-separated list [default: all there are]")
@click.option("--json", "as_json", is_flag=True, help="the same as one JSON object")
def check(source: str, protocol: str, emotions: str | None, as_json: bool) -> None:
    """Tell what SOURCE holds and whether a report on it could be trusted; if not, why, and exit with 1.

    Its features are computed on the way, and kept for the report.
    """
    from ser_lib import check, corpus, splits

    if protocol not in splits.PROTOCOLS:
        raise click.BadParameter(f"--protocol {protocol}: choose one of {', '.join(splits.PROTOCOLS)}")
    found = check.examine(source, protocol, corpus.emotion_list(emotions) if emotions else None)
    click.echo(json.dumps(found) if as_json else check.told(found))
    if found["doubts"]:
        raise SystemExit(1)


MODEL = click.option("--model", type=click.Path(path_type=Path), help="a passport [default: models/ser.json]")


@main.command()
@click.argument("files", nargs=-1, required=True)
@MODEL
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "jsonl", "csv")),
    help="[default: table on a terminal, else jsonl]",
)
@click.option("--timeline", is_flag=True, help="an answer for each window of a recording")
@click.option(
    "--reference",
    "references",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="a neutral clip of the same speaker; give several",
)
@click.option("-q", "--quiet", is_flag=True, help="no progress bar and no warnings")
def predict(
    files: tuple[str, ...],
    model: Path | None,
    form: str | None,
    timeline: bool,
    references: tuple[str, ...],
    quiet: bool,
) -> None:
    """Print the emotion heard in FILES; folders are searched, and - is standard input.

    What cannot be heard is named on standard error, the others go on, and the command ends with 1.
    """
    from ser_lib import answers, bundle

    if timeline and references:
        raise click.UsageError("--timeline hears no references; leave one of the two out")
    form = form or ("table" if sys.stdout.isatty() else "jsonl")
    chosen = bundle.load(model or bundle.DEFAULT)
    failed: list[str] = []

    def hear(file: str) -> Iterator[dict[str, Any]]:
        source, name = (sys.stdin.buffer.read(), "standard input") if file == "-" else (file, file)
        if timeline:
            yield from chosen.timeline(source, name=name)
            return
        answer = chosen.predict(source, name=name, references=references)
        if form == "table" and not quiet:
            for warning in answer["warnings"]:
                answers.say(f"{name}: {warning}", err=True)
        yield answer

    rows = answers.heard(answers.recordings(files), hear, quiet=quiet, failed=failed)
    first = ("file", "start_s", "end_s") if timeline else ("file",)
    for line in answers.written(rows, form, chosen.passport["classes"], first):
        answers.say(line)
    if failed:
        raise SystemExit(1)


@main.command()
@MODEL
@click.option("--device", help="of the microphone, its number or a part of its name")
def listen(model: Path | None, device: str | None) -> None:
    """Hear the microphone until Ctrl-C: bars in a terminal, JSON lines in a pipe. Needs the extra `mic`."""
    from ser_lib import answers, bundle, listen

    chosen = bundle.load(model or bundle.DEFAULT)
    heard = listen.live(chosen, *listen.microphone(device))
    labels = chosen.passport["classes"]
    lines = listen.bars(heard, labels) if sys.stdout.isatty() else answers.written(heard, "jsonl", labels)
    try:
        for line in lines:
            click.echo(line)
    except KeyboardInterrupt:
        pass


@main.command()
@click.argument("passport", nargs=-1, metavar="[PASSPORT]", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT.pkl|OUT.onnx", type=click.Path(path_type=Path))
def export(passport: tuple[Path, ...], out: Path) -> None:
    """Write the model of PASSPORT [default: models/ser.json] as pickle with passport, or as ONNX (extra `onnx`)."""
    from ser_lib import bundle, export

    if len(passport) > 1:
        raise click.UsageError(f"one PASSPORT and one OUT, not {len(passport) + 1} files")
    click.echo(export.write(passport[0] if passport else bundle.DEFAULT, out))


@main.command()
@click.argument("passport", required=False, type=click.Path(path_type=Path))
def card(passport: Path | None) -> None:
    """Print the model card of PASSPORT [default: models/ser.json], in Markdown."""
    from ser_lib import bundle, card

    path = passport or bundle.DEFAULT
    try:
        click.echo(card.model_card(bundle.read_passport(path)), nl=False)
    except KeyError as error:
        raise BundleError(f"{path}: tells no {error.args[0]}, so it has no card; {bundle.CHOOSE}") from error


@main.command()
@click.argument("model", type=click.Path(path_type=Path), required=False)
def retrain(model: Path | None) -> None:
    """Fit MODEL, a passport [default: models/ser.json], again from the shipped tables, with the libraries of here."""
    from ser_lib import bundle, training

    passport = training.again(model or bundle.DEFAULT)
    click.echo(f"{model or bundle.DEFAULT}: trained again, with {passport['libraries']}")


@main.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="folder of bench.md and bench.png [default: reports]"
)
@click.option("--clips", default=60, help="clips of the sample on which both sides take turns")
@MODEL
@click.option("--quick", is_flag=True, help="a few synthesised clips, once each: shows that it runs")
def bench(out: Path | None, clips: int, model: Path | None, quick: bool) -> None:
    """Measure extraction, start and server against others; write bench.md and bench.png."""
    from ser_lib import bench, bundle, ledger

    click.echo(bench.run(out or ledger.REPORTS, clips=clips, model=model or bundle.DEFAULT, quick=quick))
