"""The page of a run: one file that needs nothing from outside, read in a real browser at two widths."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from page_checks import check_contrast, check_screen_reader, open_details
from PIL import Image
from test_metrics import guesses
from traitlets.config import Config

from ser_lib import ROOT, plots, provenance
from ser_lib.corpora import FOUR
from ser_lib.evaluation import metrics
from ser_lib.runs import index, ledger, parameters, report
from ser_lib.runs.parameters import NOTEBOOKS

COMMIT = "2edb66213207b30aad11aff145ac618612526a78"
RUN = {
    "notebook": "03_mlp_vs_boosting",
    "parameters": {"corpus": "", "emotions": "a<b&c", "seeds": "0,1", "search": False},
    "data_hash": "e5ccf1457de0c7ae",
    "clips": 108,
    "commit": COMMIT,
    "uncommitted_changes": True,
    "versions": {"ser_lib": "0.1.0", "numpy": "2.4.6"},
    "status": "running",  # when the page is made
    "process": {"id": 1, "created": 0.0, "machine": "here"},
}
CELLS = [
    new_markdown_cell("# 03 · Is a < b & c?\n\nProse with `code` and [a section](#Tables)."),
    new_code_cell(
        "import numpy as np, pandas as pd\nfrom types import SimpleNamespace\n"
        "from IPython.display import Markdown\nfrom ser_lib import audio, plots\n"
        "plots.style()  # figures at twice their size\nreport = SimpleNamespace(figure=lambda *_: None)"
    ),
    new_markdown_cell("## A figure"),
    new_code_cell(
        'counts = pd.DataFrame({"clips": range(8)}, index=list("abcdefgh"))\n'
        'ax = plots.plot_counts(counts, title="Clips")\nax.figure.set_size_inches(13, 4)\n'
        'report.figure(ax, "counts_wide")'
    ),
    new_markdown_cell("## Tables\n\n### A wide one"),
    new_code_cell('wide = pd.DataFrame([range(40)], index=["row"]).add_prefix("column ")\nwide'),
    new_code_cell('wide.T.head(3).style.format("{:.1f}").set_caption("Mean over seeds")'),
    new_code_cell('pd.Series({"long": "word " * 40, "short": "1"}).to_frame("text")'),
    new_markdown_cell("### Text and sound"),
    new_code_cell(
        'print("x" * 300)\ndisplay(audio.Audio(np.zeros(8000, "float32"), 8000, "a.wav", 1.0, 8000, 1))'
    ),
    new_code_cell(
        'Markdown("# A card\\n\\n" + "| long name " * 9 + "|\\n" + "|---" * 9 + "|\\n" + "| 1 " * 9 + "|")'
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page of a small notebook that shows a bit of everything, and the notebook as it was executed."""
    import papermill

    folder = tmp_path_factory.mktemp("run")
    nbformat.write(
        new_notebook(cells=CELLS, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}),
        folder / "plain.ipynb",
    )
    (folder / "metrics.json").write_text(json.dumps({"run": RUN, "results": []}), encoding="utf-8")
    papermill.execute_notebook(
        folder / "plain.ipynb",
        folder / "notebook.ipynb",
        cwd=ROOT,
        progress_bar=False,
        config=Config(KernelManager={"transport": "ipc"}),  # as in report.execute
    )
    report.write_page(folder / "notebook.ipynb", "03_eight")
    return folder


