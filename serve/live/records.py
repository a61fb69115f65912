"""Inputs as records of the durable log, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.statestore import Record
from serve.live.items import Frame, Input, Pixels, Question, Receipt


@dataclass(frozen=True)
class Stop:
    """A turn that was ended after some of its tokens; 0 withdraws a question before its answer, or
    ends a narration before its first word.

    Attributes:
        turn: ``frame-N`` for the narration at a frame, else the id of a response.
    """

    turn: str
    tokens: int


def turn_name(frame: int | None, question: str | None) -> str:
    """How a turn is called in a ``Stop``."""
    return question if question is not None else f"frame-{frame}"


def record_of(
    life: str,
    epoch: int,
    given: Input,
    receipt: Receipt,
    time_s: float,
    token: str | None = None,
) -> Record:
    """The durable line of one new input; ``token`` of the call that gave it."""
    fields: dict[str, Any] = {"token": token}
    if isinstance(given, Question):
        fields |= {"text": given.text, "max_tokens": given.max_tokens}
        return Record(life, epoch, receipt.seq, "question", fields)
    if receipt.outcome == "dropped":
        return Record(life, epoch, receipt.seq, "dropped", fields | {"reason": receipt.reason})
    pixels = np.ascontiguousarray(given.pixels)
    fields |= {"time_s": time_s, "side": pixels.shape[0]}
    return Record(life, epoch, receipt.seq, "frame", fields, pixels.tobytes())


def stop_record(life: str, epoch: int, seq: int, stop: Stop) -> Record:
    """The durable line of a turn's end."""
    return Record(life, epoch, seq, "stop", {"tokens": stop.tokens}, about=stop.turn)


@dataclass(frozen=True)
class Replayed:
    """What a session's records say, in order.

    Attributes:
        inputs: outcome as ``Counters`` keeps it (a string, or None for an accepted frame), the
            input, its time, and the token of the call that gave it.
        stops: the turns that were ended.
    """

    inputs: list[tuple[str | None, Input | None, float, str | None]]
    stops: list[Stop]


def replayed(records: Sequence[Record], after: int) -> Replayed:
    """Records with numbers above ``after``, as :func:`actors.statestore.effective` gives them."""
    found = Replayed([], [])
    for record in records:
        token = record.data.get("token")
        if record.kind == "stop":
            found.stops.append(Stop(record.about, record.data["tokens"]))
        elif record.seq <= after:
            continue
        elif record.kind == "question":
            question = Question(record.data["text"], record.data["max_tokens"])
            found.inputs.append(("?", question, 0.0, token))
        elif record.kind == "dropped":
            found.inputs.append((record.data["reason"], None, 0.0, token))
        else:
            frame = Frame(_pixels(record), record.data["time_s"])
            found.inputs.append((None, frame, record.data["time_s"], token))
    return found


def _pixels(record: Record) -> Pixels:
    side = record.data["side"]
    return np.frombuffer(record.blob, np.uint8).reshape(side, side, 3)
