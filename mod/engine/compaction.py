"""What a policy lets go of, taken out of a session's cache: rows moved together and rotated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mod.engine.blocks import Block
from mod.engine.cache import Memory, PagedCache, rows_of
from mod.engine.log import FRAME, StreamLog
from mod.engine.pages import OutOfPagesError
from mod.engine.policy import Departure, Retrieve
from mod.engine.rotation import Rotation
from mod.engine.state import SessionState
from mod.layout import Layout
from mod.places import Cursor, Places


def shifts(ids: Sequence[int], keep: Sequence[bool], places: Places) -> Tensor:
    """(axes, entries) by how much each entry moves when those that are not kept go."""
    stay = [entry for entry, stays in zip(ids, keep, strict=True) if stays]
    after = iter(places.bases(stay, Cursor()))
    before = places.bases(ids, Cursor())
    nothing = (0,) * places.axes
    moved = [
        tuple(b - a for a, b in zip(lies, next(after), strict=True)) if stays else nothing
        for lies, stays in zip(before, keep, strict=True)
    ]
    return torch.tensor(moved, dtype=torch.long).T


class Compactor:
    """Takes from sessions what their policies let go of, once it is due."""

    def __init__(
        self, memory: Memory, rotation: Rotation, layout: Layout, tokens_per_frame: int
    ) -> None:
        self._memory, self._rotation, self._layout = memory, rotation, layout
        self._tokens_per_frame = tokens_per_frame

    def due(self, session: SessionState) -> bool:
        """Whether something leaves before the session goes on; never while it speaks."""
        return session.turn is None and session.policy.due(session.past)

    def leaving(self, session: SessionState) -> list[int]:
        """Per class of layers, the rows of the block that is due to leave, at most."""
        past = session.past
        start = past.sinks + past.words
        block = session.log.ids[start : start + past.blocks[0]]
        return [int(rows_of(block, kind).sum()) for kind in self._memory.classes]

    def settle(self, session: SessionState) -> None:
        """Take out what is due; the session's cache must be in place.

        Raises:
            OutOfPagesError: there is no room beside a fork that shares the pages; the session is
                then cold, what it keeps in its ``saved``.
        """
        if not self.due(session):
            return
        cache, ids = session.cache, session.log.ids
        assert cache is not None
        departure = session.policy.depart(session.past, ids, self._layout, self._tokens_per_frame)
        if isinstance(session.policy, Retrieve):
            blocks = [
                self._offloaded(cache, ids, entries, session.places, session.policy.folder)
                for entries in departure.blocks
                if len(entries)
            ]
            session.blocks = [*session.blocks, *blocks]
        if all(departure.keep):
            # What left was text, and all of it is kept as such: nothing moves.
            session.past = departure.past
            return
        lengths, moved = self._moved(cache, ids, departure, session.places)
        cache.truncate(lengths)
        session.log = _pruned(session.log, departure.keep)
        session.past = departure.past
        session.cursor = session.places.after(Cursor(), session.log.ids)
        for kind in self._memory.classes:
            for layer in kind.layers:
                session.lengths[layer] = int(rows_of(session.log.ids, kind).sum())
        try:
            cache.load(moved)
        except OutOfPagesError:
            session.saved = [
                torch.cat([stay, part.cpu()], dim=2)
                for stay, part in zip(cache.save(), moved, strict=True)
            ]
            cache.release()
            session.cache = None
            raise

    def _moved(
        self, cache: PagedCache, ids: Sequence[int], departure: Departure, places: Places
    ) -> tuple[list[int], list[Tensor]]:
        """Lengths per layer of what stays where it is, and the rows behind it as they will lie."""
        first = departure.keep.index(False)
        by = shifts(ids, departure.keep, places)
        stays = torch.tensor(departure.keep)
        stays[:first] = False
        lengths = [0] * len(self._memory.place)
        moved = []
        for c, kind in enumerate(self._memory.classes):
            counts = rows_of(ids, kind)
            rows = torch.repeat_interleave(stays, counts).nonzero()[:, 0]
            part = cache.rows(c, rows)
            moves = torch.repeat_interleave(by, counts, dim=1)[:, rows]
            turned = self._rotation.turn(part[0], moves)
            part[0] = turned.to(part.dtype)
            moved.append(part)
            for layer in kind.layers:
                lengths[layer] = int(counts[:first].sum())
        return lengths, moved

    def _offloaded(
        self,
        cache: PagedCache,
        ids: Sequence[int],
        entries: range,
        places: Places,
        folder: str | None,
    ) -> Block:
        """A copy of a block's rows, and what questions find it by."""
        inside = ids[entries.start : entries.stop]
        cursor = places.after(Cursor(), ids[: entries.start])
        bases = torch.tensor(places.bases(inside, cursor), dtype=torch.long).T
        rows, means = [], []
        for c, kind in enumerate(self._memory.classes):
            start = int(rows_of(ids[: entries.start], kind).sum())
            length = int(rows_of(inside, kind).sum())
            part = cache.rows(c, torch.arange(start, start + length))
            # Where in its frame a routed token lies is known to no log; its frame's place will do.
            near = torch.repeat_interleave(bases, rows_of(inside, kind), dim=1)
            means.append(self._rotation.turn(part[0], -near).mean(1).cpu())
            rows.append(part.cpu())
        return Block(inside, cursor, rows, means, folder)


def _pruned(log: StreamLog, keep: Sequence[bool]) -> StreamLog:
    """The entries of a log that stay."""
    frames = [stays for token, stays in zip(log.ids, keep, strict=True) if token == FRAME]
    return StreamLog(
        [token for token, stays in zip(log.ids, keep, strict=True) if stays],
        [part for part, stays in zip(log.features, frames, strict=True) if stays],
        log.last,
    )