class Parsed(HTMLParser):
    """What a page refers to, its elements by name and its headings with their ids."""

    def __init__(self, html: str):
        super().__init__()
        self.references, self.elements, self.headings, self.links, self.open = [], [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        self.references += [
            value for name, value in attributes.items() if name in ("src", "href", "srcset", "data", "action")
        ]
        if tag in ("h1", "h2", "h3") or (tag == "a" and attributes.get("class") != "anchor-link"):
            self.open = [tag, attributes.get("id") or attributes.get("href"), ""]
            (self.links if tag == "a" else self.headings).append(self.open)
        elif tag == "a":
            self.open = None

    def handle_endtag(self, tag):
        if self.open and tag == self.open[0]:
            self.open = None

    def handle_data(self, data):
        if self.open:
            self.open[2] += data


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(html):
    return Parsed(html)


def test_a_page_refers_to_nothing_outside(html, parsed):
    assert {reference.partition(",")[0] for reference in parsed.references if reference[0] != "#"} == {
        "../index.html",
        "data:image/webp;base64",
        "data:audio/wav;base64",
    }
    assert not any(tag in ("link", "iframe", "object", "base") for tag, _ in parsed.elements)
    assert not re.search(
        r"https?://|@import|url\(|\bfetch\(|\bimport\b(?! <| matplotlib)", "".join(own(html))
    )
    policy = next(a["content"] for tag, a in parsed.elements if tag == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy


def own(html: str) -> list[str]:
    """The styles and scripts in a page."""
    return re.findall(r"<(?:style|script)[^>]*>(.*?)</(?:style|script)>", html, re.DOTALL)


def test_what_every_page_carries_is_small(tmp_path):
    nbformat.write(new_notebook(cells=[new_markdown_cell("# One?")]), tmp_path / "notebook.ipynb")
    report.write_page(tmp_path / "notebook.ipynb", "one")  # without metrics.json
    assert "<h1" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "index.html").stat().st_size < 12_000


def test_without_figures_and_sound_a_page_is_small(html):
    assert len(re.sub(r"(?<=;base64,)[^\"]+", "", html)) < 45_000


def test_the_contents_are_the_headings(parsed):
    assert [(tag, text) for tag, _, text in parsed.headings] == [
        ("h1", "03 · Is a < b & c?"),
        ("h2", "A figure"),
        ("h2", "Tables"),
        ("h3", "A wide one"),
        ("h3", "Text and sound"),
        ("h3", "A card"),  # an output's first heading
    ]
    contents = [(f"#{anchor}", text) for _, anchor, text in parsed.headings[1:]]
    assert [(href, text) for _, href, text in parsed.links[1 : 1 + len(contents)]] == contents


def test_parameters_and_the_rows_facts_are_at_the_top(html, parsed):
    block = re.search(r'<section [^>]*class="facts".*?</section>', html, re.DOTALL)
    assert html.index("</h1>") < block.start() < html.index("<h2")
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", block[0]))
    assert facts.pop("run").partition(" UTC, ")[2].endswith(" s")
    assert facts.pop("run again") == (
        "the same figures to the last digit; on another CPU means over seeds on unseen speakers within 0.5 points, "
        "other figures within 3.5"
    )
    assert facts == {
        "corpus": '""',
        "emotions": "a&lt;b&amp;c",
        "seeds": "0,1",
        "search": "False",
        "notebook": "03_mlp_vs_boosting",
        "data hash": "e5ccf1457de0c7ae",
        "clips": "108",
        "commit": f"{COMMIT[:12]} with uncommitted changes",
        "versions": "ser_lib 0.1.0, numpy 2.4.6",
    }
    assert "<title>03 · Is a &lt; b &amp; c? · 03_eight</title>" in html
    assert ("html", {"lang": "en"}) in parsed.elements


def test_what_a_notebook_records_is_in_its_folder(tmp_path, monkeypatch):
    folder, predictions = tmp_path / "mine", guesses(labels=FOUR, seeds=(1, 0))
    monkeypatch.setenv(ledger.FOLDER_VARIABLE, str(folder))
    record = report.Report("03_mlp_vs_boosting", parameters.defaults("03_mlp_vs_boosting"))
    predictions = predictions.assign(protocol="loso", model="mlp", p_calm=1 / 3)
    shown = record.add_scores(predictions, FOUR, feature_set="full")
    record.add(0.25, metric="share")
    record.figure(plots.plot_confusion(metrics.confusion(predictions, FOUR)), "confusion")
    record.save(predictions[["clip_id"]], predictions)
    run, results = (ledger.read_metrics(folder)[part] for part in ("run", "results"))
    assert (run["notebook"], run["clips"]) == ("03_mlp_vs_boosting", len(predictions))
    assert run["data_hash"] == provenance.data_hash(predictions[["clip_id"]])
    assert list(shown["metric"]) == list(metrics.METRICS)
    for row, metric in zip(results, metrics.METRICS, strict=False):
        assert (row["value"], row["low"], row["high"]) == metrics.score(predictions, FOUR, metric)
        about = {
            "emotions": "four",
            "protocol": "loso",
            "model": "mlp",
            "seeds": [0, 1],
            "feature_set": "full",
        }
        assert row.items() >= about.items()
    assert results[len(metrics.METRICS) :] == [{"metric": "share", "value": 0.25, "low": None, "high": None}]
    assert set(pd.read_parquet(folder / "predictions.parquet")["p_calm"]) == {0.333}
    with Image.open(folder / "confusion.webp") as picture:
        assert picture.format == "WEBP"


def test_a_figure_has_twice_its_size_in_256_colours_and_a_text(parsed):
    (image,) = [attributes for tag, attributes in parsed.elements if tag == "img"]
    picture = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    assert picture.convert("RGB").getcolors(256)  # None if there are more
    assert picture.width > 2 * 1000
    assert [int(image["width"]), int(image["height"])] == [side // 2 for side in picture.size]
    assert image["alt"] == "Figure counts wide: A figure"


def drawn_cell(source, *colours):
    """A cell that has drawn pictures of one colour each."""
    cell = new_code_cell(source)
    for colour in colours:
        png = io.BytesIO()
        Image.new("RGB", (20, 10), colour).save(png, "png")
        about = {"data": {"image/png": base64.b64encode(png.getvalue()).decode()}}
        cell.outputs.append(new_output("display_data", **about))
    return cell


def test_a_page_has_the_saved_figure_itself(tmp_path):
    cells = [
        drawn_cell('report.figure(ax, "saved")', "red"),
        drawn_cell('report.figure(ax, "lost")', "green"),
        drawn_cell("ax.plot()", "blue"),
        drawn_cell('report.figure(ax, "saved")', "yellow", "white"),
    ]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# One?"), *cells]), tmp_path / "notebook.ipynb")
    saved = tmp_path / "saved.webp"
    Image.new("RGB", (20, 10), "black").save(saved, "webp", lossless=True)
    report.write_page(tmp_path / "notebook.ipynb", "one")
    images = [
        attributes["src"]
        for tag, attributes in Parsed((tmp_path / "index.html").read_text(encoding="utf-8")).elements
        if tag == "img"
    ]
    assert images[0] == f"data:image/webp;base64,{base64.b64encode(saved.read_bytes()).decode()}"
    colours = [Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))) for src in images]
    assert [picture.convert("RGB").getpixel((0, 0)) for picture in colours] == [
        (0, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255),
    ]  # fmt: skip


