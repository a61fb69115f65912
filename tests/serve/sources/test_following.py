"""Following live sources on loopback: their times, their breaks, and their end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from infra.rtspserver import RtspServer
from serve.live.items import SessionError
from serve.sources.records import StreamRecord
from tests.serve.live_sources import FPS, HttpSource
from tests.serve.sources.following import SETTINGS, Watched, assert_wall_true, following
from tests.videos import draw

pytestmark = pytest.mark.waits

#: Where nothing stalls, a busy machine may take its time.
PATIENT = replace(SETTINGS, open_s=30, read_s=30)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_session_that_is_away_gets_the_latest_frames_when_it_is_back() -> None:
    """Guards against a stream that ends with its replica, and against frames without a bound."""

    async def scenario() -> None:
        sessions = Watched(fps=25)
        with HttpSource() as source:
            url = source.url + "/live.ts"
            async with following(url, fps=25, sessions=sessions, settings=PATIENT) as found:
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


@pytest.mark.slow
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


@pytest.mark.slow
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
