"""The console in a real browser, on a really served model: what a user does with it, and sees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from mod.checkpoint import TINY
from mod.world.streams import World
from pipelines.cluster import connected
from pipelines.jobs_service import jobs_deployment
from serve.app import ReplicaPlan, deploy
from tests.ports import free_ports
from tests.serve.console.browser import ALLOWED, Console, another, browsing, console
from tests.serve.console.cuttable import CuttableWay
from tests.videos import write_video

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FRAMES = 10  # of the clip, on the model's grid of 2 a second
SIDE = 192


@dataclass(frozen=True)
class Served:
    """A service, a browser, and a clip that the browser plays."""

    port: int
    browser: Browser
    clip: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self.url}{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until_quiet(self, page: Console) -> None:
        """Wait until nothing more comes of what the page has sent."""
        before = None
        while (now := self.get(f"/v1/sessions/{page.session}")) != before or now["waiting_frames"]:
            before = now
            page.page.wait_for_timeout(400)


def write_clip(path: Path) -> Path:
    """A scene that changes, at 10 pictures a second; each of the grid's is held until the next."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for sample in islice(World(5), FRAMES):
            large = np.ascontiguousarray(sample.frame.repeat(2, 0).repeat(2, 1))
            for _ in range(5):
                frame = av.VideoFrame.from_ndarray(large, format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("console")
    (port,) = free_ports(1)
    with connected("local", takes_jobs=True):
        plan = ReplicaPlan(TINY, state=str(folder / "state"))
        deploy(plan, http=("127.0.0.1", port), jobs=jobs_deployment())
        with browsing(ALLOWED) as browser:
            yield Served(port, browser, write_clip(folder / "clip.mp4"))


@pytest.fixture
def page(served: Served) -> Iterator[Console]:
    with console(served.browser, served.url) as opened:
        yield opened


def test_a_file_is_narrated_asked_about_and_goes_on_after_a_reload(
    served: Served, page: Console
) -> None:
    """Guards against narrations that do not come while the video plays, questions without answers,
    and a reload that forgets, or tells the model twice."""
    page.shows("#model", TINY)
    page.watch(served.clip)
    expect(page["#said li"].first).to_be_visible()
    assert page.page.evaluate("document.getElementById('video').ended") is False
    page.shows("#state", "live")
    page["#question"].fill("What colour is it?")
    page["#ask-send"].click()
    expect(page["#said li.question .answer"]).to_have_text(re.compile(r"^\w.*\.$"))
    page.page.keyboard.press("Escape")
    page.page.evaluate("document.getElementById('video').pause()")
    session = page.session
    served.until_quiet(page)
    before = page.said(), page.marks()
    assert len(before[0]) == len(before[1]) >= 2
    assert any("What colour is it?" in line for line in before[0])

    page.page.reload()
    expect(page["#said li"]).to_have_count(len(before[0]))
    assert page.session == session
    assert (page.said(), page.marks()) == before
    page.shows("#placard", "Choose clip.mp4")
    seen = served.get(f"/v1/sessions/{session}")["frames"]
    page.watch(served.clip, speed=4)
    page.shows("#figures", f"^{FRAMES} frames seen$")
    view = served.get(f"/v1/sessions/{session}")
    assert 0 < seen < FRAMES
    assert (view["frames"], view["seq"]) == (FRAMES, FRAMES + 1)
    assert page.said()[: len(before[0])] == before[0]
    page.shows("#status", "The video has ended")


def test_the_heat_map_shows_what_the_router_kept(served: Served, page: Console) -> None:
    """Guards against a map of nothing, of another frame, or one that stays when turned off."""
    page.watch(served.clip, speed=4)
    page.shows("#figures", f"^{FRAMES} frames seen$")
    page["#name"].click()
    page.page.keyboard.press("h")
    expect(page["#heat-toggle"]).to_have_attribute("aria-pressed", "true")
    page.shows("#legend-text", r"^[123] of 9 tokens of the frame at 0:04 ran .* of the 3 layers")
    kept = served.get(f"/v1/sessions/{page.session}/kept?frame={FRAMES - 1}")
    assert (kept["rows"], kept["columns"], kept["layers"]) == (3, 3, 3)
    # Of two places in a layer, the token that decides takes one.
    assert sum(kept["counts"]) == 3
    assert page.look("tinted") == [count > 0 for count in kept["counts"]]
    page["#said li button"].first.click()
    page.shows("#legend-text", "of the frame at 0:00")
    first = served.get(f"/v1/sessions/{page.session}/kept?frame=0")
    assert page.look("tinted") == [count > 0 for count in first["counts"]]
    page.page.keyboard.press("h")
    expect(page["#legend"]).to_be_hidden()
    assert page.look("tinted") == [False] * 9


def test_what_was_not_answered_is_sent_again(served: Served) -> None:
    """Guards against frames or questions that are lost, or told twice, when the connection breaks
    while the video plays."""
    with (
        CuttableWay(served.port) as way,
        console(served.browser, way.url, allowed="Failed to load|WebSocket connection") as page,
    ):
        page.watch(served.clip, speed=1.5)
        page.shows("#figures", r"^[2-9] frames seen")
        way.cut()
        page.shows("#state", "reconnecting")
        page["#question"].fill("What colour is it?")
        page["#ask-send"].click()
        page.page.wait_for_timeout(300)
        way.mend()
        page.shows("#state", "live")
        page.shows("#figures", f"^{FRAMES} frames seen$")
        expect(page["#said li.question .answer"]).to_have_text(re.compile(r"^\w.*\.$"))
        view = served.get(f"/v1/sessions/{page.session}")
        assert (view["frames"], view["seq"]) == (FRAMES, FRAMES + 1)


@pytest.mark.parametrize("source", ["Camera", "Screen"])
def test_a_live_source_is_watched(served: Served, page: Console, source: str) -> None:
    """Guards against a live source whose frames do not come, or whose times do not go on."""
    page[f"#{source.lower()}"].click()
    page.shows("#figures", r"^[3-9] frames seen")
    page.shows("#name", source)
    expect(page["#timeline .mark"].first).to_be_visible()
    page["#leave"].click()
    expect(page["#begin"]).to_be_visible()
    assert page.page.url == f"{served.url}/"
    assert page.page.evaluate("document.getElementById('video').srcObject") is None


def test_a_camera_that_is_refused_is_told(served: Served) -> None:
    """Guards against a button that does nothing."""
    with another(served.browser) as strict, console(strict, served.url) as page:
        page["#camera"].click()
        page.shows("#begin-problem", "not allowed. Allow it for this page")
    assert served.get("/healthz")


def test_a_video_that_the_browser_cannot_play_is_watched(
    served: Served, page: Console, tmp_path: Path
) -> None:
    """Guards against a codec that ends in a black picture."""
    options = {"b": "800k"}
    clip = write_video(tmp_path / "old.avi", "mpeg4", n_frames=50, options=options)
    page.watch(clip.path)
    page.shows("#placard", "This browser cannot play old.avi.*the service")
    page.shows("#figures", "^4 frames seen$")
    expect(page["#said li"].first).to_be_visible()


def test_what_is_no_video_is_told(served: Served, tmp_path: Path) -> None:
    """Guards against a wait without end for a file that nobody can decode."""
    (tmp_path / "notes.mp4").write_bytes(b"no video at all" * 100)
    with console(served.browser, served.url, allowed="status of 4") as page:
        page.watch(tmp_path / "notes.mp4")
        page.shows("#placard", "notes.mp4, and the service cannot use it: .+")


def test_panels_show_sessions_jobs_files_and_the_cluster(served: Served, tmp_path: Path) -> None:
    """Guards against panels that stay empty, a form that swallows an error, and buttons that do
    not what they say."""
    with console(served.browser, served.url, allowed="status of 400") as page:
        page.shows("#cluster", r"session.*of 2\.0 GiB")
        page["#camera"].click()
        page.shows("#figures", "frames? seen")
        session = page.session
        expect(page[f"#sessions [aria-label='Close session {session}']"]).to_be_visible()
        page["#leave"].click()
        page[f"#sessions [aria-label='Open session {session}']"].click()
        page.shows("#placard", "The session goes on")
        page[f"#sessions [aria-label='Close session {session}']"].click()
        expect(page["#begin"]).to_be_visible()
        expect(page[f"#sessions [aria-label='Close session {session}']"]).to_have_count(0)
        assert session not in [each["id"] for each in served.get("/v1/sessions")["data"]]

        (tmp_path / "note.bin").write_bytes(b"12345")
        page["#upload"].set_input_files(str(tmp_path / "note.bin"))
        page.shows("#files", "note.bin.*5 B")
        page["#files button"].click()
        page.shows("#files", "No file is uploaded")

        page["#job-open"].click()
        page["#job-send"].click()
        page.shows("#job-problem", "Say which videos")
        page["#job-sources"].fill(str(tmp_path / "*.mp4"))
        page["#job-output"].fill(str(tmp_path / "rows"))
        page["#job-send"].click()
        page.shows("#job-problem", r"\*\.mp4 has no match")


def test_everything_is_reached_by_keyboard(served: Served, page: Console) -> None:
    """Guards against controls without a name, out of reach, or whose focus cannot be seen."""
    page.page.keyboard.press("?")
    expect(page["#help"]).to_be_visible()
    page.page.keyboard.press("Escape")
    page.watch(served.clip, speed=4)
    page.shows("#figures", f"^{FRAMES} frames seen$")
    page["#skip"].focus()
    walked: list[dict[str, Any]] = []
    for _ in range(120):
        walked.append(page.look("focused"))
        page.page.keyboard.press("Tab")
        if page.look("focused") in (None, walked[0]):
            break
    named = {each["key"] for each in walked}
    wanted = {"theme", "keys", "heat-toggle", "leave", "video", "question", "ask-send"}
    assert wanted | {"job-open", "upload-open", "mark", "line"} <= named
    assert [each for each in walked if not each["name"]] == []
    assert [each for each in walked if not each["seen"]] == []
    order = [each["key"] for each in walked]
    assert (
        order.index("video") < order.index("mark") < order.index("question") < order.index("line")
    )
    # Along the timeline by arrow keys; Enter goes there.
    page["#timeline .mark"].first.focus()
    page.page.keyboard.press("End")
    page.page.keyboard.press("ArrowLeft")
    last = page.marks()[-2][0]
    assert page.page.evaluate("document.activeElement.getAttribute('aria-label')") == last
    page.page.keyboard.press("Enter")
    assert last is not None
    shown = page.page.evaluate("Math.floor(document.getElementById('video').currentTime)")
    assert last.startswith(f"0:{shown:02d} ")
    page.page.keyboard.press("/")
    assert page.page.evaluate("document.activeElement.id") == "question"


def test_text_can_be_read(served: Served) -> None:
    """Guards against grey on grey, in either theme, and a page wider than a small screen."""
    view = {"width": 360, "height": 740}
    with console(served.browser, served.url, color_scheme="dark", viewport=view) as page:
        page.watch(served.clip, speed=4)
        page.shows("#figures", f"^{FRAMES} frames seen$")
        page["#job-open"].click()
        for word in ("Light", "Dark"):
            page.page.wait_for_timeout(200)  # colours change within moments
            assert page.look("faint") == []
            assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
            page.shows("#theme", f"^{word}$")
            page["#theme"].click()
        page["#theme"].click()
        page.page.reload()
        page.shows("#theme", "^Dark$")
