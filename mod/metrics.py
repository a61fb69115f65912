"""Teacher-forced metrics of the literature: perplexity, time difference, fluency, correctness.

The model reads the true stream, so its own mistakes do not add up; ``mod/evaluate.py`` measures
what comes of them. Source: VideoLLM-online, section 4.1; VideoLLM-MoD, section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mod.batches import IGNORE, collate
from mod.decoder import RoutedDecoder, frames_before
from mod.dialogue import Dialogue, asked, narrated
from mod.layout import Layout
from mod.objective import stream_of


@dataclass(frozen=True)
class TeacherForced:
    """Means over all turns; a turn is the silence before a narration or answer, and its words.

    Attributes:
        lm_ppl: perplexity of the words.
        time_diff_s: seconds between a narration and the first frame at which the model would
            speak after the narration before; None where there is none, or of a model that does not
            decide to speak.
        fluency: share of a turn's tokens, silence included, that are right in a row (0-1).
        lm_correctness: place of the first wrong word of a turn over its number of words (0-1).
        turns: how many there were.
    """

    lm_ppl: float
    time_diff_s: float | None
    fluency: float
    lm_correctness: float
    turns: int


@dataclass
class _Turn:
    """Predicted and true ids of one turn."""

    silence_right: list[bool]
    words_right: list[bool]
    loss: float
    frame: int | None  # index of the narration's frame; None for an answer


@torch.inference_mode()
def teacher_forced(
    model: RoutedDecoder, layout: Layout, dialogues: Iterable[Dialogue]
) -> TeacherForced:
    """Measure on ``dialogues``, one after the other; no more than one is held.

    A model that does not decide to speak is asked for each narration in turn.
    """
    turns: list[_Turn] = []
    late: list[float] = []
    asking = layout.asking
    for dialogue in dialogues:
        if asking is not None:
            turns += _asked_turns(model, layout, dialogue, asking.question)
            continue
        tokens = _encode(model, dialogue)
        found = _turns(model, layout, dialogue, tokens)
        turns += found
        late += _frame_errors(model, layout, dialogue, tokens, found)
    words = sum(len(turn.words_right) for turn in turns)
    return TeacherForced(
        lm_ppl=math.exp(sum(turn.loss for turn in turns) / max(1, words)),
        time_diff_s=_mean(late) / float(model.config.fps) if late else None,
        fluency=_mean([_run([*t.silence_right, *t.words_right]) for t in turns]),
        lm_correctness=_mean([_run(t.words_right) for t in turns]),
        turns=len(turns),
    )


def _asked_turns(
    model: RoutedDecoder, layout: Layout, dialogue: Dialogue, question: str
) -> list[_Turn]:
    """Each narration that is asked for, and each answer to a user, once."""
    turns: list[_Turn] = []
    for frame in narrated(dialogue):
        # What users asked before it is read again.
        turns += _turns(model, layout, asked(dialogue, frame, question), None)[-1:]
    if dialogue.turns:
        silent = replace(dialogue, texts=[None] * len(dialogue.texts))
        turns += _turns(model, layout, silent, None)
    return turns


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def _run(right: list[bool]) -> float:
    """Share of ``right`` before its first False."""
    return (right.index(False) if False in right else len(right)) / max(1, len(right))


def _encode(model: RoutedDecoder, dialogue: Dialogue) -> Tensor | None:
    """Vision tokens of all frames, (frames, tokens, D); None without frames, or where steps of
    several frames depend on what is asked when.
    """
    if not len(dialogue.frames) or model.config.frames_per_step > 1:
        return None
    frames = torch.from_numpy(dialogue.frames).to(next(model.parameters()).device)
    return model.encode_frames(frames, frames_before(frames, None))


def _predict(
    model: RoutedDecoder, layout: Layout, dialogue: Dialogue, tokens: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Supervised positions' predicted ids, true ids, and losses."""
    places = model.places(float(model.config.fps))
    batch = collate([dialogue], layout, model.config, places)
    batch = batch.to(next(model.parameters()).device)
    if tokens is None and len(batch.frames):
        tokens = model.encode_frames(batch.frames, batch.before)
    hidden = model(stream_of(model, batch, tokens))
    asked = (batch.labels != IGNORE).nonzero()[:, 0]
    logits = model.logits(hidden[asked]).float()
    labels = batch.labels[asked]
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return logits.argmax(-1), labels, losses


def _turns(
    model: RoutedDecoder, layout: Layout, dialogue: Dialogue, tokens: Tensor | None
) -> list[_Turn]:
    predicted, true, losses = _predict(model, layout, dialogue, tokens)
    spoken = [i for i, text in enumerate(dialogue.texts) if text and i not in dialogue.doubtful]
    answers = {turn.after for turn in dialogue.turns}
    order: list[int | None] = []
    for i in range(len(dialogue.texts) + 1):
        order += [None] * sum(turn.after == i for turn in dialogue.turns) if i in answers else []
        order += [i] if i in spoken else []
    turns: list[_Turn] = []
    silent: list[bool] = []
    words: list[bool] = []
    loss = 0.0
    rows = zip(predicted.tolist(), true.tolist(), losses.tolist(), strict=True)
    for guess, label, cost in rows:
        # Within a narration it is a word like others: VideoLLM-online's is the comma.
        if label == layout.silence and not words:
            silent.append(guess == label)
            continue
        words.append(guess == label)
        loss += cost
        if label == layout.end:
            turns.append(_Turn(silent, words, loss, order[len(turns)]))
            silent, words, loss = [], [], 0.0
    return turns


def _frame_errors(
    model: RoutedDecoder,
    layout: Layout,
    dialogue: Dialogue,
    tokens: Tensor | None,
    turns: list[_Turn],
) -> list[float]:
    """For each narration, frames between it and where the model would have spoken."""
    errors = []
    narrations = [turn for turn in turns if turn.frame is not None]
    for number, turn in enumerate(narrations):
        assert turn.frame is not None
        if False in turn.silence_right:
            errors.append(float(len(turn.silence_right) - turn.silence_right.index(False)))
        else:
            following = [t.frame for t in narrations[number + 1 :] if t.frame is not None]
            end = following[0] if following else len(dialogue.texts)
            errors.append(float(_delay(model, layout, dialogue, tokens, turn.frame, end)))
    return errors


def _delay(
    model: RoutedDecoder,
    layout: Layout,
    dialogue: Dialogue,
    tokens: Tensor | None,
    frame: int,
    end: int,
) -> int:
    """Frames from ``frame`` to where the model speaks if nothing is said there, ``end`` at most."""
    texts = [*dialogue.texts[:frame], *[None] * (end - frame)]
    doubtful = frozenset(range(frame))
    cut = replace(
        dialogue,
        frames=dialogue.frames[:end],
        texts=texts,
        turns=(),
        doubtful=doubtful,
        labels=None,
    )
    seen = None if tokens is None else tokens[:end]
    predicted, true, _ = _predict(model, layout, cut, seen)
    quiet = (predicted == true).tolist()
    return quiet.index(False) if False in quiet else len(quiet)
