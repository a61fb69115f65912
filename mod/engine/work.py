"""What a session could do next, and the part of a step that comes of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mod.config import RoutedConfig
from mod.engine.log import FRAME, beside
from mod.engine.policy import Retrieve
from mod.engine.runner import Item
from mod.engine.scheduler import Kind, Taken, Work
from mod.engine.state import MOST_TEXT, FrameRun, Question, SessionState
from mod.layout import Layout, Parts


def work_of(
    session: SessionState, layout: Layout, config: RoutedConfig, max_chunk: int
) -> Work | None:
    """What waits in a session, the first of it; of frames ``max_chunk`` steps at most."""
    n = config.tokens_per_frame
    bulk = session.kind == "bulk"
    if session.turn:
        kind = Kind.BULK if bulk else Kind.DECODE
        return Work(session.name, kind, 0.0, _tokens(session.turn.unfed, n), alone=bulk)
    if not session.inbox:
        return None
    head = session.inbox[0]
    asked = isinstance(head, Question)
    kind = Kind.BULK if bulk else Kind.QUESTION if asked else Kind.LIVE
    text = _text_ids(session, layout, config.frames_per_step)
    if part := _text_part(session, text, layout, config):
        return Work(session.name, kind, head.since, _tokens(part, n), alone=bulk)
    fixed = _tokens(text[session.ahead :], n)
    if isinstance(head, Question):
        return Work(session.name, kind, head.since, fixed, alone=bulk)
    # A chunk ends where something leaves the session's window, whatever its size.
    steps = -(-(_begun(session) + _frames_left(session, head, layout)) // config.frames_per_step)
    chunk = min(max_chunk, session.speculation.chunk)
    units = min(steps, chunk, session.policy.frames_left(session.past))
    return Work(session.name, kind, head.since, fixed, units, n + layout.beside_tokens, alone=bulk)


def _text_ids(session: SessionState, layout: Layout, frames_per_step: int) -> list[int]:
    """Entries that the next input feeds before any frame of its own, all of them."""
    head = session.inbox[0]
    if isinstance(head, Question):
        return question_ids(session, head, layout)
    return _lead_ids(session, layout, frames_per_step)


def _text_part(
    session: SessionState, text: Sequence[int], layout: Layout, config: RoutedConfig
) -> list[int]:
    """Entries of ``text`` that go through the model by themselves next, where it is too long for
    one step; else none.
    """
    n = config.tokens_per_frame
    left = text[session.ahead :]
    if _tokens(left, n) <= MOST_TEXT or not _divides(session, layout, config):
        return []
    count = tokens = 0
    while tokens < MOST_TEXT:
        tokens += n if left[count] == FRAME else 1
        count += 1
    return list(left[:count])


def _divides(session: SessionState, layout: Layout, config: RoutedConfig) -> bool:
    """Whether the text of the next input may be fed in parts."""
    head = session.inbox[0]
    if isinstance(head, Question):
        # What looks back does so by all of a question.
        return not isinstance(session.policy, Retrieve)
    # Frames that make no step yet feed nothing, their text included.
    return _begun(session) + _frames_left(session, head, layout) >= config.frames_per_step


def question_ids(session: SessionState, asked: Question, layout: Layout) -> list[int]:
    """What the question that is the next feeds; made once, however many steps it waits."""
    if asked.ids is None:
        if session.half is not None:
            ahead, _ = half_ids(session, layout)
            asked.ids = [*ahead, *layout.ids(layout.question(asked.text, watching=True))]
        else:
            question = layout.question(asked.text, watching=session.watching)
            asked.ids = layout.ids([*session.lead, *question])
    return asked.ids


def half_ids(session: SessionState, layout: Layout) -> tuple[list[int], int]:
    """Entries of the frame that waits for others, as a step of its own.

    Returns:
        They, and how many of them close what was before.
    """
    number = session.n_frames - 1
    before = _before(session, layout, number, number)
    ids = layout.ids([*session.lead, *before]) if session.lead else []
    lead = len(ids)
    if not lead:
        ids = [beside(token, ahead=True) for token in layout.ids(before)]
    return [*ids, FRAME, *(beside(token, ahead=False) for token in layout.after())], lead


def _begun(session: SessionState) -> int:
    """How many frames of the next step were seen already."""
    return session.half is not None


def _frames_left(session: SessionState, run: FrameRun, layout: Layout) -> int:
    """How many frames a chunk may take: not beyond the one at which the model is asked next."""
    if layout.asking is None or not session.asked:
        return len(run.pixels)
    return min(len(run.pixels), layout.asking.frames_left(session.unasked, session.fps))


def _tokens(ids: Sequence[int], tokens_per_frame: int) -> int:
    """Of entries, a frame's tokens counted as many as they are."""
    return len(ids) + ids.count(FRAME) * (tokens_per_frame - 1)


def _lead_ids(session: SessionState, layout: Layout, frames_per_step: int) -> list[int]:
    """What goes before the next step and is none of its own text."""
    if not session.lead:
        return []
    first = session.n_frames - _begun(session)
    before = _before(session, layout, first, first + frames_per_step - 1)
    return layout.ids([*session.lead, *before])


def _before(session: SessionState, layout: Layout, first: int, last: int, step: int = 0) -> Parts:
    """Text right before the frames from ``first`` to ``last``, which are ``step`` ahead."""
    watching, expected = session.watching or step > 0, session.expected
    return layout.before(first, last, session.fps, watching=watching, expected=expected)


def item_of(session: SessionState, taken: Taken, layout: Layout, config: RoutedConfig) -> Item:
    """The tokens and frames that a work feeds, and where their outcome is read."""
    n = config.tokens_per_frame
    if session.turn:
        ids = session.turn.unfed
        return Item(session, ids, half_features(session, ids), [_tokens(ids, n) - 1])
    head = session.inbox[0]
    text = _text_ids(session, layout, config.frames_per_step)
    ahead = text[: session.ahead]
    if part := _text_part(session, text, layout, config):
        return Item(session, part, half_features(session, part), [], ahead=ahead, more=True)
    if isinstance(head, Question):
        ids = text[session.ahead :]
        features = half_features(session, ids)
        half = session.half is not None
        lead = half_ids(session, layout)[1] if half else len(layout.ids(session.lead))
        wanted = [_tokens(ids, n) - 1]
        return Item(session, ids, features, wanted, question=head, lead=lead, ahead=ahead)
    per_step, begun = config.frames_per_step, _begun(session)
    frames = min(_frames_left(session, head, layout), taken.units * per_step - begun)
    steps = (begun + frames) // per_step
    ids = text[session.ahead :] if steps else []
    lead, place = len(text) if steps else 0, len(ids)
    wanted, cuts = [], []
    for i in range(steps):
        if i or not lead:
            first = session.n_frames - begun + i * per_step
            before = layout.ids(_before(session, layout, first, first + per_step - 1, i))
            ids += [beside(token, ahead=True) for token in before]
            place += len(before)
        ids.append(FRAME)
        place += n
        wanted.append(place - 1)
        spoken = len(ids)
        after = layout.after()
        ids += [beside(token, ahead=False) for token in after]
        place += len(after)
        cuts.append((spoken, len(ids)))
    wanted = wanted if layout.asking is None else []
    features = head.features[:steps] if head.features is not None and steps else None
    return Item(session, ids, features, wanted, frames=frames, lead=lead, cuts=cuts, ahead=ahead)


def half_features(session: SessionState, ids: Sequence[int]) -> Tensor | None:
    """Of the frame that waits for others, where ``ids`` feed it."""
    return session.half.features if session.half is not None and FRAME in ids else None
