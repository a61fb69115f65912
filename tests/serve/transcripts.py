"""What sessions say: their events over HTTP, however often the connection ends, and as one past."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

#: How long a client repeats one request. Far more than any recovery: other work shares the cores.
PATIENCE_S = 240.0
#: How long it waits for one reply, or for anything on a stream that says something every 15 s.
REPLY_S = 90.0
#: Codes of errors after which one asks again.
PASSING = ("overloaded", "unavailable")


@dataclass(frozen=True)
class Event:
    """One event as it was told."""

    number: int
    type: str
    data: dict[str, Any]


async def server_sent(reply: httpx.Response) -> AsyncIterator[Event]:
    """The events of a stream; 0 stands for the number of one that has none."""
    fields: dict[str, str] = {}
    async for line in reply.aiter_lines():
        if not line and "data" in fields:
            data = json.loads(fields["data"])
            yield Event(int(fields.get("id", 0)), fields["event"], data)
            fields = {}
        elif line and not line.startswith(":"):
            name, value = line.split(": ", 1)
            fields[name] = value


class Follower:
    """All events of a session from the first one, over as many connections as it takes.

    Attributes:
        events: as they were told; their numbers are checked as they come.
        connections: how often it had to connect.
    """

    def __init__(self, http: httpx.AsyncClient, session: str) -> None:
        self.events: list[Event] = []
        self.connections = 0
        self._http, self._session = http, session

    async def follow(self) -> None:
        """Until ``session.closed``, or until it is cancelled."""
        while True:
            self.connections += 1
            last = len(self.events)
            try:
                streaming = self._http.stream(
                    "GET",
                    f"/v1/sessions/{self._session}/events",
                    params={"frames": "true"},
                    headers={"Last-Event-ID": str(last)} if last else {},
                    timeout=REPLY_S,
                )
                async with streaming as reply:
                    if reply.status_code != 200:
                        text = (await reply.aread()).decode()
                        assert reply.status_code in (429, 500, 503), text
                    else:
                        async for event in server_sent(reply):
                            if not event.number:  # of the connection, not of the session
                                assert event.type == "error", event
                                assert event.data["error"]["code"] in PASSING, event
                                break
                            assert event.number == len(self.events) + 1, (self._session, event)
                            self.events.append(event)
                            if event.type == "session.closed":
                                return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.25)

    async def until(self, number: int) -> list[Event]:
        """The events up to ``number``, once they have all been told."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.events) < number:
            assert time.monotonic() < deadline, (self._session, len(self.events), number)
            await asyncio.sleep(0.05)
        return self.events[:number]


async def told_anew(http: httpx.AsyncClient, session: str, number: int) -> list[Event]:
    """Events 1 to ``number`` for somebody who connects only now."""
    follower = Follower(http, session)
    following = asyncio.create_task(follower.follow())
    try:
        return await follower.until(number)
    finally:
        following.cancel()


def plain(events: Sequence[Event]) -> list[tuple[int, str, dict[str, Any]]]:
    """Events without what names the session: responses are numbered in order."""
    found, responses = [], dict[str, int]()
    for event in events:
        data = dict(event.data)
        if "response" in data:
            data["response"] = responses.setdefault(data["response"], len(responses))
        data.pop("seq", None)
        found.append((event.number, event.type, data))
    return found


def assert_same(told: Sequence[Event], calm: Sequence[Event]) -> None:
    """The same numbers, types, texts and times; probabilities to 1e-4."""
    for one, other in zip(plain(told), plain(calm), strict=False):
        assert one[:2] == other[:2], (one, other)
        assert one[2].keys() == other[2].keys(), (one, other)
        for key, value in one[2].items():
            if isinstance(value, float):
                assert abs(value - other[2][key]) < 1e-4, (one, other)
            else:
                assert value == other[2][key], (one, other)
    assert len(told) == len(calm), (told[len(calm) :], calm[len(told) :])
