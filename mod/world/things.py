"""Things that come, meet and leave: marked balls and boxes in the picture, and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from mod.world.subjects import random_tint

COLOURS = {
    "red": (225, 25, 25),
    "green": (20, 170, 40),
    "blue": (30, 60, 230),
    "yellow": (245, 215, 20),
}
#: Shapes and their radius or half side in view widths, from the smallest to the largest.
SHAPES = {"ball": (0.12, 0.16), "box": (0.17, 0.22)}
#: All names, in a fixed order: the classes of the auxiliary labels.
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
#: What a label says of a cell without a thing, and of one that nothing can be said of.
NOTHING, UNKNOWN = -1, -2
#: The picture's cells per side, as the labels see it.
CELLS = 3
#: A thing counts as seen while its centre is this far inside the picture, in view widths.
MARGIN = 0.03


@dataclass
class Thing:
    """One thing; places and speeds in view widths, speeds per sample.

    Attributes:
        name: one of ``NAMES``; None for what passes unmarked and large, and is not told.
    """

    name: str | None
    x: float
    y: float
    dx: float
    dy: float
    radius: float
    colour: tuple[int, int, int]
    round: bool

    @property
    def seen(self) -> bool:
        """Whether its centre lies inside the picture."""
        return all(MARGIN <= v <= 1.0 - MARGIN for v in (self.x, self.y))

    @property
    def gone(self) -> bool:
        """Whether nothing of it is in the picture."""
        return any(not -self.radius <= v <= 1.0 + self.radius for v in (self.x, self.y))

    def touches(self, other: Thing) -> bool:
        """Whether the two overlap."""
        return bool(np.hypot(self.x - other.x, self.y - other.y) < self.radius + other.radius)

    def covers(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether it lies over each of the points."""
        across, down = np.abs(x - self.x), np.abs(y - self.y)
        distance = np.hypot(across, down) if self.round else np.maximum(across, down)
        inside: NDArray[np.bool_] = distance < self.radius
        return inside

    def head_for(self, other: Thing) -> None:
        """Turn towards ``other``, so that the two may meet."""
        speed = float(np.hypot(self.dx, self.dy))
        turn = np.arctan2(other.y - self.y, other.x - self.x)
        self.dx, self.dy = speed * float(np.cos(turn)), speed * float(np.sin(turn))

    def draw(self, canvas: ImageDraw.ImageDraw, width: int, height: int) -> None:
        """Paint it; what has a name wears a black and a white rim that nothing else has."""
        rings: list[tuple[float, tuple[int, int, int]]] = [(1.0, self.colour)]
        if self.name is not None:
            rings = [(1.0, (0, 0, 0)), (0.88, (255, 255, 255)), (0.74, self.colour)]
        for share, fill in rings:
            r = self.radius * share
            bounds = (
                (self.x - r) * width,
                (self.y - r) * height,
                (self.x + r) * width,
                (self.y + r) * height,
            )
            (canvas.ellipse if self.round else canvas.rectangle)(bounds, fill=fill)


_PLACES = (np.arange(CELLS * 8) + 0.5) / (CELLS * 8)
_X, _Y = np.meshgrid(_PLACES, _PLACES)


def cells(things: Sequence[Thing] | None) -> NDArray[np.int64]:
    """Which thing each cell shows, (CELLS, CELLS): index in ``NAMES``, or ``NOTHING``.

    A cell shows the thing that covers the most of it, a fifth at least. All are ``UNKNOWN`` for
    None.
    """
    label = np.full((CELLS, CELLS), NOTHING if things is not None else UNKNOWN, np.int64)
    shown = np.full(_X.shape, NOTHING)
    for thing in things or ():
        if thing.name is not None:
            shown[thing.covers(_X, _Y)] = NAMES.index(thing.name)
    most = 0.2 * np.ones_like(label)
    for name in {int(n) for n in np.unique(shown)} - {NOTHING}:
        share = (shown == name).reshape(CELLS, 8, CELLS, 8).mean((1, 3))
        label[share > most] = name
        most = np.maximum(most, share)
    return label


def named(rng: np.random.Generator, taken: set[str]) -> Thing:
    """A thing somewhere in the picture, drifting; its name is not in ``taken``."""
    name = str(rng.choice([n for n in NAMES if n not in taken]))
    colour, shape = name.split()
    turn, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.12)
    x, y = rng.uniform(0.15, 0.85, 2)
    return Thing(
        name,
        float(x),
        float(y),
        float(speed * np.cos(turn)),
        float(speed * np.sin(turn)),
        float(rng.uniform(*SHAPES[shape])),
        COLOURS[colour],
        shape == "ball",
    )


def enter(rng: np.random.Generator, thing: Thing, speed: float) -> Thing:
    """Put ``thing`` just outside one side, on its way across at ``speed``."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    across = float(rng.uniform(0.2, 0.8))
    start = 0.5 + side * (0.5 + thing.radius * 0.5)
    if rng.random() < 0.7:
        thing.x, thing.y, thing.dx, thing.dy = start, across, -side * speed, 0.0
    else:
        thing.x, thing.y, thing.dx, thing.dy = across, start, 0.0, -side * speed
    return thing


def unmarked(rng: np.random.Generator) -> Thing:
    """Something large without a rim, of any colour: neither a cut nor to be told."""
    red, green, blue = random_tint(rng)
    radius = float(rng.uniform(0.08, 0.42))
    return Thing(None, 0.5, 0.5, 0, 0, radius, (red, green, blue), bool(rng.random() < 0.5))
