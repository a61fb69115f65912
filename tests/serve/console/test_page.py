"""The console's files as they are sent, and the page before a service that asks for a key."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, expect

from serve.keys.usage import QuotaError
from serve.live.items import Input, Receipt, SessionEvent
from tests.serve.console.browser import ALLOWED, browsing, console
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import application, client, form
from tests.serve.served import served

KEY = "lr-0123456789"


@cache
def app() -> FastAPI:
    """The API on sessions in memory."""
    return application(MemorySessions())


def fetch(path: str, **headers: str) -> httpx.Response:
    """From it."""

    async def ask() -> httpx.Response:
        async with client(app()) as http:
            return await http.get(path, headers=headers)

    return asyncio.run(ask())


def test_the_page_is_sent_whole_and_only_when_it_changed() -> None:
    """Guards against a module that is missing from what is served, sent as something that a
    browser refuses to run, or kept by it beyond an upgrade."""
    page = fetch("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    names = re.findall(r'(?:href|src)="console/([\w.]+)"', page.text)
    assert {"console.css", "main.js", "theme.js", "icon.svg"} <= set(names)
    types = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    while names:
        name = names.pop()
        part = fetch(f"/console/{name}")
        assert part.status_code == 200, name
        assert part.headers["content-type"].startswith(types[name.rpartition(".")[2]])
        names += re.findall(r'^import .* from "\./([\w.]+)";', part.text, re.MULTILINE)
        tag = part.headers["etag"]
        assert part.headers["cache-control"] == "no-cache"
        again = fetch(f"/console/{name}", **{"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)


def test_nothing_else_is_served_and_nothing_may_be_added() -> None:
    """Guards against files beside the page, and a page that runs what somebody wrote into it."""
    for path in ("/console/__init__.py", "/console/..%2fapp.py", "/console/", "/console/x.js"):
        assert fetch(path).status_code == 404, path
    headers = fetch("/").headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    sources = "".join(f.read_text() for f in files("serve.console").iterdir() if "." in f.name)
    named = set(re.findall(r"https?://[^\s\"'`)]+", sources))
    assert named == {"http://www.w3.org/2000/svg"}  # a namespace, which nobody fetches
    assert not re.search(r"innerHTML\s*=[^=]|insertAdjacentHTML|\beval\b", sources)


@dataclass
class Keyed:
    """An application behind a key, as the service has it: in a header, or as a subprotocol."""

    app: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            if f"longreel-key.{KEY}" not in scope["subprotocols"]:
                await receive()
                await send({"type": "websocket.close", "code": 4401})
                return

            async def chosen(message: Any) -> None:
                if message["type"] == "websocket.accept":
                    message = {**message, "subprotocol": "longreel"}
                await send(message)

            await self.app(scope, receive, chosen)
            return
        given = dict(scope.get("headers", [])).get(b"authorization", b"").decode()
        if scope["path"].startswith("/v1/") and given != f"Bearer {KEY}":
            error = {"error": {"message": "a key is needed", "code": "invalid_api_key"}}
            head = {"type": "http.response.start", "status": 401, "headers": []}
            await send(head)
            await send({"type": "http.response.body", "body": json.dumps(error).encode()})
            return
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing(ALLOWED) as found:
        yield found


@pytest.mark.slow
def test_an_answer_is_cancelled(browser: Browser) -> None:
    """Guards against a Cancel that does nothing, and against an answer that is shown only whole."""
    slow = application(MemorySessions(step_s=0.15))
    with served(slow) as url, console(browser, url, allowed="status of 503") as page:
        page["#camera"].click()
        page.shows("#figures", "^[1-9] frames? seen")
        page["#question"].fill("one two three four five six seven eight nine ten?")
        page.page.keyboard.press("Enter")
        page.shows("#said li.question", "You asked: one")
        page["#cancel"].click()
        page.shows("#said li.question", r"You asked: one.* \(cancelled\)$")
        assert "ten?" not in page["#said .answer"].inner_text()
        expect(page["#cancel"]).to_be_disabled()


@dataclass
class Shortened(MemorySessions):
    """Keeps no events up to number ``cut``."""

    cut: int = 0

    async def events(
        self, session: str, after: int = 0, wait_s: float = 10.0
    ) -> list[SessionEvent]:
        """See ``Sessions``."""
        return await super().events(session, max(after, self.cut), wait_s)


FRAME_AT = """async (times) => {
    const { Transcript } = await import("/console/transcript.js");
    const transcript = new Transcript();
    for (const frame of [4, 5, 7]) {
        transcript.take({ type: "frame.seen", frame, time_s: frame / 2, p_silence: 0.5 });
    }
    return [transcript.seen, transcript.wishes, ...times.map((time) => transcript.frameAt(time))];
}"""


@pytest.mark.slow
def test_a_session_whose_first_events_are_gone_is_shown(browser: Browser) -> None:
    """Guards against a timeline and figures that stop where the first frame known is not frame 0,
    and against questions that count as dropped since nobody knows of them any more."""
    sessions = Shortened()
    with served(application(sessions)) as url, httpx.Client(base_url=url) as http:
        session = http.post("/v1/sessions", json={}).json()["id"]
        at = f"/v1/sessions/{session}"
        http.post(f"{at}/responses", json={"input": "Well?"}).raise_for_status()
        http.post(f"{at}/frames", files=form(*[0] * 8)).raise_for_status()
        # A question with its six words, then four of the eight frames.
        sessions.cut = 8 + 4
        with console(browser, url, allowed="status of 503") as page:
            page.page.goto(f"{url}/#s={session}")
            page.page.reload()
            page.shows("#figures", "^8 frames seen$")
            assert str(page["#timeline path"].get_attribute("d")).startswith("M2 1L2.00 ")
            found = page.page.evaluate(FRAME_AT, [0, 2, 2.6, 3.2, 9])
            assert found == [8, [0.5, 0.5, 0, 0.5], -1, 4, 5, 5, 7]


@dataclass
class Limited(MemorySessions):
    """Refuses so many calls with frames, as a key's limit does."""

    refusals: int = 4
    retry_after_s: float | None = 0.5

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        """See ``Sessions``."""
        if self.refusals:
            self.refusals -= 1
            raise QuotaError("quota_exceeded", "the key's limit", self.retry_after_s)
        return await super().give(session, inputs, seq)


