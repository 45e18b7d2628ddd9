"""Checks that hold for every page of ours; `page` is Playwright's."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
CONTROL = re.compile(r"- '?(?:button|slider|radio|link|textbox|checkbox|combobox)\b(.*)")


def open_details(page) -> None:
    page.locator("details").evaluate_all("all => all.forEach(details => { details.open = true })")


def check_contrast(page, at_least: int, dots: float = 0) -> None:
    """At least so many texts, each with a contrast of 4.5; `dots` is the opacity of dots behind the page."""
    ratios = page.evaluate(CONTRAST, dots)
    assert len(ratios) > at_least
    poor = [(text, ratio) for text, ratio in ratios if ratio < 4.5]
    assert not poor, poor


def check_screen_reader(page, controls: int, roles: set[str]) -> None:
    """More than so many controls, all with names, and these roles; ids are unique and the headings in order."""
    snapshot = page.locator("body").aria_snapshot()
    names = CONTROL.findall(snapshot)
    assert all(re.match(r' ".*\S.*"', name) for name in names), snapshot
    names += page.locator("summary:visible").all_inner_texts()  # the snapshot gives them no role
    assert all(map(str.strip, names)), names
    assert len(names) > controls, names
    assert roles <= set(re.findall(r"- '?(\w+)", snapshot)), snapshot
    ids = page.locator("[id]").evaluate_all("all => all.map(element => element.id)")
    assert len(ids) == len(set(ids)), ids
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(heading => +heading.tagName[1])")
    assert levels[0] == 1, levels
    assert levels.count(1) == 1, levels
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels
