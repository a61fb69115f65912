"""Calls of the client without any network: what is asked for when, step by step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from longreel.client import APIError, Event
from longreel.client.event_calls import events
from longreel.client.service_calls import wait_for_job
from longreel.client.steps import (
    Backoff,
    Emit,
    LostError,
    Next,
    Open,
    Pause,
    Reply,
    Request,
    Send,
    Step,
    Steps,
    attempt,
    refusal,
)

HEAD = Reply(200, {}, b"")


def carry_out(steps: Steps[Any], answers: Sequence[Any]) -> tuple[Any, list[Step], list[Any]]:
    """A call's result, the steps it wished for, and what it emitted.

    ``answers`` are for ``Send``, ``Open`` and ``Next`` in turn; a ``LostError`` is thrown.
    """
    wished: list[Step] = []
    emitted: list[Any] = []
    left = list(answers)
    answer: Any = None
    try:
        while True:
            failure = answer if isinstance(answer, LostError) else None
            step = steps.throw(failure) if failure else steps.send(answer)
            wished.append(step)
            answer = None
            if isinstance(step, Emit):
                emitted.append(step.value)
            elif isinstance(step, Send | Open | Next):
                answer = left.pop(0)
    except StopIteration as end:
        assert not left
        return end.value, wished, emitted


def told(number: int, name: str = "narration") -> bytes:
    return f"id: {number}\nevent: {name}\ndata: {json.dumps({'text': number})}\n\n".encode()


def test_an_event_that_comes_twice_is_told_once() -> None:
    """Guards against a gateway that begins a little earlier than it was asked to."""
    error = b'event: error\ndata: {"error": {"message": "moving", "code": "unavailable"}}\n\n'
    _, wished, emitted = carry_out(
        events("door", 1, False, 30.0),
        [
            HEAD, told(1) + told(2)[:9], told(2)[9:], LostError("cut", sent=True),
            HEAD, told(1) + told(2) + told(3), error, b"",
            HEAD, told(3) + told(4, "session.closed"),
        ],
    )  # fmt: skip
    assert [(e.number, e.type) for e in emitted] == [
        (2, "narration"), (3, "narration"), (4, "session.closed"),
    ]  # fmt: skip
    assert emitted[0] == Event(2, "narration", {"text": 2})
    asked = [step.request.headers["last-event-id"] for step in wished if isinstance(step, Open)]
    assert asked == ["1", "2", "3"]


def test_a_session_that_was_closed_meanwhile_ends_its_events() -> None:
    """Guards against a listener that fails, or waits for ever, where the end itself was lost."""
    gone = Reply(410, {}, b'{"error": {"message": "it is closed", "code": "session_closed"}}')
    _, _, emitted = carry_out(
        events("door", 0, False, 30.0), [HEAD, told(1), LostError("cut", sent=True), gone]
    )
    assert len(emitted) == 1
    with pytest.raises(APIError, match="it is closed"):
        carry_out(events("door", 0, False, 30.0), [gone])


def test_pauses_grow_and_end() -> None:
    """Guards against a service that comes up again under all its clients at once."""
    pauses: list[float] = []

    def never_reached() -> None:
        steps = attempt(Send(Request("GET", "/v1/models")), Backoff(20.0))
        step: Step = next(steps)
        while True:
            if isinstance(step, Send):
                step = steps.throw(LostError("cannot reach it", sent=False))
            elif isinstance(step, Pause):
                pauses.append(step.seconds)
                step = steps.send(None)

    with pytest.raises(APIError, match="cannot reach it"):
        never_reached()
    assert 10.0 < sum(pauses) <= 20.0
    assert 0.1 <= pauses[0] <= 0.25
    assert 2.5 <= pauses[-1] <= 5.0
    assert len(set(pauses)) == len(pauses)


@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b'{"detail": "no"}', b"[1]"])
def test_an_error_of_something_else_is_one_line(body: bytes) -> None:
    """Guards against a crash over the page of a proxy that stands in between."""
    failure = refusal(Reply(502, {}, body))
    assert (failure.status, failure.code) == (502, "")
    assert "502" in str(failure)
    assert "\n" not in str(failure)


@pytest.mark.parametrize("body", [b"", b"<html>Moved</html>"])
def test_a_redirect_is_refused_with_its_address(body: bytes) -> None:
    """Guards against a proxy's redirect that is taken for what the service said."""
    elsewhere = Reply(308, {"location": "https://longreel.example/v1/models"}, body)
    with pytest.raises(APIError, match=r"https://longreel\.example/v1/models") as refused:
        carry_out(attempt(Send(Request("GET", "/v1/models")), Backoff(30.0)), [elsewhere])
    assert (refused.value.status, refused.value.code) == (308, "redirected")


def test_a_job_is_waited_for() -> None:
    """Guards against a client that asks without pause, or stops asking before the job ends."""

    def job(status: str) -> Reply:
        return Reply(200, {}, json.dumps({"id": "nightly", "status": status}).encode())

    found, wished, _ = carry_out(
        wait_for_job("nightly", 2.0, None, 0.0), [job("pending"), job("running"), job("succeeded")]
    )
    assert found.status == "succeeded"
    assert [s.seconds for s in wished if isinstance(s, Pause)] == [2.0, 2.0]
    with pytest.raises(APIError, match="still running"):
        carry_out(wait_for_job("nightly", 2.0, 3.0, 0.0), [job("running")] * 3)
