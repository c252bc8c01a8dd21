"""The page as a test uses it, and what goes wrong on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import BrowserContext, Page, Request, expect
from servers import Served


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
