"""The model under the engine: frames through the tower, ragged items through the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mod.engine.cache import PagedCache
from mod.engine.log import FRAME, StreamLog
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


def one_line(failure: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    reason = (str(failure).strip() or "no reason given").splitlines()[0]
    return f"{type(failure).__name__}: {reason}"


class Runner:
    """Runs a model on behalf of sessions; what fails leaves no trace in any cache."""

    def __init__(self, model: VideoLLMMoD) -> None:
        self._model = model
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

    def run(self, items: Sequence[Item]) -> list[Tensor | str]:
        """Wanted logits of each item, or one line about why it failed; then it left no trace."""
        try:
            logits = self._logits(items)
        except Exception as failure:
            for item in items:
                assert item.session.cache is not None
                item.session.cache.truncate(item.session.lengths)
            if len(items) > 1:
                # Whoever caused it fails again alone; the others do not notice.
                return [self.run([item])[0] for item in items]
            return [one_line(failure)]
        outcomes: list[Tensor | str] = []
        for item, part in zip(items, logits, strict=True):
            if bool(torch.isfinite(part).all()):
                outcomes.append(part)
                continue
            assert item.session.cache is not None
            item.session.cache.truncate(item.session.lengths)
            outcomes.append("the model gave logits that are no numbers")
        return outcomes

    def _logits(self, items: Sequence[Item]) -> list[Tensor]:
        """One forward over the flattened items; float32 logits at each item's wanted places."""
        parts, positions, starts, lengths, wanted = [], [], [], [], []
        base = 0
        for item in items:
            embeddings, frame_starts = self._embed(item.ids, item.features)
            length = len(embeddings)
            parts.append(embeddings)
            positions.append(torch.arange(length) + item.session.position)
            starts += [base + s for s in frame_starts]
            wanted += [base + w for w in item.wanted]
            lengths.append(length)
            base += length
        caches = [item.session.cache for item in items]
        stream = Stream(
            torch.cat(parts),
            torch.cat(positions).to(self._device),
            torch.tensor(starts, dtype=torch.long, device=self._device),
            lengths,
            caches,  # type: ignore[arg-type]
        )
        hidden = self._model(stream)
        logits = self._model.logits(hidden[torch.tensor(wanted, device=self._device)]).float()
        return list(torch.split(logits, [len(item.wanted) for item in items]))

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
            length = len(embeddings)
            stream = Stream(
                embeddings,
                torch.arange(position, position + length, device=self._device),
                torch.tensor(starts, dtype=torch.long, device=self._device),
                [length],
                [cache],  # type: ignore[list-item]
            )
            self._model(stream)
            position += length
