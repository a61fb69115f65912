"""What becomes of a step's outcomes: commits, words, turns that end, inputs that fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from mod.asking import changes
from mod.engine.cache import LayerClass
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded, Word
from mod.engine.figures import Figures
from mod.engine.log import FRAME
from mod.engine.runner import Item, Reading
from mod.engine.speculation import Chunks
from mod.engine.state import FrameRun, Question, SessionState, Turn, half_of
from mod.engine.work import half_features, half_ids
from mod.layout import Layout


class Outcomes:
    """Takes outcomes into sessions and tells of them.

    Args:
        classes: of the model's layers.
        frames_per_step: frames that the model sees as one.
        chunks: what speculative chunks are like.
        figures: where what happens is counted.
    """

    def __init__(
        self,
        layout: Layout,
        classes: Sequence[LayerClass],
        frames_per_step: int,
        chunks: Chunks,
        figures: Figures,
    ) -> None:
        self._layout, self._classes, self._figures = layout, classes, figures
        self._per_step, self._chunks = frames_per_step, chunks
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
        before_question = session.turn is None and not item.frames
        if session.kept is not None and item.features is not None and before_question:
            # The frame that waited for others to make a step went ahead of the question.
            session.kept.note(session.n_frames - 1, 1, 1)
        if item.more:
            session.ahead += len(item.ids)
            return
        if item.frames:
            self._take_in_frames(item, reading)
            return
        if session.turn and session.turn.aside:
            session.turn.fed += len(item.ids)
        else:
            ids = [*item.ahead, *item.ids]
            asked = item.question is not None
            self._commit(session, ids, half_features(session, ids), item.lead, asked=asked)
        if item.question:
            session.half = None
            session.lead, session.watching, session.expected = [], False, None
            session.inbox.popleft()
            session.turn = Turn(None, item.question.name, [], most=item.question.most)
            if session.recall is not None:
                session.recall.settled()
                session.turn.picked = session.recall.picked
        self._say(session, reading.best[-1])

    def fail(self, session: SessionState, error: str) -> None:
        """Drop the input that failed, or end the turn; the stream stands as it was committed."""
        session.forget_recall()
        session.drop_uncommitted()
        if session.turn:
            turn = session.turn
            self._failed(session, turn.frame, turn.question, error)
            if not turn.aside:
                # Its last word was never fed and is no part of the stream.
                session.lead = list(self._layout.closing)
            session.turn = None
            return
        head = session.inbox.popleft()
        if isinstance(head, Question):
            # It may be the frame before it that cannot be seen.
            session.half = None
            self._failed(session, None, head.name, error)
            return
        first = self._per_step - (session.half is not None)
        if len(head.pixels) > first:
            # A bad frame fails again alone; those around it do not suffer for it.
            session.inbox.extendleft(reversed(head.split(first)))
            return
        session.half = None
        for _ in head.pixels:
            self._failed(session, session.n_frames, None, error)
            # Frame numbers stay those that were pushed.
            session.n_frames += 1

    def _failed(
        self, session: SessionState, frame: int | None, question: str | None, error: str
    ) -> None:
        self._figures.failures += 1
        self._events.append(Failed(session.name, frame, question, error))

    def cancel_turn(self, session: SessionState) -> None:
        """End what a session says where it stands."""
        assert session.turn is not None
        self._close_turn(session, unfed=session.turn.unfed, cancelled=True)

    def _take_in_frames(self, item: Item, reading: Reading) -> None:
        """Commit the chunk up to and including the first frame the model speaks at."""
        session, asking = item.session, self._layout.asking
        run = session.inbox[0]
        assert isinstance(run, FrameRun)
        decided = self._decided(session, reading) if asking is None else self._asked(session, item)
        for i, (p, speaks) in enumerate(decided):
            frame = session.n_frames + i
            self._events.append(FrameSeen(session.name, frame, p, speaks))
            if speaks:
                break
        seen = i + 1
        self._figures.frames_run += item.frames
        self._figures.frames_kept += seen
        steps, left = divmod(seen + (session.half is not None), self._per_step)
        if steps:
            # At a frame that speaks, its silence and all that follows is no part of the stream.
            spoken, silent = item.cuts[steps - 1]
            end = spoken if speaks and asking is None else silent
            self._commit(session, [*item.ahead, *item.ids[:end]], item.features, item.lead)
            if session.kept is not None:
                first = session.n_frames - (session.half is not None)
                session.kept.note(first, steps, self._per_step)
            # A narration of its own ends the stretch of frames; an aside does not.
            session.lead, session.watching = [], not speaks or asking is not None
        else:
            # Whole steps may have been fed beyond the frame that ends this one amid a step.
            assert session.cache is not None
            session.cache.truncate(session.lengths)
            session.ahead = 0
        session.last_seen = run.pixels[seen - 1]
        session.half = half_of(session.last_seen, self._per_step) if left else None
        session.n_frames += seen
        run.drop(seen, steps)
        if not len(run.pixels):
            session.inbox.popleft()
        if not speaks:
            session.speculation.silent(steps, self._chunks)
            return
        turn = session.turn = Turn(session.n_frames - 1, None, [])
        if asking is not None:
            question = self._layout.ids(self._layout.question(asking.question, watching=True))
            ahead = half_ids(session, self._layout)[0] if session.half else []
            turn.prompt, turn.aside = [*ahead, *question], True
            return
        session.speculation.spoke(steps, self._chunks)
        turn.prompt = self._layout.ids(self._layout.speaking)
        if not turn.prompt:
            self._say(session, reading.best_word[i])

    def _decided(self, session: SessionState, reading: Reading) -> Iterator[tuple[float, bool]]:
        """Of each frame, the model's probability of silence, and whether it speaks."""
        for p, best in zip(reading.p_silence, reading.best, strict=True):
            yield p, best != self._layout.silence or p < session.threshold

    def _asked(self, session: SessionState, item: Item) -> Iterator[tuple[float, bool]]:
        """The same where the model has to be asked: how little a picture has changed stands for
        the probability.
        """
        run, asking = session.inbox[0], self._layout.asking
        assert isinstance(run, FrameRun)
        assert asking is not None
        for change in changes(run.pixels[: item.frames], run.last):
            session.unasked += 1
            asks = session.asked and asking.at(session.unasked / session.fps, change)
            if asks:
                session.unasked = 0
            yield 1.0 - change, asks

    def _commit(
        self,
        session: SessionState,
        ids: Sequence[int],
        features: Tensor | None,
        lead: int,
        *,
        asked: bool = False,
    ) -> None:
        """Make ``ids`` part of the stream; what the step fed beyond them is undone."""
        assert session.cache is not None
        # The log is read again when a cache is lost alone: it lies on the host.
        features = None if features is None else features.cpu()
        n_frames = sum(token == FRAME for token in ids)
        n_text = len(ids) - n_frames
        for kind in self._classes:
            for layer in kind.layers:
                session.lengths[layer] += n_text + n_frames * kind.tokens_per_frame
        session.cache.truncate(session.lengths)
        session.ahead = 0
        session.cursor = session.places.after(session.cursor, ids)
        session.saved = None
        session.policy.note(session.past, ids, self._layout, lead, asked=asked)
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
        most = session.max_new_tokens if turn.most is None else turn.most
        if token in self._layout.ends or len(turn.said) >= most:
            # All words are fed by now; the end mark goes with whatever comes next.
            self._close_turn(session, unfed=[], cancelled=False)
            return
        turn.said.append(token)
        self._figures.words += 1
        self._events.append(Word(session.name, turn.frame, turn.question, token))

    def _close_turn(self, session: SessionState, *, unfed: list[int], cancelled: bool) -> None:
        turn = session.turn
        assert turn is not None
        session.forget_recall()
        if not turn.aside:
            session.lead = [*unfed, *self._layout.closing]
        else:
            session.drop_uncommitted()
        text = self._layout.decode(turn.said)
        session.turn = None
        self._events.append(TurnEnded(session.name, turn.frame, turn.question, text, cancelled))
