"""Which sessions have their cache in memory: eviction, coming back, what answers look back at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from mod.engine.cache import Memory, PagedCache
from mod.engine.compaction import Compactor
from mod.engine.figures import Figures
from mod.engine.log import FRAME
from mod.engine.policy import Retrieve
from mod.engine.recall import Recall, pages_for
from mod.engine.rotation import Rotation
from mod.engine.runner import Runner
from mod.engine.state import Question, SessionState
from mod.engine.work import question_ids
from mod.layout import Layout


class Residence:
    """Moves sessions' caches out of pages and back; no session is ever pinned.

    Args:
        spill: what becomes of an evicted cache: ``copy`` keeps its content in host memory,
            ``rebuild`` drops it and computes it again from the log. A session that let go of
            something is copied either way: what it keeps was computed when the rest was there.
        figures: where evictions are counted.
    """

    def __init__(
        self,
        memory: Memory,
        runner: Runner,
        rotation: Rotation,
        layout: Layout,
        tokens_per_frame: int,
        spill: Literal["copy", "rebuild"],
        figures: Figures,
    ) -> None:
        self._figures = figures
        self._memory, self._runner, self._spill = memory, runner, spill
        self._rotation, self._layout = rotation, layout
        self._compactor = Compactor(memory, rotation, layout, tokens_per_frame)

    def evict(self, session: SessionState) -> None:
        """Free a session's pages."""
        if session.cache is None:
            return
        session.forget_recall()
        session.drop_uncommitted()
        copied = self._spill == "copy" or session.past.left
        session.saved = session.cache.save() if copied else None
        session.cache.release()
        session.cache = None
        self._figures.evictions += 1

    def bring_in(self, session: SessionState) -> None:
        """Have a session's cache in place: restored or rebuilt, without what was due to leave."""
        if session.cache is None:
            cache = PagedCache(self._memory)
            try:
                if session.saved is not None:
                    cache.load(session.saved)
                else:
                    self._runner.rebuild(session.log, session.places, cache)
            except BaseException:
                cache.release()
                raise
            session.cache, session.saved = cache, None
        self._compactor.settle(session)
        if session.recall is None and session.turn and session.turn.picked is not None:
            session.recall = self._recall(session, picked=session.turn.picked)

    def look_back(self, session: SessionState) -> None:
        """Have the question that comes next look back at what left the session's window."""
        if session.turn:
            return
        session.forget_recall()
        head = session.inbox[0]
        if isinstance(head, Question) and session.blocks:
            asked = question_ids(session, head, self._layout)
            words = len(asked) - (asked.index(FRAME) + 1 if FRAME in asked else 0)
            places = torch.tensor(session.places.tokens(asked, session.cursor))
            session.recall = self._recall(session, question=places[:, -words:])

    def _recall(
        self,
        session: SessionState,
        *,
        question: Tensor | None = None,
        picked: list[list[int]] | None = None,
    ) -> Recall:
        assert session.cache is not None
        assert isinstance(session.policy, Retrieve)
        return Recall(
            self._memory,
            self._rotation,
            session.cache,
            session.blocks,
            count=session.policy.blocks,
            words=session.past.words,
            places=session.places,
            question=question,
            picked=picked,
        )

    def make_room(
        self, wanted: Sequence[tuple[SessionState, int, int]], others: Iterable[SessionState]
    ) -> bool:
        """Whether the pages that a step needs are free; evicts others to get there.

        Args:
            wanted: each session of the step, its text tokens and its frames.
            others: sessions outside the step; idle ones go first, then the longest unused.
        """
        needed = [0] * len(self._memory.pools)
        for session, n_text, n_frames in wanted:
            for c, pages in enumerate(self._pages_needed(session, n_text, n_frames)):
                needed[c] += pages
        warm = sorted((s for s in others if s.cache), key=lambda s: (s.busy, s.used))
        while any(n > pool.n_free for n, pool in zip(needed, self._memory.pools, strict=True)):
            if not warm:
                return False
            self.evict(warm.pop(0))
        return True

    def _pages_needed(self, session: SessionState, n_text: int, n_frames: int) -> list[int]:
        """Per class of layers, the pages that a session takes in a step at most."""
        due = self._compactor.due(session)
        needed = []
        for c, kind in enumerate(self._memory.classes):
            beside = self._layout.beside_tokens
            new = n_text + n_frames * (kind.tokens_per_frame + beside)
            if session.cache is None:
                size = self._memory.pools[c].page_size
                needed.append(-(-(session.lengths[kind.layers[0]] + new) // size))
            else:
                # What is due to leave frees at least as much as is moved, but for shared pages.
                shared = session.cache.shared_pages(c) if due else 0
                needed.append(session.cache.pages_needed(c, new) + shared)
        asks = not session.turn and session.inbox and isinstance(session.inbox[0], Question)
        answers = session.turn and session.turn.picked is not None and session.recall is None
        if isinstance(session.policy, Retrieve) and (asks or answers):
            lengths = [block.lengths for block in session.blocks]
            if due:
                lengths.append(self._compactor.leaving(session))
            extra = pages_for(self._memory, lengths, session.policy.blocks)
            return [a + b for a, b in zip(needed, extra, strict=True)]
        return needed
