"""The web page in Debian's Chromium, on a server with small models.

Playwright keeps an event loop in its thread, so `make browser-tests` runs this folder in processes of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import fixtures
import pytest
from pages import App, Problems
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers import Served, eventually

folders, models, served, slow = fixtures.folders, fixtures.models, fixtures.served, fixtures.slow

CHROMIUM = shutil.which("chromium")
PATIENCE = 15_000
"""Milliseconds after which something that must happen on the page counts as missing."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium. A test of its own context opens one with `browser.new_context`."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def problems() -> Iterator[Problems]:
    """The problems of all pages of this test."""
    found = Problems()
    yield found
    found.check()


@pytest.fixture
def opened(browser: Browser, problems: Problems) -> Iterator[Callable[..., Page]]:
    """Opens an address in a new context, without anything that another test stored."""
    contexts = []

    def open_page(url: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        problems.watch(context)
        page = context.new_page()
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def app(served: Served, opened: Callable[..., Page]) -> Iterator[App]:
    """The page with its models. It leaves the server idle."""
    made = App(opened(f"{served.url}/"), served)
    expect(made.at("model").locator("option")).to_have_count(3)
    yield made
    eventually(served.idle, "a free slot at the end of the test")


@pytest.fixture
def link(served: Served, opened: Callable[..., Page]) -> Callable[..., App]:
    """Opens a link to Generate with these fields in a new context."""

    def open_link(**fields: object) -> App:
        made = App(opened(f"{served.url}/#generate?{urlencode(fields)}"), served)
        expect(made.at("model").locator("option")).to_have_count(3)
        return made

    return open_link
