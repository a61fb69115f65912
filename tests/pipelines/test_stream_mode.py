"""``--mode stream``: one stream through the whole video, whoever has it and however it is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch

from actors.decode import decode_segment
from actors.grid import grid_size
from actors.lease import leased
from actors.ledger import LedgerActor
from actors.probe import probe
from actors.progress import Progress
from actors.standing import Work
from longreel.errors import UsageError
from longreel.schemas import OK, PLAN
from mod.checkpoint import TINY, find_checkpoint
from mod.engine.policy import Window
from mod.engine.viewer import Viewer
from mod.loading import load
from pipelines import stream
from pipelines.cluster import connected
from pipelines.job import SummarizeRequest, claim_output, job_recipe, provenance
from pipelines.plan import plan_all
from pipelines.samples import Clip, make_clip
from pipelines.sources import expand_sources
from pipelines.stream import StreamWorker
from pipelines.summarize import summarize
from pipelines.worker import WorkOrder
from tests.pipelines.job_runs import Row, rows

pytestmark = [pytest.mark.ray, pytest.mark.slow]

#: Longer than the window of a stream (256 frames), so that things have left it.
CLIP = Clip("film.mp4", "libx264", 5, 64, 128, 96)
FPS = 5.0


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(CLIP, tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with connected("local"):
        yield


def _run(film: Path, dest: Path, **options: Any) -> list[Row]:
    given = {"segment_s": 8.0, "fps": FPS, "mode": "stream", **options}
    summarize(SummarizeRequest((str(film),), str(dest), TINY, **given), lambda *_: None)
    return sorted(rows(dest, "segments"), key=lambda row: int(row["segment_index"]))


def _told(found: list[Row]) -> list[tuple[float, str]]:
    return [(n["time_s"], n["text"]) for row in found for n in row["narrations"]]


@pytest.fixture(scope="module")
def whole(film: Path) -> list[tuple[float, str]]:
    """What one session of the engine says of the whole film at once."""
    info = probe(str(film))
    decoded = decode_segment(
        str(film),
        origin_pts=info.origin_pts,
        first_index=0,
        end_index=grid_size(info.duration_s, FPS),
        fps=FPS,
        size=(96, 96),
        is_last=True,
        duration_s=info.duration_s,
    )
    checkpoint = find_checkpoint(TINY)
    viewer = Viewer(*load(checkpoint), instruction=checkpoint.instruction, policy=Window())
    outcomes = viewer.watch(torch.from_numpy(decoded.frames))
    return [
        (float(t), outcome.text)
        for t, outcome in zip(decoded.times_s, outcomes, strict=True)
        if outcome.text
    ]


@pytest.fixture(scope="module")
def dest(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of an undisturbed job."""
    dest = tmp_path_factory.mktemp("stream") / "rows"
    _run(film, dest)
    return dest


def test_its_words_are_those_of_one_session(dest: Path, whole: list[tuple[float, str]]) -> None:
    """Guards against context lost where one segment ends and the next begins."""
    found = sorted(rows(dest, "segments"), key=lambda row: int(row["segment_index"]))
    assert len(found) > 5
    assert {row["status"] for row in found} == {OK}
    assert _told(found) == whole
    assert not list((dest / "_longreel" / "streams").glob("*"))


@pytest.mark.long
def test_its_words_do_not_depend_on_the_cuts(
    film: Path, tmp_path: Path, whole: list[tuple[float, str]]
) -> None:
    """Guards against segments as anything else than a way to keep rows small."""
    assert _told(_run(film, tmp_path, segment_s=17.0)) == whole


@pytest.mark.long
def test_segments_alone_say_something_else(
    film: Path, tmp_path: Path, whole: list[tuple[float, str]]
) -> None:
    """Guards against a mode that changes nothing: a segment of its own opens with its scene."""
    assert _told(_run(film, tmp_path, mode="segments")) != whole


def test_the_modes_do_not_mix(film: Path, dest: Path) -> None:
    """Guards against rows of two modes in one output, of which nobody can tell which is which."""
    with pytest.raises(UsageError, match="mode 'stream' -> 'segments'"):
        _run(film, dest, mode="segments")


def test_what_is_kept_does_not_grow(dest: Path) -> None:
    """Guards against a stream that keeps every frame of a ten-hour video."""
    found = sorted(rows(dest, "segments"), key=lambda row: int(row["segment_index"]))
    held = [row["kv_bytes"] for row in found]
    assert held[1] > held[0]
    assert max(held[-3:]) < 1.3 * held[len(held) // 2 + 1]


@pytest.mark.long
@pytest.mark.parametrize(
    "save_every_s",
    [
        pytest.param(0.0, id="from its state"),
        pytest.param(1e9, id="from the beginning"),
    ],
)
def test_a_run_after_a_kill_goes_on(
    film: Path,
    tmp_path: Path,
    whole: list[tuple[float, str]],
    save_every_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards against a later run that continues without what was seen before."""
    monkeypatch.setattr(stream, "SAVE_EVERY_S", save_every_s)
    left = _killed_after(4, film, tmp_path)
    kept = list((tmp_path / "_longreel" / "streams").glob("*"))
    assert len(kept) == (save_every_s == 0)
    for path in kept:
        assert path.read_bytes().startswith(b"3\n")
    found = _run(film, tmp_path)
    assert _told(found) == whole
    assert len({row["segment_id"] for row in found}) == len(found)
    for row in left:
        assert row in found
    assert not list((tmp_path / "_longreel" / "streams").glob("*"))


def _killed_after(n: int, film: Path, dest: Path) -> list[Row]:
    """Works on a film until ``n`` rows are made, and leaves as a killed driver does: at once.

    Returns:
        The rows that it left.
    """
    checkpoint = find_checkpoint(TINY)
    request = SummarizeRequest((str(film),), str(dest), TINY, FPS, 8.0, mode="stream")
    recipe = job_recipe(request, checkpoint)
    sources = expand_sources(request.sources)
    with leased(str(dest)) as lease:
        job_id = claim_output(str(dest), recipe, request)
        _, plan = plan_all(sources.videos, recipe)
        work = Work(
            Progress(n_segments=len(plan)), frozenset(p["segment_id"] for p in plan), frozenset()
        )
        ledger = LedgerActor.remote(str(dest), work, lease.token)
        ray.get(ledger.progress.remote(True))  # the model is there
        order = WorkOrder(
            str(dest),
            recipe,
            checkpoint.instruction,
            checkpoint.image_size,
            provenance(job_id, recipe),
        )
        rows_made = StreamWorker(order, ledger)(pa.Table.from_pylist(plan, schema=PLAN))
        for _ in range(n):
            next(rows_made)
        if not (dest / "_longreel" / "streams").exists():
            ray.get(ledger.flush.remote())
        ray.kill(ledger)
    return rows(dest, "segments")
