"""Following real sources on loopback: their times, their breaks, and what is refused."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import pytest

from actors.objects import write_bytes
from infra.objectstore import ObjectStore
from infra.rtspserver import RtspServer
from serve.live.items import Frame, Input, Receipt, SessionError, SessionOptions
from serve.sources.addresses import SourceSettings
from serve.sources.following import Follower
from serve.sources.records import StreamRecord
from tests.serve.live_sources import FPS, HttpSource, moving_video
from tests.serve.memory_sessions import MemorySessions
from tests.videos import draw, read_number

SETTINGS = SourceSettings(
    allow_private=True, open_s=3, read_s=1.5, first_pause_s=0.2, longest_pause_s=1
)
#: Of a picture that is encoded, sent, decoded and looked at on a busy machine.
LATE_S = 0.5


@dataclass
class Watched(MemorySessions):
    """Sessions that keep what they were given."""

    given: list[tuple[Frame, Receipt]] = field(default_factory=list)

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        receipts = await super().give(session, inputs, seq)
        for each, receipt in zip(inputs, receipts, strict=True):
            assert isinstance(each, Frame)
            self.given.append((each, receipt))
        return receipts

    def times(self) -> list[float]:
        return [frame.time_s or 0.0 for frame, _ in self.given]

    def numbers(self) -> list[int]:
        return [read_number(frame.pixels) for frame, _ in self.given]


@dataclass
class Following:
    """A follower at work."""

    follower: Follower
    sessions: Watched
    kept: list[StreamRecord]
    task: asyncio.Task[StreamRecord]

    @property
    def record(self) -> StreamRecord:
        return self.follower.record

    async def until(self, reached: Callable[[], Any], within_s: float = 20.0) -> None:
        deadline = time.monotonic() + within_s
        while not reached():
            assert time.monotonic() < deadline, self.record
            await asyncio.sleep(0.02)

    async def frames(self, n: int) -> None:
        await self.until(lambda: len(self.sessions.given) >= n)

    async def stop(self) -> StreamRecord:
        self.follower.stop()
        return await asyncio.wait_for(self.task, 2)


@asynccontextmanager
async def following(
    url: str,
    *,
    fps: float = 5.0,
    reconnect: bool = False,
    sessions: Watched | None = None,
    settings: SourceSettings = SETTINGS,
    **told: Any,
) -> AsyncIterator[Following]:
    sessions = sessions or Watched(fps=fps)
    if "door" not in {view.id for view in await sessions.list()}:
        await sessions.open(SessionOptions(fps=fps), "door")
    now = time.time()
    record = StreamRecord("door", "shown", "door", fps, 64, reconnect, now, now)
    kept: list[StreamRecord] = []
    follower = Follower(url, replace(record, **told), sessions, settings, kept.append)
    task = asyncio.create_task(follower.run())
    try:
        yield Following(follower, sessions, kept, task)
    finally:
        follower.stop()
        await asyncio.wait_for(task, 5)


def assert_wall_true(found: Following, source: HttpSource) -> None:
    """Each frame's time is when its picture was shown, as far as a busy machine lets it."""
    began = found.record.began_at
    for time_s, number in zip(found.sessions.times(), found.sessions.numbers(), strict=True):
        shown_s = source.drawn_at(number) - began
        # The grid's time lies before the picture's by less than 1 / fps; transport delays it.
        assert -0.25 <= time_s - shown_s + 0.2 <= LATE_S + 0.2, (time_s, shown_s)


@pytest.mark.parametrize("path", ["/live.ts", "/mjpeg"])
def test_a_live_source_is_sampled_in_the_walls_time(path: str) -> None:
    """Guards against times made from a stream's own clock, frames off the grid, and more of them
    than the session sees."""

    async def scenario() -> None:
        with HttpSource() as source:
            async with following(source.url + path) as found:
                await found.frames(12)
                assert found.record.state == "running"
                record = await found.stop()
            times = found.sessions.times()
            assert [round(t * 5, 6) % 1 for t in times] == [0] * len(times)
            assert times == sorted(set(times))
            assert times[-1] - times[0] <= 2 * (len(times) - 1) / 5, "pictures are missing"
            assert_wall_true(found, source)
            assert record.state == "ended"
            assert record.frames == len(times), "a session of the same fps dropped some"
            assert record.seq == len(times)

    asyncio.run(scenario())


