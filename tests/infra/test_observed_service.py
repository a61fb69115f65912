"""A real service at work: what a real Prometheus finds, what its logs say, what spans it sends."""

from __future__ import annotations

import io
import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import httpx
import pytest
import ray
from PIL import Image
from websockets.sync.client import connect

from longreel.metrics import METRICS
from mod.checkpoint import TINY
from mod.world.streams import World
from pipelines.cluster import connected
from pipelines.job import SummarizeRequest
from pipelines.summarize import summarize
from serve.app import ReplicaPlan, deploy
from serve.observe import traces
from serve.routes.context import ApiSettings
from tests.infra.prometheus import (
    Prometheus,
    alert_rules,
    panel_queries,
    prometheus,
    selectors_in,
)
from tests.infra.spans import Receiver, receiver
from tests.longreel.footage import lights
from tests.ports import free_ports
from tests.serve.live_sources import HttpSource

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

_TRACE, _CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
#: Of a service that is well.
_EMPTY = {
    'longreel_http_requests_total{status="503"}': "no request has failed",
    'longreel_http_requests_total{status=~"5.."}': "no request has failed",
    "ray_longreel_stream_frames_dropped_total": "no frame was dropped, and Ray tells of no 0",
}


@pytest.fixture(scope="module")
def began() -> float:
    return time.time()


@dataclass(frozen=True)
class Observed:
    """A service that has worked on a session, a stream and a job.

    Attributes:
        logs: folder of Ray Serve's logs.
    """

    prometheus: Prometheus
    spans: Receiver
    logs: Path


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, began: float) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("metrics")
    (port,) = free_ports(1)
    with pytest.MonkeyPatch.context() as patch, receiver() as spans:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        patch.setenv("LONGREEL_LOG_FORMAT", "json")
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "300")
        traces.enabled.cache_clear()
        with connected("local", takes_jobs=True):
            settings = ApiSettings(allow_private_urls=True)
            plan = ReplicaPlan(TINY, state=str(folder / "state"), idle_s=2)
            deploy(plan, http=("127.0.0.1", port), settings=settings)
            node = ray._private.worker._global_node
            discovery = f"{node.get_session_dir_path()}/prom_metrics_service_discovery.json"
            with prometheus(folder, f"127.0.0.1:{port}", discovery) as found:
                _work(f"http://127.0.0.1:{port}", folder)
                time.sleep(3)
                traces.flush()
                yield Observed(found, spans, Path(node.get_session_dir_path()) / "logs" / "serve")
    traces.enabled.cache_clear()


@pytest.fixture(scope="module")
def scraped(observed: Observed) -> Prometheus:
    return observed.prometheus


def _work(service: str, folder: Path) -> None:
    video = lights(folder / "lights.mp4", [200, 30] * 16)
    request = SummarizeRequest((video,), str(folder / "rows"), TINY, segment_s=2.0, job_id="lights")
    job = threading.Thread(target=summarize, args=(request, lambda phase, progress: None))
    job.start()
    with httpx.Client(base_url=service, timeout=120) as client, HttpSource() as source:
        stream = {"url": f"{source.url}/live.ts", "id": "door"}
        client.post("/v1/streams", json=stream).raise_for_status()
        client.post("/v1/sessions", json={"id": "yard", "fps": 2}).raise_for_status()
        frames = [_jpeg(seen.frame) for seen in islice(World(5), 70)]
        for first in range(0, 70, 10):
            form = [("frames", ("frame.jpg", data)) for data in frames[first : first + 10]]
            client.post("/v1/sessions/yard/frames", files=form).raise_for_status()
        late = client.post("/v1/sessions/yard/frames?time_s=1", files=form[:1]).json()
        assert "late" in str(late)
        broken = {"Content-Type": "image/jpeg"}
        assert client.post("/v1/sessions/yard/frames", content=b"\xff\xd8\xff", headers=broken)
        client.post("/v1/sessions/yard/responses", json={"input": "What is there?"})
        with connect(f"ws{service[4:]}/v1/sessions/yard/stream") as socket:
            socket.send(frames[0])
            socket.recv(timeout=20)
            time.sleep(2.5)  # seen by a scrape
        job.join()
        time.sleep(3.5)  # the session that nobody uses leaves memory
        ids = {"X-Request-Id": "and-now", "traceparent": f"00-{_TRACE}-{_CALLER}-01"}
        client.post("/v1/sessions/yard/responses", json={"input": "And now?"}, headers=ids)
        client.delete("/v1/streams/door")


