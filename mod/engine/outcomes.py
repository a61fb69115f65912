"""What becomes of a step's outcomes: commits, words, turns that end, inputs that fail."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mod.engine.cache import LayerClass
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded, Word
from mod.engine.log import FRAME
from mod.engine.runner import Item, Reading
from mod.engine.state import MIN_CHUNK, FrameRun, Question, SessionState, Turn
from mod.layout import StreamLayout


class Outcomes:
    """Takes outcomes into sessions and tells of them.

    Args:
        classes: of the model's layers.
        tokens_per_frame: positions that a frame takes.
        max_chunk: frames of the largest speculative chunk.
    """

    def __init__(
        self,
        layout: StreamLayout,
        classes: Sequence[LayerClass],
        tokens_per_frame: int,
        max_chunk: int,
    ) -> None:
        self._layout, self._classes = layout, classes
        self._tokens_per_frame, self._max_chunk = tokens_per_frame, max_chunk
        self._events: list[Event] = []

    @property
    def waiting(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self._events)

    def told(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def take_in(self, item: Item, reading: Reading) -> None:
        """Go on from what the model says at an item's wanted places."""
        session = item.session
        if item.frames:
            self._take_in_frames(item, reading)
            return
        self._commit(session, item.ids, None)
        if item.question:
            session.prefix = []
            session.inbox.popleft()
            session.turn = Turn(None, item.question.name, [])
            if session.recall is not None:
                session.recall.settled()
                session.turn.picked = session.recall.picked
        self._say(session, reading.best[-1])

    def fail(self, session: SessionState, error: str) -> None:
        """Drop the input that failed, or end the turn; the stream stands as it was committed."""
        session.forget_recall()
        if session.turn:
            turn = session.turn
            self._events.append(Failed(session.name, turn.frame, turn.question, error))
            # Its last word was never fed and is no part of the stream.
            turn.said.pop()
            session.prefix = [self._layout.end]
            session.turn = None
            return
        head = session.inbox.popleft()
        if isinstance(head, Question):
            self._events.append(Failed(session.name, None, head.name, error))
            return
        if len(head.pixels) > 1:
            # A bad frame fails again alone; those around it do not suffer for it.
            session.inbox.extendleft(reversed(head.split()))
            return
        self._events.append(Failed(session.name, session.n_frames, None, error))
        # Frame numbers stay those that were pushed.
        session.n_frames += 1

    def cancel_turn(self, session: SessionState) -> None:
        """End what a session says where it stands."""
        assert session.turn is not None
        session.prefix = [*session.turn.said[-1:], self._layout.end]
        self._close_turn(session, cancelled=True)

    def _take_in_frames(self, item: Item, reading: Reading) -> None:
        """Commit the chunk up to and including the first frame the model speaks at."""
        session, silence = item.session, self._layout.silence
        run = session.inbox[0]
        assert isinstance(run, FrameRun)
        prefix = len(session.prefix)
        for i, p in enumerate(reading.p_silence):
            speaks = reading.best[i] != silence or p < session.threshold
            frame = session.n_frames + i
            self._events.append(FrameSeen(session.name, frame, p, speaks))
            if speaks:
                break
        seen = i + 1
        # At a frame that speaks, its silence and all that follows is no part of the stream.
        self._commit(session, item.ids[: prefix + 2 * seen - speaks], item.features)
        session.prefix = []
        session.last_seen = run.pixels[seen - 1]
        session.n_frames += seen
        run.drop(seen)
        if not len(run.pixels):
            session.inbox.popleft()
        if not speaks:
            session.chunk = min(self._max_chunk, session.chunk * 2)
            return
        session.chunk = max(MIN_CHUNK, session.chunk // 2)
        session.turn = Turn(session.n_frames - 1, None, [])
        self._say(session, reading.best_word[i])

    def _commit(self, session: SessionState, ids: Sequence[int], features: Tensor | None) -> None:
        """Make ``ids`` part of the stream; what the step fed beyond them is undone."""
        assert session.cache is not None
        n_frames = sum(token == FRAME for token in ids)
        n_text = len(ids) - n_frames
        for kind in self._classes:
            for layer in kind.layers:
                session.lengths[layer] += n_text + n_frames * kind.tokens_per_frame
        session.cache.truncate(session.lengths)
        session.position += n_text + n_frames * self._tokens_per_frame
        session.saved = None
        session.policy.note(session.past, ids, self._layout, len(session.prefix))
        frame = 0
        for token in ids:
            if token == FRAME:
                assert features is not None
                session.log.add_frame(features[frame])
                frame += 1
            else:
                session.log.add_text([token])

    def _say(self, session: SessionState, token: int) -> None:
        """Add the next token of the session's turn, or end it."""
        turn = session.turn
        assert turn is not None
        if token == self._layout.end or len(turn.said) >= session.max_new_tokens:
            # All words are fed by now; the end mark goes with whatever comes next.
            session.prefix = [self._layout.end]
            self._close_turn(session, cancelled=False)
            return
        turn.said.append(token)
        self._events.append(Word(session.name, turn.frame, turn.question, token))

    def _close_turn(self, session: SessionState, *, cancelled: bool) -> None:
        turn = session.turn
        assert turn is not None
        session.forget_recall()
        text = self._layout.decode(turn.said)
        session.turn = None
        self._events.append(TurnEnded(session.name, turn.frame, turn.question, text, cancelled))
