"""Plans of videos that end the process which opens them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from actors.deaths import MOST_DEATHS, Deaths
from actors.probe import VideoInfo
from actors.probe import probe as opened
from pipelines import plan
from pipelines.ids import Recipe
from tests.pipelines.direct import Direct
from tests.videos import write_video

RECIPE = Recipe("longreel-tiny", "r", "p", 0.2, 2.0, 30.0, 0.0, "segments")


class _ProcessEndedError(BaseException):
    """As a crash in a decoder ends a task: nothing catches it."""


def test_a_video_that_ends_its_process_fails_alone_and_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a job that never plans, since Ray Data starts what died anew without end."""
    names = [str(tmp_path / f"{name}.mp4") for name in ("a", "bad", "c")]
    for name in names:
        write_video(Path(name), n_frames=50)
    tries: Counter[str] = Counter()

    def probe(uri: str, most: int) -> VideoInfo:
        tries[uri] += 1
        if uri == names[1]:
            raise _ProcessEndedError
        return opened(uri, most)

    monkeypatch.setattr(plan, "probe", probe)
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    sources: dict[str, list[Any]] = {"order": [0, 1, 2], "uri": names}
    sources |= {name: [None] * 3 for name in ("size_bytes", "etag", "error")}
    deaths: Any = Direct(Deaths())

    def planned() -> list[dict[str, Any]]:
        tables = plan._plan_batch(pa.table(sources), RECIPE, deaths)
        return [row for table in tables for row in table.to_pylist()]

    for _ in range(MOST_DEATHS):
        with pytest.raises(_ProcessEndedError):
            planned()
    rows = planned()
    assert tries[names[1]] == MOST_DEATHS
    assert [row["order"] for row in rows] == [0, 1, 2]
    assert [len(row["segments"]) for row in rows] == [1, 0, 1]
    errors = [row["probe"]["error"] for row in rows]
    assert errors == [None, "WorkerDied: opening it ended its process 8 times", None]