def test_an_rtsp_camera_is_followed_with_its_login() -> None:
    """Guards against RTSP that works with files alone, and a login that is lost on the way."""

    async def scenario() -> None:
        with RtspServer(draw, login="user:p@ss word", fps=FPS) as camera:
            url = camera.url.replace("//", "//user:p%40ss%20word@")
            async with following(url) as found:
                await found.frames(8)
                numbers, times = found.sessions.numbers(), found.sessions.times()
                for number, later, t0, t1 in zip(
                    numbers, numbers[1:], times, times[1:], strict=False
                ):
                    assert abs((later - number) / FPS - (t1 - t0)) <= 0.25
                assert (await found.stop()).state == "ended"
            assert camera.asked[:2] == ["OPTIONS", "DESCRIBE"]
            assert "PLAY" in camera.asked
            async with following(camera.url) as refused:
                await refused.until(lambda: refused.record.over)
                assert refused.record.state == "failed"
                assert "401" in (refused.record.error or "")

    asyncio.run(scenario())


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
def test_rtsps_needs_a_certificate_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a login that is sent to whoever answers, and TLS that does not work at all."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    made += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    subprocess.run([*made, "-addext", "subjectAltName=DNS:localhost"], check=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def scenario() -> None:
        with RtspServer(draw, tls=context, fps=FPS) as camera:
            async with following(camera.url) as found:
                await found.until(lambda: found.record.over)
                assert found.record.state == "failed"
                assert "cannot be trusted" in (found.record.error or "")
            assert camera.asked == []
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            async with following(camera.url) as found:
                await found.frames(4)
            async with following(camera.url.replace("localhost", "127.0.0.1")) as found:
                await found.until(lambda: found.record.over)
                assert "cannot be trusted" in (found.record.error or "")

    asyncio.run(scenario())


def test_an_rtsp_camera_that_drops_is_opened_again() -> None:
    """Guards against a follower that hangs or gives up where RTSP breaks off."""

    async def scenario() -> None:
        with RtspServer(draw, fps=FPS) as camera:
            async with following(camera.url, reconnect=True) as found:
                await found.frames(4)
                camera.drop()
                await found.until(lambda: found.record.state == "reconnecting")
                before = len(found.sessions.given)
                await found.frames(before + 4)
                times = found.sessions.times()
                assert times == sorted(set(times))

    asyncio.run(scenario())


@pytest.mark.parametrize("inside", ["rtsp://127.0.0.1:1/x", "http://127.0.0.1:1/x"])
def test_an_rtsp_redirect_goes_nowhere(inside: str) -> None:
    """Guards against a camera outside that sends the service to an address inside."""

    async def scenario() -> None:
        with RtspServer(draw, redirect=inside) as camera:
            async with following(camera.url) as found:
                await found.until(lambda: found.record.over)
                assert found.record.state == "failed"
                assert "redirects" in (found.record.error or "")

    asyncio.run(scenario())


def test_a_source_that_drops_and_comes_back() -> None:
    """Guards against a silent end, hammering without a pause, or times that begin again."""

    async def scenario() -> None:
        with HttpSource() as source:
            async with following(source.url + "/live.ts", reconnect=True) as found:
                await found.frames(5)
                source.refuses = True
                source.drop()
                await found.until(lambda: "503" in (found.record.error or ""))
                await found.until(lambda: found.record.state == "reconnecting", 0)
                asked = len(source.asked)
                await asyncio.sleep(1)
                assert len(source.asked) - asked <= 4
                source.refuses = False
                before = len(found.sessions.given)
                await found.frames(before + 5)
                assert (found.record.state, found.record.error) == ("running", None)
            times = found.sessions.times()
            assert times == sorted(set(times))
            assert times[before] - times[before - 1] > 0.8, "the gap is missing from the times"
            assert_wall_true(found, source)
            states = [record.state for record in found.kept]
            assert [s for i, s in enumerate(states) if [s] != states[i - 1 : i]] == [
                "starting", "running", "reconnecting", "running", "ended"
            ]  # fmt: skip

    asyncio.run(scenario())


