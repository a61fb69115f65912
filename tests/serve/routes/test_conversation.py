"""The protocol of a session's WebSocket alone: what is heard, and what is said to it.

Guards against a message that is taken for another, or that gets no reply or two.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve.live.items import Frame, Question, Receipt, SessionError, SessionEvent
from serve.routes.bodies import Sent
from serve.routes.conversation import (
    Cancel,
    Close,
    Conversation,
    Give,
    Item,
    Put,
    Reply,
    runs,
)
from tests.serve.routes_server import described


def test_a_frame_takes_the_description_before_it_and_no_other() -> None:
    """Guards against a frame at the time of another."""
    talk = Conversation(frames=False, most_bytes=100)
    assert talk.hear(described(seq=4, time_s=1.5)) is None
    assert talk.hear('{"type": "ping"}') == Reply({"type": "pong"})
    assert talk.hear(b"one") == Give(Sent([b"one"], [1.5], 4))
    assert talk.hear(b"two") == Give(Sent([b"two"], [None], None))
    twice = [talk.hear(described(seq=5)), talk.hear(described(seq=6)), talk.hear(b"three")]
    assert twice[0] is None
    assert isinstance(twice[1], Reply)
    assert twice[2] == Give(Sent([b"three"], [None], 6))


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": 0},
        {"seq": "1"},
        {"seq": True},
        {"seq": 2**60},
        {"time_s": -1},
        {"time_s": "now"},
        {"time_s": [1]},
        {"time_s": float("nan")},
    ],
)
def test_a_frame_whose_description_was_refused_is_not_taken_in(fields: dict[str, Any]) -> None:
    """Guards against one that lands at the end of the stream instead of where it belongs."""
    talk = Conversation(frames=False, most_bytes=100)
    for reply in (talk.hear(described(**fields)), talk.hear(b"one")):
        assert isinstance(reply, Reply)
        assert reply.said["type"] == "error"
    assert talk.hear(b"two") == Give(Sent([b"two"], [None], None))


def test_what_clients_ask_for() -> None:
    talk = Conversation(frames=False, most_bytes=100)
    asked = {"type": "response.create", "input": "Why?", "max_output_tokens": 9, "seq": 2}
    assert talk.hear(json.dumps(asked)) == Put(Question("Why?", 9), 2)
    assert talk.hear('{"type": "response.cancel"}') == Cancel(None)
    assert talk.hear('{"type": "response.cancel", "response": "r"}') == Cancel("r")
    assert talk.hear('{"type": "session.close"}') == Close()


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "[]",
        "1",
        "null",
        "{}",
        '{"type": 5}',
        '{"type": ["frame"]}',
        '{"type": "frames"}',
        '{"type": "response.create"}',
        '{"type": "response.create", "input": ""}',
        '{"type": "response.create", "input": 5}',
        '{"type": "response.create", "input": "\\ud800"}',
        '{"type": "response.create", "input": "x", "seq": 0}',
        '{"type": "response.create", "input": "x", "tokens": 1}',
        '{"type": "response.cancel", "response": 1}',
        "[" * 100_000,
        '{"type": "' + "x" * 2**20 + '"}',
        b"",
        b"x" * 101,
    ],
    ids=lambda m: f"{m!r:.50}",
)
def test_each_malformed_message_gets_one_error(message: str | bytes) -> None:
    talk = Conversation(frames=False, most_bytes=100)
    reply = talk.hear(message)
    assert isinstance(reply, Reply)
    assert reply.said["type"] == "error"
    assert reply.said["code"] in ("invalid_value", "invalid_frame", "media_too_large")
    assert len(reply.said["message"]) < 500


def test_what_clients_are_told_and_the_counts_at_the_end() -> None:
    talk = Conversation(frames=False, most_bytes=100)
    frame = Frame(None, 1.5)  # type: ignore[arg-type]
    assert talk.answered(frame, Receipt(3, "accepted", frame=2)) == {
        "type": "frame.accepted",
        "seq": 3,
        "frame": 2,
        "time_s": 1.5,
        "repeated": False,
    }
    dropped = talk.answered(frame, Receipt(4, "dropped", "late"))
    assert dropped == {"type": "frame.dropped", "seq": 4, "reason": "late"}
    seen = SessionEvent(1, "frame.seen", {"frame": 2})
    assert talk.told(seen) is None
    assert Conversation(frames=True, most_bytes=1).told(seen) is not None
    narration = {"frame": 2, "time_s": 1.5, "text": "A ball.", "cancelled": False}
    told = talk.told(SessionEvent(2, "narration", narration))
    assert told == {"type": "narration", "number": 2, **narration}
    talk.told(SessionEvent(3, "response.done", {"response": "r", "text": ""}))
    assert talk.stats() == {
        "type": "session.stats",
        "frames_accepted": 1,
        "frames_dropped": 1,
        "narrations": 1,
        "responses": 1,
    }


@pytest.mark.parametrize(
    ("numbers", "stretches"),
    [
        ([], []),
        ([None, None], [2]),
        ([1, 2, 3], [3]),
        ([1, None, 3], [3]),
        ([1, 3, 4], [1, 2]),
        ([None, 2], [1, 1]),
        ([2, 2], [1, 1]),
        ([1, "x", 2, 3], [1, 1, 2]),
        (["x", "x"], [1, 1]),
    ],
)
def test_frames_that_one_call_can_give(numbers: list[Any], stretches: list[int]) -> None:
    """Guards against frames under another number than their client said."""
    bad = SessionError("media_error", "")
    good = Frame(None)  # type: ignore[arg-type]
    items = [Item(bad, None) if n == "x" else Item(good, n) for n in numbers]
    found = runs(items)
    assert [len(run) for run in found] == stretches
    assert [item for run in found for item in run] == items
