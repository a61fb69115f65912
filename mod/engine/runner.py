"""The model under the engine: frames through the tower, ragged items through the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mod.change import change
from mod.decoder import RoutedDecoder, Stream, frames_before
from mod.engine.cache import Memory, PagedCache
from mod.engine.graphs import DecodeGraphs
from mod.engine.kept import hand_out
from mod.engine.log import FRAME, StreamLog, token_of
from mod.engine.paged import Kernel, PagedStep, on_device
from mod.engine.recall import Recall
from mod.engine.state import FrameRun, Question, SessionState
from mod.places import Cursor, Places
from mod.routing import Routing

#: Tokens of one piece when a cache is computed again from its log.
REBUILD_TOKENS = 512


@dataclass(frozen=True)
class Item:
    """One session's part of a step.

    Attributes:
        ids: entries in stream order, as in a log.
        features: of its frames, (frames, tokens, D).
        wanted: places among the tokens whose next-token logits are needed.
        frames: of the session's run that it takes.
        lead: how many of the entries close what was before, those ``ahead`` included.
        cuts: of each step, how many entries become part of the stream when it is the last: where
            something is said at it, and where nothing is.
        ahead: entries before ``ids`` that the cache holds and that are not committed.
        more: whether more text is to come before anything can be read or committed.
    """

    session: SessionState
    ids: list[int]
    features: Tensor | None
    wanted: list[int]
    frames: int = 0
    question: Question | None = None
    lead: int = 0
    cuts: Sequence[tuple[int, int]] = ()
    ahead: Sequence[int] = ()
    more: bool = False


@dataclass(frozen=True)
class Fed:
    """What one sequence is fed.

    Attributes:
        ids: entries, as in a log.
        features: of its frames, (frames, tokens, D).
        places: how frames lie along the axes of positions.
        cursor: where the stream goes on.
        last: features of the frame before the first of them, (tokens, D); None where the stream
            begins.
    """

    ids: Sequence[int]
    features: Tensor | None
    places: Places
    cursor: Cursor
    last: Tensor | None = None


@dataclass(frozen=True)
class Reading:
    """What the model says at some places of a step, one entry for each.

    Attributes:
        finite: whether its logits are numbers.
        p_silence: probability of the silence token (0-1).
        best: the likeliest token.
        best_word: the likeliest token but for silence.
    """

    finite: list[bool]
    p_silence: list[float]
    best: list[int]
    best_word: list[int]

    def part(self, start: int, end: int) -> Reading:
        """Some places in a row."""
        span = slice(start, end)
        return Reading(
            self.finite[span], self.p_silence[span], self.best[span], self.best_word[span]
        )


def read(logits: Tensor, silence: int | None) -> Reading:
    """Logits (places, vocabulary) as decisions; the device is waited for once."""
    if not len(logits):
        return Reading([], [], [], [])
    words, quiet = logits, torch.zeros(len(logits), dtype=torch.double, device=logits.device)
    if silence is not None:
        words = logits.clone()
        words[:, silence] = -torch.inf
        quiet = logits.softmax(-1)[:, silence].double()
    found = torch.stack(
        [
            torch.isfinite(logits).all(1).double(),
            quiet,
            logits.argmax(-1).double(),
            words.argmax(-1).double(),
        ]
    ).tolist()
    finite, silent, best, word = found
    return Reading([f > 0 for f in finite], silent, [int(t) for t in best], [int(t) for t in word])


def one_line(failure: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    reason = (str(failure).strip() or "no reason given").splitlines()[0]
    return f"{type(failure).__name__}: {reason}"


def _decodes(item: Item) -> bool:
    """Whether an item is one token that looks at nothing but its session."""
    alone = len(item.ids) == 1 and len(item.wanted) == 1 and item.features is None
    return alone and not item.frames and item.session.recall is None


def _cursor(item: Item) -> Cursor:
    """Where an item's first token stands in its stream."""
    session, turn = item.session, item.session.turn
    if turn is None:
        return session.places.after(session.cursor, item.ahead) if item.ahead else session.cursor
    if not turn.fed:
        return session.cursor
    return session.places.after(session.cursor, [*turn.prompt, *turn.said][: turn.fed])


def _cache_of(session: SessionState) -> PagedCache | Recall:
    """What a session's tokens attend to."""
    assert session.cache is not None
    return session.recall or session.cache


