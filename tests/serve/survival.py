"""Clients of live sessions who act and listen, with the repeats of an honest client.

Nothing here knows how sessions are kept: it holds what the API says, by numbers and words.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from tests.serve.scripts import Ask, Push, Step
from tests.serve.transcripts import PATIENCE_S, REPLY_S, Event, Follower, server_sent

#: A session that says nothing for so long has nothing to say: other work shares the cores.
STILL_S = 2.0
T = TypeVar("T")


class UnservedError(Exception):
    """A reply after which an honest client asks again: 429, or 5xx."""


@dataclass
class Client:
    """A client of one session that sends again, under the same numbers, what went unanswered.

    Attributes:
        receipts: of the acknowledged frames, by sequence number.
        outcomes: what replies said of frames, by frame.
        created: sequence numbers of acknowledged questions.
        answers: final texts and statuses, by sequence number.
        acknowledged: monotonic time of each acknowledgement of frames.
        repeats: why something was sent again.
    """

    http: httpx.AsyncClient
    session: str
    receipts: dict[int, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[int, dict[str, Any]] = field(default_factory=dict)
    created: set[int] = field(default_factory=set)
    answers: dict[int, tuple[str, str]] = field(default_factory=dict)
    acknowledged: list[float] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    resumed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.resumed.set()

    @property
    def path(self) -> str:
        """Of the session."""
        return f"/v1/sessions/{self.session}"

    async def open(self, **options: Any) -> dict[str, Any]:
        """Open the session, so that it speaks of most changes."""
        wanted = {"id": self.session, "silence_threshold": 0.5, **options}
        reply = await self.http.post("/v1/sessions", json=wanted, timeout=REPLY_S)
        assert reply.status_code == 201, reply.text
        made: dict[str, Any] = reply.json()
        return made

    async def view(self) -> dict[str, Any]:
        """The session object."""

        async def look() -> dict[str, Any]:
            found: dict[str, Any] = (await self._sent("GET", self.path)).json()
            return found

        return await self.persist(look)

    async def push(self, step: Push) -> dict[str, Any]:
        """Send frames until they are acknowledged, and keep the receipts."""

        async def send() -> dict[str, Any]:
            reply = await self._sent(
                "POST",
                f"{self.path}/frames",
                params={"wait": "true" if step.wait else "false"},
                files=[("frames", ("f.png", p, "image/png")) for p in step.pictures],
                data={"seq": str(step.seq), "times": json.dumps(step.times)},
            )
            assert reply.status_code == (200 if step.wait else 202), reply.text
            told: dict[str, Any] = reply.json()
            return told

        told = await self.persist(send)
        self.acknowledged.append(time.monotonic())
        numbers = [receipt["seq"] for receipt in told["receipts"]]
        assert numbers == list(range(step.seq, step.seq + len(step.pictures)))
        for receipt in told["receipts"]:
            self.receipts[receipt["seq"]] = receipt
        for outcome in told.get("outcomes", []):
            self.outcomes[outcome["frame"]] = outcome
        return told

    async def ask(self, step: Ask, begun: asyncio.Event | None = None) -> tuple[str, str]:
        """Ask until the answer is complete; ``begun`` is set once the question is acknowledged.

        Returns:
            Text and status.
        """
        asked = {"input": step.text, "seq": step.seq, "max_output_tokens": 40}

        async def whole() -> tuple[str, str]:
            reply = await self._sent("POST", f"{self.path}/responses", json=asked)
            told = reply.json()
            assert told["seq"] == step.seq
            return told["output_text"], told["status"]

        async def streamed() -> tuple[str, str]:
            said = ""
            streaming = self.http.stream(
                "POST", f"{self.path}/responses", json={**asked, "stream": True}, timeout=REPLY_S
            )
            async with streaming as reply:
                await self._checked(reply)
                async for event in server_sent(reply):
                    if event.type == "response.created":
                        self.created.add(step.seq)
                        if begun is not None:
                            begun.set()
                    elif event.type == "response.delta":
                        said += event.data["delta"]
                    elif event.type == "response.done":
                        text: str = event.data["output_text"]
                        assert said.strip() == text.strip()
                        return text, event.data["status"]
                    elif event.type == "error":
                        raise UnservedError(json.dumps(event.data))
            raise UnservedError("the stream ended before the answer did")

        self.answers[step.seq] = await self.persist(streamed if step.stream else whole)
        self.created.add(step.seq)
        return self.answers[step.seq]

    async def persist(self, send: Callable[[], Awaitable[T]]) -> T:
        """What ``send`` gives, tried until it is served.

        Raises:
            TimeoutError: it was not in ``PATIENCE_S``.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await send()
            except (httpx.TransportError, UnservedError) as failure:
                self.repeats.append(f"{type(failure).__name__}: {failure}")
                if time.monotonic() > until:
                    raise TimeoutError(f"{self.session}: {self.repeats[-3:]}") from failure
                await asyncio.sleep(0.25)

    async def _sent(self, method: str, path: str, **content: Any) -> httpx.Response:
        reply = await self.http.request(method, path, timeout=REPLY_S, **content)
        await self._checked(reply)
        return reply

    async def _checked(self, reply: httpx.Response) -> None:
        if reply.status_code == 429 or reply.status_code >= 500:
            raise UnservedError(f"{reply.status_code} {(await reply.aread()).decode()}")
        assert reply.status_code < 300, (self.session, await reply.aread())


