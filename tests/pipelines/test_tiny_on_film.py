"""The bundled model on footage, real and made, held against what the pixels say."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from actors.decode import decode_segment
from actors.grid import grid_size
from actors.probe import probe
from mod.checkpoint import TINY, find_checkpoint
from mod.engine.viewer import Viewer
from mod.evaluate import parse_look
from mod.loading import load
from mod.world.streams import World
from mod.world.words import look_of, mean_colour
from pipelines.samples import CUT_RATE, PICTURES, Clip, make_clip

pytestmark = pytest.mark.slow

REAL = Path(__file__).parents[3] / "shared" / "videos"
MADE = [Clip(f"{seed}.mp4", "libx264", seed, 40, 192, 108) for seed in (21, 22, 23)]


@dataclass(frozen=True)
class Told:
    cuts: list[float]
    frames: NDArray[np.uint8]
    texts: list[str | None]


@pytest.fixture(scope="module", params=["made", "real"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    if request.param == "made":
        folder = tmp_path_factory.mktemp("made")
        cuts = {make_clip(clip, folder): world_cuts(clip) for clip in MADE}
    elif REAL.is_dir():
        cuts = {path: film_cuts(path) for path in sorted(REAL.glob("*.mp4"))}
    else:
        pytest.skip("no real clips beside the checkout")
    torch.set_num_threads(1)
    model, layout = load(find_checkpoint(TINY))
    found = []
    for path in cuts:
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
        outcomes = Viewer(model, layout).watch(torch.from_numpy(decoded.frames))
        found.append(Told(cuts[path], decoded.frames, [o.text for o in outcomes]))
    return found


def world_cuts(clip: Clip) -> list[float]:
    """Seconds of the samples right after a cut, as the film knows them."""
    world = World(clip.seed, width=clip.width, height=clip.height, cut_rate=CUT_RATE)
    samples = (sample for _, sample in world.film(PICTURES) if sample is not None)
    return [i / 2 for i, sample in enumerate(islice(samples, clip.seconds * 2)) if sample.cut]


def film_cuts(path: Path) -> list[float]:
    """Seconds at which two consecutive pictures of the film differ as no others nearby do.

    Taken from the film at its full rate, on a coarse grid: what moves or fades changes many
    pictures in a row, a cut changes one. Nearby is an eighth of a second, as cuts of a fight may
    follow each other within a quarter.
    """
    coarse, shown_s = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            small = frame.reformat(64, 36, "rgb24").to_ndarray().astype(np.float32)
            coarse.append(small.reshape(12, 3, 16, 4, 3).mean(axis=(1, 3)))
            shown_s.append(float(frame.time or 0.0))
    steps = np.array([np.abs(b - a).mean() for a, b in pairwise(coarse)])
    cuts = []
    for i, step in enumerate(steps):
        near = np.concatenate([steps[max(0, i - 3) : i], steps[i + 1 : i + 4]])
        if step > 8 and step > 3 * max(float(np.median(near)), 0.5) and step >= 1.3 * near.max():
            cuts.append(shown_s[i + 1] - shown_s[0])
    return cuts


def test_narrated_cuts_are_cuts_of_the_film(told: list[Told]) -> None:
    """What is called a cut is one, within a second, and most of them are found."""
    right = said = true = 0
    for clip in told:
        spoken = [i / 2.0 for i, t in enumerate(clip.texts) if t and t.startswith("Cut to")]
        open_cuts = list(clip.cuts)
        for time_s in spoken:
            near = [cut for cut in open_cuts if abs(cut - time_s) <= 1.0]
            if near:
                open_cuts.remove(min(near, key=lambda cut: abs(cut - time_s)))
                right += 1
        said += len(spoken)
        true += len(clip.cuts)
    assert true > 3
    f1 = 2 * right / (said + true)
    print(f"cuts on footage: {said} said, {right} of them right, {true} true, F1 {f1:.2f}")
    assert f1 >= 0.8


def test_brightness_and_colour_words_agree_with_the_picture(told: list[Told]) -> None:
    """Guards against words that hold for rendered scenes alone."""
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
    print(f"looks on footage: level {levels}/{looks}, colour {colours}/{looks}")
    assert levels / looks >= 0.8
    assert colours / looks >= 0.8
