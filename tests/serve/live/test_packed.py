"""Snapshots as bytes: the same as ever, and made where nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from serve.live import session as sessions
from serve.live.items import Frame, SessionEvent
from serve.live.packed import PART, packed, parts, unpacked
from tests.serve.live.test_owner import FRAMES, Service, _options


def _head(count: int) -> dict[str, Any]:
    events = [
        SessionEvent(n, "narration", {"frame": n, "text": f'é "{n}"\n', "cancelled": n % 2 == 0})
        for n in range(1, count + 1)
    ]
    return {
        "counters": {"fps": 2.0, "time_s": None, "outcomes": [*range(count), "late"]},
        "transcript": {"events": events, "last": count, "times": [n / 7 for n in range(count)]},
        "tokens": {"ä": 1} if count else {},
    }


@pytest.mark.parametrize("count", [0, 1, PART - 1, PART, PART + 1, 2 * PART + 3])
def test_a_snapshot_is_spelled_as_json_dumps_does(count: int) -> None:
    """Guards sessions against a version before or after this one that cannot read its snapshots,
    and all others on a replica against one whose events are encoded at a stretch."""
    head, state = _head(count), b"state"
    plain = head | {"transcript": head["transcript"] | {"events": []}}
    plain["transcript"]["events"] = [asdict(event) for event in head["transcript"]["events"]]
    encoded = json.dumps(plain).encode()
    assert packed(head, state) == len(encoded).to_bytes(4, "little") + encoded + state
    assert unpacked(packed(head, state)) == (plain, state)
    assert max(map(len, parts(head))) <= 150 * PART


def test_numbers_that_json_does_not_know_are_spelled_as_ever() -> None:
    """Guards against a snapshot that fails at a number."""
    head = {"times": [math.inf, -math.inf] * PART}
    assert "".join(parts(head)) == json.dumps(head)


def test_a_session_goes_on_while_its_snapshot_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards everybody on a replica against waiting while a long session is encoded, and the
    snapshot against what the session is given meanwhile."""
    began, go = threading.Event(), threading.Event()

    def slow(head: dict[str, Any], state: bytes) -> bytes:
        began.set()
        assert go.wait(5)
        return packed(head, state)

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        (owner,) = service.owners
        await service.give([Frame(FRAMES[0])])
        await service.listen(until_quiet=True)
        session = owner._sessions["s"]
        events = session.transcript.last
        monkeypatch.setattr(sessions, "packed", slow)
        keeping = asyncio.create_task(owner._keep(session, in_memory=True))
        await asyncio.to_thread(began.wait, 5)
        assert [r.seq for r in await service.give([Frame(FRAMES[1])])] == [2]
        await service.listen(until_quiet=True)
        go.set()
        assert await keeping
        assert (session.snapshot_seq, session.snapshot_frames) == (1, 1)
        manifest = await service.directory.manifest("s")
        assert (manifest.counts["seq"], manifest.counts["events"]) == (1, events)
        assert manifest.snapshot is not None
        head, _ = unpacked(service.store.read_snapshot("s", manifest.snapshot))
        assert (head["counters"]["seq"], len(head["transcript"]["events"])) == (1, events)
        # The rest comes from the log, and is told as before.
        await service.lose()
        await service.listen(until_quiet=True)
        assert [r.seq for r in await service.give([Frame(FRAMES[2])])] == [3]

    asyncio.run(work())
