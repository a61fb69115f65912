"""What a session could do next, and the part of a step that comes of it."""

from __future__ import annotations

from mod.engine.log import FRAME, beside
from mod.engine.runner import Item
from mod.engine.scheduler import Kind, Taken, Work
from mod.engine.state import Question, SessionState
from mod.layout import Layout, Parts


def work_of(session: SessionState, layout: Layout, tokens_per_frame: int) -> Work | None:
    """What waits in a session, the first of it."""
    bulk = session.kind == "bulk"
    if session.turn:
        kind = Kind.BULK if bulk else Kind.DECODE
        return Work(session.name, kind, 0.0, len(session.turn.unfed), alone=bulk)
    if not session.inbox:
        return None
    head = session.inbox[0]
    if isinstance(head, Question):
        kind = Kind.BULK if bulk else Kind.QUESTION
        fixed = len(question_ids(session, head, layout))
        return Work(session.name, kind, head.since, fixed, alone=bulk)
    kind = Kind.BULK if bulk else Kind.LIVE
    fixed = len(_lead_ids(session, layout))
    # A chunk ends where something leaves the session's window, whatever its size.
    units = min(len(head.pixels), session.chunk, session.policy.frames_left(session.past))
    if layout.asking is not None and session.asked:
        # Nor does it go beyond the frame at which the model is asked next at the latest.
        units = min(units, layout.asking.frames_left(session.unasked, session.fps))
    unit = tokens_per_frame + layout.beside_tokens
    return Work(session.name, kind, head.since, fixed, units, unit, alone=bulk)


def question_ids(session: SessionState, asked: Question, layout: Layout) -> list[int]:
    """What the question that is the next feeds; made once, however many steps it waits."""
    if asked.ids is None:
        question = layout.question(asked.text, watching=session.watching)
        asked.ids = layout.ids([*session.lead, *question])
    return asked.ids


def _lead_ids(session: SessionState, layout: Layout) -> list[int]:
    """What goes before the next frame and is none of its own text."""
    if not session.lead:
        return []
    return layout.ids([*session.lead, *_before(session, layout, 0)])


def _before(session: SessionState, layout: Layout, ahead: int) -> Parts:
    """Text right before the frame that is ``ahead`` of the next one."""
    watching = session.watching or ahead > 0
    number, expected = session.n_frames + ahead, session.expected
    return layout.before(number, session.fps, watching=watching, expected=expected)


def item_of(session: SessionState, taken: Taken, layout: Layout, tokens_per_frame: int) -> Item:
    """The tokens and frames that a work feeds, and where their outcome is read."""
    if session.turn:
        ids = session.turn.unfed
        return Item(session, ids, None, [len(ids) - 1])
    head = session.inbox[0]
    if isinstance(head, Question):
        ids = question_ids(session, head, layout)
        return Item(session, ids, None, [len(ids) - 1], question=head, lead=len(session.lead))
    assert head.features is not None
    ids = _lead_ids(session, layout)
    lead, place = len(ids), len(ids)
    wanted, cuts = [], []
    for i in range(taken.units):
        if i or not lead:
            before = layout.ids(_before(session, layout, i))
            ids += [beside(token, ahead=True) for token in before]
            place += len(before)
        ids.append(FRAME)
        place += tokens_per_frame
        wanted.append(place - 1)
        spoken = len(ids)
        after = layout.after()
        ids += [beside(token, ahead=False) for token in after]
        place += len(after)
        cuts.append((spoken, len(ids)))
    wanted = wanted if layout.asking is None else []
    features = head.features[: taken.units]
    return Item(session, ids, features, wanted, frames=taken.units, lead=lead, cuts=cuts)
