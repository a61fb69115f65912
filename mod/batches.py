"""From dialogues to one training batch: token ids, frame places and LIVE labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mod.config import RoutedConfig
from mod.decoder import frames_before
from mod.dialogue import Dialogue
from mod.layout import Layout, Parts
from mod.places import FRAME, Cursor, Places

IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """Sequences of equal length, flattened.

    Attributes:
        token_ids: (tokens,) ids; vision places hold ``end`` and are overwritten.
        labels: (tokens,) the id each position must predict, ``IGNORE`` where nothing is asked.
        decisions: (tokens,) bool, where a label is silence or what is spoken instead; elsewhere
            silence may be a word, as VideoLLM-online's comma is.
        positions: (tokens,), or (axes, tokens) of models with several.
        frames: (frames, height, width, 3) uint8; of models that see several as one, whole steps.
        before: the frame before each of them, a sequence's first standing for its own.
        frame_starts: (frames,) index of each frame's, or step's, first vision token.
        lengths: tokens of each sequence.
        colours: (frames, 3) mean RGB in 0-1.
        cuts, moves, things: the ``Labels`` of all frames; None where a dialogue has none.
    """

    token_ids: Tensor
    labels: Tensor
    decisions: Tensor
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


def scaled(frames: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Square pictures of ``side`` pixels, out of (frames, height, width, 3) of any size."""
    if not len(frames) or frames.shape[1:3] == (side, side):
        return frames
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    pictures = F.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True)
    found: NDArray[np.uint8] = pictures.round().byte().permute(0, 2, 3, 1).numpy()
    return found


def collate(
    dialogues: Sequence[Dialogue],
    layout: Layout,
    config: RoutedConfig,
    places: Places | None = None,
) -> Batch:
    """Lay dialogues out as the LIVE objective wants them.

    Supervised: at a frame's last vision token, silence or the narration's first word, where the
    model decides; each word of a narration or answer and its ``end``. Questions, instructions and
    what is doubtful are only read.

    Args:
        places: how frames lie along the axes of the model's positions; None lays all tokens one
            after the other.
    """
    rows = [_Row.of(d, layout, config) for d in dialogues]
    width = max(len(row.ids) for row in rows)
    n_ids, n_labels, starts, decided = [], [], [], []
    for i, row in enumerate(rows):
        # Padding at the end is never attended to by what comes before it.
        pad = width - len(row.ids)
        n_ids += row.ids + [layout.end] * pad
        n_labels += row.labels + [IGNORE] * pad
        starts += [i * width + place for place in row.starts]
        decided += [i * width + place for place in row.decided]
        row.entries.extend([layout.end] * pad)
    decisions = torch.zeros(len(n_ids), dtype=torch.bool)
    decisions[decided] = True
    places = places or Places.line(config.tokens_per_frame)
    laid = [torch.tensor(places.tokens(row.entries, Cursor())) for row in rows]
    positions = torch.cat(laid, dim=1)
    seen = [torch.from_numpy(d.frames)[row.shown] for d, row in zip(dialogues, rows, strict=True)]
    shown = [frames for frames in seen if len(frames)]
    nothing = torch.zeros((0, 1, 1, 3), dtype=torch.uint8)
    frames = torch.cat(shown) if shown else nothing
    before = torch.cat([frames_before(f, None) for f in shown]) if shown else nothing
    known = [d.labels for d in dialogues if d.labels is not None]
    full = bool(shown) and len(known) == len(dialogues)
    return Batch(
        token_ids=torch.tensor(n_ids),
        labels=torch.tensor(n_labels),
        decisions=decisions,
        positions=positions[0] if len(positions) == 1 else positions,
        frames=frames,
        before=before,
        frame_starts=torch.tensor(starts, dtype=torch.long),
        lengths=[width] * len(rows),
        colours=frames.float().mean(dim=(1, 2)) / 255.0,
        cuts=torch.from_numpy(np.concatenate([k.cuts for k in known])) if full else None,
        moves=torch.from_numpy(np.concatenate([k.moves for k in known])) if full else None,
        things=torch.from_numpy(np.concatenate([k.things for k in known])) if full else None,
    )


@dataclass(frozen=True)
class _Row:
    """A dialogue laid out.

    Attributes:
        ids, labels: of each token.
        entries: the same with one ``FRAME`` for a frame's tokens.
        decided: where the model learns to stay silent or to speak.
        starts: where the tokens of each step begin.
        shown: numbers of the frames that the steps show.
    """

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    decided: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, dialogue: Dialogue, layout: Layout, config: RoutedConfig) -> _Row:
        """Of ``dialogue``, as the engine would feed it."""
        row = cls()
        # What stands before the next frame or question, tokenized together with it.
        lead = layout.opening(config.instruction)
        watching = False
        # Frames that wait for others to make a step.
        half: list[int] = []

        def before(parts: Parts) -> None:
            nonlocal lead
            row._read(layout.ids([*lead, *parts]))
            lead = ()

        def step() -> None:
            nonlocal half
            first, last = half[0], half[-1]
            fps = config.fps
            before(layout.before(first, last, fps, watching=watching, expected=None))
            row._show([*half, *[last] * (config.frames_per_step - len(half))], layout, config)
            half = []

        turns = list(dialogue.turns)
        for index in range(len(dialogue.texts) + 1):
            while turns and turns[0].after == index:
                turn = turns.pop(0)
                request = turn.question if turn.question is not None else config.summary_request
                asked = f"{turn.notes} {request}".strip()
                if half:
                    step()
                    row._read(layout.after())
                    watching = True
                before(layout.question(asked, watching=watching))
                row._say(layout.words(turn.answer))
                lead, watching = layout.closing[1:], False
            if index == len(dialogue.texts):
                break
            half.append(index)
            if len(half) < config.frames_per_step:
                continue
            text = dialogue.texts[index]
            step()
            watching = text is None
            doubtful = index in dialogue.doubtful
            if layout.silence is not None and not doubtful:
                row.decided.append(len(row.labels) - 1)
            if text is None:
                if layout.silence is not None:
                    row.labels[-1] = IGNORE if doubtful else layout.silence
                row._read(layout.after())
                continue
            words = [*layout.ids(layout.speaking), *layout.words(text)]
            if doubtful:
                row._read(words)
            else:
                row._say(words)
        return row

    def _read(self, tokens: Sequence[int]) -> None:
        self.ids.extend(tokens)
        self.labels.extend([IGNORE] * len(tokens))
        self.entries.extend(tokens)

    def _show(self, frames: Sequence[int], layout: Layout, config: RoutedConfig) -> None:
        self.starts.append(len(self.ids))
        self.shown.extend(frames)
        self.ids.extend([layout.end] * config.tokens_per_frame)
        self.labels.extend([IGNORE] * config.tokens_per_frame)
        self.entries.append(FRAME)

    def _say(self, tokens: Sequence[int]) -> None:
        """Supervise ``tokens``, the first from the position before."""
        self.labels[-1] = tokens[0]
        self._read(tokens)
        self.labels[-len(tokens) :] = [*tokens[1:], IGNORE]
