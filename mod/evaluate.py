"""How right a checkpoint's narrations are: ``python -m mod.evaluate --model FOLDER``.

Self-conditioned: the model hears its own earlier words, as in use. Labels come from the
generated world, which knows what it shows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise

import numpy as np
import torch

from mod.checkpoint import TINY, find_checkpoint
from mod.layout import StreamLayout
from mod.loading import load
from mod.modeling import VideoLLMMoD
from mod.session import Session
from mod.world.streams import Sample, World
from mod.world.words import MOVING, STILL, Look, look_of, mean_colour

#: Seeds of the training run lie above 2**31; these do not.
FIRST_SEED = 1000


@dataclass(frozen=True)
class Scores:
    """Shares between 0 and 1.

    Attributes:
        cut_precision, cut_recall, cut_f1: a cut counts where it is narrated at its own sample.
        level_accuracy, colour_accuracy: of the looks the model named, against the picture.
        move_precision: narrations of motion or stillness that are true at their sample.
        move_recall: motions of at least three samples that were said to be moving.
        narrated: samples with a narration.
    """

    cut_precision: float
    cut_recall: float
    cut_f1: float
    level_accuracy: float
    colour_accuracy: float
    move_precision: float
    move_recall: float
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


def score(streams: Sequence[tuple[Sequence[Sample], Sequence[str | None]]]) -> Scores:
    """Compare narrations with what was shown; one pair of sequences a stream."""
    cuts = np.zeros(3)  # right, said, true
    looks = np.zeros(3)  # level right, colour right, said
    moves = np.zeros(4)  # right, said, found, true
    said = total = 0
    for samples, texts in streams:
        total += len(samples)
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
            if text in (STILL, MOVING) and sample.move is not None:
                moves[:2] += ((text == MOVING) == (sample.move != "still"), 1)
        said_moving = _said_moving(texts)
        for start, end in _movements(samples):
            moves[2:] += (any(said_moving[start:end]), 1)
    precision, recall = cuts[0] / max(1, cuts[1]), cuts[0] / max(1, cuts[2])
    return Scores(
        cut_precision=float(precision),
        cut_recall=float(recall),
        cut_f1=float(2 * cuts[0] / max(1, cuts[1] + cuts[2])),
        level_accuracy=float(looks[0] / max(1, looks[2])),
        colour_accuracy=float(looks[1] / max(1, looks[2])),
        move_precision=float(moves[0] / max(1, moves[1])),
        move_recall=float(moves[2] / max(1, moves[3])),
        narrated=said / max(1, total),
    )


def _said_moving(texts: Sequence[str | None]) -> list[bool]:
    """Whether the last word on motion, at each sample, was that the camera moves."""
    moving, found = False, []
    for text in texts:
        if text == MOVING:
            moving = True
        elif text == STILL or (text is not None and parse_look(text) and "turns" not in text):
            moving = False  # a new scene starts still, until said otherwise
        found.append(moving)
    return found


def _movements(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Bounds of unbroken camera motion that lasts at least three samples."""
    moving = [s.move not in (None, "still") for s in samples]
    bounds = [0, *(i for i in range(1, len(moving)) if moving[i] != moving[i - 1]), len(moving)]
    return [(a, b) for a, b in pairwise(bounds) if moving[a] and b - a >= 3]


def evaluate(
    model: VideoLLMMoD, layout: StreamLayout, *, n_streams: int = 40, n_frames: int = 60
) -> Scores:
    """Narrate streams that training never showed, and score the words."""
    streams = []
    for seed in range(FIRST_SEED, FIRST_SEED + n_streams):
        samples = list(islice(World(seed), n_frames))
        frames = torch.from_numpy(np.stack([s.frame for s in samples]))
        outcomes = Session(model, layout).watch(frames)
        streams.append((samples, [o.text for o in outcomes]))
    return score(streams)


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=TINY, help="name or folder of the checkpoint")
    parser.add_argument("--streams", type=int, default=40)
    args = parser.parse_args()
    # One stream at a time: more threads would wait for each other more than they compute.
    torch.set_num_threads(1)
    scores = evaluate(*load(find_checkpoint(args.model)), n_streams=args.streams)
    print(json.dumps({name: round(value, 3) for name, value in asdict(scores).items()}))


if __name__ == "__main__":
    main()