def test_a_source_that_stalls_is_lost_and_said_to_be() -> None:
    """Guards against waiting for ever for a camera that keeps its connection and shows nothing."""

    async def scenario() -> None:
        with HttpSource() as source:
            async with following(source.url + "/stall.ts", fps=25) as found:
                await found.until(lambda: found.record.over, 10)
                assert found.record.state == "failed"
                assert "no data" in (found.record.error or "")
                assert len(found.sessions.given) >= 5
        with RtspServer(draw, stall_after=60) as camera:
            async with following(camera.url) as found:
                await found.until(lambda: found.record.over, 15)
                assert found.record.state == "failed", found.record

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/silent", "/stall.ts", "/live.ts"])
def test_stopping_does_not_wait_for_the_source(path: str) -> None:
    """Guards against a DELETE that takes as long as the source's own timeouts."""
    patient = replace(SETTINGS, open_s=60, read_s=60)

    async def scenario() -> None:
        with HttpSource() as source:
            async with following(source.url + path, settings=patient) as found:
                await asyncio.sleep(1.5)
                before = time.monotonic()
                assert (await found.stop()).state == "ended"
                assert time.monotonic() - before < 1

    asyncio.run(scenario())


def test_a_slow_model_never_holds_the_source_up() -> None:
    """Guards against a queue of pictures that grows, and drops that nobody hears of."""

    async def scenario() -> None:
        slow = Watched(fps=10, step_s=1.0, most_waiting=2)
        with HttpSource() as source:
            async with following(source.url + "/live.ts", fps=10, sessions=slow) as found:
                await found.frames(25)
            reasons = [receipt.reason for _, receipt in slow.given]
            assert reasons.count("lag") > 10
            assert found.record.dropped == len(reasons) - reasons.count(None)
            assert_wall_true(found, source)

    asyncio.run(scenario())


def test_a_session_that_is_away_gets_the_latest_frames_when_it_is_back() -> None:
    """Guards against a stream that ends with its replica, and against frames without a bound."""

    async def scenario() -> None:
        sessions = Watched(fps=25)
        with HttpSource() as source:
            async with following(source.url + "/live.ts", fps=25, sessions=sessions) as found:
                await found.frames(5)
                sessions.refusal = SessionError("unavailable", "its replica was lost")
                await asyncio.sleep(4)
                before = len(sessions.given)
                sessions.refusal = None
                await found.frames(before + 70)
            times = sessions.times()
            gap = times[before] - times[before - 1]
            assert 0.5 < gap < 3, "older frames were kept, or the latest were not"
            assert found.record.dropped > 10
            assert_wall_true(found, source)

    asyncio.run(scenario())


def test_a_stream_ends_with_its_session() -> None:
    """Guards against pulling for nobody, also while the source is away."""

    async def scenario() -> None:
        with HttpSource() as source:
            for refuses in (False, True):
                source.refuses = refuses
                url = source.url + "/live.ts"
                async with following(url, reconnect=True) as found:
                    await found.until(lambda: found.record.state != "starting")
                    await found.sessions.close("door")
                    await found.until(lambda: found.record.over, 10)
                    assert found.record.state == "ended"
                    assert found.record.error == "its session was closed"

    asyncio.run(scenario())


