"""Open models through the whole service: the words of transformers' own ``generate``.

Guards against a job or the HTTP API that shows a model other frames, other text or another prompt
than its own processor does.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pyarrow.dataset as ds
import pytest
import torch

from actors.decode import decode_segment
from actors.grid import grid_size
from actors.probe import probe
from infra.openmodels import reference
from longreel.errors import LongreelError
from mod.checkpoint import OPEN, TINY, Checkpoint, find_checkpoint
from mod.loading import load_any
from pipelines.cluster import connected
from pipelines.job import SummarizeRequest
from pipelines.samples import Clip, make_clip
from pipelines.summarize import summarize
from serve.app import ReplicaPlan, deploy
from tests.mod import online
from tests.ports import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

QUESTION = "What happens in the video?"


@dataclass(frozen=True)
class Service:
    """A running service of one model, and a film as that model sees it."""

    checkpoint: Checkpoint
    address: str
    film: Path
    frames: np.ndarray[Any, Any]

    def expected(self, question: str, most: int = 96) -> str:
        """What transformers says about the film, in words."""
        ids = reference.says(
            self.checkpoint.folder, self.frames, question, self.checkpoint.fps, most
        )
        return load_any(self.checkpoint)[1].decode(ids)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of the gateway, on a cluster that serves one model after the other."""
    (free,) = free_ports(1)
    with connected("local"):
        yield free


@pytest.fixture(scope="module", params=OPEN)
def service(
    request: pytest.FixtureRequest, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Service:
    folder = tmp_path_factory.mktemp(request.param)
    reference.make(request.param, folder)
    checkpoint = find_checkpoint(str(folder))
    film = make_clip(Clip("film.mp4", "libx264", 5, 6, 128, 96), tmp_path_factory.mktemp("film"))
    state = str(tmp_path_factory.mktemp("state"))
    deploy(ReplicaPlan(str(folder), state=state), http=("127.0.0.1", port))
    return Service(checkpoint, f"http://127.0.0.1:{port}", film, _frames(film, checkpoint))


def _frames(film: Path, checkpoint: Checkpoint) -> np.ndarray[Any, Any]:
    info = probe(str(film))
    side = checkpoint.image_size
    return decode_segment(
        str(film),
        origin_pts=info.origin_pts,
        first_index=0,
        end_index=grid_size(info.duration_s, checkpoint.fps),
        fps=checkpoint.fps,
        size=(side, side),
        is_last=True,
        duration_s=info.duration_s,
    ).frames


def test_a_service_that_cannot_start_says_why(port: int, tmp_path: Path) -> None:
    """Guards against a user who is told no more than that a replica failed."""
    plan = ReplicaPlan(TINY, keep_ratio=7.0, state=str(tmp_path))
    with pytest.raises(LongreelError, match=r"keep_ratio must lie in \(0, 1\], not 7"):
        deploy(plan, http=("127.0.0.1", port))


def test_a_jobs_summary_is_what_generate_says(service: Service, tmp_path: Path) -> None:
    job = SummarizeRequest(
        (str(service.film),), str(tmp_path / "rows"), str(service.checkpoint.folder)
    )
    summarize(job, lambda *_: None)
    (row,) = ds.dataset(tmp_path / "rows" / "segments").to_table().to_pylist()
    assert row["status"] == "ok"
    request = load_any(service.checkpoint)[0].config.summary_request
    assert row["summary"] == service.expected(request)
    assert row["narrations"][0]["time_s"] == 0.0
    assert row["n_frames"] == len(service.frames)
    assert row["model_revision"] == service.checkpoint.revision


def test_the_openai_client_gets_what_generate_says(service: Service) -> None:
    client = openai.OpenAI(base_url=f"{service.address}/v1", api_key="none")
    film = base64.b64encode(service.film.read_bytes()).decode()
    content: Any = [
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{film}"}},
        {"type": "text", "text": QUESTION},
    ]
    said = client.chat.completions.create(
        model=service.checkpoint.name,
        messages=[{"role": "user", "content": content}],
        max_completion_tokens=24,
    )
    assert said.choices[0].message.content == service.expected(QUESTION, 24)


def test_a_live_session_is_narrated_and_answers(service: Service) -> None:
    with httpx.Client(base_url=service.address, timeout=120) as client:
        session = client.post("/v1/sessions", json={}).json()["id"]
        film = service.film.read_bytes()
        told = client.post(
            f"/v1/sessions/{session}/frames", content=film, headers={"Content-Type": "video/mp4"}
        ).json()
        outcomes = told["outcomes"]
        assert len(outcomes) == len(service.frames)
        assert outcomes[0]["narration"] is not None
        answer = client.post(
            f"/v1/sessions/{session}/responses", json={"input": QUESTION, "stream": False}
        ).json()
        if service.checkpoint.kind != "smolvlm":
            # Which is told how many frames there are, where anybody knows; live nobody does.
            assert answer["output_text"] == service.expected(QUESTION)
        client.delete(f"/v1/sessions/{session}")


def test_videollm_online_is_served_as_its_demo_runs_it(port: int, tmp_path: Path) -> None:
    """Guards its layout on the way through a job and the API: it is not asked, it decides."""
    model, layout = online.published()
    folder = tmp_path / "online"
    model.save_pretrained(folder)
    layout.tokenizer.save_pretrained(folder)
    checkpoint = find_checkpoint(str(folder))
    # It is silent at the last frame, where the demo can be asked.
    film = make_clip(Clip("film.mp4", "libx264", 9, 3, 128, 96), tmp_path)
    frames = torch.from_numpy(_frames(film, checkpoint))
    with torch.inference_mode(), online.plainly(model):
        # A job's own bound on a narration, then that of the live session.
        demos = [online.Demo(model, layout, 0.0, most) for most in (96, 6)]
        for demo in demos:
            for picture in frames:
                demo.frame(picture)
        assert demos[1].last == [layout.silence]
        demos[1].ask(QUESTION)
    deploy(ReplicaPlan(str(folder), state=str(tmp_path / "state")), http=("127.0.0.1", port))
    job = SummarizeRequest((str(film),), str(tmp_path / "rows"), str(folder))
    summarize(job, lambda *_: None)
    (row,) = ds.dataset(tmp_path / "rows" / "segments").to_table().to_pylist()
    spoken = [(number / checkpoint.fps, text) for number, text in demos[0].log if text]
    assert [(said["time_s"], said["text"]) for said in row["narrations"]] == spoken
    assert spoken
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        session = client.post("/v1/sessions", json={"max_tokens": 6}).json()["id"]
        told = client.post(
            f"/v1/sessions/{session}/frames",
            content=film.read_bytes(),
            headers={"Content-Type": "video/mp4"},
        ).json()
        heard = [(o["frame"], o["narration"] or None) for o in told["outcomes"]]
        assert heard == [(number, text or None) for number, text in demos[1].log]
        answer = client.post(
            f"/v1/sessions/{session}/responses",
            json={"input": QUESTION, "max_output_tokens": 6},
        ).json()
        assert answer["output_text"] == demos[1].answers[0]
        client.delete(f"/v1/sessions/{session}")
