"""The engine: many sessions on one model, advanced together one ragged step at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from mod.decoder import RoutedDecoder
from mod.engine.cache import Memory, PagedCache
from mod.engine.events import Event
from mod.engine.figures import Figures
from mod.engine.graphs import DecodeGraphs, Recorder, cuda_recorder
from mod.engine.kept import KeptFrame, KeptTokens
from mod.engine.log import FRAME
from mod.engine.outcomes import Outcomes
from mod.engine.paged import Kernel, kernel_for, triton_kernel
from mod.engine.policy import Full, Past, Policy, fitted, in_steps, policy_name
from mod.engine.residence import Residence
from mod.engine.rotation import Rotation
from mod.engine.runner import Item, Runner, one_line
from mod.engine.scheduler import Taken, Work, plan
from mod.engine.snapshot import pack, unpack
from mod.engine.speculation import Chunks
from mod.engine.state import (
    ENCODED_AHEAD,
    FrameRun,
    Question,
    SessionState,
    Turn,
)
from mod.engine.work import item_of, question_ids, work_of
from mod.layout import Layout


class UnknownSessionError(KeyError):
    """There is no session of this name."""


class ContextError(ValueError):
    """More frames are to come than the model's context holds."""


class Engine:
    """Advances sessions by steps; not thread-safe, one caller drives it.

    A chunk of frames runs as if the model stayed silent after each; at the first frame where it
    wants to speak, the stream is cut back to that frame. Words therefore do not depend on chunks,
    nor on who shares a step, nor on caches that were evicted and came back.

    Args:
        memory: where caches live.
        step_tokens: tokens that one step aims at.
        max_chunk: steps of frames that are run as if the model stayed silent after each, at most;
            None takes what suits the memory's device, 1 runs frame by frame.
        spill: what becomes of an evicted cache: ``copy`` keeps its content in host memory,
            ``rebuild`` drops it and computes it again from the log.
        identity: of the model, such as its revision; snapshots go on where it is the same.
        clock: seconds; orders what waits.
        kernel: attends over pages; None takes the one of the memory's device, if there is one, and
            else attends session by session.
        recorder: records decode-only steps; None records CUDA graphs where a paged kernel runs.

    Raises:
        ValueError: ``max_chunk`` is below 1.

    Attributes:
        step_tokens: as above.
        figures: what it has done so far; any thread may read them.
    """

    def __init__(
        self,
        model: RoutedDecoder,
        layout: Layout,
        memory: Memory,
        *,
        step_tokens: int = 1024,
        max_chunk: int | None = None,
        spill: Literal["copy", "rebuild"] = "copy",
        identity: str = "",
        clock: Callable[[], float] = time.monotonic,
        kernel: Kernel | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._model, self._layout, self.memory = model, layout, memory
        self.step_tokens, self._clock = step_tokens, clock
        self.figures = Figures()
        self._identity = identity
        kernel = kernel or kernel_for(memory, model.config.get_text_config().num_attention_heads)
        one_device = len({kind.device for kind in memory.classes}) == 1
        if kernel is triton_kernel and recorder is None and one_device:
            recorder = cuda_recorder()
        graphs = DecodeGraphs(model, memory, kernel, recorder) if kernel and recorder else None
        self._runner = Runner(model, memory, layout.silence, kernel, graphs)
        n, self._per_step = model.config.tokens_per_frame, model.config.frames_per_step
        self._rotation = Rotation(model)
        self._residence = Residence(
            memory, self._runner, self._rotation, layout, n, spill, self.figures
        )
        on_gpu = memory.pools[0].keys.device.type == "cuda"
        self._chunks = Chunks.on(gpu=on_gpu, most=max_chunk)
        self._outcomes = Outcomes(
            layout, memory.classes, self._per_step, self._chunks, self.figures
        )
        self._sessions: dict[str, SessionState] = {}
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
        policy: Policy | None = None,
        frames: int | None = None,
        asked: bool = True,
        fps: float | None = None,
    ) -> None:
        """Begin a stream.

        Args:
            instruction: text that opens it; the checkpoint's own when None.
            threshold: silence is accepted only where its probability is the highest and at
                least this (0-1).
            max_new_tokens: bound on one narration or answer, in tokens.
            policy: what the stream remembers; everything when None. A window longer than the
                model's context is made shorter, and so is what a question looks back at.
            frames: that will come, where the caller knows; some models are told.
            asked: whether a model that has to be asked in order to narrate is asked.
            fps: frames a second that will come; the checkpoint's own when None.

        Raises:
            ValueError: there is a session of this name.
            PolicyError: the model's keys cannot be moved as the policy needs.
            ContextError: everything is to be remembered, and ``frames`` are too many for that.
        """
        if name in self._sessions:
            raise ValueError(f"there is a session {name!r} already")
        context = self._model.config.context
        n = self._model.config.tokens_per_frame
        if policy is not None and not isinstance(policy, Full):
            self._rotation.check(policy_name(policy))
            policy = in_steps(policy, self._per_step)
            policy = fitted(policy, context, n + self._layout.beside_tokens)
        elif context is not None and frames is not None and frames * n > self._per_step * context:
            raise ContextError(
                f"{frames} frames of {n / self._per_step:g} tokens are more than the model's "
                f"context of {context} tokens: show it fewer a second, or a shorter part"
            )
        text = instruction if instruction is not None else self._model.config.instruction
        opening = self._layout.opening(text)
        fps = float(fps or self._model.config.fps)
        self._sessions[name] = SessionState(
            name=name,
            kind=kind,
            fps=fps,
            places=self._model.places(fps),
            threshold=threshold,
            max_new_tokens=max_new_tokens,
            cache=PagedCache(self.memory),
            lengths=[0] * len(self.memory.place),
            lead=opening,
            expected=frames,
            asked=asked,
            policy=policy or Full(),
            past=Past(len(self._layout.ids(opening))),
        )

    def push(self, name: str, frames: Tensor) -> None:
        """Hand frames (frames, height, width, 3) uint8 to a session, after what it already has.

        Raises:
            ValueError: they are no pictures of the model's size.
        """
        session = self._session(name)
        side = self._model.config.image_size
        if frames.dtype != torch.uint8 or frames.shape[1:] != (side, side, 3):
            raise ValueError(
                f"frames must be (n, {side}, {side}, 3) uint8, not {tuple(frames.shape)} "
                f"{str(frames.dtype).removeprefix('torch.')}"
            )
        if len(frames):
            last = session.inbox[-1] if session.inbox else None
            if isinstance(last, FrameRun):
                # One run, so that a chunk can reach over it.
                last.extend(frames, self._clock())
            else:
                session.inbox.append(FrameRun.of(frames, session.last_pushed, self._clock()))
            session.last_pushed = frames[-1]
            session.n_pushed += len(frames)

    def ask(self, name: str, question: str, text: str, most: int | None = None) -> None:
        """Ask ``text`` after all that was pushed before; answers carry the name ``question``.

        Args:
            most: bound on the answer, in tokens, in place of the session's.
        """
        self._session(name).inbox.append(Question(question, text, self._clock(), most))

    def cancel(self, name: str) -> None:
        """Forget what waits, and end what is being said where it stands."""
        session = self._session(name)
        session.inbox.clear()
        session.drop_uncommitted()
        session.last_pushed, session.n_pushed = session.last_seen, session.n_frames
        if session.turn:
            self._outcomes.cancel_turn(session)

    def speaking(self, name: str) -> Turn | None:
        """What is being said, if anything is."""
        return self._session(name).turn

    def stop(self, name: str) -> None:
        """End what is being said where it stands; frames and questions that wait stay."""
        session = self._session(name)
        if session.turn is not None:
            self._outcomes.cancel_turn(session)

    def withdraw(self, name: str, question: str) -> bool:
        """Take back a question that still waits; whether there was one."""
        session = self._session(name)
        for waiting in session.inbox:
            if isinstance(waiting, Question) and waiting.name == question:
                if waiting is session.inbox[0]:
                    session.drop_uncommitted()
                session.inbox.remove(waiting)
                return True
        return False

    def waits(self, name: str) -> bool:
        """Whether a step would do something for a session, or told of one is yet to come."""
        return self._outcomes.waiting or self._session(name).busy

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
        session.drop_uncommitted()
        self._sessions[new] = SessionState(
            name=new,
            kind=session.kind,
            fps=session.fps,
            threshold=session.threshold,
            max_new_tokens=session.max_new_tokens,
            cache=session.cache.fork() if session.cache else None,
            lengths=list(session.lengths),
            lead=list(session.lead),
            watching=session.watching,
            expected=session.expected,
            asked=session.asked,
            unasked=session.unasked,
            log=session.log.copy(),
            places=session.places,
            cursor=session.cursor,
            half=session.half,
            n_frames=session.n_frames,
            n_pushed=session.n_frames,
            last_seen=session.last_seen,
            last_pushed=session.last_seen,
            saved=session.saved,
            policy=session.policy,
            past=session.past.copy(),
            blocks=list(session.blocks),
        )

    def close(self, name: str) -> None:
        """End a session and free its pages."""
        session = self._session(name)
        session.forget_recall()
        if session.cache:
            session.cache.release()
        del self._sessions[name]

    def watch_kept(self, name: str, frames: int) -> None:
        """From now on remember what the routers keep of a session's last ``frames``."""
        self._session(name).kept = KeptTokens(frames)

    def kept(self, name: str, frame: int) -> KeptFrame | None:
        """What they kept of one frame, where it is among those that are remembered."""
        session = self._session(name)
        return session.kept.of(frame, self._model.config) if session.kept else None

    def evict(self, name: str) -> None:
        """Free a session's pages; the cache comes back when it is needed."""
        self._residence.evict(self._session(name))

    def snapshot(self, name: str, *, with_cache: bool = True) -> bytes:
        """The session's committed state as bytes; what waits in its inbox is not part of it.

        Args:
            with_cache: else the cache is computed again where the session goes on. Once something
                left a session's window this cannot be, and the cache is part of it always.
        """
        session = self._session(name)
        session.drop_uncommitted()
        if not with_cache and not session.past.left:
            return pack(session, None, self._identity)
        caches = session.saved if session.cache is None else session.cache.save()
        return pack(session, caches, self._identity)

    def restore(self, name: str, snapshot: bytes) -> None:
        """Take in a session from another engine's snapshot; it is cold until it is used.

        Raises:
            ValueError: there is a session of this name, or the snapshot does not fit the model.
        """
        if name in self._sessions:
            raise ValueError(f"there is a session {name!r} already")
        self._sessions[name] = unpack(
            name, snapshot, self._model, self.memory.classes, self._identity
        )

    def bring_in(self, name: str) -> None:
        """Put a cold session's cache in place before it is needed.

        Raises:
            OutOfPagesError: there is no room.
        """
        with self._model.without_grad():
            self._residence.bring_in(self._session(name))

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self._outcomes.waiting or any(s.busy for s in self._sessions.values())

    def held_bytes(self, name: str) -> int:
        """Bytes of keys and values of the session's stream, page rounding left out."""
        lengths = self._session(name).lengths
        total = 0
        for layer, length in enumerate(lengths):
            pool = self.memory.pools[self.memory.place[layer][0]]
            total += length * pool.page_bytes // (pool.page_size * pool.keys.shape[0])
        return total

    def offloaded_bytes(self, name: str) -> int:
        """Bytes of keys and values that left the session's window and can be looked back at."""
        return sum(block.n_bytes for block in self._session(name).blocks)

    def lengths(self, name: str) -> list[int]:
        """Tokens per layer that the session's stream holds."""
        return list(self._session(name).lengths)

    # Steps

    def step(self) -> list[Event]:
        """Run one step; returns what happened, in order of time within each session."""
        with self._model.without_grad():
            return self._step()

    def _step(self) -> list[Event]:
        taken = self._encoded(self._with_room(plan(self._waiting(), self.step_tokens)))
        if items := self._items(taken):
            self.steps += 1
            self.figures.parts += len(items)
            for item, outcome in zip(items, self._runner.run(items), strict=True):
                item.session.used = self.steps
                if isinstance(outcome, str):
                    self._outcomes.fail(item.session, outcome)
                else:
                    self._outcomes.take_in(item, outcome)
        return self._outcomes.told()

    def _session(self, name: str) -> SessionState:
        try:
            return self._sessions[name]
        except KeyError:
            raise UnknownSessionError(name) from None

    def _waiting(self) -> list[Work]:
        """What waits in all sessions; an input of which nothing can be made fails alone."""
        config, most = self._model.config, self._chunks.most
        waiting = []
        for session in self._sessions.values():
            try:
                work = work_of(session, self._layout, config, most)
            except Exception as failure:
                self._outcomes.fail(session, one_line(failure))
                continue
            if work is not None:
                waiting.append(work)
        return waiting

    def _items(self, taken: list[Taken]) -> list[Item]:
        """The parts of a step, as far as something can be made of them; the others fail alone."""
        items = []
        for t in taken:
            session = self._sessions[t.work.session]
            try:
                items.append(item_of(session, t, self._layout, self._model.config))
            except Exception as failure:
                self._outcomes.fail(session, one_line(failure))
                continue
            ran = t.work.fixed_tokens + t.units * t.work.unit_tokens
            self.figures.tokens[t.work.kind] += ran
        return items

    def _encoded(self, taken: list[Taken]) -> list[Taken]:
        """The part of a step whose frames could be encoded."""
        unseen = [self._unseen(t) for t in taken]
        errors = iter(self._runner.encode([wanted for wanted in unseen if wanted]))
        ready = []
        for wanted, t in zip(unseen, taken, strict=True):
            error = next(errors) if wanted else None
            if error is None:
                ready.append(t)
            else:
                self._outcomes.fail(self._sessions[t.work.session], error)
        return ready

    def _unseen(self, taken: Taken) -> tuple[FrameRun, int, bool] | None:
        """What the tower has to see for a work: of which run how many steps, and whether the first
        was begun before.
        """
        session = self._sessions[taken.work.session]
        head = None if session.turn else session.inbox[0]
        if isinstance(head, FrameRun):
            ahead = max(1, ENCODED_AHEAD // self._per_step)
            return head, _to_see(head, taken, ahead), session.half is not None
        if session.turn:
            ids = session.turn.unfed
        else:
            assert head is not None
            ids = question_ids(session, head, self._layout)
        return (session.half, 1, False) if session.half and FRAME in ids else None

    def _with_room(self, taken: list[Taken]) -> list[Taken]:
        """The part of a step that memory has room for, its caches in place."""
        while taken:
            running = {t.work.session for t in taken}
            wanted = [(self._sessions[t.work.session], t.work.fixed_tokens, t.units) for t in taken]
            others = (s for s in self._sessions.values() if s.name not in running)
            refused = self._refused(wanted, others)
            if refused is None:
                try:
                    for t in taken:
                        session = self._sessions[t.work.session]
                        self._residence.bring_in(session)
                        self._residence.look_back(session)
                except Exception as failure:
                    self._outcomes.fail(session, f"its cache cannot be restored: {failure}")
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
            self._outcomes.fail(session, refused)
            taken = []
        return taken

    def _refused(
        self, wanted: Sequence[tuple[SessionState, int, int]], others: Iterable[SessionState]
    ) -> str | None:
        """Why the pages that a step needs are not free; None where they are."""
        try:
            if self._residence.make_room(wanted, others):
                return None
        except Exception as failure:
            # Who was to leave is still there, and is not who fails.
            return f"no room can be made for it: {one_line(failure)}"
        return "the session no longer fits the memory of the engine"


def _to_see(run: FrameRun, taken: Taken, ahead: int) -> int:
    """How many of a run's steps the tower has to have seen.

    Words of a job make its chunks small, and not what the tower sees at once: nobody shares the
    step, so that it may go ahead.
    """
    if not taken.work.alone or run.n_encoded >= taken.units:
        return taken.units
    return max(taken.units, ahead)
