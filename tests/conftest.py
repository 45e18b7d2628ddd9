"""Fixtures: a synthesised corpus for every test, the real ones where the environment names them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

here = Path(__file__).parent
sys.path[:0] = map(
    str, (here, *(path for path in here.iterdir() if path.is_dir()))
)  # so that tests can `import synth`


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory) -> Path:
    """A folder of 108 synthesised clips with RAVDESS names, 6 actors; to be read, not changed."""
    import synth

    return synth.write_ravdess(tmp_path_factory.mktemp("tiny") / "ravdess")


def _named(variable: str, what: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set: give it the folder of {what} to run this test")
    return Path(folder).expanduser()


@pytest.fixture(scope="session")
def ravdess() -> Path:
    """The folder of the real RAVDESS speech clips."""
    return _named("SER_RAVDESS_DIR", "RAVDESS speech (Actor_01 … Actor_24)")


@pytest.fixture(scope="session")
def emodb() -> Path:
    """The folder of the real EMO-DB clips."""
    return _named("SER_EMODB_DIR", "EMO-DB")


@pytest.fixture(scope="module")
def browser():
    """Headless chromium with a microphone that beeps.

    One for each module and no more: while Playwright's synchronous API is open, `asyncio.run` fails in its thread.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs chromium on the path to show the page")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive the browser")
    api.expect.set_options(timeout=30_000)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--use-fake-device-for-media-stream"],
            ignore_default_args=["--hide-scrollbars"],  # they take width from the page
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Function that opens an address in a profile of its own; no page may end with an error in its console."""
    pages = []

    def open_page(address: str, width: int = 1280, height: int = 800, **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, is_mobile=width < 600, **options
        )
        pages.append(context.new_page())
        pages[-1].goto(address)
        return pages[-1]

    yield open_page
    errors = []
    for page in pages:
        errors += [message.text for message in page.console_messages() if message.type == "error"]
        errors += [str(error) for error in page.page_errors()]
        page.context.close()
    assert not errors