def test_a_figure_is_kept_pixel_by_pixel():
    rng = np.random.default_rng(0)
    few = rng.integers(0, 256, (40, 3), np.uint8)[rng.integers(0, 40, (600, 800))]
    png = io.BytesIO()
    Image.fromarray(few).save(png, "png")
    content = report.webp(png.getvalue())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), few)


# --- in a browser ---


def wider_than_the_window(page) -> int:
    """Pixels by which a page can be scrolled sideways."""
    return page.evaluate(
        "(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)(document.documentElement)"
    )


@pytest.fixture
def open_report(open_page, folder):
    """Function that opens the page of the run."""
    return lambda **options: open_page((folder / "index.html").as_uri(), **options)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_code_is_folded_and_opens_and_nothing_scrolls_sideways(open_report, width, scheme):
    page = open_report(width=width, color_scheme=scheme)
    opened = page.locator("details.code[open]")
    assert page.locator("#contents[open]").count() == (width == 1280)
    assert opened.count() == 0
    assert page.locator(".highlight").first.is_hidden()
    assert wider_than_the_window(page) == 0
    page.locator("details.code summary").first.click()
    assert opened.count() == 1
    page.click("#toggle")
    assert opened.count() == sum(cell.cell_type == "code" for cell in CELLS)
    assert page.locator("#toggle").inner_text() == "Hide all code"
    page.locator("#contents").evaluate("contents => { contents.open = true }")
    assert wider_than_the_window(page) == 0
    check_contrast(page, at_least=100)
    grounds = {"light": "rgb(251, 250, 248)", "dark": "rgb(20, 22, 26)"}
    assert style(page.locator("body"), "backgroundColor") == grounds[scheme]
    assert style(page.locator("figure button"), "backgroundColor") == "rgb(255, 255, 255)"
    page.click("#toggle")
    assert opened.count() == 0


def style(element, name: str) -> str:
    return element.evaluate("(element, name) => getComputedStyle(element)[name]", name)


def test_wide_things_scroll_in_their_own_box(open_report):
    page = open_report(width=390)
    image, button = page.locator("figure img"), page.locator("figure button")
    assert image.bounding_box()["width"] < 390
    button.click()
    assert image.bounding_box()["width"] > 1000
    assert button.get_attribute("aria-pressed") == "true"
    for box in ("figure", ".html", ".text .html", "main pre:not(details pre)"):
        assert page.locator(box).first.evaluate("box => box.scrollWidth > box.clientWidth"), box
    assert wider_than_the_window(page) == 0
    assert page.locator("table.words").count() == 1
    page.keyboard.press("Space")  # the button has the focus
    assert image.bounding_box()["width"] < 390


def test_link_in_the_contents_leads_to_its_heading(open_report):
    page = open_report()
    page.click("nav li:nth-last-child(2) a")
    page.wait_for_url("**/index.html#Text-and-sound")
    assert 0 <= page.locator("main h3").nth(-2).bounding_box()["y"] < 800
    assert page.locator("nav").bounding_box()["y"] == 0  # it stays


def test_names_and_order_for_a_screen_reader(open_report):
    page = open_report()
    page.click("#toggle")
    check_screen_reader(page, controls=12, roles={"navigation", "main", "region", "img", "table"})


