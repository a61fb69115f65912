"""Rendering of scenes: a textured canvas under a moving camera, with objects passing by."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mod.world.subjects import Colour, Subject, random_tint
from mod.world.things import Thing, enter, named, unmarked

#: Side of a canvas in its own pixels; the camera sees about a third of it.
CANVAS = 320
VIEW = 120.0
#: Distinct canvases; painting one costs more than a hundred views of it, and a scene sees only a
#: small, freshly placed, turned and recoloured part.
N_CANVASES = 512


@lru_cache(maxsize=1)
def _textures() -> list[NDArray[np.float32]]:
    """Noise with natural spectra (1/f to 1/f^2), fixed for all scenes, zero mean and unit std."""
    rng = np.random.default_rng(20240830)
    frequency = np.hypot(np.fft.fftfreq(CANVAS)[:, None], np.fft.rfftfreq(CANVAS)[None])
    frequency[0, 0] = 1.0
    textures = []
    for _ in range(24):
        phase = np.exp(2j * np.pi * rng.random(frequency.shape))
        spectrum = phase / frequency ** rng.uniform(1.0, 2.0)
        spectrum[0, 0] = 0.0
        noise = np.fft.irfft2(spectrum, (CANVAS, CANVAS)).astype(np.float32)
        textures.append(noise / noise.std())
    return textures


def _random_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    saturation = rng.choice([rng.uniform(0.0, 0.12), rng.uniform(0.18, 0.95)], p=[0.3, 0.7])
    rgb = colorsys.hsv_to_rgb(rng.random(), float(saturation), 1.0)
    return np.array(rgb, dtype=np.float32)


@cache
def _canvas(number: int) -> Image.Image:
    """A still picture of dead leaves and natural noise around one colour and brightness."""
    rng = np.random.default_rng([77, number])
    base = _random_colour(rng)
    light = float(rng.choice([rng.uniform(20, 75), rng.uniform(75, 150), rng.uniform(150, 235)]))
    image = Image.new("RGB", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 70))):
        tint = base if rng.random() < 0.6 else _random_colour(rng)
        fill = tuple(int(v) for v in tint * rng.uniform(40, 255))
        size = min(CANVAS * 0.6, 10.0 * rng.pareto(1.6) + 8.0)
        x, y = rng.uniform(-20, CANVAS + 20, 2)
        w, h = size * rng.uniform(0.4, 1.0), size * rng.uniform(0.4, 1.0)
        if rng.random() < 0.5:
            draw.ellipse((x - w, y - h, x + w, y + h), fill=fill)
        else:
            turn = rng.uniform(0, np.pi)
            c, s = np.cos(turn), np.sin(turn)
            corners = [
                (x + c * a * w - s * b * h, y + s * a * w + c * b * h)
                for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
            ]
            draw.polygon(corners, fill=fill)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3.0))))
    picture = np.asarray(image, dtype=np.float32)
    picture = picture - picture.mean(axis=(0, 1))
    noise = _textures()[int(rng.integers(24))]
    noise = np.roll(noise, rng.integers(0, CANVAS, 2), axis=(0, 1))
    if rng.random() < 0.5:
        noise = noise.T
    contrast = rng.uniform(0.35, 1.1)
    grain = rng.uniform(8, 40) * noise[..., None] * (0.5 + 0.5 * base)
    mean = base / max(1e-3, float(base @ np.array([0.299, 0.587, 0.114]))) * light
    graded = (picture * contrast + grain) * (0.35 + 0.65 * light / 180.0) + mean
    return Image.fromarray(np.clip(graded, 0, 255).astype(np.uint8))


@dataclass
class Scene:
    """One shot: a canvas, the camera's place on it and what passes in front.

    Attributes:
        x, y: centre of the view on the canvas, in canvas pixels; the canvas repeats.
        things: what is named, and what passes unmarked; subjects: what is not.
        tints: shades of the place's subjects.
        view: side of the view in canvas pixels; smaller is closer.
    """

    canvas: Image.Image
    x: float
    y: float
    view: float = VIEW
    things: list[Thing] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)
    tints: list[Colour] = field(default_factory=list)
    light: NDArray[np.float32] | None = None  # of a lamp in a dark place, over the view
    flip: bool = False  # the canvas is mirrored along its diagonal
    channels: tuple[int, ...] = (0, 1, 2)
    exposure: float = 1.0  # below 1 the whole place is dim

    @classmethod
    def random(cls, rng: np.random.Generator, *, black: bool = True) -> Scene:
        """A new place; some are all black unless that is ruled out."""
        if black and rng.random() < 0.06:
            return cls(_black(), 0.0, 0.0)
        x, y = rng.uniform(0, CANVAS, 2)
        view = float(rng.uniform(90, 150))
        scene = cls(_canvas(int(rng.integers(N_CANVASES))), float(x), float(y), view)
        scene.flip = bool(rng.random() < 0.5)
        scene.channels = tuple(int(c) for c in rng.permutation(3))
        scene.tints = [random_tint(rng) for _ in range(3)]
        if rng.random() < 0.25:
            scene.exposure = float(rng.uniform(0.25, 0.7))
        scene._populate(rng)
        return scene

    @property
    def black(self) -> bool:
        """Whether there is nothing to see."""
        return self.canvas is _black()

    def _populate(self, rng: np.random.Generator) -> None:
        """Subjects and a lamp in about half of all scenes each, one or two things in the others."""
        if rng.random() < 0.5:
            self.subjects = [
                Subject.random(rng, self.tints) for _ in range(int(rng.integers(1, 4)))
            ]
        if rng.random() < 0.35:
            self.light = _lamp(rng)
        for _ in range(int(rng.choice([0, 1, 2], p=[0.45, 0.25, 0.3]))):
            thing = named(rng, {str(t.name) for t in self.things})
            if self.things and rng.random() < 0.6:
                thing.head_for(self.things[0])
            self.things.append(thing)

    def elsewhere(self, rng: np.random.Generator) -> Scene:
        """Another view of the same place, as film cuts between two sides of one scene."""
        x, y = rng.uniform(0, CANVAS, 2)
        view = float(rng.uniform(90, 150))
        there = Scene(self.canvas, float(x), float(y), view, channels=self.channels)
        there.exposure = self.exposure
        there.flip = not self.flip
        there.tints = self.tints or [random_tint(rng)]
        there._populate(rng)
        return there

    def pass_by(self, rng: np.random.Generator) -> None:
        """Send something in from one side: a thing, or what is large and unmarked."""
        taken = {thing.name for thing in self.things if thing.name is not None}
        if len(taken) < 2 and rng.random() < 0.8:
            speed = float(rng.uniform(0.04, 0.15))
            self.things.append(enter(rng, named(rng, taken), speed))
        else:
            self.things.append(enter(rng, unmarked(rng), float(rng.uniform(0.08, 0.4))))

    def move(self, dx: float, dy: float, zoom: float = 1.0, share: float = 1.0) -> None:
        """Advance by a share of one sample.

        Args:
            dx, dy: camera travel in view widths; positive is right and down.
            zoom: factor on the view's side; below 1 comes closer.
            share: of the things' own motion.
        """
        along_x, along_y = (dy, dx) if self.flip else (dx, dy)
        self.x = (self.x + along_x * self.view) % CANVAS
        self.y = (self.y + along_y * self.view) % CANVAS
        self.view *= zoom
        for subject in self.subjects:
            subject.move(dx, dy, zoom, share)
        for thing in self.things:
            thing.x = 0.5 + (thing.x - 0.5) / zoom + thing.dx * share - dx
            thing.y = 0.5 + (thing.y - 0.5) / zoom + thing.dy * share - dy
        self.things = [thing for thing in self.things if not thing.gone]
        self._bounce()

    def _bounce(self) -> None:
        """Named things that meet part again, so that none hides another for long."""
        for a, b in combinations([t for t in self.things if t.name is not None], 2):
            apart = np.array([b.x - a.x, b.y - a.y])
            closing = apart @ np.array([b.dx - a.dx, b.dy - a.dy]) < 0
            if closing and np.hypot(*apart) < 0.8 * (a.radius + b.radius):
                a.dx, a.dy, b.dx, b.dy = b.dx, b.dy, a.dx, a.dy

    def render(self, width: int, height: int) -> NDArray[np.uint8]:
        """The view as (height, width, 3) RGB."""
        left, top = self.x - self.view / 2, self.y - self.view / 2
        ox, oy = int(np.floor(left)), int(np.floor(top))
        side = int(np.ceil(self.view)) + 2
        tile = self.canvas
        patch = Image.new("RGB", (side, side))
        x0, y0 = ox % CANVAS, oy % CANVAS
        for px in (-x0, CANVAS - x0):
            for py in (-y0, CANVAS - y0):
                if px < side and py < side:
                    patch.paste(tile, (px, py))
        box = (left - ox, top - oy, left - ox + self.view, top - oy + self.view)
        image = patch.resize((width, height), Image.Resampling.BILINEAR, box=box)
        if self.flip:
            image = image.transpose(Image.Transpose.TRANSPOSE).resize((width, height))
        if self.channels != (0, 1, 2):
            bands = image.split()
            image = Image.merge("RGB", [bands[c] for c in self.channels])
        if self.subjects:
            draw = ImageDraw.Draw(image)
            for subject in self.subjects:
                subject.draw(draw, width, height)
        if self.light is not None:
            lit = np.asarray(image) * _fitted(self.light, width, height)[..., None]
            image = Image.fromarray(lit.astype(np.uint8))
        if self.exposure < 1.0:
            image = image.point([round(v * self.exposure) for v in range(256)] * 3)
        if self.things:
            draw = ImageDraw.Draw(image)
            for thing in sorted(self.things, key=lambda thing: thing.name is not None):
                thing.draw(draw, width, height)
        return np.asarray(image)


@cache
def _black() -> Image.Image:
    return Image.new("RGB", (CANVAS, CANVAS))


def _lamp(rng: np.random.Generator) -> NDArray[np.float32]:
    """(96, 96) brightness in 0-1: light around one place, near dark elsewhere."""
    line = (np.arange(96, dtype=np.float32) + 0.5) / 96
    x, y = rng.uniform(0.1, 0.9, 2)
    wide, high = rng.uniform(0.12, 0.5, 2)
    spread = ((line[None] - x) / wide) ** 2 + ((line[:, None] - y) / high) ** 2
    floor = rng.uniform(0.0, 0.35)
    lit: NDArray[np.float32] = (floor + (1 - floor) * np.exp(-0.5 * spread)).astype(np.float32)
    return lit


def _fitted(light: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    if light.shape == (height, width):
        return light
    resized = Image.fromarray(light).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)
