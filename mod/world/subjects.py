"""Subjects: what a shot is about and no word names; large, in several parts, moving by itself."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """An ellipse or a polygon's box of a subject; places in its size, from its centre."""

    x: float
    y: float
    width: float
    height: float
    colour: Colour
    round: bool


@dataclass
class Subject:
    """Something like a head over shoulders, a hand, a post: change that is no cut.

    Attributes:
        x, y: centre, in view widths; dx, dy: its own speed per sample.
        size: of its largest part, in view widths; grows by ``growth`` a sample.
        sway: how far it swings from side to side, in view widths.
    """

    x: float
    y: float
    dx: float
    dy: float
    size: float
    growth: float
    sway: float
    parts: list[Part]
    age: float = 0.0

    @classmethod
    def random(cls, rng: np.random.Generator, tints: list[Colour]) -> Subject:
        """Anything, in shades of ``tints``."""
        parts = []
        for _ in range(int(rng.integers(2, 8))):
            tint = np.array(tints[int(rng.integers(len(tints)))]) * rng.uniform(0.15, 1.15)
            red, green, blue = (int(v) for v in np.clip(tint, 0, 255))
            x, y = rng.normal(0, 0.35, 2)
            width, height = rng.uniform(0.1, 0.6, 2)
            parts.append(
                Part(
                    float(x),
                    float(y),
                    float(width),
                    float(height),
                    (red, green, blue),
                    bool(rng.random() < 0.7),
                )
            )
        x, y = rng.uniform(0.1, 0.9, 2)
        busy = rng.random() < 0.5
        pace = rng.choice([0.05, 0.2, 0.4], p=[0.6, 0.28, 0.12]) if busy else 0.0
        dx, dy = rng.normal(0, pace, 2)
        return cls(
            float(x),
            float(y),
            float(dx),
            float(dy),
            float(np.exp(rng.uniform(np.log(0.15), np.log(1.1)))),
            float(rng.uniform(0.95, 1.05)) if busy else 1.0,
            float(rng.uniform(0.0, 0.06 if pace < 0.1 else pace)) if busy else 0.0,
            parts,
        )

    def move(self, dx: float, dy: float, zoom: float, share: float) -> None:
        """Advance by a share of a sample under a camera that travels and zooms."""
        self.age += share
        swing = self.sway * float(np.cos(self.age * 2.4)) * share
        self.x = 0.5 + (self.x - 0.5) / zoom + (self.dx + swing) * share - dx
        self.y = 0.5 + (self.y - 0.5) / zoom + self.dy * share - dy
        self.size = float(np.clip(self.size * self.growth**share / zoom, 0.05, 2.5))

    def draw(self, canvas: ImageDraw.ImageDraw, width: int, height: int) -> None:
        """Paint it."""
        for part in self.parts:
            x, y = self.x + part.x * self.size, self.y + part.y * self.size
            w, h = part.width * self.size / 2, part.height * self.size / 2
            bounds = ((x - w) * width, (y - h) * height, (x + w) * width, (y + h) * height)
            (canvas.ellipse if part.round else canvas.rectangle)(bounds, fill=part.colour)


def random_tint(rng: np.random.Generator) -> Colour:
    """Any colour, greys more often than not."""
    saturation = float(rng.choice([rng.uniform(0, 0.3), rng.uniform(0.3, 0.95)]))
    rgb = colorsys.hsv_to_rgb(rng.random(), saturation, float(rng.uniform(0.2, 1.0)))
    red, green, blue = (int(255 * v) for v in rgb)
    return red, green, blue
