"""Server-sent events out of bytes, wherever the network cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreel.client.sse import EventParser, ServerSentEvent

STREAM = (
    ": open\n\n"
    'id: 1\nevent: narration\ndata: {"text": "caf\u00e9 \u2028 \u0085 \U0001f600"}\n\n'
    ": keep-alive\n\n"
    "id: 2\r\nevent:response.delta\r\ndata: a\r\ndata: b\r\n\r\n"
    "data:last\rretry: 10\rdata\r\r"
    "event: without data\n\n"
    "id: 3\ndata: never ended\n"
).encode()
EVENTS = [
    ServerSentEvent("1", "narration", '{"text": "caf\u00e9 \u2028 \u0085 \U0001f600"}'),
    ServerSentEvent("2", "response.delta", "a\nb"),
    ServerSentEvent("2", "message", "last\n"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_events_are_the_same_however_bytes_come(cuts: list[int]) -> None:
    """Guards against text torn at a cut (in a character, in a CRLF) or at U+2028."""
    parser, found = EventParser(), []
    for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True):
        found += parser.feed(STREAM[start:end])
    assert found == EVENTS


def test_every_byte_by_itself() -> None:
    """Guards against events that are lost where the network cuts a line, or a character, in two."""
    parser = EventParser()
    assert [e for n in range(len(STREAM)) for e in parser.feed(STREAM[n : n + 1])] == EVENTS


@pytest.mark.parametrize("rest", [b"\n", b"\r\n\r\n"])
def test_what_has_not_ended_waits(rest: bytes) -> None:
    """Guards against half an event that is taken for a whole one when a connection breaks."""
    parser = EventParser()
    assert parser.feed(b"id: 7\ndata: half\n") == []
    assert parser.feed(rest)[:1] == [ServerSentEvent("7", "message", "half")]
