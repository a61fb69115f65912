"""Live sessions on a real Ray Serve that loses replicas, its directory, or everything: what was
acknowledged is there afterwards, and goes on as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
import websockets
from ray import serve

from serve.app import deploy
from serve.directory import stop_directory
from tests.serve.killing import kill, kill_directory, replicas, wait_for_replicas
from tests.serve.scripts import SPACING_S, Ask, Push, Step, film, script
from tests.serve.survival import Client, assert_kept, drive, live, told_all
from tests.serve.survivors import (
    FRAMES,
    IDLE_S,
    SEEDS,
    Service,
    acknowledged,
    assert_all_same,
    kill_owner,
    owner,
)
from tests.serve.transcripts import REPLY_S, Event, Follower, assert_same, told_anew

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PNG = {"content-type": "image/png"}


def test_a_killed_replica_loses_nothing(service: Service, calm: list[list[Event]]) -> None:
    """Guards acknowledged frames and questions, and the words after them, against a power cut.

    A replica ends while frames and answers are in flight, then whoever has the sessions next.
    """

    async def run() -> None:
        names = [f"killed-{seed}" for seed in SEEDS]
        async with live(service.address, names) as sessions:
            driving = asyncio.gather(
                *(
                    drive(client, script(seed, FRAMES), 0.15)
                    for seed, client in zip(SEEDS, sessions.clients, strict=True)
                )
            )
            await acknowledged(sessions, 2)
            first = await kill_owner(sessions.clients[0])
            await acknowledged(sessions, 4)
            second = await kill_owner(sessions.clients[0])
            assert second != first
            await driving
            told = await sessions.transcripts()
            assert_all_same(told, calm)
            for client, events in zip(sessions.clients, told, strict=True):
                anew = await told_anew(sessions.http, client.session, len(events))
                assert_same(anew, events)
            await sessions.end()

    asyncio.run(run())
    wait_for_replicas(2)


def test_a_killed_directory_is_not_missed(service: Service, calm: list[list[Event]]) -> None:
    """Guards against sessions that stall, or move, when the directory ends and comes back."""

    async def run() -> None:
        names = [f"undirected-{seed}" for seed in SEEDS[:3]]
        async with live(service.address, names) as sessions:
            before = [await owner(client) for client in sessions.clients]
            driving = asyncio.gather(
                *(
                    drive(client, script(seed, FRAMES), 0.1)
                    for seed, client in enumerate(sessions.clients)
                )
            )
            await acknowledged(sessions, 2)
            await asyncio.to_thread(kill_directory, service.state)
            # Somebody new comes at the same moment.
            late = Client(sessions.http, "undirected-new")
            made = await late.persist(lambda: late.open())
            assert made["epoch"] >= 1
            await driving
            assert [await owner(client) for client in sessions.clients] == before
            assert_all_same(await sessions.transcripts(), calm)
            await sessions.end()

    asyncio.run(run())


@pytest.mark.long
def test_an_idle_session_goes_on_where_it_was(service: Service, calm: list[list[Event]]) -> None:
    """Guards sessions that were put aside against coming back with another past."""

    async def run() -> None:
        steps = script(0, FRAMES)
        half = next(n for n, s in enumerate(steps) if isinstance(s, Ask)) + 1
        async with httpx.AsyncClient(base_url=service.address, timeout=REPLY_S) as http:
            client = Client(http, "resting")
            await client.open()
            await drive(client, steps[:half])
            async with asyncio.timeout(10 * IDLE_S):
                while (view := await client.view())["state"] != "idle":
                    await asyncio.sleep(0.5)
            assert view["replica"] is None
            # Its past is told without waking it up, and is the same after.
            before = await told_anew(http, "resting", view["last_event"])
            await drive(client, steps[half:])
            told = await told_anew(http, "resting", await told_all(client))
            assert_same(told[: len(before)], before)
            assert_kept(client, told)
            assert_same(told, calm[0])
            await http.delete(client.path)

    asyncio.run(run())


@pytest.mark.long
def test_a_number_sent_again_is_answered_as_before(
    service: Service, calm: list[list[Event]]
) -> None:
    """Guards retries across a recovery: nothing twice, the same reply, and no gap let through."""

    async def run() -> None:
        async with live(service.address, ["again"]) as sessions:
            (client,) = sessions.clients
            steps = script(1, FRAMES)
            await drive(client, steps)
            answers, receipts, outcomes = (
                dict(client.answers),
                dict(client.receipts),
                dict(client.outcomes),
            )
            last = (await client.view())["last_event"]
            for killed in (False, True):
                if killed:
                    await kill_owner(client)
                for step in steps:
                    if isinstance(step, Ask):
                        assert await client.ask(step) == answers[step.seq]
                    else:
                        # Another picture under a known number is not looked at.
                        other = replace(step, pictures=film(9, FRAMES)[: len(step.pictures)])
                        told = await client.push(other)
                        for receipt in told["receipts"]:
                            assert receipt == {**receipts[receipt["seq"]], "repeated": True}
                        for outcome in told.get("outcomes", []):
                            known = outcomes.get(outcome["frame"], outcome)
                            assert outcome["narration"] == known["narration"]
                            assert outcome["p_silence"] == pytest.approx(
                                known["p_silence"], abs=1e-4
                            )
                seq = steps[-1].seq + len(steps[-1].pictures)  # type: ignore[union-attr]
                ahead = Push(seq + 1, film(1, 1), (FRAMES * SPACING_S,))
                for path, content in (
                    ("frames", {"content": ahead.pictures[0], "params": {"seq": seq + 1}}),
                    ("responses", {"json": {"input": "What?", "seq": seq + 1}}),
                ):
                    headers = PNG if path == "frames" else {}
                    reply = await sessions.http.post(
                        f"{client.path}/{path}",
                        headers=headers,
                        **content,
                    )
                    assert reply.status_code == 409, reply.text
                    assert reply.json()["error"]["code"] == "sequence_gap"
                assert await told_all(client) == last
                assert (await client.view())["seq"] == seq - 1
            assert_same(await sessions.followers[0].until(last), calm[1])
            await sessions.end()

    asyncio.run(run())
    wait_for_replicas(2)


@pytest.mark.long
def test_what_was_cut_short_stays_cut_short(service: Service) -> None:
    """Guards what a client was told of a cancelled answer against a recovery that goes on further.

    Several sessions are cancelled after their first words, and the replica ends right after.
    """

    async def run() -> None:
        names = [f"cut-{n}" for n in range(6)]
        async with live(service.address, names) as sessions:

            async def cancel(client: Client, follower: Follower, words: int) -> bool:
                seq = 9
                for step in script(3, 8, asks=0):
                    assert isinstance(step, Push)
                    await client.push(step)
                asking = asyncio.create_task(client.ask(Ask(seq, "Summarize the video so far.")))
                while not asking.done():
                    deltas = sum(e.type == "response.delta" for e in follower.events)
                    if deltas >= words:
                        break
                    await asyncio.sleep(0)
                reply = await client.http.post(f"{client.path}/cancel", timeout=REPLY_S)
                assert reply.status_code == 200, reply.text
                await asking
                return client.answers[seq][1] != "completed"

            acting = zip(sessions.clients, sessions.followers, range(6), strict=True)
            cut = await asyncio.gather(*(cancel(c, f, words) for c, f, words in acting))
            assert any(cut), "every answer was complete before it was cancelled"
            views = [await client.view() for client in sessions.clients]
            before = await sessions.transcripts()
            found = await asyncio.to_thread(replicas)
            for name in {view["replica"] for view in views}:
                await asyncio.to_thread(kill, found[name])
            for client, view, events in zip(sessions.clients, views, before, strict=True):
                anew = await told_anew(sessions.http, client.session, view["last_event"])
                assert_same(anew, events)
            more = [Push(10 + n, (film(3, 14)[8 + n],), (4 + n / 2,)) for n in range(4)]
            await asyncio.gather(*(drive(client, more) for client in sessions.clients))
            after = await sessions.transcripts()
            for one, other in zip(before, after, strict=True):
                assert_same(other[: len(one)], one)
            await sessions.end()

    asyncio.run(run())
    wait_for_replicas(2)


@pytest.mark.long
def test_two_clients_without_numbers(service: Service) -> None:
    """Guards against frames of two clients that take each other's place, or count twice.

    The replica ends meanwhile: what got a reply is there once, what got none at most once.
    """

    async def run() -> None:
        async with live(service.address, ["shared"]) as sessions:
            (client,) = sessions.clients
            failed = 0
            receipts: list[dict[str, Any]] = []

            async def push(pictures: tuple[bytes, ...]) -> None:
                nonlocal failed
                for picture in pictures:
                    try:
                        reply = await sessions.http.post(
                            f"{client.path}/frames", content=picture, headers=PNG
                        )
                        reply.raise_for_status()
                    except httpx.HTTPError:
                        failed += 1
                        await asyncio.sleep(0.3)
                    else:
                        receipts.extend(reply.json()["receipts"])
                    await asyncio.sleep(0.05)

            pushing = asyncio.gather(push(film(4, 14)), push(film(5, 14)))
            while len(receipts) < 6:
                await asyncio.sleep(0.02)
            await kill_owner(client)
            await pushing
            numbers = [receipt["seq"] for receipt in receipts]
            assert len(set(numbers)) == len(numbers) == 28 - failed
            assert not any(receipt["repeated"] for receipt in receipts)
            last = await told_all(client)
            view = await client.view()
            assert len(numbers) <= view["seq"] <= 28
            told = await sessions.followers[0].until(last)
            seen = [e.data for e in told if e.type == "frame.seen"]
            assert [data["frame"] for data in seen] == list(range(view["frames"]))
            assert {r["frame"] for r in receipts if r["frame"] is not None} <= {
                data["frame"] for data in seen
            }
            await sessions.end()

    asyncio.run(run())
    wait_for_replicas(2)


@pytest.mark.long
def test_a_socket_gets_one_reply_for_each_frame(service: Service) -> None:
    """Guards a camera's connection: its replica ends, and each frame is answered, once."""
    asyncio.run(_filmed(service, "camera", kill_owner))
    wait_for_replicas(2)


