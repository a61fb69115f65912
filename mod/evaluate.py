"""How right a checkpoint's narrations are: ``python -m mod.evaluate --model FOLDER``.

Self-conditioned: the model hears its own earlier words, as in use. Labels come from the
generated world, which knows what it shows.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise

import numpy as np
import torch

from mod.batches import scaled
from mod.checkpoint import TINY, find_checkpoint
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Collector
from mod.engine.viewer import CAPACITY_BYTES
from mod.layout import StreamLayout
from mod.loading import load
from mod.modeling import VideoLLMMoD
from mod.narrations import stream_bytes
from mod.world.questions import QUESTIONS
from mod.world.streams import Sample, World
from mod.world.words import MOTIONS, Look, look_of, mean_colour

_THING = re.compile(
    r"A (?P<appears>[a-z ]+) appears\.|The (?P<leaves>[a-z ]+) leaves\."
    r"|The (?P<one>[a-z ]+) meets the (?P<other>[a-z ]+)\."
)
#: Streams that are watched at once, for their words come out of the same steps.
ABREAST = 20
#: Seeds of the training run lie above 2**31; these do not.
FIRST_SEED = 1000


@dataclass(frozen=True)
class Scores:
    """Shares between 0 and 1.

    Attributes:
        cut_precision, cut_recall, cut_f1: a cut counts where it is narrated at its own sample.
        level_accuracy, colour_accuracy: of the looks the model named, against the picture.
        move_precision: narrations of the camera's motion or stillness that name what it does at
            their sample, direction included.
        move_chance: the same for one who says the commonest motion at each of those samples.
        move_recall: motions of at least three samples that were named while they lasted.
        thing_precision: narrations of things (appears, meets, leaves) that are true of their
            sample: what is in the picture, who touches whom.
        thing_recall: things in the picture for at least three samples that were announced.
        answers: questions answered as one would who narrated all that happened.
        own_answers: questions answered in agreement with the model's own narrations.
        narrated: samples with a narration.
    """

    cut_precision: float
    cut_recall: float
    cut_f1: float
    level_accuracy: float
    colour_accuracy: float
    move_precision: float
    move_chance: float
    move_recall: float
    thing_precision: float
    thing_recall: float
    answers: float
    own_answers: float
    narrated: float


def parse_look(text: str) -> Look | None:
    """The look that a narration names, or None."""
    for opening, closing in (("Cut to a", " scene."), ("The picture turns", "."), ("A", " scene.")):
        if text.startswith(opening) and text.endswith(closing):
            words = text.removeprefix(opening).removeprefix("n ").removesuffix(closing).split()
            if not words:
                return None
            if words == ["black"]:
                return Look("black", "black")
            return Look(words[0] if len(words) > 1 else "", words[-1])
    return Look("black", "black") if text == "The picture fades to black." else None


def true_of_things(text: str, sample: Sample) -> bool | None:
    """Whether a narration of a thing is true of its sample; None where it speaks of none."""
    told = _THING.fullmatch(text)
    if told is None or sample.things is None:
        return None
    seen = {thing.name: thing for thing in sample.things}
    if told["leaves"]:
        return told["leaves"] not in seen
    if told["one"]:
        one, other = seen.get(told["one"]), seen.get(told["other"])
        return one is not None and other is not None and one.touches(other)
    return told["appears"] in seen


@dataclass(frozen=True)
class Run:
    """One stream as it was narrated.

    Attributes:
        samples: what was shown.
        texts: what was said at each sample, None for silence.
        question, answer: what was asked at the end, and the model's answer.
    """

    samples: Sequence[Sample]
    texts: Sequence[str | None]
    question: str
    answer: str


def score(runs: Sequence[Run]) -> Scores:
    """Compare what was narrated and answered with what was shown."""
    cuts = np.zeros(3)  # right, said, true
    looks = np.zeros(3)  # level right, colour right, said
    moves = np.zeros(4)  # right, said, found, true
    things = np.zeros(4)  # right, said, found, true
    answers = np.zeros(2)  # right, in agreement with its own words
    shown: Counter[str] = Counter()  # motions where one was named
    said = total = 0
    for run in runs:
        samples, texts = run.samples, run.texts
        total += len(samples)
        rule = QUESTIONS[run.question]
        own = [text for text in texts if text]
        answers += (
            run.answer == rule([s.text for s in samples if s.text]),
            any(parse_look(text) for text in own) and run.answer == _answered(rule, own),
        )
        for sample, text in zip(samples, texts, strict=True):
            says_cut = text is not None and text.startswith("Cut to")
            cuts += (says_cut and sample.cut, says_cut, sample.cut)
            if text is None:
                continue
            said += 1
            look = parse_look(text)
            if look is not None:
                # A word within the margin of a boundary is not wrong.
                true = look_of(mean_colour(sample.frame), look)
                looks += (look.level == true.level, look.colour == true.colour, 1)
            if text in MOTIONS.values() and sample.move is not None:
                moves[:2] += (text == MOTIONS[sample.move], 1)
                shown[sample.move] += 1
            true_things = true_of_things(text, sample)
            if true_things is not None:
                things[:2] += (true_things, 1)
        said_moves = _said_moves(texts)
        for start, end in _movements(samples):
            moves[2:] += (samples[start].move in said_moves[start:end], 1)
        for name, start, end in _visits(samples):
            announced = f"A {name} appears." in texts[start:end]
            things[2:] += (announced, 1)
    precision, recall = cuts[0] / max(1, cuts[1]), cuts[0] / max(1, cuts[2])
    return Scores(
        cut_precision=float(precision),
        cut_recall=float(recall),
        cut_f1=float(2 * cuts[0] / max(1, cuts[1] + cuts[2])),
        level_accuracy=float(looks[0] / max(1, looks[2])),
        colour_accuracy=float(looks[1] / max(1, looks[2])),
        move_precision=float(moves[0] / max(1, moves[1])),
        move_chance=max(shown.values(), default=0) / max(1, moves[1]),
        move_recall=float(moves[2] / max(1, moves[3])),
        thing_precision=float(things[0] / max(1, things[1])),
        thing_recall=float(things[2] / max(1, things[3])),
        answers=float(answers[0] / max(1, len(runs))),
        own_answers=float(answers[1] / max(1, len(runs))),
        narrated=said / max(1, total),
    )


def _answered(rule: Callable[[Sequence[str]], str], said: Sequence[str]) -> str | None:
    """The answer that follows from what was said; None where none does."""
    try:
        return rule(said)
    except ValueError:
        return None


def _said_moves(texts: Sequence[str | None]) -> list[str]:
    """What the camera does at each sample, by the last word on it."""
    moves = {text: move for move, text in MOTIONS.items()}
    now, found = "still", []
    for text in texts:
        if text in moves:
            now = moves[text]
        elif text is not None and parse_look(text) and "turns" not in text:
            now = "still"  # a new scene starts still, until said otherwise
        found.append(now)
    return found


def _movements(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Bounds of unbroken camera motion of one kind that lasts at least three samples."""
    moves = [s.move for s in samples]
    bounds = [0, *(i for i in range(1, len(moves)) if moves[i] != moves[i - 1]), len(moves)]
    return [(a, b) for a, b in pairwise(bounds) if moves[a] not in (None, "still") and b - a >= 3]


