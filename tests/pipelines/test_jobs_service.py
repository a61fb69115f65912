"""Jobs over HTTP on a real cluster: sent, counted, cancelled, resumed, refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from longreel.schemas import FAILED
from pipelines.cluster import connected
from pipelines.jobs_service import jobs_deployment
from serve.keys.key import Limits, new_key
from serve.keys.keystore import write_key
from tests.pipelines.job_runs import JOB_TIMEOUT_S, rows
from tests.pipelines.jobs_cluster import Cluster, cluster
from tests.ports import free_ports
from tests.videos import write_video, x264

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

OPTIONS = {"fps": 6, "segment_seconds": 1}


@dataclass(frozen=True)
class Api:
    """A client of the routes."""

    http: httpx.Client

    def submit(self, **wanted: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/jobs", json={**OPTIONS, **wanted})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def get(self, job: str) -> dict[str, Any]:
        return self.http.get(f"/v1/jobs/{job}").json()

    def until(self, job: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while not reached(found := self.get(job)):
            assert time.monotonic() < deadline, found
            time.sleep(1)
        return found

    def ended(self, job: str) -> dict[str, Any]:
        return self.until(job, lambda j: j["status"] not in ("pending", "running"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("store"))


def _with_key(store: str) -> dict[str, str]:
    key, secret = new_key("tests", Limits())
    write_key(store, key)
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def api(store: str) -> Iterator[Api]:
    with cluster() as found, _gateway(found, store) as (process, url):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with httpx.Client(base_url=url, timeout=60, headers=_with_key(store)) as client:
            yield Api(client)
        process.communicate(timeout=60)


def _gateway(found: Cluster, store: str) -> Any:

    @contextmanager
    def started() -> Iterator[tuple[subprocess.Popen[str], str]]:
        (port,) = free_ports(1)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipelines.jobs_gateway", found.gcs, str(port), store],
            env={**environment, **found.environment, "RAY_AUTH_MODE": "token"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()

    return started()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    write_video(folder / "short.mp4", n_frames=50, options=x264())
    (folder / "empty.mp4").write_bytes(b"")
    write_video(folder / "long.mp4", n_frames=1600, options=x264())
    return folder


def test_a_job_from_its_start_to_its_rows(api: Api, videos: Path, tmp_path: Path) -> None:
    """Guards against totals that are not the plan's, and a bad video told as success."""
    dest = tmp_path / "rows"
    sources = [str(videos / name) for name in ("short.mp4", "empty.mp4")]
    made = api.submit(sources=sources, output=str(dest), job_id="first")
    assert (made["id"], made["object"], made["output"]) == ("first", "job", str(dest))
    assert made["status"] in ("pending", "running")
    done = api.ended("first")
    assert (done["status"], done["error"]) == ("partial", None)
    assert done["created"] == made["created"]
    segments = rows(dest, "segments")
    assert done["progress"] == {
        "videos": {"total": 2, "ok": 1, "partial": 0, FAILED: 1},
        "segments": {"total": 2, "ok": 2, "partial": 0, FAILED: 0},
        "video_seconds": {"total": 2.0, "done": 2.0},
        "frames": sum(row["n_frames"] for row in segments),
    }
    assert "owner" not in done
    (listed,) = api.http.get("/v1/jobs").json()["data"]
    assert listed == done
    assert api.http.delete("/v1/jobs/first").json() == done, "what has ended cannot be cancelled"


def test_a_job_of_one_key_is_not_there_for_another(
    api: Api, store: str, videos: Path, tmp_path: Path
) -> None:
    """Guards against jobs that others see, end, or go on with; their progress is in the output."""
    wanted = {"sources": [str(videos / "short.mp4")], "output": str(tmp_path / "rows")}
    api.submit(**wanted, job_id="mine")
    other = _with_key(store)
    # A new key is known within moments, not at once.
    deadline = time.monotonic() + 30
    while (listed := api.http.get("/v1/jobs", headers=other)).status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert listed.json()["data"] == []
    for method in ("GET", "DELETE"):
        missing = api.http.request(method, "/v1/jobs/mine", headers=other)
        unknown = api.http.request(method, "/v1/jobs/none", headers=other)
        assert missing.status_code == unknown.status_code == 404
        assert missing.text == unknown.text.replace("none", "mine")
    elsewhere = str(tmp_path / "elsewhere")
    for changed, message in (
        ({"job_id": "mine", "output": elsewhere}, "the job id 'mine' is taken"),
        ({"job_id": "other"}, f"the output '{tmp_path}/rows' is another job's"),
        ({"sources": [f"{store}/files/"]}, "is not for jobs"),
        ({"output": f"{store}/keys"}, "is not for jobs"),
    ):
        for _ in range(2):  # while it runs, and once it has ended
            refused = api.http.post(
                "/v1/jobs", json={**OPTIONS, **wanted, **changed}, headers=other
            )
            assert refused.status_code == 400, refused.text
            assert message in refused.json()["error"]["message"]
        api.ended("mine")


