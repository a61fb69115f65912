"""From pixels and motion to words: what a narrator of the generated world says, and when.

The same rules measure real footage, so that a narration of any video can be checked.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mod.world.things import Thing

#: Mean luma (0-255) from which a picture counts as dark, as mid-toned, as bright.
BLACK_BELOW, DARK_BELOW, BRIGHT_FROM = 16.0, 75.0, 150.0
#: Saturation of the mean colour below which a picture counts as grey.
GREY_BELOW = 0.15
#: A boundary moves by this much in favour of the word already said.
LUMA_MARGIN, SATURATION_MARGIN, HUE_MARGIN = 7.0, 0.03, 6.0
#: Upper bounds of hue in degrees.
HUES = (
    (15.0, "red"),
    (45.0, "orange"),
    (70.0, "yellow"),
    (165.0, "green"),
    (195.0, "cyan"),
    (255.0, "blue"),
    (290.0, "purple"),
    (345.0, "pink"),
    (360.0, "red"),
)
LEVELS = ("dark", "", "bright")
COLOURS = ("grey", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")

#: What is said of the camera, by how the view moved between two samples.
MOTIONS = {
    "still": "The camera holds still.",
    "left": "The camera pans left.",
    "right": "The camera pans right.",
    "up": "The camera tilts up.",
    "down": "The camera tilts down.",
    "in": "The camera zooms in.",
    "out": "The camera zooms out.",
}
#: How the view can move between two samples.
MOVES = tuple(MOTIONS)


@dataclass(frozen=True)
class Look:
    """Brightness level (``dark``, empty, ``bright``, ``black``) and colour of a picture."""

    level: str
    colour: str

    @property
    def phrase(self) -> str:
        """The look in words: ``dark blue``, ``green``, ``black``."""
        if self.level == "black":
            return "black"
        return f"{self.level} {self.colour}".strip()


def mean_colour(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean RGB (0-255) of a picture of shape (height, width, 3)."""
    mean: NDArray[np.float64] = frame.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    return mean


def luma(rgb: NDArray[np.float64]) -> float:
    """Luma (0-255, BT.601) of a mean colour."""
    return float(rgb @ np.array([0.299, 0.587, 0.114]))


def look_of(rgb: NDArray[np.float64], said: Look | None = None) -> Look:
    """The look of a picture from its mean RGB (0-255).

    Args:
        said: the look announced last; within the margins around a boundary it stays.
    """
    light = luma(rgb)
    level = _level(light, 0.0)
    if (
        said is not None
        and said.level != level
        and any(_level(light, m) == said.level for m in (-LUMA_MARGIN, LUMA_MARGIN))
    ):
        level = said.level
    if level == "black":
        return Look("black", "black")
    hue, saturation, _ = colorsys.rgb_to_hsv(*(rgb / 255.0))
    colour = _colour(hue * 360.0, saturation)
    if said is not None and said.colour != colour:
        nearby = (
            (0.0, SATURATION_MARGIN),
            (0.0, -SATURATION_MARGIN),
            (HUE_MARGIN, 0.0),
            (-HUE_MARGIN, 0.0),
        )
        if any(_colour(hue * 360.0 + h, saturation + s) == said.colour for h, s in nearby):
            colour = said.colour
    return Look(level, colour)


def _level(light: float, shift: float) -> str:
    light += shift
    if light < BLACK_BELOW:
        return "black"
    if light < DARK_BELOW:
        return "dark"
    return "bright" if light >= BRIGHT_FROM else ""


def _colour(hue: float, saturation: float) -> str:
    if saturation < GREY_BELOW:
        return "grey"
    hue %= 360.0
    return next(name for bound, name in HUES if hue < bound)


class Narrator:
    """Says what changed since it last spoke, at most one thing a sample.

    Cuts come before changes of look, those before things that leave, meet or appear, and those
    before motion; what loses is said at a later sample if it still holds.
    """

    def __init__(self) -> None:
        self._look: Look | None = None
        self._move = "still"
        self._things: list[str] = []
        self._touching: set[tuple[str, str]] = set()

    def tell(
        self,
        rgb: NDArray[np.float64],
        *,
        cut: bool,
        move: str | None,
        things: Sequence[Thing] | None = None,
    ) -> str | None:
        """Narrate one sample.

        Args:
            rgb: mean colour (0-255).
            cut: a cut lies between the sample before and this one.
            move: motion since the sample before, one of ``MOVES``; None when it cannot be
                said (first sample, cut, featureless picture).
            things: what is in the picture; None when that cannot be said.

        Returns:
            The narration, or None to stay silent.
        """
        if self._look is None or cut:
            opening = self._look is None
            self._look = look_of(rgb)
            self._forget()
            article = "An" if self._look.phrase[0] in "aeiou" else "A"
            if opening:
                return f"{article} {self._look.phrase} scene."
            return f"Cut to {article.lower()} {self._look.phrase} scene."
        now = look_of(rgb, self._look)
        if now != self._look:
            self._look = now
            if now.level == "black":
                self._forget()
                return "The picture fades to black."
            return f"The picture turns {now.phrase}."
        if things is not None and (text := self._tell_things(things)):
            return text
        if move is not None and move != self._move:
            self._move = move
            return MOTIONS[move]
        return None

    def _forget(self) -> None:
        """A new scene: the camera is still and nothing is in it, until said otherwise."""
        self._move = "still"
        self._things = []
        self._touching = set()

    def _tell_things(self, things: Sequence[Thing]) -> str | None:
        seen = {thing.name: thing for thing in things if thing.name is not None}
        for name in self._things:
            if name not in seen:
                self._things.remove(name)
                self._touching = {pair for pair in self._touching if name not in pair}
                return f"The {name} leaves."
        told = [seen[name] for name in self._things]
        for i, a in enumerate(told):
            for b in told[i + 1 :]:
                pair = (str(a.name), str(b.name))
                if not a.touches(b):
                    self._touching.discard(pair)
                elif pair not in self._touching:
                    self._touching.add(pair)
                    return f"The {pair[0]} meets the {pair[1]}."
        for name in seen:
            if name not in self._things:
                self._things.append(name)
                return f"A {name} appears."
        return None