async def told_all(client: Client) -> int:
    """The number of the last event, once the session has said all that it has to say.

    After a recovery it says again what it said, and counts up to where it was.

    Raises:
        TimeoutError: it has not in ``PATIENCE_S``.
    """
    async with asyncio.timeout(PATIENCE_S):
        last, since = -1, time.monotonic()
        while True:
            view = await client.view()
            if view["waiting_frames"] or view["last_event"] != last:
                last, since = view["last_event"], time.monotonic()
            elif time.monotonic() - since > STILL_S:
                return last
            await asyncio.sleep(0.2)


async def drive(client: Client, steps: Sequence[Step], pace_s: float = 0.0) -> None:
    """Do the steps in order; frames go on once a question is acknowledged, answered or not."""
    answering: list[asyncio.Task[Any]] = []
    for step in steps:
        await client.resumed.wait()
        if isinstance(step, Push):
            await client.push(step)
        else:
            begun = asyncio.Event()
            answer = asyncio.create_task(client.ask(step, begun))
            acknowledged = asyncio.create_task(begun.wait())
            await asyncio.wait({answer, acknowledged}, return_when=asyncio.FIRST_COMPLETED)
            acknowledged.cancel()
            answering.append(answer)
        await asyncio.sleep(pace_s)
    await asyncio.gather(*answering)


@dataclass
class Live:
    """Sessions with a client that acts and one that listens, each."""

    http: httpx.AsyncClient
    clients: list[Client]
    followers: list[Follower]
    following: list[asyncio.Task[None]]

    async def end(self) -> None:
        """Stop listening and close all, so that the next test has the cores for itself."""
        for task in self.following:
            task.cancel()
        await asyncio.wait(self.following)
        for client in self.clients:
            reply = await self.http.delete(client.path)
            assert reply.status_code == 200, reply.text

    async def transcripts(self) -> list[list[Event]]:
        """What the listeners were told, once they have been told all; checked against replies.

        Whoever acts must have waited for its last frame.
        """
        last = await asyncio.gather(*(told_all(client) for client in self.clients))
        found = [
            await follower.until(number)
            for follower, number in zip(self.followers, last, strict=True)
        ]
        for client, events in zip(self.clients, found, strict=True):
            assert_kept(client, events)
        return found


@asynccontextmanager
async def live(address: str, names: Sequence[str], **options: Any) -> AsyncIterator[Live]:
    """Open sessions of these names and listen to them; their end is the caller's business."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=REPLY_S) as http:
        clients = [Client(http, name) for name in names]
        await asyncio.gather(*(client.open(**options) for client in clients))
        followers = [Follower(http, name) for name in names]
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(f.follow()) for f in followers]
            yield Live(http, clients, followers, following)
            for task in following:
                task.cancel()


def assert_kept(client: Client, events: Sequence[Event]) -> None:
    """Every acknowledged frame and question is in the events, once, as the reply said."""
    accepted = [r["frame"] for _, r in sorted(client.receipts.items()) if r["frame"] is not None]
    seen = [e.data for e in events if e.type == "frame.seen"]
    assert [data["frame"] for data in seen] == accepted, client.session
    for data in seen:
        if outcome := client.outcomes.get(data["frame"]):
            assert outcome["time_s"] == data["time_s"]
            assert abs(outcome["p_silence"] - data["p_silence"]) < 1e-4
    narrated = {e.data["frame"]: e.data["text"] for e in events if e.type == "narration"}
    for frame, outcome in client.outcomes.items():
        assert outcome["narration"] == narrated.get(frame), (client.session, outcome)
    begun = {e.data["response"]: e.data["seq"] for e in events if e.type == "response.created"}
    assert sorted(begun.values()) == sorted(client.created), client.session
    done = {
        begun[e.data["response"]]: (e.data["text"], e.data["status"])
        for e in events
        if e.type == "response.done"
    }
    assert done == client.answers, client.session
