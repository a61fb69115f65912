"""A real browser at the console: one process, a fresh profile of it for each test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.programs import program

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
)
#: Gives the camera without asking.
ALLOWED = "--use-fake-ui-for-media-stream"
PATIENCE_MS = 20_000.0


@contextmanager
def browsing(*arguments: str) -> Iterator[Browser]:
    """Debian's Chromium."""
    chromium = program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=[*_ARGUMENTS, *arguments]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def another(browser: Browser) -> Iterator[Browser]:
    """A second one, which asks before it gives the camera, and is refused."""
    program_path = program("chromium")
    strict = browser.browser_type.launch(executable_path=program_path, args=list(_ARGUMENTS))
    try:
        yield strict
    finally:
        strict.close()


@dataclass
class Console:
    """The page, and what it may not do: say errors, or reach another host.

    Attributes:
        errors: of its console and of its code.
        hosts: to which it sent requests.
    """

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __getitem__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def look(self, what: str) -> Any:
        """What a function of ``looking.js`` finds in the page."""
        return self.page.evaluate(f"looking.{what}()")

    def shows(self, selector: str, pattern: str) -> None:
        """Wait until its text has ``pattern``."""
        expect(self[selector]).to_have_text(re.compile(pattern))

    def watch(self, file: Any, speed: float = 1.0) -> None:
        """Choose a video file; it plays ``speed`` times as fast as it is."""
        begins = "speed => { document.getElementById('video').defaultPlaybackRate = speed; }"
        self.page.evaluate(begins, speed)
        self["#file"].set_input_files(str(file))

    @property
    def session(self) -> str:
        """The id in the address."""
        found = re.search(r"#s=([\w-]+)$", self.page.url)
        assert found is not None, self.page.url
        return found[1]

    def said(self) -> list[str]:
        """The lines of the list, with their times."""
        return [line.replace("\n", " ") for line in self["#said li"].all_inner_texts()]

    def marks(self) -> list[tuple[str | None, str | None]]:
        """The timeline's marks: their names, and where they stand."""
        found = self["#timeline .mark"].all()
        return [(m.get_attribute("aria-label"), m.get_attribute("style")) for m in found]


@contextmanager
def console(browser: Browser, url: str, allowed: str = "(?!)", **options: Any) -> Iterator[Console]:
    """The console at ``url``; it fails at the end if the page did what it may not.

    Args:
        allowed: pattern of console errors that the test provokes.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    context.add_init_script(path=Path(__file__).with_name("looking.js"))
    page = context.new_page()
    opened = Console(page, url)
    page.on("request", lambda request: opened.hosts.add(urlsplit(request.url).netloc))
    page.on("pageerror", lambda error: opened.errors.append(str(error)))

    def note(message: Any) -> None:
        # A broken content security policy is told here, too.
        if message.type == "error":
            opened.errors.append(f"{message.text} {message.location.get('url')}")

    page.on("console", note)
    try:
        page.goto(f"{url}/")
        yield opened
        wrong = [error for error in opened.errors if not re.search(allowed, error)]
        assert not wrong
        # Blobs have no host.
        assert opened.hosts <= {urlsplit(url).netloc, ""}
    finally:
        context.close()