GIVES = """async ([session, times]) => {
    const { Link } = await import("/console/link.js");
    const canvas = Object.assign(document.createElement("canvas"), { width: 96, height: 96 });
    canvas.getContext("2d");
    const jpeg = await new Promise((done) => canvas.toBlob(done, "image/jpeg"));
    const told = { accepted: [], refused: [] };
    const began = Date.now();
    await new Promise((done) => {
        const one = () => told.accepted.length + told.refused.length === times.length && done();
        const link = new Link(session, {
            view() {}, state() {}, event() {},
            receipt(item) { told.accepted.push(item.time); one(); },
            refused(item) { told.refused.push(item.time); one(); },
        });
        for (const time of times) link.give({ jpeg, time });
    });
    return { ...told, took: Date.now() - began };
}"""


@pytest.mark.slow
def test_frames_wait_where_a_key_limits_them(browser: Browser) -> None:
    """Guards against frames of a file that are lost since they came faster than the key may push,
    and against a page that sends them again and again without a pause."""
    with served(application(Limited())) as url, httpx.Client(base_url=url) as http:
        session = http.post("/v1/sessions", json={}).json()["id"]
        with console(browser, url, allowed="status of 503") as page:
            told = page.page.evaluate(GIVES, [session, [0, 1, 2]])
    assert (told["accepted"], told["refused"]) == ([0, 1, 2], [])
    assert told["took"] >= 1500


@pytest.mark.slow
@pytest.mark.parametrize("retry_after_s", [None, 3600.0])
def test_frames_that_a_key_may_not_push_for_long_are_dropped_and_told(
    browser: Browser, retry_after_s: float | None
) -> None:
    """Guards against a page that waits, and asks, for ever and does not say why."""
    limited = Limited(refusals=1000, retry_after_s=retry_after_s)
    with served(application(limited)) as url, httpx.Client(base_url=url) as http:
        session = http.post("/v1/sessions", json={}).json()["id"]
        with console(browser, url, allowed="status of 503") as page:
            told = page.page.evaluate(GIVES, [session, [0, 1]])
    assert (told["accepted"], told["refused"]) == ([], [0, 1])


@pytest.mark.slow
def test_a_session_that_was_left_is_sent_no_more_and_shows_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    """Guards against an upload of a session that was left which hides, when it fails, what the page
    shows now, which goes on for nobody, or which passes for whole later."""
    (tmp_path / "a.mkv").write_bytes(b"no video at all")
    refused = "status of (4|503)|ERR_ABORTED"
    with served(app()) as url, console(browser, url, allowed=refused) as page:
        frames = re.compile(r"/frames\?")
        page.page.route(frames, lambda _: None)  # nobody answers it
        with page.page.expect_request(frames):
            page["#file"].set_input_files(str(tmp_path / "a.mkv"))
        session = page.session
        # What is left is asked about once more, and only then let go.
        asked_about = f"{url}/v1/sessions/{session}"
        with page.page.expect_response(asked_about), page.page.expect_event("requestfailed"):
            page["#leave"].click()
        page.page.wait_for_timeout(100)
        expect(page["#begin"]).to_be_visible()
        expect(page["#placard"]).to_be_hidden()
        page.page.goto(f"{url}/#s={session}")
        page.shows("#placard", "not known whether a.mkv reached the service")
        page.page.unroute(frames)
        page.page.route(frames, lambda route: route.fulfill(json={"receipts": []}))
        page["#file"].set_input_files(str(tmp_path / "a.mkv"))
        page.page.wait_for_function(
            "() => Object.values(sessionStorage).join().includes('uploaded')"
        )
        page.page.reload()
        page.shows("#placard", "a.mkv was sent to the service")


@pytest.mark.slow
def test_a_key_is_asked_for_and_used_everywhere(browser: Browser) -> None:
    """Guards against a key that is not asked for, goes into an address, or is left out by the
    WebSocket; and a wrong one that locks the page."""
    keyed: Any = Keyed(app())
    refused = "status of (401|503)"
    with served(keyed) as url, console(browser, url, allowed=refused) as page:
        addresses: list[str] = []
        page.page.on("request", lambda request: addresses.append(request.url))
        page.page.on("websocket", lambda socket: addresses.append(socket.url))
        # Who does not want to is not asked again at every look.
        page["#key button[value='']"].click()
        page.shows("#sessions", "This needs a key")
        page.page.wait_for_timeout(100)
        expect(page["#key"]).to_be_hidden()
        page["#key-open"].click()
        for key in ("wrong", KEY):
            expect(page["#key"]).to_be_visible()
            page["#key-value"].fill(key)
            page.page.keyboard.press("Enter")
        page.shows("#model", "longreel-tiny")
        page["#camera"].click()
        page.shows("#figures", r"^[2-9] frames seen")
        page.page.reload()
        page.shows("#figures", "frames seen")
        expect(page["#key"]).to_be_hidden()
        assert any("/stream?" in address for address in addresses)
        assert not [address for address in addresses if KEY in address or "wrong" in address]
