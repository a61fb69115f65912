"""What a job wrote, read by others' programs, and by ours after a change of the schema.

Guards against Parquet that only the program that wrote it can read.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data

from actors.rowfiles import write_rows
from actors.rows import read_table
from longreel.errors import UsageError
from longreel.schemas import SEGMENTS
from pipelines.cluster import connected
from tests.pipelines.conftest import Job
from tests.pipelines.job_runs import OPTIONS, complaint, longreel, rows, state_of

ray_and_slow = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected("local"):
        yield


#: In a process of its own, since one that has imported duckdb complains of itself when it ends.
_DUCKDB = """
import duckdb, json, sys
print(json.dumps(duckdb.sql(sys.argv[1]).fetchall()))
"""


def by_duckdb(query: str) -> list[tuple[Any, ...]]:
    """The rows that answer ``query``."""
    command = [sys.executable, "-c", _DUCKDB, query]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(row) for row in json.loads(done.stdout)]


@pytest.mark.parametrize("part", ["segments", "videos"])
class TestReadable:
    """The same rows, whoever reads them, without a line of this project."""

    pytestmark = ray_and_slow

    def test_duckdb(self, job: Job, part: str) -> None:
        """Guards against nested columns that SQL cannot reach."""
        files = f"{job.dest}/{part}/*.parquet"
        found = by_duckdb(f"SELECT uri, status, n_frames FROM '{files}' ORDER BY ALL")
        ours = rows(job.dest, part)
        key = ("uri", "status", "n_frames")
        assert sorted(found, key=str) == sorted((tuple(r[k] for k in key) for r in ours), key=str)
        if part == "segments":
            ((n,),) = by_duckdb(
                f"SELECT count(*) FROM (SELECT unnest(narrations) AS n FROM '{files}') "
                "WHERE n.text <> '' AND n.time_s >= 0"
            )
            assert n == sum(len(row["narrations"]) for row in ours) > 0

    def test_pandas(self, job: Job, part: str) -> None:
        frame = pd.read_parquet(job.dest / part)
        ours = rows(job.dest, part)
        assert len(frame) == len(ours)
        assert sorted(frame["uri"]) == sorted(row["uri"] for row in ours)
        assert frame["n_frames"].sum() == sum(row["n_frames"] for row in ours)
        times = [k["time_s"] for found in frame["keyframes"] for k in found]
        assert times == [k["time_s"] for row in ours for k in row["keyframes"]]

    @pytest.mark.long
    @pytest.mark.usefixtures("cluster")
    def test_ray_data(self, job: Job, part: str) -> None:
        found = ray.data.read_parquet(str(job.dest / part)).take_all()
        ours = rows(job.dest, part)
        key = "segment_id" if part == "segments" else "video_id"
        assert {r[key]: r["summary"] for r in found} == {r[key]: r["summary"] for r in ours}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    row = dict.fromkeys(SEGMENTS.names) | {"segment_id": "s", "status": "ok"}
    write_rows(str(tmp_path / "segments"), [row], SEGMENTS)
    return tmp_path


@pytest.mark.parametrize("change", ["drop", "add", "type", "order"])
def test_rows_of_another_schema_are_refused_by_name(output: Path, change: str) -> None:
    """Guards against rows of two versions read as one, with holes where columns differ."""
    (file,) = (output / "segments").glob("*.parquet")
    table = pq.read_table(file)
    if change == "drop":
        table = table.drop_columns(["attempt"])
    elif change == "add":
        table = table.append_column("mood", pa.array(["calm"]))
    elif change == "type":
        at = table.schema.get_field_index("n_frames")
        table = table.set_column(at, "n_frames", table["n_frames"].cast(pa.int64()))
    else:
        table = table.select(list(reversed(table.column_names)))
    pq.write_table(table, file.with_name("part-later.parquet"))
    said = {"drop": "attempt", "add": "mood", "type": "n_frames' as int64", "order": "orders"}
    with pytest.raises(UsageError, match=said[change]) as refused:
        read_table(str(output / "segments"), SEGMENTS, columns=["segment_id"])
    assert "part-later.parquet" in str(refused.value)


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_does_not_add_to_rows_of_another_schema(job: Job, tmp_path: Path) -> None:
    """Guards against a finished folder spoiled by a newer version."""
    dest = Path(shutil.copytree(job.dest, tmp_path / "rows"))
    for file in (dest / "videos").glob("*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["outline"]), file)
    state = state_of(dest)
    source = str(job.sources.good["b.mp4"].path)
    run = longreel("summarize", source, "-o", str(dest), *OPTIONS)
    assert run.code == 2, run.said
    assert "lacks 'outline'" in complaint(run)
    assert state_of(dest) == state
    shown = longreel("show", str(dest))
    assert shown.code == 2, shown.said
    assert "lacks 'outline'" in shown.err