@pytest.mark.long
def test_a_socket_outlives_all_replicas(service: Service) -> None:
    """Guards what waits while there is no replica at all against waiting for ever.

    A connection has several calls waiting then: frames that it hands in, events that it wants.
    """

    async def kill_all(_: Client) -> None:
        for pid in (await asyncio.to_thread(replicas)).values():
            await asyncio.to_thread(kill, pid)

    asyncio.run(_filmed(service, "camera-alone", kill_all))
    wait_for_replicas(2)


async def _filmed(service: Service, name: str, disturb: Callable[[Client], Awaitable[Any]]) -> None:
    """A camera streams while ``disturb`` happens; what it is told is what it would be told else.

    Where the connection ends too, the camera connects again and repeats what went unanswered.
    """
    async with live(service.address, [name]) as sessions:
        (client,) = sessions.clients
        url = service.address.replace("http", "ws") + f"{client.path}/stream"
        steps = [step for step in script(3, FRAMES, asks=0) if isinstance(step, Push)]
        pictures = [picture for step in steps for picture in step.pictures]
        replies: dict[int, dict[str, Any]] = {}

        async def unanswered() -> None:
            async with websockets.connect(url, max_size=None, open_timeout=None) as socket:
                sent: list[int] = []

                async def listen() -> None:
                    async for message in socket:
                        said = json.loads(message)
                        if said["type"] in ("frame.accepted", "frame.dropped"):
                            assert sent, "a reply to nothing"
                            assert said["seq"] == sent.pop(0)
                            replies[said["seq"]] = said
                        elif said["type"] == "session.goaway":
                            return
                        elif said["type"] == "error":
                            assert said["code"] in ("unavailable", "overloaded"), said
                            return
                        if len(replies) == len(pictures):
                            return

                listening = asyncio.create_task(listen())
                for number, picture in enumerate(pictures, 1):
                    if number in replies:
                        continue
                    sent.append(number)
                    time_s = (number - 1) * SPACING_S
                    await socket.send(
                        json.dumps({"type": "frame", "seq": number, "time_s": time_s})
                    )
                    await socket.send(picture)
                    await asyncio.sleep(0.15)
                await listening

        async def camera() -> None:
            while len(replies) < len(pictures):
                try:
                    async with asyncio.timeout(REPLY_S):
                        await unanswered()
                except websockets.ConnectionClosed:
                    await asyncio.sleep(0.2)

        running = asyncio.create_task(camera())
        async with asyncio.timeout(REPLY_S):
            while len(replies) < 3:
                if running.done():
                    await running
                await asyncio.sleep(0.02)
        await disturb(client)
        await running
        assert {reply["type"] for reply in replies.values()} == {"frame.accepted"}
        last = await told_all(client)
        told = await sessions.followers[0].until(last)
        seen = [event.data["frame"] for event in told if event.type == "frame.seen"]
        assert seen == list(range(FRAMES))
        alone = Client(sessions.http, f"{name}-calm")
        await alone.open()
        await drive(alone, list(steps))
        assert_same(told, await told_anew(sessions.http, alone.session, await told_all(alone)))
        await sessions.http.delete(alone.path)
        await sessions.end()


