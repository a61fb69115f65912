"""When a model narrates that hears its own words, beside when it should: for any footage.

Teacher forcing hides drift. What the words say can be judged in the generated world alone
(``mod/evaluate.py``); that something was said, and when, anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from mod.cost import kv_bytes
from mod.decoder import RoutedDecoder
from mod.dialogue import Dialogue
from mod.engine.viewer import CAPACITY_BYTES, Viewer
from mod.layout import Layout

#: Text tokens a frame that a stream has room for, far more than one that makes sense.
_WORDS = 32


@dataclass(frozen=True)
class Narrations:
    """Of all dialogues together.

    Attributes:
        precision: share of what was said that has a true narration near it in time (0-1).
        recall: share of true narrations that have one said near them (0-1).
        f1: of both.
        time_error_s: mean distance of those pairs; None where there is no pair.
        said, true: how many there were.
    """

    precision: float
    recall: float
    f1: float
    time_error_s: float | None
    said: int
    true: int


def paired(said: Sequence[int], true: Sequence[int], most: int) -> list[int]:
    """Distances of as many pairs as there can be, each number in one of them at most.

    Args:
        said, true: rising.
        most: of a distance.
    """
    found = []
    i = j = 0
    while i < len(said) and j < len(true):
        distance = abs(said[i] - true[j])
        if distance <= most:
            found.append(distance)
            i, j = i + 1, j + 1
        elif said[i] < true[j]:
            i += 1
        else:
            j += 1
    return found


def narrations(
    model: RoutedDecoder,
    layout: Layout,
    dialogues: Iterable[Dialogue],
    *,
    tolerance_s: float = 1.0,
) -> Narrations:
    """Let a model that decides to speak watch ``dialogues``, and be asked what users ask in them.

    Args:
        tolerance_s: seconds within which a narration counts as the true one's.

    Raises:
        RuntimeError: it said so much that there was no room for it.
    """
    fps = float(model.config.fps)
    n_said = n_true = 0
    distances: list[int] = []
    for dialogue in dialogues:
        said = _said(model, layout, dialogue)
        true = [frame for frame, text in enumerate(dialogue.texts) if text is not None]
        n_said, n_true = n_said + len(said), n_true + len(true)
        distances += paired(said, true, round(tolerance_s * fps))
    hits = len(distances)
    return Narrations(
        precision=hits / max(1, n_said),
        recall=hits / max(1, n_true),
        f1=2 * hits / max(1, n_said + n_true),
        time_error_s=sum(distances) / hits / fps if hits else None,
        said=n_said,
        true=n_true,
    )


def stream_bytes(model: RoutedDecoder, n_frames: int) -> int:
    """Room for a stream of ``n_frames`` of which a model says as much as makes sense."""
    return kv_bytes(model.config, n_frames, _WORDS * n_frames, model.dtype.itemsize)


def _said(model: RoutedDecoder, layout: Layout, dialogue: Dialogue) -> list[int]:
    """Frames at which the model narrates."""
    frames = torch.from_numpy(dialogue.frames)
    needed = stream_bytes(model, len(frames))
    viewer = Viewer(model, layout, capacity_bytes=max(CAPACITY_BYTES, needed))
    said: list[int] = []
    seen = 0
    questions = [(turn.after, turn.question) for turn in dialogue.turns if turn.question]
    for after, question in [*questions, (len(frames), None)]:
        if after > seen:
            outcomes = viewer.watch(frames[seen:after])
            said += [seen + i for i, outcome in enumerate(outcomes) if outcome.text is not None]
            seen = after
        if question:
            viewer.ask(question)
    return said
