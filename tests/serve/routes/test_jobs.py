"""Routes of jobs over jobs in memory: shapes, refusals, and what is said where there are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from serve.routes.app import build
from serve.routes.context import Context, Jobs, ModelInfo
from tests.serve.memory_jobs import MemoryJobs
from tests.serve.memory_sessions import MemorySessions

MODEL = ModelInfo("tiny", "1", 64, 2.0, 1.0, "none", 9, True, "Summarize.")
WANTED = {"sources": ["s3://footage/may/"], "output": "s3://results/may", "job_id": "may"}


@asynccontextmanager
async def api(jobs: Jobs | None) -> AsyncIterator[httpx.AsyncClient]:
    context = Context(MemorySessions(), None, MODEL, "/nowhere", jobs=jobs)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(build(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


def test_a_job_is_sent_shown_and_cancelled() -> None:
    """Guards against fields that are lost on their way, and names other than the contract's."""

    async def scenario() -> None:
        jobs = MemoryJobs()
        async with api(jobs) as http:
            made = await http.post("/v1/jobs", json={**WANTED, "fps": 4, "mode": "stream"})
            assert made.status_code == 201, made.text
            assert made.json()["id"] == "may"
            assert "owner" not in made.json()
            (wanted,) = jobs.wanted
            told = {name: value for name, value in wanted.items() if value is not None}
            assert told == {**WANTED, "fps": 4, "mode": "stream"}
            again = await http.post("/v1/jobs", json=WANTED)
            assert again.status_code == 400
            assert again.json()["error"]["message"] == "job may is running already"
            assert (await http.get("/v1/jobs")).json() == {"object": "list", "data": [made.json()]}
            assert (await http.get("/v1/jobs/may")).json() == made.json()
            assert (await http.delete("/v1/jobs/may")).json()["status"] == "cancelled"
            assert (await http.post("/v1/jobs", json=WANTED)).status_code == 201
            for method in ("GET", "DELETE"):
                missing = await http.request(method, "/v1/jobs/june")
                assert missing.status_code == 404
                assert missing.json()["error"]["message"] == "there is no job 'june'"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"sources": []}, "sources"),
        ({"sources": "s3://footage/"}, "sources"),
        ({"output": ""}, "output"),
        ({"fps": 0}, "fps"),
        ({"fps": 1e-9}, "fps"),
        ({"fps": "NaN"}, "fps"),
        ({"keep_ratio": 2}, "keep_ratio"),
        ({"mode": "both"}, "mode"),
        ({"job_id": "../x"}, "job_id"),
        ({"segment_second": 3}, "segment_second"),
    ],
)
def test_a_field_that_cannot_be_is_named(changed: dict[str, Any], param: str) -> None:
    """Guards against a job that runs other than its client meant."""

    async def scenario() -> None:
        jobs = MemoryJobs()
        async with api(jobs) as http:
            answer = await http.post("/v1/jobs", json={**WANTED, **changed})
            assert answer.status_code == 422
            assert answer.json()["error"]["param"] == param
            assert jobs.wanted == []

    asyncio.run(scenario())


def test_without_a_jobs_api_the_routes_say_so() -> None:
    """Guards against a traceback where the cluster has no dashboard."""

    async def scenario() -> None:
        async with api(None) as http:
            for method, path in (
                ("GET", "/v1/jobs"),
                ("GET", "/v1/jobs/x"),
                ("DELETE", "/v1/jobs/x"),
                ("POST", "/v1/jobs"),
            ):
                answer = await http.request(method, path, json=WANTED)
                assert answer.status_code == 503
                error = answer.json()["error"]
                assert (error["code"], error["type"]) == ("unavailable", "server_error")
                assert "dashboard" in error["message"]

    asyncio.run(scenario())
