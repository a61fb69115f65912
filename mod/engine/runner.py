"""The model under the engine: frames through the tower, ragged items through the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mod.engine.cache import Memory, PagedCache
from mod.engine.graphs import DecodeGraphs
from mod.engine.log import FRAME, StreamLog
from mod.engine.paged import Kernel, PagedStep
from mod.engine.recall import Recall
from mod.engine.state import FrameRun, Question, SessionState
from mod.modeling import Stream, VideoLLMMoD

#: Tokens of one piece when a cache is computed again from its log.
REBUILD_TOKENS = 512


@dataclass(frozen=True)
class Item:
    """One session's part of a step.

    Attributes:
        ids: token ids in stream order, ``FRAME`` where a frame lies.
        features: of those frames, (frames, tokens, D).
        wanted: places among the tokens whose next-token logits are needed.
    """

    session: SessionState
    ids: list[int]
    features: Tensor | None
    wanted: list[int]
    frames: int = 0
    question: Question | None = None


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


def read(logits: Tensor, silence: int) -> Reading:
    """Logits (places, vocabulary) as decisions; the device is waited for once."""
    words = logits.index_fill(1, torch.tensor([silence], device=logits.device), -torch.inf)
    found = torch.stack(
        [
            torch.isfinite(logits).all(1).double(),
            logits.softmax(-1)[:, silence].double(),
            logits.argmax(-1).double(),
            words.argmax(-1).double(),
        ]
    ).tolist()
    finite, quiet, best, word = found
    return Reading([f > 0 for f in finite], quiet, [int(t) for t in best], [int(t) for t in word])


def one_line(failure: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    reason = (str(failure).strip() or "no reason given").splitlines()[0]
    return f"{type(failure).__name__}: {reason}"


def _decodes(item: Item) -> bool:
    """Whether an item is one token that looks at nothing but its session."""
    return len(item.ids) == 1 and not item.frames and item.session.recall is None


def _cache_of(session: SessionState) -> PagedCache | Recall:
    """What a session's tokens attend to."""
    assert session.cache is not None
    return session.recall or session.cache


def _undo(session: SessionState) -> None:
    """Take back what a failed step did to a session."""
    assert session.cache is not None
    session.cache.truncate(session.lengths)
    if session.recall is not None:
        session.recall.undo()


class Runner:
    """Runs a model on behalf of sessions; what fails leaves no trace in any cache.

    Args:
        silence: id of the silence token.
        kernel: attends over pages; None attends session by session.
        graphs: runs decode-only steps; None runs them as any other.
    """

    def __init__(
        self,
        model: VideoLLMMoD,
        memory: Memory,
        silence: int,
        kernel: Kernel | None = None,
        graphs: DecodeGraphs | None = None,
    ) -> None:
        self._model, self._memory, self._silence = model, memory, silence
        self._kernel, self._graphs = kernel, graphs
        self._device: torch.device = model.get_input_embeddings().weight.device

    def encode(self, wanted: Sequence[tuple[FrameRun, int]]) -> list[str | None]:
        """Run the tower once, over the first frames of each run as far as they lack features.

        Returns:
            For each run None, or one line about why its frames cannot be encoded.
        """
        new = [run.to_encode(count) for run, count in wanted]
        todo = [(run, *frames) for (run, _), frames in zip(wanted, new, strict=True) if frames]
        if not todo:
            return [None] * len(wanted)
        try:
            features = self._model.encode_frames(
                torch.cat([pixels for _, pixels, _ in todo]).to(self._device),
                torch.cat([before for _, _, before in todo]).to(self._device),
            )
        except Exception as failure:
            if len(wanted) > 1:
                return [self.encode([one])[0] for one in wanted]
            return [one_line(failure)]
        counts = [len(pixels) for _, pixels, _ in todo]
        for (run, _, _), part in zip(todo, torch.split(features, counts), strict=True):
            run.features = part if run.features is None else torch.cat([run.features, part])
        return [None] * len(wanted)

    def run(self, items: Sequence[Item]) -> list[Reading | str]:
        """What each item's places say, or one line about why it failed; then it left no trace."""
        try:
            readings = read(self._logits(items), self._silence)
        except Exception as failure:
            for item in items:
                _undo(item.session)
            if len(items) > 1:
                # Whoever caused it fails again alone; the others do not notice.
                return [self.run([item])[0] for item in items]
            return [one_line(failure)]
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

    def _logits(self, items: Sequence[Item]) -> Tensor:
        """One forward over the items; float32 logits (all wanted places, vocabulary)."""
        caches = [_cache_of(item.session) for item in items]
        if self._graphs and self._kernel and all(_decodes(item) for item in items):
            counts = [[1] * len(items)] * len(self._memory.classes)
            step = PagedStep(self._memory, self._kernel, caches, counts)
            ids = [item.ids[0] for item in items]
            places = [item.session.position for item in items]
            return self._graphs.run(ids, places, step.host)
        parts, positions, starts, frames, wanted = [], [], [], [], []
        base = 0
        for item in items:
            embeddings, frame_starts = self._embed(item.ids, item.features)
            length = len(embeddings)
            parts.append(embeddings)
            positions.append(torch.arange(length) + item.session.position)
            starts += [base + s for s in frame_starts]
            wanted += [base + w for w in item.wanted]
            frames.append(len(frame_starts))
            base += length
        hidden = self._forward(parts, torch.cat(positions), starts, frames, caches)
        out: Tensor = self._model.logits(hidden[torch.tensor(wanted, device=self._device)])
        return out.float()

    def _forward(
        self,
        parts: Sequence[Tensor],
        positions: Tensor,
        starts: list[int],
        frames: list[int],
        caches: Sequence[PagedCache | Recall],
    ) -> Tensor:
        """Hidden states of some sequences' new tokens ``parts``, appended to their caches."""
        lengths = [len(part) for part in parts]
        paged = None
        if self._kernel is not None:
            n = self._model.config.tokens_per_frame
            new = [
                [
                    length - count * (n - kind.tokens_per_frame)
                    for length, count in zip(lengths, frames, strict=True)
                ]
                for kind in self._memory.classes
            ]
            paged = PagedStep(self._memory, self._kernel, caches, new)
        stream = Stream(
            torch.cat(list(parts)),
            positions.to(self._device),
            torch.tensor(starts, dtype=torch.long, device=self._device),
            lengths,
            None if paged else caches,
            frames,
            paged,
        )
        out: Tensor = self._model(stream)
        return out

    def _embed(self, ids: Sequence[int], features: Tensor | None) -> tuple[Tensor, list[int]]:
        """Ids and frames as embeddings (tokens, D), and where frames start."""
        text = self._model.embed_text(torch.tensor([max(0, i) for i in ids], device=self._device))
        if features is None:
            return text, []
        pieces, starts, place, frame, run = [], [], 0, 0, 0
        n = features.shape[1]
        for i, token in enumerate(ids):
            if token != FRAME:
                continue
            pieces += [text[run:i], features[frame].to(text)]
            place += i - run
            starts.append(place)
            place += n
            frame, run = frame + 1, i + 1
        pieces.append(text[run:])
        return torch.cat(pieces), starts

    def rebuild(self, log: StreamLog, cache: PagedCache) -> None:
        """Feed a log into an empty cache, in large pieces."""
        position = 0
        for ids, features in log.pieces(REBUILD_TOKENS):
            embeddings, starts = self._embed(ids, features)
            end = position + len(embeddings)
            self._forward([embeddings], torch.arange(position, end), starts, [len(starts)], [cache])
            position = end