def _jpeg(pixels: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG")  # type: ignore[arg-type]
    return data.getvalue()


def test_every_panel_shows_something(scraped: Prometheus, began: float) -> None:
    """Guards against panels that ask for what nobody tells, and so are silent when they matter."""
    empty = [
        f"{title}: {query}"
        for title, queries in panel_queries().items()
        for query in queries
        if not scraped.over_time(query, began)
    ]
    assert empty == []


def test_what_happened_is_told(scraped: Prometheus, began: float) -> None:
    """Guards against metrics that stand at 0 whatever happens."""

    def most(query: str) -> float:
        series = scraped.over_time(query, began)
        values = [float(value) for one in series for _, value in one["values"]]
        return max((value for value in values if not math.isnan(value)), default=0.0)

    assert most('longreel_frames_accepted_total{kind="live"}') >= 70
    assert most('longreel_frames_dropped_total{reason="late"}') >= 1
    assert most('longreel_frame_lag_seconds_count{kind="live"}') >= 70
    assert most('longreel_media_refused_total{code="media_error"}') == 1
    assert most('longreel_session_recovery_seconds_count{cause="idle"}') >= 1
    assert most('longreel_sessions{state="live"}') >= 1
    assert most("longreel_websockets_open") == 1
    assert most('ray_longreel_job_rows_total{job_id="lights",table="segments",status="ok"}') == 8
    assert 0 < most("longreel_cache_used_bytes") < most("longreel_cache_capacity_bytes")
    assert most("longreel_engine_frames_run_total") >= most("longreel_engine_frames_kept_total")
    for name in (
        "longreel_narrations_total",
        "longreel_answers_total",
        "longreel_engine_words_total",
        "longreel_session_offloads_total",
        "longreel_snapshot_bytes_total",
        'longreel_store_write_seconds_count{what="log"}',
        "longreel_http_request_bytes_total",
        "ray_longreel_stream_frames_total",
        "ray_longreel_job_decode_seconds_total",
    ):
        assert most(name) > 0, name


def test_every_metric_is_exported(scraped: Prometheus, began: float) -> None:
    """Guards against names that are declared, documented, and told by nobody."""
    silent = [
        name
        for metric in METRICS
        for name in metric.samples
        if name not in _EMPTY and not scraped.over_time(name, began)
    ]
    assert silent == []


def test_alerts_have_something_to_look_at_and_are_silent(scraped: Prometheus, began: float) -> None:
    """Guards against an alert that can never fire, or fires while all is well."""
    (group,) = scraped.get("rules")["groups"]
    assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in alert_rules()]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert [alert for alert in scraped.get("alerts")["alerts"] if alert["state"] == "firing"] == []
    blind = [
        f"{rule['alert']}: {selector}"
        for rule in alert_rules()
        for selector in selectors_in(rule["expr"])
        if selector not in _EMPTY and not scraped.over_time(selector, began)
    ]
    assert blind == []


def test_no_label_holds_an_id_of_a_session(scraped: Prometheus, began: float) -> None:
    """Guards Prometheus' memory: a series for each session or path would never end."""
    routes = set(scraped.get("label/route/values"))
    assert not any("yard" in route or "door" in route for route in routes), routes
    assert "/v1/sessions/{session}/frames" in routes
    (replica,) = scraped.over_time("longreel_up", began)
    assert set(replica["metric"]) == {"__name__", "instance", "job", "replica"}


def test_a_request_is_found_in_the_log_of_its_replica(observed: Observed) -> None:
    """Guards whoever follows one client's request beyond the gateway."""
    lines = [
        json.loads(line)
        for file in observed.logs.glob("replica_longreel_replica_*.log")
        for line in file.read_text().splitlines()
    ]
    (line,) = [line for line in lines if line.get("request") == "and-now"]
    assert (line["message"], line["session"]) == ("taken in (idle)", "yard")
    assert (line["trace"], line["deployment"]) == (_TRACE, "longreel_replica")


def test_spans_of_a_request_hang_together(observed: Observed) -> None:
    """Guards traces against parts that nobody can put together."""
    mine = [s for s in observed.spans.spans if s.trace_id.hex() == _TRACE]
    (request,) = [s for s in mine if s.name == "POST /v1/sessions/{session}/responses"]
    assert request.parent_span_id.hex() == _CALLER
    # Also the call that was refused, as the session had to be looked up anew.
    calls = [s for s in mine if s.name == "session_give"]
    assert {s.parent_span_id for s in calls} == {request.span_id}
    (answer,) = [s for s in mine if s.name == "engine.answer"]
    assert answer.parent_span_id in {s.span_id for s in calls}
    assert request.start_time_unix_nano <= answer.start_time_unix_nano
    assert answer.start_time_unix_nano < answer.end_time_unix_nano
    assert observed.spans.services == {"longreel"}
    # Frames as well, in traces that the service began.
    watched, *_ = observed.spans.named("engine.watch")
    callers = [s for s in observed.spans.spans if s.span_id == watched.parent_span_id]
    assert [s.name for s in callers] == ["session_give"]


def test_spans_of_segments_belong_to_their_job(observed: Observed) -> None:
    """Guards against a job's time that cannot be told apart by segment."""
    (job,) = observed.spans.named("job")
    segments = observed.spans.named("segment")
    assert len(segments) == 8
    assert {s.parent_span_id for s in segments} == {job.span_id}
    assert {s.trace_id for s in segments} == {job.trace_id}
    assert len({a.value.string_value for s in segments for a in s.attributes}) == 8 + 1