def test_printed_without_code_sidebar_and_dark_colours(open_report):
    page = open_report(color_scheme="dark")
    page.emulate_media(media="print")
    open_details(page)
    for selector, visible in (("nav", False), (".highlight", False), ("figure img", True), (".facts", True)):
        assert page.locator(selector).first.is_visible() == visible
    assert style(page.locator("body"), "color") == "rgb(29, 31, 35)"
    assert 1 <= len(re.findall(rb"/Type /Page\b", page.pdf(format="A4"))) <= 3


# --- the ledger's page ---


@pytest.fixture(scope="module")
def ledger_page(tmp_path_factory):
    """The address of a ledger's page: three runs that are done, one that failed and one that is running."""
    out = tmp_path_factory.mktemp("reports")
    row = {name: {} for name in ledger.KEY} | {"notebook": "n", "commit": COMMIT, "uncommitted_changes": True}
    row["parameters"] = {"corpus": "/a/folder/" + "with-a-long-name" * 6, "models": "mlp,xgboost," * 9}
    for name, value in (("03_a", 0.4), ("03_b", 0.6), ("03_c", 0.5), ("04_d", 0.9)):
        running = ledger.start(name, row, out)
        score = {"metric": "uar", "value": value, "low": 0.1, "high": 0.95, "emotions": "x", "model": "m"}
        ledger.write_metrics(running, ledger.running_row(running), [score | {"protocol": "loso"}])
        failed = {"error": "cell 7: <b>no</b> " + "such_luck" * 20} if name == "03_c" else {}
        ledger.finish(running, "failed" if failed else "done", seconds=10 * value, **failed)
    ledger.start("05_a_run_with_a_name_" + "that-is-long-" * 9, row, out)
    index.write_index(out)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "http" not in page  # nothing from elsewhere
    assert "&lt;b&gt;no" in page
    return (out / "index.html").as_uri()


@pytest.mark.parametrize("width", [1280, 900, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_ledger_does_not_scroll_sideways(open_page, ledger_page, width, scheme):
    page = open_page(ledger_page, width=width, color_scheme=scheme)
    assert wider_than_the_window(page) == 0
    assert "cell 7: <b>no</b> such_luck" in page.locator(".error").inner_text()
    check_contrast(page, at_least=60)
    assert page.locator("h1").count() == 1


def shown(page) -> str:
    """The runs in sight, by the beginnings of their names."""
    names = page.locator("td.run:visible").evaluate_all("all => all.map(cell => cell.dataset.value)")
    return " ".join(name[:4] for name in names)


def test_the_ledger_is_sorted_and_filtered_by_keyboard(open_page, ledger_page):
    page = open_page(ledger_page)
    keyboard = page.keyboard
    assert shown(page) == "03_a 03_b 03_c 04_d 05_a"
    keyboard.press("Tab")
    keyboard.insert_text("03_ LOSO")  # a time of day has no underscore
    assert shown(page) == "03_a 03_b 03_c"
    assert page.locator("#shown").inner_text() == "3 of 5"
    for _ in range(4):  # the order, then the heads run, status, score
        keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "score"
    for order, direction in (("03_a 03_c 03_b", "ascending"), ("03_b 03_c 03_a", "descending")):
        keyboard.press("Space")
        assert shown(page) == order
        assert page.locator("thead th").nth(2).get_attribute("aria-sort") == direction
    page = open_page(ledger_page, width=390)
    page.select_option("#order", "4 1")  # seconds, falling
    assert shown(page) == "04_d 03_b 03_c 03_a 05_a"  # what has none comes last


# --- what commits them ---


def test_the_commit_hook_strips_what_jupyterlab_saves(tmp_path):
    (hook,) = [
        hook
        for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][
            0
        ]["hooks"]
        if hook["id"] == "strip"
    ]
    committed = NOTEBOOKS / "01_eda.ipynb"
    notebook = json.loads(committed.read_text(encoding="utf-8"))
    notebook["metadata"]["language_info"] |= {"version": "3.11.9", "pygments_lexer": "ipython3"}
    notebook["metadata"]["widgets"] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["sound\n"]}]
            cell["execution_count"] = 7
            cell["metadata"]["execution"] = {"iopub.status.busy": "2026-11-21T18:04:27"}
    saved = tmp_path / committed.name
    saved.write_text(json.dumps(notebook), encoding="utf-8")
    command, *arguments = shlex.split(hook["entry"])
    assert command == ".venv/bin/jupyter"
    subprocess.run([sys.executable, "-m", "jupyter", *arguments, str(saved)], check=True, capture_output=True)
    assert saved.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")