def _before(fed: Sequence[Fed], like: Tensor) -> Tensor:
    """Features of the frame before each that is fed, (frames, tokens, D); made ``like``.

    Sessions that were begun elsewhere have theirs on the host.
    """
    return torch.cat(
        [
            frames_before(part.features.to(like), None if part.last is None else part.last.to(like))
            for part in fed
            if part.features is not None
        ]
    )


def _lengths(session: SessionState) -> list[int]:
    """Tokens per layer that a session's cache holds, those that are not committed included."""
    assert session.cache is not None
    return session.cache.lengths


def _cut_back(session: SessionState, lengths: list[int]) -> None:
    """Take back what a failed step did to a session that held ``lengths`` before."""
    assert session.cache is not None
    session.cache.truncate(lengths)
    if session.recall is not None:
        session.recall.undo()


def _undo(session: SessionState) -> None:
    """Take back what a session's failed input did to it, in the steps before as well."""
    _cut_back(session, session.lengths)
    session.ahead = 0
    if session.turn is not None:
        session.turn.fed = 0


class Runner:
    """Runs a model on behalf of sessions; what fails leaves no trace in any cache.

    Args:
        silence: id of the silence token; None where there is none.
        kernel: attends over pages; None attends session by session.
        graphs: runs decode-only steps; None runs them as any other.
    """

    def __init__(
        self,
        model: RoutedDecoder,
        memory: Memory,
        silence: int | None,
        kernel: Kernel | None = None,
        graphs: DecodeGraphs | None = None,
    ) -> None:
        self._model, self._memory, self._silence = model, memory, silence
        self._kernel, self._graphs = kernel, graphs
        self._device: torch.device = model.get_input_embeddings().weight.device

    def encode(self, wanted: Sequence[tuple[FrameRun, int, bool]]) -> list[str | None]:
        """Run the tower once, over the first steps of each run as far as they lack features.

        Args:
            wanted: runs, how many of their steps, and whether the first was begun before them.

        Returns:
            For each run None, or one line about why its frames cannot be encoded.
        """
        per_step = self._model.config.frames_per_step
        new = [run.to_encode(steps, per_step, begun=begun) for run, steps, begun in wanted]
        todo = [(run, *frames) for (run, *_), frames in zip(wanted, new, strict=True) if frames]
        if not todo:
            return [None] * len(wanted)
        try:
            pixels = self._pixels([pixels for _, pixels, _ in todo])
            before = pixels
            if self._model.config.frame_difference:
                before = self._pixels([before for _, _, before in todo])
            features = self._model.encode_frames(pixels, before)
        except Exception as failure:
            if len(wanted) > 1:
                return [self.encode([one])[0] for one in wanted]
            return [one_line(failure)]
        counts = [len(pixels) // per_step for _, pixels, _ in todo]
        for (run, _, _), part in zip(todo, torch.split(features, counts), strict=True):
            run.features = part if run.features is None else torch.cat([run.features, part])
        return [None] * len(wanted)

    def run(self, items: Sequence[Item]) -> list[Reading | str]:
        """What each item's places say, or one line about why it failed; then it left no trace."""
        fed = [item for item in items if item.ids]
        if len(fed) < len(items):
            # The others took frames that make no step yet.
            told = iter(self.run(fed) if fed else [])
            return [next(told) if item.ids else Reading([], [], [], []) for item in items]
        before = [_lengths(item.session) for item in items]
        readings = self._tried(items)
        if isinstance(readings, str):
            if len(items) == 1:
                _undo(items[0].session)
                return [readings]
            # Whoever caused it fails again alone; the others do not notice: what they hold beyond
            # what is committed stays, as their items go on from there.
            for item, lengths in zip(items, before, strict=True):
                _cut_back(item.session, lengths)
            return [self.run([item])[0] for item in items]
        outcomes: list[Reading | str] = []
        start = 0
        for item in items:
            end = start + len(item.wanted)
            part = readings.part(start, end)
            start = end
            if all(part.finite):
                outcomes.append(part)
                continue
            _undo(item.session)
            outcomes.append("the model gave logits that are no numbers")
        return outcomes

    def _tried(self, items: Sequence[Item]) -> Reading | str:
        """What the places of all items say, or one line about why it failed."""
        try:
            return read(self._logits(items), self._silence)
        except Exception as failure:
            # No more than a line is kept of it: its traceback would hold the memory of the step.
            return one_line(failure)

    def _logits(self, items: Sequence[Item]) -> Tensor:
        """One forward over the items; float32 logits (all wanted places, vocabulary)."""
        caches = [_cache_of(item.session) for item in items]
        if self._graphs and self._kernel and all(_decodes(item) for item in items):
            counts = [[1] * len(items)] * len(self._memory.classes)
            step = PagedStep(self._memory, self._kernel, caches, counts)
            ids = [item.ids[0] for item in items]
            # Text lies at one place along all axes.
            places = [_cursor(item).at for item in items]
            return self._graphs.run(ids, places, step.host)
        fed = [
            Fed(item.ids, item.features, session.places, _cursor(item), session.log.last)
            for item in items
            for session in (item.session,)
        ]
        watched = any(item.session.kept is not None for item in items)
        routings: dict[int, Routing] | None = {} if watched else None
        hidden, bases = self._forward(fed, caches, routings)
        if routings is not None:
            hand_out([(i.session.kept, i.ids.count(FRAME)) for i in items], routings)
        wanted = [b + w for b, item in zip(bases, items, strict=True) for w in item.wanted]
        out: Tensor = self._model.logits(hidden[on_device(wanted, torch.long, self._device)])
        return out.float()

    def _forward(
        self,
        fed: Sequence[Fed],
        caches: Sequence[PagedCache | Recall],
        routings: dict[int, Routing] | None = None,
    ) -> tuple[Tensor, list[int]]:
        """Append some sequences' new tokens to their caches.

        Args:
            routings: filled with the outcome of each MoD layer's router, when given.

        Returns:
            Hidden states (tokens, D) of all of them, and where each sequence's begin.
        """
        n = self._model.config.tokens_per_frame
        # All of a step goes to the device at once: a hundred sessions are no hundred copies.
        words: list[int] = []
        positions: list[list[int]] = [[] for _ in range(fed[0].places.axes)]
        starts: list[int] = []
        bases: list[int] = []
        frames: list[int] = []
        for part in fed:
            base, first = len(words), len(starts)
            bases.append(base)
            for token in part.ids:
                if token == FRAME:
                    starts.append(len(words))
                    words += [0] * n
                else:
                    words.append(token_of(token))
            frames.append(len(starts) - first)
            placed = part.places.tokens(part.ids, part.cursor)
            for axis, more in zip(positions, placed, strict=True):
                axis += more
        lengths = [b - a for a, b in pairwise([*bases, len(words)])]
        embeddings = self._model.embed_text(on_device(words, torch.long, self._device))
        frame_starts = on_device(starts, torch.long, self._device)
        pictures = [part.features for part in fed if part.features is not None]
        changes = deep = None
        if pictures:
            seen = torch.cat(pictures).to(embeddings)
            embeddings, deep = self._model.woven(embeddings, frame_starts, seen)
            if self._model.config.router == "redundancy":
                width = embeddings.shape[1]
                changes = change(seen[..., :width], _before(fed, seen)[..., :width])
        paged = None
        if self._kernel is not None:
            new = [
                [
                    length - count * (n - kind.tokens_per_frame)
                    for length, count in zip(lengths, frames, strict=True)
                ]
                for kind in self._memory.classes
            ]
            paged = PagedStep(self._memory, self._kernel, caches, new)
        stream = Stream(
            embeddings,
            on_device(positions if len(positions) > 1 else positions[0], torch.long, self._device),
            frame_starts,
            lengths,
            None if paged else caches,
            frames,
            paged,
            changes,
            deep,
        )
        out: Tensor = self._model(stream, routings)
        return out, bases

    def _pixels(self, parts: Sequence[Tensor]) -> Tensor:
        """Frames (n, height, width, 3) of several runs, on the device."""
        if self._device.type != "cuda":
            return torch.cat(list(parts)).to(self._device)
        shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
        together = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        torch.cat(list(parts), out=together)
        return together.to(self._device, non_blocking=True)

    def rebuild(self, log: StreamLog, places: Places, cache: PagedCache) -> None:
        """Feed a log into an empty cache, in large pieces."""
        cursor = Cursor()
        last = None
        for ids, features in log.pieces(REBUILD_TOKENS):
            self._forward([Fed(ids, features, places, cursor, last)], [cache])
            cursor = places.after(cursor, ids)
            last = last if features is None else features[-1]
