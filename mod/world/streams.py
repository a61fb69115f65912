"""Streams of the generated world: scenes joined by cuts, fades and camera moves, with labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mod.world.scenes import Scene
from mod.world.things import Thing
from mod.world.words import Narrator, luma, mean_colour

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SIZE = 96
#: View widths a sample above which a pan is a short whip, and of the fastest whip: faster, it
#: would look like a cut.
WHIP_FROM, WHIP_TO = 0.4, 0.65
#: Chance, at each sample, that somebody runs with the camera or fights before it.
TUMULT_RATE = 0.012


@dataclass(frozen=True)
class Sample:
    """One sampled picture and what is true of it.

    Attributes:
        frame: (height, width, 3) uint8 RGB.
        cut: a cut lies between the sample before and this one.
        move: motion since the sample before (one of ``MOVES``), None when undefined.
        things: what is in the picture; None while that cannot be said.
        text: the narration due at this sample, None for silence.
    """

    frame: NDArray[np.uint8]
    cut: bool
    move: str | None
    things: tuple[Thing, ...] | None
    text: str | None


@dataclass(frozen=True)
class _Move:
    name: str
    dx: float = 0.0
    dy: float = 0.0
    zoom: float = 1.0


def _named(scene: Scene) -> tuple[Thing, ...]:
    """The scene's named things whose centre is in the picture."""
    return tuple(replace(thing) for thing in scene.things if thing.name is not None and thing.seen)


def _random_move(rng: np.random.Generator) -> _Move:
    kind = rng.random()
    if kind < 0.4:
        return _Move("still")
    if kind < 0.85:
        name = str(rng.choice(list(DIRECTIONS)))
        ux, uy = DIRECTIONS[name]
        speed = float(np.exp(rng.uniform(np.log(0.03), np.log(WHIP_FROM))))
        if rng.random() < 0.08:
            speed = float(rng.uniform(WHIP_FROM, WHIP_TO))
        drift = float(rng.uniform(-0.3, 0.3)) * speed
        return _Move(name, ux * speed + (ux == 0) * drift, uy * speed + (uy == 0) * drift)
    if kind < 0.93:
        return _Move("in", zoom=float(rng.uniform(0.82, 0.93)))
    return _Move("out", zoom=float(rng.uniform(1.08, 1.2)))


@dataclass
class _State:
    """Where the stream stands: the scene, its motion, the light, and what is in progress.

    Attributes:
        tumult: samples for which the camera is still thrown about.
    """

    scene: Scene
    move: _Move
    jitter: tuple[float, float] = (0.0, 0.0)
    gain: float = 1.0
    gain_step: float = 0.0
    gain_left: int = 0
    tumult: int = 0
    coming: Scene | None = None
    share: float = 0.0
    shares: list[float] = field(default_factory=list)


