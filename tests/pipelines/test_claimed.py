"""What a job that holds its output says of itself at its end, with no cluster beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray

from actors.lease import Lease
from actors.ledger import RunLedger
from actors.rowfiles import write_rows
from actors.rows import read_rows
from longreel.errors import UsageError
from longreel.schemas import FAILED, OK, PARTIAL, PLAN, PROBE, VIDEOS
from mod.checkpoint import TINY, find_checkpoint
from pipelines import claimed
from pipelines.claimed import Claimed, carry_out
from pipelines.job import SummarizeRequest, job_recipe
from tests.pipelines.direct import Direct, Row, plan_of


def put(folder: Path, schema: pa.Schema, *told: Row) -> None:
    write_rows(str(folder), [{**dict.fromkeys(schema.names), **row} for row in told], schema)


@pytest.fixture
def nothing_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Claimed]:
    """A job over one video, done but for what a first run said of it."""
    started = SimpleNamespace(options=lambda **_: Direct(lambda *given: Direct(RunLedger(*given))))
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(
        ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "0" * 56)
    )
    monkeypatch.setattr(claimed, "connected", lambda _: nullcontext())
    monkeypatch.setattr(claimed, "pool_size", lambda *_: 1)
    monkeypatch.setattr(claimed, "LedgerActor", started)
    probes, plan = plan_of("v")
    put(tmp_path / "_longreel" / "plan", PLAN, *plan)
    put(tmp_path / "_longreel" / "videos", PROBE, *probes)
    request, checkpoint = SummarizeRequest(("v",), str(tmp_path), TINY), find_checkpoint(TINY)
    recipe = job_recipe(request, checkpoint)
    lease = Lease(str(tmp_path))
    assert lease.take()
    yield Claimed(request, checkpoint, recipe, None, str(tmp_path), "job", {}, lease.token)
    lease.release()


@pytest.mark.parametrize("video_id", ["v", "v of no version"])
@pytest.mark.parametrize("status", [OK, PARTIAL])
def test_a_video_out_of_reach_counts_as_its_row_says(
    nothing_missing: Claimed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    video_id: str,
) -> None:
    """Guards against exit status 0 of a run that shows a partial row: it could not open the video
    today, and left it out of its account."""
    row = {"video_id": "v", "uri": "v", "status": status, "n_segments": 2}
    put(tmp_path / "videos", VIDEOS, row, {"video_id": "x", "uri": "x", "status": FAILED})
    probe: dict[str, Any] = dict.fromkeys(PROBE.names)
    probe |= {"video_id": video_id, "uri": "v", "n_segments": 0, "error": "AccessDenied: x"}
    monkeypatch.setattr(claimed, "plan_all", lambda *_: ([probe], []))
    progress = carry_out(nothing_missing, [], lambda *_: None)
    assert (progress.n_videos, dict(progress.videos)) == (1, {status: 1})
    assert len(read_rows(str(tmp_path / "videos"), VIDEOS)) == 2


def test_replicas_that_never_come_up_are_refused_where_one_is_needed(
    nothing_missing: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a job that goes on here and waits without end for another node."""
    probes, plan = plan_of("v")
    empty = dict.fromkeys(PROBE.names)
    monkeypatch.setattr(claimed, "plan_all", lambda *_: ([{**empty, **p} for p in probes], plan))
    monkeypatch.setattr(claimed, "starts_one", lambda _: True)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 6.0})
    request = replace(nothing_missing.request, min_replicas=5, max_replicas=5)
    with pytest.raises(UsageError, match=r"--replicas: 5 .* need 7 CPUs, there are 6"):
        carry_out(replace(nothing_missing, request=request), [], lambda *_: None)
