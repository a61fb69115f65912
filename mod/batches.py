"""From dialogues to one training batch: token ids, frame places and LIVE labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mod.config import VideoLLMMoDConfig
from mod.layout import StreamLayout
from mod.world.dialogues import Dialogue

IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """Sequences of equal length, flattened.

    Attributes:
        token_ids: (tokens,) ids; vision places hold ``end`` and are overwritten.
        labels: (tokens,) the id each position must predict, ``IGNORE`` where nothing is asked.
        positions: (tokens,).
        frames: (frames, height, width, 3) uint8.
        frame_starts: (frames,) index of each frame's first vision token.
        lengths: tokens of each sequence.
        cuts: (frames,) bool; moves: (frames,) int64, -1 undefined.
        colours: (frames, 3) mean RGB in 0-1.
    """

    token_ids: Tensor
    labels: Tensor
    positions: Tensor
    frames: Tensor
    frame_starts: Tensor
    lengths: list[int]
    cuts: Tensor
    moves: Tensor
    colours: Tensor


def collate(
    dialogues: Sequence[Dialogue], layout: StreamLayout, config: VideoLLMMoDConfig
) -> Batch:
    """Lay dialogues out as the LIVE objective wants them.

    Supervised: at a frame's last vision token, silence or the narration's first word; each word
    of a narration or answer and its ``end``. Questions and instructions are only read.
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
    shown = [d.frames for d in dialogues if len(d.frames)]
    frames = np.concatenate(shown) if shown else np.zeros((0, 1, 1, 3), np.uint8)
    colours = frames.mean(axis=(1, 2), dtype=np.float32) / 255.0
    return Batch(
        token_ids=torch.tensor(n_ids),
        labels=torch.tensor(n_labels),
        positions=torch.arange(width).repeat(len(rows)),
        frames=torch.from_numpy(frames),
        frame_starts=torch.tensor(starts, dtype=torch.long),
        lengths=[width] * len(rows),
        cuts=torch.from_numpy(np.concatenate([d.cuts for d in dialogues])),
        moves=torch.from_numpy(np.concatenate([d.moves for d in dialogues])),
        colours=torch.from_numpy(colours),
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

    read(layout.opening(config.instruction))
    for text in dialogue.texts:
        places.append(len(ids))
        read([layout.end] * config.tokens_per_frame)
        say([layout.silence] if text is None else [*layout.encode(text), layout.end])
    if dialogue.answer is not None:
        request = f"{dialogue.notes} {config.summary_request}".strip()
        read(layout.question(request))
        say([*layout.encode(dialogue.answer), layout.end])
    return ids, labels, places
