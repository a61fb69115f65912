"""What the capacity page says, against the results that it names.

Guards against advice on hardware that no measurement bears out.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.capacity import answer, bulk_rows, live_rows, refreshed
from bench.harness import RESULTS
from bench.measured import Figure, NotMeasuredError, read_bulk, read_live

PAGE = Path(__file__).parents[2] / "docs" / "capacity.md"


def test_the_page_shows_what_the_command_prints() -> None:
    """Guards against figures that were true once: ``--page docs/capacity.md`` writes them anew."""
    page = PAGE.read_text()
    assert page.count("$ python -m bench.capacity --") >= 3
    assert refreshed(page) == page
    assert refreshed(page.replace(" GPU hours", " hours")) == page


def test_every_figure_is_what_its_file_says() -> None:
    """Guards against a file or a key that was renamed, and a number beside the wrong one."""
    live, bulk = read_live(), read_bulk()
    rows = live_rows(live, bulk, 500, 2.0, 0.2) + bulk_rows(bulk, 10_000, 2.0, 24.0)
    named = [source for each in rows for source in each.sources]
    assert len(named) >= 8
    for figure in named:
        found: Any = json.loads((RESULTS / figure.file).read_text())
        for key in figure.path:
            found = found[key]
        assert figure.made or found == figure.value
        assert figure.file in answer(["--streams", "1"]) + answer(["--hours", "1"])


def results(tmp_path: Path, live: dict[str, Any]) -> Path:
    """A folder of results with these live rows."""
    folder = tmp_path / "nvidia-h200"
    folder.mkdir()
    large = {"settings": {"live": {"fps": 2.0, "history_frames": 1200}}, "figures": {"live": live}}
    (folder / "large.json").write_text(json.dumps(large))
    return tmp_path


def row(sessions: int, p99_s: float, cache_gib: float = 10.0) -> dict[str, Any]:
    return {"sessions": sessions, "p99_s": p99_s, "cache_gib": cache_gib, "failed": []}


def test_only_streams_that_kept_up_count(tmp_path: Path) -> None:
    """Guards against planning with a load that nothing can bear."""
    live = {
        "mod": [{"sessions": 900, "error": "OutOfPagesError: "}, row(100, 0.9, 50.0)],
        "window": [row(300, 9.5, 60.0), {**row(400, 0.1), "failed": ["x"]}],
        "dense": [row(64, 0.1)],
    }
    found = read_live(results(tmp_path, live))
    assert (found.sessions.value, found.kind) == (100, "mod")
    assert str(found.sessions) == "nvidia-h200/large.json figures.live.mod[1].sessions"
    assert found.cache_gib.value == 0.5
    # What a stream holds is known of those too that came too late.
    assert found.window_gib is not None
    assert found.window_gib.value == 0.2


def test_where_nothing_kept_up_there_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(NotMeasuredError, match=r"kept within 1 s"):
        read_live(results(tmp_path, {"mod": [row(300, 9.5)]}))
    with pytest.raises(NotMeasuredError, match=r"no other/large\.json"):
        read_live(tmp_path, "other")


@pytest.mark.parametrize(
    ("streams", "fps", "spare", "gpus"),
    [
        (64, 2.0, 0.0, 1),
        (65, 2.0, 0.0, 2),
        (64, 4.0, 0.0, 2),
        (64, 2.0, 0.2, 2),
        (1, 1.0, 0.2, 1),
        (65, 1.0, 0.0, 2),
    ],
)
def test_gpus_follow_frames_a_second_and_memory(
    tmp_path: Path, streams: int, fps: float, spare: float, gpus: int
) -> None:
    live = read_live(results(tmp_path, {"dense": [row(64, 0.1)]}))
    first, *_ = live_rows(live, read_bulk(), streams, fps, spare)
    assert first.amount == f"{gpus} and 1"


def test_a_job_needs_more_gpus_where_fewer_of_their_hours_are_used() -> None:
    measured = read_bulk()
    rate = Figure(100.0, "x", ())
    even = {size: Figure(0.5, "x", (size,)) for size in (10, 100)}
    bulk = replace(measured, quiet=rate, speaking=rate, efficiency=even)
    # 100 hours at 2 frames/s are 2 GPU hours.
    assert bulk_rows(bulk, 100, 2.0, 1.0)[0].amount == "4"
    assert bulk_rows(bulk, 2500, 2.0, 1.0)[0].amount == "100"
    with pytest.raises(NotMeasuredError, match="split it"):
        bulk_rows(bulk, 2600, 2.0, 1.0)
