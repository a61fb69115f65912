"""Which sessions have their cache in memory: eviction, and coming back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from mod.engine.cache import Memory, PagedCache
from mod.engine.runner import Runner
from mod.engine.state import SessionState


class Residence:
    """Moves sessions' caches out of pages and back; no session is ever pinned.

    Args:
        spill: what becomes of an evicted cache: ``copy`` keeps its content in host memory,
            ``rebuild`` drops it and computes it again from the log.
    """

    def __init__(self, memory: Memory, runner: Runner, spill: Literal["copy", "rebuild"]) -> None:
        self._memory, self._runner, self._spill = memory, runner, spill

    def evict(self, session: SessionState) -> None:
        """Free a session's pages."""
        if session.cache is None:
            return
        session.saved = session.cache.save() if self._spill == "copy" else None
        session.cache.release()
        session.cache = None

    def bring_in(self, session: SessionState) -> None:
        """Restore or rebuild a cold session's cache."""
        if session.cache is not None:
            return
        cache = PagedCache(self._memory)
        try:
            if session.saved is not None:
                cache.load(session.saved)
            else:
                self._runner.rebuild(session.log, cache)
        except BaseException:
            cache.release()
            raise
        session.cache, session.saved = cache, None

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
            for c, kind in enumerate(self._memory.classes):
                new = n_text + n_frames * (kind.tokens_per_frame + 1)
                size = self._memory.pools[c].page_size
                if session.cache is None:
                    needed[c] += -(-(session.lengths[kind.layers[0]] + new) // size)
                else:
                    needed[c] += session.cache.pages_needed(c, new)
        warm = sorted((s for s in others if s.cache), key=lambda s: (s.busy, s.used))
        while any(n > pool.n_free for n, pool in zip(needed, self._memory.pools, strict=True)):
            if not warm:
                return False
            self.evict(warm.pop(0))
        return True
