"""``--summarizer URL``: video summaries by an endpoint, here by this project's own gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from longreel.errors import LongreelError, UsageError
from mod.checkpoint import TINY
from pipelines.cluster import connected
from pipelines.job import SummarizeRequest
from pipelines.samples import Clip, make_clip
from pipelines.summarize import summarize
from serve.app import ReplicaPlan, deploy
from tests.pipelines.job_runs import rows
from tests.ports import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

CLIP = Clip("film.mp4", "libx264", 5, 24, 128, 96)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base address of the API of a running service."""
    (port,) = free_ports(1)
    with connected("local"):
        state = str(tmp_path_factory.mktemp("state"))
        deploy(ReplicaPlan(TINY, state=state), http=("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(CLIP, tmp_path_factory.mktemp("film"))


def _request(film: Path, dest: Path, address: str | None) -> SummarizeRequest:
    return SummarizeRequest((str(film),), str(dest), TINY, segment_s=4.0, summarizer=address)


def test_summaries_are_the_endpoints(film: Path, tmp_path: Path, address: str) -> None:
    """Guards against an endpoint that is named and not asked, or asked without the narrations."""
    outcome = summarize(_request(film, tmp_path, address), lambda *_: None)
    assert dict(outcome.progress.videos) == {"ok": 1}
    (video,) = rows(tmp_path, "videos")
    lines = [n["text"] for row in rows(tmp_path, "segments") for n in row["narrations"]]
    asked = {"model": TINY, "messages": [{"role": "user", "content": "\n".join(lines)}]}
    answer = httpx.post(f"{address}/chat/completions", json=asked, timeout=60).json()
    assert video["summary"] == answer["choices"][0]["message"]["content"]
    assert answer["usage"]["total_tokens"] > answer["usage"]["completion_tokens"] > 0
    (root,) = video["outline"]
    assert (root["start_s"], root["end_s"]) == (0.0, 24.0)
    record = (tmp_path / "_longreel" / "job.json").read_text()
    assert address in record


def test_another_summarizer_does_not_mix(film: Path, tmp_path: Path, address: str) -> None:
    """Guards against summaries of two models in one output."""
    summarize(_request(film, tmp_path, None), lambda *_: None)
    with pytest.raises(UsageError, match="summarizer None -> "):
        summarize(_request(film, tmp_path, address), lambda *_: None)


def test_an_endpoint_that_is_not_there_ends_the_job_before_it_begins(
    film: Path, tmp_path: Path
) -> None:
    """Guards against hours of narration before a wrong address is noticed."""
    with pytest.raises(LongreelError, match="does not answer"):
        summarize(_request(film, tmp_path, "http://127.0.0.1:9/v1"), lambda *_: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "gpt-5"}, 404),
        ({"messages": []}, 422),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 422),
        ({"n": 2}, 422),
        ({"max_tokens": 0}, 422),
    ],
)
def test_what_the_endpoint_cannot_do_is_refused(
    address: str, change: dict[str, object], status: int
) -> None:
    """Guards against an answer to something else than what was asked."""
    asked = {"model": TINY, "messages": [{"role": "user", "content": "Hello."}], **change}
    answer = httpx.post(f"{address}/chat/completions", json=asked, timeout=60)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
