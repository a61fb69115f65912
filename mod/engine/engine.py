"""The engine: many sessions on one model, advanced together one ragged step at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from mod.engine.cache import Memory, PagedCache
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded, Word
from mod.engine.log import FRAME
from mod.engine.residence import Residence
from mod.engine.runner import Item, Runner
from mod.engine.scheduler import Kind, Taken, Work, plan
from mod.engine.snapshot import pack, unpack
from mod.engine.state import MAX_CHUNK, MIN_CHUNK, FrameRun, Question, SessionState, Turn
from mod.layout import StreamLayout
from mod.modeling import VideoLLMMoD


class UnknownSessionError(KeyError):
    """There is no session of this name."""


class Engine:
    """Advances sessions by steps; not thread-safe, one caller drives it.

    A chunk of frames runs as if the model stayed silent after each; at the first frame where it
    wants to speak, the stream is cut back to that frame. Words therefore do not depend on chunks,
    nor on who shares a step, nor on caches that were evicted and came back.

    Args:
        memory: where caches live.
        step_tokens: tokens that one step aims at.
        spill: what becomes of an evicted cache: ``copy`` keeps its content in host memory,
            ``rebuild`` drops it and computes it again from the log.
        identity: of the model, such as its revision; snapshots go on where it is the same.
        clock: seconds; orders what waits.
    """

    def __init__(
        self,
        model: VideoLLMMoD,
        layout: StreamLayout,
        memory: Memory,
        *,
        step_tokens: int = 1024,
        spill: Literal["copy", "rebuild"] = "copy",
        identity: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._layout, self.memory = model, layout, memory
        self._step_tokens, self._clock = step_tokens, clock
        self._identity = identity
        self._runner = Runner(model)
        self._residence = Residence(memory, self._runner, spill)
        self._sessions: dict[str, SessionState] = {}
        self._events: list[Event] = []
        self._n_layers = len(memory.place)
        self.steps = 0

    # Sessions

    def open(
        self,
        name: str,
        *,
        instruction: str | None = None,
        threshold: float = 0.0,
        max_new_tokens: int = 96,
        kind: Literal["live", "bulk"] = "live",
    ) -> None:
        """Begin a stream.

        Args:
            instruction: text that opens it; the checkpoint's own when None.
            threshold: silence is accepted only where its probability is the highest and at
                least this (0-1).
            max_new_tokens: bound on one narration or answer, in tokens.

        Raises:
            ValueError: there is a session of this name.
        """
        if name in self._sessions:
            raise ValueError(f"there is a session {name!r} already")
        text = instruction if instruction is not None else self._model.config.instruction
        self._sessions[name] = SessionState(
            name=name,
            kind=kind,
            threshold=threshold,
            max_new_tokens=max_new_tokens,
            cache=PagedCache(self.memory),
            lengths=[0] * self._n_layers,
            prefix=self._layout.opening(text),
        )

    def push(self, name: str, frames: Tensor) -> None:
        """Hand frames (frames, height, width, 3) uint8 to a session, after what it already has.

        Raises:
            ValueError: they are no pictures of the model's size.
        """
        session = self._session(name)
        side = self._model.config.vision_config.image_size
        if frames.dtype != torch.uint8 or frames.shape[1:] != (side, side, 3):
            raise ValueError(
                f"frames must be (n, {side}, {side}, 3) uint8, not {tuple(frames.shape)} "
                f"{str(frames.dtype).removeprefix('torch.')}"
            )
        if len(frames):
            run = FrameRun(frames, session.last_pushed, self._clock())
            session.inbox.append(run)
            session.last_pushed = frames[-1]
            session.n_pushed += len(frames)

    def ask(self, name: str, question: str, text: str) -> None:
        """Ask ``text`` after all that was pushed before; answers carry the name ``question``."""
        ids = self._layout.question(text)
        self._session(name).inbox.append(Question(question, ids, self._clock()))

    def cancel(self, name: str) -> None:
        """Forget what waits, and end what is being said where it stands."""
        session = self._session(name)
        session.inbox.clear()
        session.last_pushed, session.n_pushed = session.last_seen, session.n_frames
        if session.turn:
            self._end_turn(session, cancelled=True)

    def fork(self, name: str, new: str) -> None:
        """A second session with the same past, which copies no cache; nothing waits in it.

        Raises:
            ValueError: there is a session ``new``, or something is being said.
        """
        session = self._session(name)
        if new in self._sessions:
            raise ValueError(f"there is a session {new!r} already")
        if session.turn:
            raise ValueError(f"session {name!r} is speaking; fork it when its turn has ended")
        self._sessions[new] = SessionState(
            name=new,
            kind=session.kind,
            threshold=session.threshold,
            max_new_tokens=session.max_new_tokens,
            cache=session.cache.fork() if session.cache else None,
            lengths=list(session.lengths),
            prefix=list(session.prefix),
            log=session.log.copy(),
            position=session.position,
            n_frames=session.n_frames,
            n_pushed=session.n_frames,
            last_seen=session.last_seen,
            last_pushed=session.last_seen,
            saved=session.saved,
        )

    def close(self, name: str) -> None:
        """End a session and free its pages."""
        session = self._session(name)
        if session.cache:
            session.cache.release()
        del self._sessions[name]

    def evict(self, name: str) -> None:
        """Free a session's pages; the cache comes back when it is needed."""
        self._residence.evict(self._session(name))

    def snapshot(self, name: str, *, with_cache: bool = True) -> bytes:
        """The session's committed state as bytes; what waits in its inbox is not part of it.

        Args:
            with_cache: else the cache is computed again where the session goes on.
        """
        session = self._session(name)
        caches = session.saved
        if with_cache and session.cache is not None:
            caches = session.cache.save()
        return pack(session, caches if with_cache else None, self._identity)

    def restore(self, name: str, snapshot: bytes) -> None:
        """Take in a session from another engine's snapshot; it is cold until it is used.

        Raises:
            ValueError: there is a session of this name, or the snapshot does not fit the model.
        """
        if name in self._sessions:
            raise ValueError(f"there is a session {name!r} already")
        self._sessions[name] = unpack(name, snapshot, self._identity)

    def bring_in(self, name: str) -> None:
        """Put a cold session's cache in place before it is needed.

        Raises:
            OutOfPagesError: there is no room.
        """
        with torch.inference_mode():
            self._residence.bring_in(self._session(name))

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._events) or any(s.busy for s in self._sessions.values())

    def held_bytes(self, name: str) -> int:
        """Bytes of keys and values of the session's stream, page rounding left out."""
        lengths = self._session(name).lengths
        total = 0
        for layer, length in enumerate(lengths):
            pool = self.memory.pools[self.memory.place[layer][0]]
            total += length * pool.page_bytes // (pool.page_size * pool.keys.shape[0])
        return total

    def lengths(self, name: str) -> list[int]:
        """Tokens per layer that the session's stream holds."""
        return list(self._session(name).lengths)

    # Steps

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Run one step; returns what happened, in order of time within each session."""
        waiting = [work for s in self._sessions.values() if (work := self._work(s))]
        taken = self._encoded(self._with_room(plan(waiting, self._step_tokens)))
        if taken:
            self.steps += 1
            items = [self._item(t) for t in taken]
            for item, outcome in zip(items, self._runner.run(items), strict=True):
                item.session.used = self.steps
                if isinstance(outcome, Tensor):
                    self._take_in(item, outcome)
                else:
                    self._fail(item.session, outcome)
        events, self._events = self._events, []
        return events

    def _session(self, name: str) -> SessionState:
        try:
            return self._sessions[name]
        except KeyError:
            raise UnknownSessionError(name) from None

    def _work(self, session: SessionState) -> Work | None:
        """What the session could do next."""
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
        units = min(len(head.pixels), session.chunk)
        per_frame = self._model.config.tokens_per_frame + 1
        return Work(session.name, kind, head.since, fixed, units, per_frame, alone=bulk)

    def _encoded(self, taken: list[Taken]) -> list[Taken]:
        """The part of a step whose frames could be encoded."""
        runs = [run if isinstance(run := self._head(t), FrameRun) else None for t in taken]
        wanted = [(run, t.units) for run, t in zip(runs, taken, strict=True) if run]
        errors = iter(self._runner.encode(wanted))
        ready = []
        for run, t in zip(runs, taken, strict=True):
            error = next(errors) if run else None
            if error is None:
                ready.append(t)
            else:
                self._fail(self._sessions[t.work.session], error)
        return ready

    def _head(self, taken: Taken) -> FrameRun | Question | None:
        """The input that a work is about; None while the session speaks."""
        session = self._sessions[taken.work.session]
        return None if session.turn else session.inbox[0]

    def _item(self, taken: Taken) -> Item:
        session = self._sessions[taken.work.session]
        if session.turn:
            return Item(session, session.turn.said[-1:], None, [0])
        head = session.inbox[0]
        if isinstance(head, Question):
            ids = [*session.prefix, *head.ids]
            return Item(session, ids, None, [len(ids) - 1], question=head)
        assert head.features is not None
        n, count = self._model.config.tokens_per_frame, taken.units
        ids = [*session.prefix, *([FRAME, self._layout.silence] * count)]
        first = len(session.prefix) + n - 1
        wanted = [first + i * (n + 1) for i in range(count)]
        return Item(session, ids, head.features[:count], wanted, frames=count)

    # Outcomes

    def _take_in(self, item: Item, logits: Tensor) -> None:
        session = item.session
        if item.frames:
            self._take_in_frames(item, logits)
            return
        self._commit(session, item.ids, None)
        if item.question:
            session.prefix = []
            session.inbox.popleft()
            session.turn = Turn(None, item.question.name, [])
        self._say(session, int(logits[-1].argmax()))

    def _take_in_frames(self, item: Item, logits: Tensor) -> None:
        """Commit the chunk up to and including the first frame the model speaks at."""
        session, silence = item.session, self._layout.silence
        run = session.inbox[0]
        assert isinstance(run, FrameRun)
        quiet = logits.softmax(-1)[:, silence].tolist()
        best = logits.argmax(-1).tolist()
        prefix = len(session.prefix)
        for i, p in enumerate(quiet):
            speaks = best[i] != silence or p < session.threshold
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
            session.chunk = min(MAX_CHUNK, session.chunk * 2)
            return
        session.chunk = max(MIN_CHUNK, session.chunk // 2)
        first = logits[i].clone()
        first[silence] = -torch.inf
        session.turn = Turn(session.n_frames - 1, None, [])
        self._say(session, int(first.argmax()))

    def _commit(self, session: SessionState, ids: Sequence[int], features: Tensor | None) -> None:
        """Make ``ids`` part of the stream; what the step fed beyond them is undone."""
        assert session.cache is not None
        n_frames = sum(token == FRAME for token in ids)
        n_text = len(ids) - n_frames
        for kind in self.memory.classes:
            for layer in kind.layers:
                session.lengths[layer] += n_text + n_frames * kind.tokens_per_frame
        session.cache.truncate(session.lengths)
        session.position += n_text + n_frames * self._model.config.tokens_per_frame
        session.saved = None
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

    def _end_turn(self, session: SessionState, *, cancelled: bool) -> None:
        assert session.turn is not None
        session.prefix = [*session.turn.said[-1:], self._layout.end]
        self._close_turn(session, cancelled=cancelled)

    def _close_turn(self, session: SessionState, *, cancelled: bool) -> None:
        turn = session.turn
        assert turn is not None
        text = self._layout.decode(turn.said)
        session.turn = None
        self._events.append(TurnEnded(session.name, turn.frame, turn.question, text, cancelled))

    def _fail(self, session: SessionState, error: str) -> None:
        """Drop the input that failed, or end the turn; the stream stands as it was committed."""
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
        self._events.append(Failed(session.name, session.n_frames, None, error))
        # Frame numbers stay those that were pushed.
        session.n_frames += len(head.pixels)

    # Memory

    def _with_room(self, taken: list[Taken]) -> list[Taken]:
        """The part of a step that memory has room for, its caches in place."""
        while taken:
            running = {t.work.session for t in taken}
            wanted = [(self._sessions[t.work.session], t.work.fixed_tokens, t.units) for t in taken]
            others = (s for s in self._sessions.values() if s.name not in running)
            if self._residence.make_room(wanted, others):
                try:
                    for t in taken:
                        self._residence.bring_in(self._sessions[t.work.session])
                except Exception as failure:
                    session = self._sessions[t.work.session]
                    self._fail(session, f"its cache cannot be restored: {failure}")
                    taken = [t for t in taken if t.work.session != session.name]
                    continue
                return taken
            if len(taken) > 1:
                taken = taken[:-1]
                continue
            (only,) = taken
            if only.units > 1:
                taken = [Taken(only.work, only.units // 2)]
                continue
            session = self._sessions[only.work.session]
            self._fail(session, "the session no longer fits the memory of the engine")
            taken = []
        return taken
