"""Decoding processes die, hang and fill up; whoever sent something else notices nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.objects import write_bytes
from infra.hostile.bombs import png
from infra.objectstore import ObjectStore
from serve.decoding import calls
from serve.decoding.calls import Decoders, decode_pictures, decode_video, open_remote
from serve.decoding.media import MediaError, decode_image, decode_piece
from serve.decoding.pool import Pool
from serve.decoding.process import DecoderDiedError, Process
from serve.decoding.wire import WireError, receive_soon
from serve.live.items import SessionError
from serve.routes.context import ApiSettings
from tests.serve.routes_server import picture, until
from tests.videos import write_video, x264

SIDE, FPS = 96, 2.0
SETTINGS = ApiSettings()
GOOD = picture(100)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """One process of its own for pictures and videos alike, and a queue of two."""
    made = Pool(1, 2, 2**30)
    monkeypatch.setattr(calls, "decoders", lambda settings: Decoders(made, made))
    yield made
    made.close()


def run(scenario: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(scenario(), 60))


async def stopped(pool: Pool) -> int:
    """The pid of the one process, which does nothing from now on."""
    await decode_pictures([GOOD], SIDE, SETTINGS)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_pixels_are_those_of_this_process(tmp_path: Path) -> None:
    """Guards against pixels that are mixed up on their way: of several pictures, and of videos."""
    pictures = [picture(level, 64 + level) for level in range(0, 250, 10)]
    video = write_video(tmp_path / "a.mp4", options=x264())
    data = video.path.read_bytes()

    async def scenario() -> None:
        found = await decode_pictures(pictures, SIDE, SETTINGS)
        for pixels, sent in zip(found, pictures, strict=True):
            assert np.array_equal(pixels, decode_image(sent, SIDE, SETTINGS))
        apart = await decode_video(data, SIDE, FPS, SETTINGS)
        remote = await open_remote(str(video.path), FPS, SETTINGS)
        seen = [each async for part in remote.decode(SIDE) for each in part]
        (here,) = decode_piece(data, SIDE, FPS, SETTINGS)
        assert [time_s for time_s, _ in apart] == here.times_s
        assert [index / FPS for index, _ in seen] == here.times_s
        for n, pixels in enumerate(here.frames):
            assert np.array_equal(apart[n][1], pixels)
            assert np.array_equal(seen[n][1], pixels)

    run(scenario)


@pytest.mark.slow
def test_a_process_that_dies_is_replaced_and_its_call_asked_again(pool: Pool) -> None:
    """Guards a good picture against the death of the process that happens to have it."""

    async def scenario() -> None:
        pid = await stopped(pool)
        call = asyncio.create_task(decode_pictures([GOOD], SIDE, SETTINGS))
        await asyncio.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        assert len(await call) == 1
        assert (pool.counts.died, pool.counts.started) == (1, 2)
        assert pid not in pool.pids
        # And one that dies while nobody needs it is noticed by whoever needs it next.
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.1)
        assert len(await decode_pictures([GOOD], SIDE, SETTINGS)) == 1

    run(scenario)


@pytest.mark.slow
def test_what_ends_every_process_is_refused(pool: Pool) -> None:
    """Guards against a picture that crashes its decoder and is tried for ever, or ends in a 500."""

    async def crash() -> None:
        while True:
            for pid in pool.pids:
                os.kill(pid, signal.SIGSEGV)
            await asyncio.sleep(0.01)

    async def scenario() -> None:
        crashing = asyncio.create_task(crash())
        with pytest.raises(MediaError, match="signal SIGSEGV") as caught:
            await decode_pictures([png(6000, 6000)], SIDE, SETTINGS)
        assert caught.value.code == "media_error"
        assert pool.counts.died == 2
        crashing.cancel()
        assert len(await decode_pictures([GOOD], SIDE, SETTINGS)) == 1

    run(scenario)


@pytest.mark.slow
def test_what_takes_too_long_is_ended(pool: Pool) -> None:
    """Guards against one file that keeps a process for ever, and all others out of it."""
    limited = ApiSettings(decode_timeout_s=0.5)

    async def scenario() -> None:
        pid = await stopped(pool)
        with pytest.raises(MediaError, match=r"more than 0.5 s") as caught:
            await decode_pictures([GOOD], SIDE, limited)
        assert caught.value.code == "media_error"
        assert pool.counts.timed_out == 1
        assert len(await decode_pictures([GOOD], SIDE, SETTINGS)) == 1
        assert pid not in pool.pids

    run(scenario)


@pytest.mark.slow
def test_a_process_ends_itself_when_nobody_is_left_to_do_so(pool: Pool) -> None:
    """Guards against decoders that go on for ever after the gateway was killed."""
    limited = ApiSettings(decode_timeout_s=0.5)

    async def scenario() -> None:
        process = Process(2**30)
        await process.begun()
        call = calls._call("pictures", SIDE, limited)
        endless = png(7000, 7000)
        sizes = [len(endless)] * 40
        asked = process.call({**call, "sizes": sizes}, [endless] * 40, print, 0.05, None)
        # The gateway's own limit, without the kill that follows it: as if it had died.
        process.kill = lambda: None  # type: ignore[method-assign]
        with pytest.raises(DecoderDiedError):
            await asked
        process._wire.close()
        await until(lambda: not process.usable, 10)

    run(scenario)


@pytest.mark.slow
def test_what_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the machine's memory against pictures within the limit on pixels."""
    small = Pool(1, 2, 256 * 2**20)
    monkeypatch.setattr(calls, "decoders", lambda settings: Decoders(small, small))

    async def scenario() -> None:
        with pytest.raises(MediaError, match="more memory than it may") as caught:
            await decode_pictures([png(7000, 7000, colour=6)], SIDE, SETTINGS)
        assert caught.value.code == "media_too_large"
        assert len(await decode_pictures([GOOD], SIDE, SETTINGS)) == 1
        assert small.counts.started == 1

    try:
        run(scenario)
    finally:
        small.close()