def test_what_a_restarted_process_knows_lets_it_go_on() -> None:
    """Guards against times or numbers that begin again after the puller's death."""

    async def scenario() -> None:
        sessions = Watched(fps=5)
        with HttpSource() as source:
            async with following(source.url + "/live.ts", sessions=sessions) as first:
                await first.frames(5)
                await first.stop()
            kept = StreamRecord.of({**first.kept[-1].as_dict(), "of a later version": 1})
            assert kept.last_s == sessions.times()[-1]
            told = {n: getattr(kept, n) for n in ("began_at", "frames", "seq", "last_s")}
            async with following(source.url + "/live.ts", sessions=sessions, **told) as again:
                await again.frames(2 * len(sessions.given))
                times = sessions.times()
                assert times == sorted(set(times))
                assert again.record.seq == len(sessions.given)
                assert again.record.began_at == kept.began_at
            assert_wall_true(again, source)

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["end.mp4", "start.mp4", "film.webm"])
def test_a_recording_plays_at_its_pace_and_ends(name: str, tmp_path: Path) -> None:
    """Guards against an hour of film thrown at a session at once, and an index at the end that
    cannot be reached."""
    from tests.videos import write_video, x264

    if name.endswith("webm"):
        options = {"deadline": "realtime", "cpu-used": "8"}
        write_video(tmp_path / name, "libvpx-vp9", n_frames=50, options=options)
    else:
        fast = {"movflags": "+faststart"} if name == "start.mp4" else {}
        write_video(tmp_path / name, n_frames=50, options=x264(), container_options=fast)

    async def scenario() -> None:
        with HttpSource(tmp_path) as source:
            before = time.monotonic()
            async with following(f"{source.url}/{name}", reconnect=True) as found:
                await found.until(lambda: found.record.over)
                assert 1.5 < time.monotonic() - before < 8
            assert found.record.state == "ended"
            assert found.record.error is None
            assert found.sessions.times() == pytest.approx([i / 5 for i in range(10)])
            assert found.sessions.numbers() == [i * 5 for i in range(10)]

    asyncio.run(scenario())


def test_a_recording_goes_on_where_it_was(tmp_path: Path) -> None:
    """Guards against a recording that is shown again from its beginning after a restart."""
    moving_video(tmp_path / "film.mp4", 4)

    async def scenario() -> None:
        now = time.time()
        with HttpSource(tmp_path) as source:
            url = f"{source.url}/film.mp4"
            async with following(url, last_s=2.0, began_at=now - 2.1) as found:
                await found.until(lambda: found.record.over)
            assert found.sessions.numbers() == [i * 5 for i in range(11, 20)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x",
        "http://localhost:1/x",
        "http://[::1]:1/x",
        "http://[::ffff:127.0.0.1]:1/x",
        "http://10.1.2.3/x",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/x",
        "rtsp://127.0.0.1/x",
        "rtsp://0.0.0.0/x",
        "rtsp://224.0.0.1/x",
        "file:///etc/passwd",
        "concat:/etc/passwd",
        "/etc/passwd",
        "ftp://example.org/x",
        "rtmp://example.org/x",
        "s3://others/x.mp4",
        "http:///x",
        "http://a b/x",
        "http://host:99999/x",
    ],
)
def test_places_that_sources_may_not_be(url: str) -> None:
    """Guards against reading files, or addresses that only the service can reach."""

    async def scenario() -> None:
        async with following(url, reconnect=True, settings=SourceSettings()) as found:
            await found.until(lambda: found.record.over, 5)
            assert found.record.state == "failed"

    asyncio.run(scenario())


def test_a_redirect_is_checked_as_the_first_place_is(tmp_path: Path) -> None:
    """Guards against a redirect to a file, and credentials that travel to another host."""

    async def scenario() -> None:
        with HttpSource() as source, HttpSource() as other:
            for target in ("file:///etc/passwd", "rtsp://127.0.0.1:1/x"):
                async with following(f"{source.url}/away?{target}") as found:
                    await found.until(lambda: found.record.over)
                    assert found.record.state == "failed"
            guarded = source.url.replace("//", "//user:secret@")
            async with following(f"{guarded}/guarded.ts") as found:
                await found.frames(1)
            async with following(f"{guarded}/away?{source.url}/guarded.ts") as found:
                await found.frames(1)
            async with following(f"{guarded}/away?{other.url}/guarded.ts") as found:
                await found.until(lambda: found.record.over)
                assert "401" in (found.record.error or "")

    asyncio.run(scenario())


