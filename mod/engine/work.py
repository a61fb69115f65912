"""What a session could do next, and the part of a step that comes of it."""

from __future__ import annotations

from mod.engine.log import FRAME
from mod.engine.runner import Item
from mod.engine.scheduler import Kind, Taken, Work
from mod.engine.state import Question, SessionState
from mod.layout import StreamLayout


def work_of(session: SessionState, tokens_per_frame: int) -> Work | None:
    """What waits in a session, the first of it."""
    bulk = session.kind == "bulk"
    if session.turn:
        kind = Kind.BULK if bulk else Kind.DECODE
        return Work(session.name, kind, 0.0, 1, alone=bulk)
    if not session.inbox:
        return None
    head = session.inbox[0]
    fixed = len(session.prefix)
    if isinstance(head, Question):
        kind = Kind.BULK if bulk else Kind.QUESTION
        return Work(session.name, kind, head.since, fixed + len(head.ids), alone=bulk)
    kind = Kind.BULK if bulk else Kind.LIVE
    # A chunk ends where something leaves the session's window, whatever its size.
    units = min(len(head.pixels), session.chunk, session.policy.frames_left(session.past))
    return Work(session.name, kind, head.since, fixed, units, tokens_per_frame + 1, alone=bulk)


def item_of(
    session: SessionState, taken: Taken, layout: StreamLayout, tokens_per_frame: int
) -> Item:
    """The tokens and frames that a work feeds, and where their outcome is read."""
    if session.turn:
        return Item(session, session.turn.said[-1:], None, [0])
    head = session.inbox[0]
    if isinstance(head, Question):
        ids = [*session.prefix, *head.ids]
        return Item(session, ids, None, [len(ids) - 1], question=head)
    assert head.features is not None
    n, count = tokens_per_frame, taken.units
    ids = [*session.prefix, *([FRAME, layout.silence] * count)]
    first = len(session.prefix) + n - 1
    wanted = [first + i * (n + 1) for i in range(count)]
    return Item(session, ids, head.features[:count], wanted, frames=count)