@pytest.mark.slow
def test_what_waits_is_bounded_and_served_in_turn(pool: Pool) -> None:
    """Guards the gateway's memory against more uploads than it can decode."""

    async def scenario() -> None:
        pid = await stopped(pool)
        waiting = [asyncio.create_task(decode_pictures([GOOD], SIDE, SETTINGS)) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(SessionError) as caught:
            await decode_pictures([GOOD], SIDE, SETTINGS)
        assert caught.value.code == "overloaded"
        waiting[1].cancel()  # one that leaves its place to others
        await asyncio.sleep(0.01)
        waiting[1] = asyncio.create_task(decode_pictures([GOOD], SIDE, SETTINGS))
        os.kill(pid, signal.SIGCONT)
        assert [len(found) for found in await asyncio.gather(*waiting)] == [1, 1, 1]
        assert pool.pids == {pid}

    run(scenario)


@pytest.mark.slow
def test_a_call_that_nobody_waits_for_does_not_keep_its_process(pool: Pool) -> None:
    """Guards against clients that send what takes long, leave, and come again."""

    async def scenario() -> None:
        pid = await stopped(pool)
        call = asyncio.create_task(decode_pictures([GOOD], SIDE, SETTINGS))
        await asyncio.sleep(0.1)
        call.cancel()
        assert len(await decode_pictures([GOOD], SIDE, SETTINGS)) == 1
        assert pid not in pool.pids

    run(scenario)


@pytest.mark.slow
def test_one_bad_picture_of_many_is_named(pool: Pool) -> None:
    """Guards against a call refused whole by which nobody can find what was wrong with it."""

    async def scenario() -> None:
        with pytest.raises(MediaError, match=r"^frames\[1\]: the picture cannot be decoded"):
            await decode_pictures([GOOD, GOOD[:200], GOOD], SIDE, SETTINGS)

    run(scenario)


@pytest.mark.slow
def test_a_process_has_no_secrets_and_ends_with_its_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards credentials against a decoder that a file has taken over."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("LONGREEL_API_KEY", "very-secret")

    async def scenario() -> None:
        process = Process(2**30)
        await process.begun()
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"very-secret" not in environment
        assert b"PYTHONPATH" in environment
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "libtorch" not in maps
        assert "_raylet" not in maps
        process._wire.shutdown(socket.SHUT_RDWR)  # as it is when the gateway dies
        await until(lambda: not process.usable)
        process.kill()

    run(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\xff" * 12,
        b"\0\0\0\2" + b"\xff" * 8 + b"{}",
        b"\0\0\0\2" + bytes(8) + b"[]",
        b"\0\0\0\5" + bytes(8) + b"\x80\x04.\xff{",
        b"\0\0\0\2" + bytes(7) + b"\x09{}short",
    ],
)
def test_what_a_process_says_is_not_believed(sent: bytes) -> None:
    """Guards the gateway against a decoder that a file has taken over: nothing it sends is run,
    and no room is made for what it promises.
    """

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.sendall(sent)
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(WireError):
                await receive_soon(ours, 2**20)

    run(scenario)


def test_a_process_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch, pool: Pool) -> None:
    """Guards against blaming the picture for a machine without room."""
    monkeypatch.setattr("sys.executable", "/nowhere/python")

    async def scenario() -> None:
        with pytest.raises(SessionError) as caught:
            await decode_pictures([GOOD], SIDE, SETTINGS)
        assert caught.value.code == "unavailable"
        monkeypatch.undo()

    run(scenario)


@pytest.mark.objectstore
def test_an_object_is_read_for_a_process_that_cannot(
    objectstore: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    """Guards against credentials in decoding processes, and objects that nobody can decode."""
    data = write_video(tmp_path / "a.mp4", options=x264()).path.read_bytes()
    uri = f"s3://{bucket}/a.mp4"
    write_bytes(uri, data)

    async def scenario() -> None:
        remote = await open_remote(uri, FPS, SETTINGS)
        seen = [each async for part in remote.decode(SIDE) for each in part]
        (here,) = decode_piece(data, SIDE, FPS, SETTINGS)
        assert [index / FPS for index, _ in seen] == here.times_s
        assert all(np.array_equal(a[1], b) for a, b in zip(seen, here.frames, strict=True))
        # Replaced meanwhile: neither the old video nor the new one.
        write_bytes(uri, data + bytes(8))
        with pytest.raises(SessionError, match="Changed") as caught:
            async for _ in remote.decode(SIDE):
                pass
        assert caught.value.code == "url_unreachable"

    run(scenario)
