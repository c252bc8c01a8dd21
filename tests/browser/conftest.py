"""The web page in Debian's Chromium, on a server with small models.

Playwright keeps an event loop in its thread, so `make browser-tests` runs this folder in processes of its own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright
from servers import Served, eventually, running, save_folders, slow_down, sources

from charloom.model import Model

CHROMIUM = shutil.which("chromium")
PATIENCE = 15_000
"""Milliseconds after which something that must happen on the page counts as missing."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the models. Tests only read them."""
    return save_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> dict[str, Model]:
    """The same models, alone: what they generate is what the page must show."""
    return {name: Model.load(folder) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def served(folders: dict[str, Path]) -> Iterator[Served]:
    """The server that most tests share. Each leaves it idle."""
    with running(sources(folders)) as server:
        yield server


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text never ends in a test."""
    slow_down(monkeypatch)


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


@dataclass
class Problems:
    """What went wrong on pages: errors in the console, exceptions, requests that failed, and dialogs."""

    seen: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        """Collects the problems of all pages of a context."""
        context.on("console", lambda said: said.type == "error" and self.seen.append(f"console: {said.text}"))
        context.on("weberror", lambda error: self.seen.append(f"exception: {error.error}"))
        context.on("requestfailed", self._failed)
        context.on("dialog", lambda dialog: (self.seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _failed(self, request: Request) -> None:
        # What a page gives up is no problem. Chromium may also call a stream so that was read to its end.
        if request.failure != "net::ERR_ABORTED":
            self.seen.append(f"request: {request.url} {request.failure}")

    def expect(self, pattern: str) -> None:
        """Allows the problems that match. At least one must occur."""
        self.expected.append(pattern)

    def check(self) -> None:
        """Fails for a problem that no test expected, and for one that it expected in vain."""
        assert [one for one in self.seen if not any(re.search(each, one) for each in self.expected)] == []
        assert [each for each in self.expected if not any(re.search(each, one) for one in self.seen)] == []


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


class App:
    """The page as a person uses it. Every locator of a test starts at `page`."""

    def __init__(self, page: Page, served: Served) -> None:
        self.page, self.served = page, served

    def at(self, name: str) -> Any:
        """The element with this id."""
        return self.page.locator(f"#{name}")

    def tab(self, name: str) -> None:
        """Opens a tab."""
        self.page.get_by_role("tab", name=name).click()
        expect(self.page.get_by_role("tabpanel", name=name)).to_be_visible()

    def fill(self, **fields: object) -> None:
        """Fills fields by id, with `_` for `-`, and leaves the last one, as a person does."""
        for name, value in fields.items():
            self.at(name.replace("_", "-")).fill(str(value))
            self.at(name.replace("_", "-")).blur()

    def go(self, ending: str = "complete") -> str:
        """Presses Go; the text, once it has ended."""
        self.at("go").click()
        return self.ended(ending)

    def ended(self, ending: str = "complete") -> str:
        """The text, once generation has ended in this way."""
        expect(self.at("generate-status")).to_have_text(re.compile(rf"characters in [\d.]+ s, {ending}$"))
        return self.text

    def look(self, text: str) -> None:
        """Looks at a text."""
        self.at("look-text").fill(text)
        self.at("look-go").click()
        expect(self.at("look-status")).to_have_text("")
        expect(self.page.locator("#looks .ch").first).to_be_visible()

    @property
    def text(self) -> str:
        """The text of Generate."""
        found: str = self.at("text").input_value()
        return found

    @property
    def seed(self) -> int:
        """The seed of the last text."""
        return int(self.at("seed").input_value())

    @property
    def details(self) -> list[str]:
        """What the page says about each character of the first text, in order."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelector("#looks .text").children].map((span) => {
                span.focus();
                return document.querySelector("#detail p").textContent;
            })"""
        )
        return found


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