@pytest.mark.objectstore
@pytest.mark.slow
def test_an_object_in_a_bucket_is_played(
    objectstore: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    """Guards against buckets that are open to everyone, and objects that cannot be followed."""
    film = moving_video(tmp_path / "film.mp4", 2)
    write_bytes(f"s3://{bucket}/film.mp4", film.read_bytes())

    async def scenario() -> None:
        url = f"s3://{bucket}/film.mp4"
        async with following(url) as found:
            await found.until(lambda: found.record.over)
            assert (found.record.state, found.sessions.given) == ("failed", [])
        allowed = replace(SETTINGS, s3_buckets=(bucket,))
        async with following(url, settings=allowed) as found:
            await found.until(lambda: found.record.over)
            assert (found.record.state, found.record.error) == ("ended", None)
            assert found.sessions.numbers() == [i * 5 for i in range(10)]
        async with following(f"s3://{bucket}/none.mp4", settings=allowed) as found:
            await found.until(lambda: found.record.over)
            assert "NotFound" in (found.record.error or "")

    asyncio.run(scenario())


def write_hls(folder: Path, seconds: float) -> None:
    """``live.m3u8`` and its segments of a second each."""
    film = moving_video(folder / "film.ts", seconds)
    with (
        av.open(str(film)) as source,
        av.open(str(folder / "live.m3u8"), "w", format="hls", options={"hls_time": "1"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def test_hls_is_followed(tmp_path: Path) -> None:
    """Guards against playlists whose segments are never opened, or as fast as the net allows."""
    write_hls(tmp_path, 3)

    async def scenario() -> None:
        with HttpSource(tmp_path) as source:
            before = time.monotonic()
            async with following(f"{source.url}/live.m3u8") as found:
                await found.until(lambda: found.record.over)
            assert time.monotonic() - before > 2
            assert (found.record.state, found.record.error) == ("ended", None)
            assert found.sessions.numbers() == [i * 5 for i in range(15)]

    asyncio.run(scenario())


def test_a_live_playlist_is_followed(tmp_path: Path) -> None:
    """Guards against a list that is read once and never again."""
    write_hls(tmp_path, 12)
    playlist = tmp_path / "live.m3u8"
    lines = playlist.read_text().replace("#EXT-X-ENDLIST\n", "").split("#EXTINF")

    async def scenario() -> None:
        playlist.write_text("#EXTINF".join(lines[:4]))
        with HttpSource(tmp_path) as source:
            async with following(f"{source.url}/live.m3u8") as found:
                for n in range(5, 11):
                    await asyncio.sleep(1)
                    playlist.write_text("#EXTINF".join(lines[:n]))
                await found.frames(8)
                assert (await found.stop()).state == "ended"
            numbers, times = found.sessions.numbers(), found.sessions.times()
            for i in range(1, len(times)):
                # Segments come at once; their pictures keep their distance.
                elapsed_s = (numbers[i] - numbers[0]) / FPS
                assert abs(elapsed_s - (times[i] - times[0])) < 1.5

    asyncio.run(scenario())


def test_a_playlist_names_no_files(tmp_path: Path) -> None:
    """Guards against FFmpeg opening what a hostile playlist names."""
    secret = moving_video(tmp_path / "secret.ts", 2)
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile '{secret}'\n")

    async def scenario() -> None:
        with HttpSource(tmp_path) as source:
            for name in ("list.m3u8", "list.ffconcat"):
                async with following(f"{source.url}/{name}", reconnect=True) as found:
                    await found.until(lambda: found.record.over)
                    assert found.record.state == "failed"
                    assert found.sessions.given == []

    asyncio.run(scenario())


def test_what_is_no_video_fails_at_once(tmp_path: Path) -> None:
    """Guards against asking for a text page again and again."""
    (tmp_path / "page.html").write_text("<html>no video</html>" * 50)
    (tmp_path / "one.jpg").write_bytes(b"")

    async def scenario() -> None:
        with HttpSource(tmp_path) as source:
            async with following(f"{source.url}/page.html", reconnect=True) as found:
                await found.until(lambda: found.record.over)
                assert (found.record.state, found.record.error) == ("failed", "this is no video")

    asyncio.run(scenario())
