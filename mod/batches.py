"""From dialogues to one training batch: token ids, frame places and LIVE labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mod.config import VideoLLMMoDConfig
from mod.decoder import frames_before
from mod.dialogue import Dialogue
from mod.layout import Parts, StreamLayout

IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """Sequences of equal length, flattened.

    Attributes:
        token_ids: (tokens,) ids; vision places hold ``end`` and are overwritten.
        labels: (tokens,) the id each position must predict, ``IGNORE`` where nothing is asked.
        positions: (tokens,).
        frames: (frames, height, width, 3) uint8.
        before: the frame before each of them, a sequence's first standing for its own.
        frame_starts: (frames,) index of each frame's first vision token.
        lengths: tokens of each sequence.
        colours: (frames, 3) mean RGB in 0-1.
        cuts, moves, things: the ``Labels`` of all frames; None where a dialogue has none.
    """

    token_ids: Tensor
    labels: Tensor
    positions: Tensor
    frames: Tensor
    before: Tensor
    frame_starts: Tensor
    lengths: list[int]
    colours: Tensor
    cuts: Tensor | None = None
    moves: Tensor | None = None
    things: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)  # type: ignore[arg-type]


def collate(
    dialogues: Sequence[Dialogue], layout: StreamLayout, config: VideoLLMMoDConfig
) -> Batch:
    """Lay dialogues out as the LIVE objective wants them.

    Supervised: at a frame's last vision token, silence or the narration's first word; each word
    of a narration or answer and its ``end``. Questions, instructions and what is doubtful are
    only read.
    """
    rows = [_lay_out(d, layout, config) for d in dialogues]
    width = max(len(ids) for ids, _, _ in rows)
    n_ids, n_labels, starts = [], [], []
    for i, (ids, labels, places) in enumerate(rows):
        # Padding at the end is never attended to by what comes before it.
        pad = width - len(ids)
        n_ids += ids + [layout.end] * pad
        n_labels += labels + [IGNORE] * pad
        starts += [i * width + place for place in places]
    shown = [torch.from_numpy(d.frames) for d in dialogues if len(d.frames)]
    nothing = torch.zeros((0, 1, 1, 3), dtype=torch.uint8)
    frames = torch.cat(shown) if shown else nothing
    before = torch.cat([frames_before(f, None) for f in shown]) if shown else nothing
    known = [d.labels for d in dialogues if d.labels is not None]
    full = bool(shown) and len(known) == len(dialogues)
    return Batch(
        token_ids=torch.tensor(n_ids),
        labels=torch.tensor(n_labels),
        positions=torch.arange(width).repeat(len(rows)),
        frames=frames,
        before=before,
        frame_starts=torch.tensor(starts, dtype=torch.long),
        lengths=[width] * len(rows),
        colours=frames.float().mean(dim=(1, 2)) / 255.0,
        cuts=torch.from_numpy(np.concatenate([k.cuts for k in known])) if full else None,
        moves=torch.from_numpy(np.concatenate([k.moves for k in known])) if full else None,
        things=torch.from_numpy(np.concatenate([k.things for k in known])) if full else None,
    )


def _lay_out(
    dialogue: Dialogue, layout: StreamLayout, config: VideoLLMMoDConfig
) -> tuple[list[int], list[int], list[int]]:
    ids: list[int] = []
    labels: list[int] = []
    places: list[int] = []

    def read(tokens: list[int]) -> None:
        ids.extend(tokens)
        labels.extend([IGNORE] * len(tokens))

    def say(tokens: list[int]) -> None:
        """Supervise ``tokens``, the first from the position before."""
        labels[-1] = tokens[0]
        ids.extend(tokens)
        labels.extend([*tokens[1:], IGNORE])

    # What stands before the next frame or question, tokenized together with it.
    lead = layout.opening(config.instruction)
    watching = False

    def before(parts: Parts) -> None:
        nonlocal lead
        read(layout.ids([*lead, *parts]))
        lead = ()

    turns = list(dialogue.turns)
    for index in range(len(dialogue.texts) + 1):
        while turns and turns[0].after == index:
            turn = turns.pop(0)
            request = turn.question if turn.question is not None else config.summary_request
            asked = f"{turn.notes} {request}".strip()
            before(layout.question(asked, watching=watching))
            say(layout.words(turn.answer))
            watching = False
        if index == len(dialogue.texts):
            break
        text = dialogue.texts[index]
        before(layout.before(index, index, config.fps, watching=watching, expected=None))
        places.append(len(ids))
        read([layout.end] * config.tokens_per_frame)
        watching = text is None
        doubtful = index in dialogue.doubtful
        if text is None:
            labels[-1] = IGNORE if doubtful else layout.silence
            read(layout.after())
            continue
        words = [*layout.ids(layout.speaking), *layout.words(text)]
        if doubtful:
            read(words)
        else:
            say(words)
    return ids, labels, places