def test_a_manifest_leads_no_job_into_the_state_store(
    api: Api, store: str, videos: Path, tmp_path: Path
) -> None:
    """Guards another key's uploads where only the job itself learns what it is to read."""
    upload = Path(store, "files", "file-0")
    upload.parent.mkdir(exist_ok=True)
    upload.write_bytes((videos / "short.mp4").read_bytes())
    (tmp_path / "link.mp4").symlink_to(upload)
    uris = [str(videos / "short.mp4"), f"file://{upload}", str(tmp_path / "link.mp4")]
    (tmp_path / "m.csv").write_text("\n".join(["uri", *uris]))
    dest = tmp_path / "rows"
    job = api.submit(sources=[str(tmp_path / "m.csv")], output=str(dest))
    assert api.ended(job["id"])["status"] == "partial"
    found = {row["uri"]: (row["error"] or "").partition(":")[0] for row in rows(dest, "videos")}
    assert sorted(found.values()) == ["", "AccessDenied", "AccessDenied"]
    assert found[uris[0]] == ""


def test_cancelled_and_gone_on_with(api: Api, videos: Path, tmp_path: Path) -> None:
    """Guards against work that a cancel loses or a second request does again."""
    dest = tmp_path / "rows"
    wanted = {"sources": [str(videos / "long.mp4")], "output": str(dest)}
    job = api.submit(**wanted)["id"]
    refused = api.http.post("/v1/jobs", json={**OPTIONS, **wanted})
    assert refused.status_code == 400
    assert job in refused.json()["error"]["message"]
    # Something is worked out; what is not yet written a cancel has to write.
    api.until(job, lambda j: bool(j["progress"] and j["progress"]["frames"]))
    cancelled = api.http.delete(f"/v1/jobs/{job}").json()
    cancelled = cancelled if cancelled["status"] == "cancelled" else api.ended(job)
    assert cancelled["status"] == "cancelled"
    kept = {row["segment_id"]: row for row in rows(dest, "segments")}
    total = cancelled["progress"]["segments"]["total"]
    assert cancelled["progress"]["segments"]["ok"] == len(kept)
    assert 0 < len(kept) < total

    assert api.submit(**wanted, job_id=job)["id"] == job
    done = api.ended(job)
    assert done["status"] == "succeeded"
    assert done["progress"]["segments"] == {"total": total, "ok": total, "partial": 0, FAILED: 0}
    assert done["created"] == cancelled["created"]
    after = {row["segment_id"]: row for row in rows(dest, "segments")}
    assert {name: after[name] for name in kept} == kept


def test_a_job_that_fails_says_why(api: Api, videos: Path, tmp_path: Path) -> None:
    """Guards against a failure without its reason."""
    dest = tmp_path / "rows"
    source = tmp_path / "source.mp4"
    source.symlink_to(videos / "short.mp4")
    dest.mkdir()
    job = api.submit(sources=[str(source)], output=str(dest), summarizer="http://127.0.0.1:9/v1")
    done = api.ended(job["id"])
    assert done["status"] == "failed", done
    assert "127.0.0.1:9" in done["error"]


def test_what_cannot_work_is_refused(api: Api, videos: Path, tmp_path: Path) -> None:
    """Guards against jobs that are sent only to fail, and another person's job called ours."""
    good = {"sources": [str(videos / "short.mp4")], "output": str(tmp_path / "rows")}
    for wanted, status in (
        ({**good, "sources": [str(tmp_path / "none.mp4")]}, 400),
        ({**good, "sources": ["short.mp4"]}, 400),
        ({**good, "output": "rows"}, 400),
        ({**good, "model": "/nowhere"}, 400),
        ({**good, "sources": ["ftp://host/x"]}, 400),
    ):
        answer = api.http.post("/v1/jobs", json=wanted)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["code"] == "invalid_value"
    for method in ("GET", "DELETE"):
        assert api.http.request(method, "/v1/jobs/none").status_code == 404


def test_a_cluster_without_a_dashboard_takes_no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a service that does not start where jobs cannot run."""
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with connected("local"):
        assert jobs_deployment() is None
        (port,) = free_ports(1)
        assert jobs_deployment(f"http://127.0.0.1:{port}") is None