class World:
    """An endless stream, deterministic by seed, one ``Sample`` at a time.

    Args:
        seed: fixes everything.
        width, height: picture size in pixels.
        cut_rate: chance of a cut at each sample; None draws one.
    """

    def __init__(
        self, seed: int, *, width: int = SIZE, height: int = SIZE, cut_rate: float | None = None
    ) -> None:
        self._rng = rng = np.random.default_rng(seed)
        self._size = (width, height)
        self._cut_rate = float(rng.choice([0.02, 0.1, 0.25])) if cut_rate is None else cut_rate
        self._noise = float(rng.choice([0.0, rng.uniform(0, 6)]))
        self._shake = float(rng.choice([0.0, rng.uniform(0, 0.006)]))
        self._bars = float(rng.choice([0.0, rng.uniform(0.08, 0.24)], p=[0.6, 0.4]))

    def __iter__(self) -> Iterator[Sample]:
        for _, sample in self.film(1):
            if sample is not None:
                yield sample

    def film(self, pictures: int) -> Iterator[tuple[NDArray[np.uint8], Sample | None]]:
        """The stream as smooth film.

        Args:
            pictures: rendered per sample; motion and light are spread over them, and a cut
                falls right after the sample before.

        Yields:
            Each picture, (height, width, 3) RGB, with its ``Sample`` where one is due: at the
            first picture, then at every ``pictures``-th.
        """
        narrator = Narrator()
        state = _State(Scene.random(self._rng), _random_move(self._rng))
        first = True
        while True:
            cut = not first and self._cuts(state)
            still = first or cut
            if not still:
                self._choose_move(state)
            if not first and not cut:
                self._maybe_dissolve(state)
                self._maybe_open(state)
            self._choose_light(state)
            target = state.shares.pop(0) if state.coming else 0.0
            n = 1 if first else pictures
            share = state.share
            for i in range(1, n + 1):
                if not still:
                    jx, jy = state.jitter
                    move = state.move
                    state.scene.move(
                        (move.dx + jx) / n, (move.dy + jy) / n, move.zoom ** (1 / n), 1 / n
                    )
                if state.gain_left:
                    state.gain += state.gain_step / n
                state.share = share + (target - share) * i / n
                frame = self._render(state)
                if i < n:
                    yield frame, None
            untold = still or state.coming or state.tumult
            said_move = None if untold else state.move.name
            self._settle(state)
            colour = mean_colour(frame)
            # What is too dark or dissolving is neither labelled nor told.
            clear = state.coming is None and luma(colour) >= 20
            seen = _named(state.scene) if clear else None
            text = narrator.tell(colour, cut=cut, move=said_move if clear else None, things=seen)
            yield frame, Sample(frame, cut, said_move if clear else None, seen, text)
            first = False

    def _cuts(self, state: _State) -> bool:
        rng = self._rng
        # A cut that nobody can see is none.
        unseen = state.gain < 0.2 and state.gain_left
        rate = max(0.3, self._cut_rate) if state.scene.black else self._cut_rate
        if state.coming is not None or unseen or rng.random() >= rate:
            return False
        if state.scene.black:
            state.scene = Scene.random(rng, black=False)
        elif rng.random() < 0.45:
            state.scene = state.scene.elsewhere(rng)
        else:
            state.scene = Scene.random(rng)
        state.move, state.tumult = _random_move(rng), 0
        if state.gain_left == 0:
            state.gain = 1.0
        return True

    def _choose_move(self, state: _State) -> None:
        rng = self._rng
        whip = np.hypot(state.move.dx, state.move.dy) > WHIP_FROM
        if rng.random() < (0.5 if whip else 0.15):
            state.move = _random_move(rng)
        if rng.random() < 0.06 and not state.scene.black:
            state.scene.pass_by(rng)
        if not 70 < state.scene.view * state.move.zoom < 200:
            state.move = _Move("still")
        if not state.tumult and rng.random() < TUMULT_RATE:
            state.tumult = int(rng.integers(2, 7))
        shake = float(rng.uniform(0.08, 0.3)) if state.tumult else self._shake
        if shake:
            jx, jy = rng.normal(0, shake, 2)
            state.jitter = float(jx), float(jy)
        else:
            state.jitter = 0.0, 0.0

    def _maybe_dissolve(self, state: _State) -> None:
        rng = self._rng
        if state.coming is None and rng.random() < 0.02:
            state.coming = Scene.random(rng)
            # Begun between two samples; one at least is well mixed, or it would pass for a cut.
            first = float(rng.uniform(0.15, 0.6))
            step = float(rng.uniform(0.15, 0.6))
            state.shares = [float(v) for v in np.arange(first, 1.0, step)] + [1.0]

    def _maybe_open(self, state: _State) -> None:
        """Film that stood black fades into a scene as often as it cuts to one."""
        rng = self._rng
        if state.scene.black and state.coming is None and rng.random() < 0.25:
            state.scene, state.move = Scene.random(rng, black=False), _random_move(rng)
            state.gain, state.gain_left = 0.0, int(rng.integers(2, 6))
            state.gain_step = 1.0 / state.gain_left

    def _choose_light(self, state: _State) -> None:
        """Now and then fade to black, to another exposure, or back."""
        if state.gain_left:
            return
        rng = self._rng
        if rng.random() < 0.04:
            target = float(rng.choice([0.0, 0.0, rng.uniform(0.3, 1.6), 1.0]))
            state.gain_left = int(rng.integers(3, 8))
            state.gain_step = (target - state.gain) / state.gain_left
        elif state.gain < 0.2 and rng.random() < 0.3:
            state.gain_left = int(rng.integers(2, 5))
            state.gain_step = (1.0 - state.gain) / state.gain_left
            if rng.random() < 0.6 and state.coming is None:
                # Film fades out of one place and into another.
                state.scene = Scene.random(rng, black=False)
                state.move = _random_move(rng)

    def _settle(self, state: _State) -> None:
        """Count down what takes several samples."""
        state.tumult = max(0, state.tumult - 1)
        state.gain_left = max(0, state.gain_left - 1)
        if state.coming is not None and not state.shares:
            state.scene, state.coming, state.share = state.coming, None, 0.0
            state.move = _Move("still")

    def _render(self, state: _State) -> NDArray[np.uint8]:
        width, height = self._size
        picture = state.scene.render(width, height).astype(np.float32)
        if state.coming is not None:
            picture += state.share * (state.coming.render(width, height) - picture)
        picture *= max(0.0, state.gain)
        edge = round(self._bars / 2 * height)
        if edge:
            picture[:edge] = picture[-edge:] = 0.0
        if self._noise:
            picture += self._rng.normal(0, self._noise, picture.shape).astype(np.float32)
        return np.clip(picture, 0, 255).astype(np.uint8)