@pytest.mark.long
def test_all_replicas_and_the_directory_at_once(service: Service, calm: list[list[Event]]) -> None:
    """Guards against calls that wait for each other, or for what is gone, when all of it is.

    Frames and answers are in flight, streamed and not.
    """

    async def run() -> None:
        names = [f"ruined-{seed}" for seed in SEEDS]
        async with live(service.address, names) as sessions:
            driving = asyncio.gather(
                *(
                    drive(client, script(seed, FRAMES), 0.15)
                    for seed, client in zip(SEEDS, sessions.clients, strict=True)
                )
            )
            await acknowledged(sessions, 3)
            pids = (await asyncio.to_thread(replicas)).values()
            await asyncio.to_thread(kill_directory, service.state)
            for pid in pids:
                await asyncio.to_thread(kill, pid)
            await driving
            assert_all_same(await sessions.transcripts(), calm)
            await sessions.end()

    asyncio.run(run())
    wait_for_replicas(2)


@pytest.mark.long
def test_a_third_replica_moves_nobody(service: Service, calm: list[list[Event]]) -> None:
    """Guards live sessions against moving because capacity is added."""

    async def run() -> None:
        names = [f"grown-{seed}" for seed in SEEDS]
        async with live(service.address, names) as sessions:
            before = [await owner(client) for client in sessions.clients]
            at_first = await asyncio.to_thread(replicas)

            async def keep_on(client: Client, steps: list[Step]) -> None:
                await drive(client, steps[:-1], 0.2)
                while not grown.is_set():
                    # A repeated number keeps it live and changes nothing.
                    first = steps[0]
                    assert isinstance(first, Push)
                    await client.push(first)
                    await asyncio.sleep(1)
                await drive(client, steps[-1:])

            grown = asyncio.Event()
            driving = asyncio.gather(
                *(
                    keep_on(client, script(seed, FRAMES))
                    for seed, client in zip(SEEDS, sessions.clients, strict=True)
                )
            )
            more = replace(service.plan, min_replicas=3, max_replicas=3)
            await asyncio.to_thread(deploy, more, http=service.http)
            after = await asyncio.to_thread(wait_for_replicas, 3)
            assert at_first.items() <= after.items()
            new = [Client(sessions.http, f"grown-new-{n}") for n in range(3)]
            for client in new:
                await client.open()
            placed = {(await owner(client))[0] for client in new}
            grown.set()
            await driving
            assert [await owner(client) for client in sessions.clients] == before
            assert placed & (after.keys() - at_first.keys()), "nobody new went where room is"
            assert_all_same(await sessions.transcripts(), calm)
            for client in new:
                await sessions.http.delete(client.path)
            await sessions.end()

    asyncio.run(run())
    deploy(service.plan, http=service.http)
    wait_for_replicas(2)


