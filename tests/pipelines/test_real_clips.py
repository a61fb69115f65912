"""The bundled model on real footage, held against what the pixels say; skipped without clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from actors.decode import decode_segment
from actors.grid import grid_size
from actors.probe import probe
from mod.checkpoint import TINY, find_checkpoint
from mod.evaluate import parse_look
from mod.loading import load
from mod.session import Session
from mod.world.words import look_of, mean_colour

CLIPS = Path(__file__).parents[3] / "shared" / "videos"
pytestmark = pytest.mark.skipif(not CLIPS.is_dir(), reason="no real clips beside the checkout")


@dataclass(frozen=True)
class Told:
    frames: NDArray[np.uint8]
    texts: list[str | None]


@pytest.fixture(scope="module")
def told() -> list[Told]:
    torch.set_num_threads(1)
    model, layout = load(find_checkpoint(TINY))
    found = []
    for path in sorted(CLIPS.glob("*.mp4")):
        info = probe(str(path))
        decoded = decode_segment(
            str(path),
            origin_pts=info.origin_pts,
            first_index=0,
            end_index=grid_size(info.duration_s, 2.0),
            fps=2.0,
            size=(96, 96),
            is_last=True,
            duration_s=info.duration_s,
        )
        outcomes = Session(model, layout).watch(torch.from_numpy(decoded.frames))
        found.append(Told(decoded.frames, [o.text for o in outcomes]))
    return found


def pixel_cuts(frames: NDArray[np.uint8]) -> set[int]:
    """Samples that differ from the one before in light and in pattern, both as a whole.

    A fade changes the light and keeps the pattern; what moves keeps most of both.
    """
    small = frames.reshape(len(frames), 8, 12, 8, 12, 3).mean(axis=(2, 4))
    cuts = set()
    for i in range(1, len(frames)):
        a, b = small[i - 1].ravel(), small[i].ravel()
        flat = min(a.std(), b.std()) < 1
        if np.abs(a - b).mean() >= 40 and (flat or np.corrcoef(a, b)[0, 1] < 0.8):
            cuts.add(i)
    return cuts


def test_narrated_cuts_are_right_more_often_than_not(told: list[Told]) -> None:
    """What is called a cut is one, within a second; many are still missed."""
    right = said = true = 0
    for clip in told:
        cuts = pixel_cuts(clip.frames)
        spoken = [i for i, t in enumerate(clip.texts) if t and t.startswith("Cut to")]
        open_cuts = set(cuts)
        for i in spoken:
            near = [c for c in open_cuts if abs(c - i) <= 2]
            if near:
                open_cuts.discard(min(near, key=lambda c: abs(c - i)))
                right += 1
        said += len(spoken)
        true += len(cuts)
    assert true > 3
    f1 = 2 * right / (said + true)
    print(f"cuts on real clips: {said} said, {right} of them right, {true} true, F1 {f1:.2f}")
    assert right / said > 0.5
    assert right / true > 0.25


def test_brightness_and_colour_words_agree_with_the_picture(told: list[Told]) -> None:
    levels = colours = looks = 0
    for clip in told:
        for frame, text in zip(clip.frames, clip.texts, strict=True):
            said = parse_look(text) if text else None
            if said is None:
                continue
            true = look_of(mean_colour(frame), said)
            levels += said.level == true.level
            colours += said.colour == true.colour
            looks += 1
    assert looks > 3
    print(f"looks on real clips: level {levels}/{looks}, colour {colours}/{looks}")
    assert levels / looks > 0.5
    assert colours / looks > 0.5
