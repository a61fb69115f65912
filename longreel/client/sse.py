"""Server-sent events out of the bytes of a reply, wherever the network cuts them."""

from __future__ import annotations

import codecs
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    """One event: its ``id`` (empty where it has none), its name and its data."""

    id: str
    name: str
    data: str


class EventParser:
    """Takes a reply's bytes as they come and gives the events that are complete.

    Only CR, LF and CRLF end a line, as the standard has it: a library that also splits at
    U+2028 would tear the JSON of a narration that holds one.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._id = ""
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """The events that end in ``piece``; comments are left out."""
        text = self._rest + self._decoder.decode(piece)
        # The CR at the end may be half of a CRLF.
        held = text.endswith("\r")
        lines = (text[:-1] if held else text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop() + ("\r" if held else "")
        found = [self._line(line) for line in lines]
        return [event for event in found if event is not None]

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._end()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            self._id = value
        elif field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        return None

    def _end(self) -> ServerSentEvent | None:
        event = ServerSentEvent(self._id, self._name or "message", "\n".join(self._data))
        empty = not self._data
        self._name, self._data = "", []
        return None if empty else event