@pytest.mark.long
def test_a_service_started_again_goes_on(service: Service, calm: list[list[Event]]) -> None:
    """Guards sessions against a restart of everything on the same state store."""

    async def first() -> tuple[list[Client], list[list[Event]]]:
        async with live(service.address, [f"twice-{seed}" for seed in SEEDS[:4]]) as sessions:
            await asyncio.gather(
                *(
                    drive(client, script(seed, FRAMES)[:6])
                    for seed, client in enumerate(sessions.clients)
                )
            )
            views = [await client.view() for client in sessions.clients]
            known = [
                await follower.until(view["last_event"])
                for follower, view in zip(sessions.followers, views, strict=True)
            ]
            return sessions.clients, known

    async def second(clients: list[Client], known: list[list[Event]]) -> None:
        async with httpx.AsyncClient(base_url=service.address, timeout=REPLY_S) as http:
            listed = (await http.get("/v1/sessions")).json()["data"]
            assert {client.session for client in clients} <= {view["id"] for view in listed}
            for client in clients:
                client.http = http
            await asyncio.gather(
                *(drive(client, script(seed, FRAMES)[6:]) for seed, client in enumerate(clients))
            )
            for seed, client in enumerate(clients):
                told = await told_anew(http, client.session, await told_all(client))
                assert_same(told[: len(known[seed])], known[seed])
                assert_kept(client, told)
                assert_same(told, calm[seed])
                await http.delete(client.path)

    clients, known = asyncio.run(first())
    serve.shutdown()
    stop_directory(service.state)
    deploy(service.plan, http=service.http)
    asyncio.run(second(clients, known))


@pytest.mark.long
def test_a_closed_session_stays_closed(service: Service) -> None:
    """Guards against a closed session that a recovery brings back."""

    async def run() -> None:
        async with live(service.address, ["closed", "open"]) as sessions:
            closed, kept = sessions.clients
            await drive(closed, script(0, 4, asks=0))
            await drive(kept, script(0, 4, asks=0))
            reply = await sessions.http.delete(closed.path)
            assert reply.json() == {"id": "closed", "object": "session", "deleted": True}
            for name, pid in (await asyncio.to_thread(replicas)).items():
                assert name
                await asyncio.to_thread(kill, pid)
            await kept.push(Push(5, film(0, 5)[4:], (2.0,)))
            listed = (await sessions.http.get("/v1/sessions")).json()["data"]
            assert "closed" not in {view["id"] for view in listed}
            again = await sessions.http.post(
                f"{closed.path}/frames", content=film(0, 6)[5], headers=PNG
            )
            assert again.status_code in (404, 410), again.text
            await sessions.http.delete(kept.path)

    asyncio.run(run())
    wait_for_replicas(2)