def _visits(samples: Sequence[Sample]) -> list[tuple[str, int, int]]:
    """Things seen for at least three samples of one scene: name, first sample, bound."""
    visits = []
    since: dict[str, int] = {}
    for i, sample in enumerate([*samples, None]):
        ends = sample is None or sample.cut or sample.things is None
        seen = {str(t.name) for t in sample.things or ()} if sample is not None else set()
        for name in [n for n in since if ends or n not in seen]:
            start = since.pop(name)
            if i - start >= 3:
                visits.append((name, start, i))
        for name in seen:
            since.setdefault(name, i)
    return visits


def evaluate(
    model: VideoLLMMoD,
    layout: StreamLayout,
    *,
    n_streams: int = 40,
    n_frames: int = 60,
    first_seed: int = FIRST_SEED,
) -> Scores:
    """Narrate streams that training never showed, ask one question each, and score the words.

    Raises:
        RuntimeError: it said so much that there was no room for it.
    """
    questions = list(QUESTIONS)
    runs: list[Run] = []
    for first in range(first_seed, first_seed + n_streams, ABREAST):
        seeds = range(first, min(first + ABREAST, first_seed + n_streams))
        streams = [list(islice(World(seed), n_frames)) for seed in seeds]
        asked = [questions[seed % len(questions)] for seed in seeds]
        runs += _runs(model, layout, streams, asked)
    return score(runs)


def _runs(
    model: VideoLLMMoD, layout: StreamLayout, streams: list[list[Sample]], questions: list[str]
) -> list[Run]:
    """What a model says of each stream, and to the question at its end."""
    needed = sum(stream_bytes(model, len(samples)) for samples in streams)
    capacity = max(CAPACITY_BYTES, needed)
    memory = Memory(model.config, capacity, dtype=model.dtype, device=model.device)
    engine = Engine(model, layout, memory)
    names = [str(n) for n in range(len(streams))]
    for name, samples in zip(names, streams, strict=True):
        shown = scaled(np.stack([s.frame for s in samples]), model.config.image_size)
        engine.open(name)
        engine.push(name, torch.from_numpy(shown))
    seen = _told(engine, {n: Collector(len(s)) for n, s in zip(names, streams, strict=True)})
    for name, question in zip(names, questions, strict=True):
        engine.ask(name, "question", question)
    said = _told(engine, {name: Collector() for name in names})
    return [
        Run(samples, [outcome.text for outcome in seen[name].outcomes], question, said[name].answer)
        for name, samples, question in zip(names, streams, questions, strict=True)
    ]


def _told(engine: Engine, told: dict[str, Collector]) -> dict[str, Collector]:
    """``told`` with all that an engine has to say."""
    while engine.busy:
        for event in engine.step():
            told[event.session].take(event)
    errors = {one.error for one in told.values()} - {None}
    if errors:
        raise RuntimeError("; ".join(sorted(map(str, errors))))
    return told


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=TINY, help="name or folder of the checkpoint")
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="below 2**31")
    args = parser.parse_args()
    # So small a model: more threads would wait for each other more than they compute.
    torch.set_num_threads(1)
    model, layout = load(find_checkpoint(args.model))
    scores = evaluate(model, layout, n_streams=args.streams, first_seed=args.first_seed)
    print(json.dumps({name: round(value, 3) for name, value in asdict(scores).items()}))


if __name__ == "__main__":
    main()
