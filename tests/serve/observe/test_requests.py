"""What a gateway tells of requests: metrics, ids of lines in logs, and nothing secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families as plain
from ray._common.formatters import JSONFormatter

from longreel import metrics
from longreel.errors import UsageError
from serve.live.items import SessionError
from serve.observe import ids, logs
from serve.observe.gathering import GatheredMetrics
from serve.observe.instruments import GATEWAY, exposition, labelled, sample
from serve.routable import ROUTABLE
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import application, client, form, served

_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_PARENT = f"00-{_TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the service's loggers write, as JSON."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.JsonLines())
    logger = logging.getLogger("longreel")
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


def _value(name: str, **labels: str) -> float:
    found = [v for _, own, have, v in GATEWAY.samples() if own == name and have == labels]
    return found[0] if found else 0.0


def _run(scenario: object) -> None:
    asyncio.run(scenario)  # type: ignore[arg-type]


@pytest.mark.slow
def test_requests_are_counted_by_route_and_never_by_path() -> None:
    """Guards Prometheus' memory against ids in paths, and against methods that clients make up."""

    async def scenario() -> None:
        async with client(application(MemorySessions())) as api:
            await api.post("/v1/sessions", json={"id": "secret-door"})
            await api.post("/v1/sessions/secret-door/frames", files=form(20, 30))
            await api.get("/v1/sessions/none")
            await api.get("/no/such/path")
            await api.request("BREW", "/healthz")
            body = (await api.get("/metrics")).text
        assert "secret-door" not in body
        assert "/no/such/path" not in body
        assert "BREW" not in body

    route = "/v1/sessions/{session}/frames"
    posted = {"route": route, "method": "POST"}
    before = _value("longreel_http_requests_total", **posted, status="200")
    lost = {"route": "unmatched", "method": "GET", "status": "404"}
    unmatched = _value("longreel_http_requests_total", **lost)
    received = _value("longreel_http_request_bytes_total", route=route)
    decoded = _value("longreel_media_decode_seconds_count")
    _run(scenario())
    assert _value("longreel_http_requests_total", **posted, status="200") == before + 1
    assert _value("longreel_http_requests_total", **lost) == unmatched + 1
    assert _value("longreel_http_request_seconds_count", **posted) >= 1
    assert _value("longreel_http_request_bytes_total", route=route) > received + 500
    assert _value("longreel_media_decode_seconds_count") == decoded + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accept", "kind", "parse"),
    [
        ("", "text/plain", plain),
        (
            "application/openmetrics-text;version=1.0.0",
            "application/openmetrics-text",
            open_metrics,
        ),
    ],
)
def test_metrics_parse_in_the_form_that_was_asked_for(
    accept: str, kind: str, parse: object
) -> None:
    """Guards against an exposition that some Prometheus refuses whole."""

    async def scenario() -> None:
        async with client(application(MemorySessions())) as api:
            reply = await api.get("/metrics", headers={"Accept": accept})
        assert reply.headers["content-type"].startswith(kind)
        families = {family.name: family for family in parse(reply.text)}  # type: ignore[operator]
        assert "longreel_media_refused" in families
        assert not any(name.endswith("_created") for name in families)

    _run(scenario())


def test_samples_of_several_replicas_lie_in_one_family() -> None:
    """Guards against a family told twice, which Prometheus refuses, and against unknown names of a
    newer replica.
    """
    told = [sample(metrics.OLDEST, 1.5), ("longreel_of_tomorrow", "longreel_of_tomorrow", {}, 1.0)]
    body, _ = exposition([*labelled(told, replica="a"), *labelled(told, replica='b"\n')])
    (family,) = plain(body.decode())
    assert [s.labels["replica"] for s in family.samples] == ["a", 'b"\n']


class _Handle:
    """Replicas and a directory, of which some never answer, and one answers for another."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def options(self, *, session_id: str, **_: object) -> _Handle:
        return _Handle(session_id)

    @property
    def figures(self) -> _Handle:
        return _Handle("directory")

    async def remote(self) -> object:
        match self.name:
            case "hung" | "directory":
                await asyncio.sleep(3600)
            case "gone":
                return "well", [sample(metrics.OLDEST, 1)]
        return self.name, [sample(metrics.OLDEST, 1)]


async def _without_replicas() -> bool:
    """Whether a service that was scaled to nothing is scraped."""
    handle: object = _Handle()
    gathered = GatheredMetrics(handle, handle, {"version": "1", "model": "m", "revision": "r"})
    return ("longreel_replicas", "longreel_replicas", {}, 0.0) in await gathered.gather()


def test_a_scrape_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards all other metrics against one replica that hangs."""
    monkeypatch.setattr("serve.observe.gathering.ANSWER_S", 0.2)
    ROUTABLE.set({"well", "hung", "gone"})

    async def scenario() -> list[object]:
        handle: object = _Handle()
        gathered = GatheredMetrics(handle, handle, {"version": "1", "model": "m", "revision": "r"})
        async with asyncio.timeout(2):
            # A scraper that leaves takes it from none of the others.
            leaves = asyncio.create_task(gathered.gather())
            stays = asyncio.create_task(gathered.gather())
            await asyncio.sleep(0.05)
            leaves.cancel()
            return [*await stays]

    try:
        found = asyncio.run(scenario())
    finally:
        ROUTABLE.set(set())
    assert asyncio.run(_without_replicas())
    up = {s[2]["replica"]: s[3] for s in found if s[0] == "longreel_up"}  # type: ignore[index]
    assert up == {"well": 1.0, "hung": 0.0, "gone": 0.0}
    lags = [s[2] for s in found if s[0] == "longreel_oldest_waiting_seconds"]  # type: ignore[index]
    assert lags == [{"replica": "well"}]
    assert [s[3] for s in found if s[0] == "longreel_directory_up"] == [0.0]  # type: ignore[index]


def test_a_failure_is_logged_with_what_it_belongs_to(lines: io.StringIO) -> None:
    """Guards whoever looks for one client's trouble: its ids find the line."""

    async def scenario() -> None:
        away = MemorySessions(refusal=SessionError("unavailable", "no replica"))
        async with client(application(away)) as api:
            headers = {"X-Request-Id": "mine-1", "traceparent": _PARENT}
            reply = await api.get("/v1/sessions/door?token=hidden", headers=headers)
            assert reply.headers.get_list("x-request-id") == ["mine-1"]

    _run(scenario())
    (line,) = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert (line["request"], line["session"], line["trace"]) == ("mine-1", "door", _TRACE)
    assert (line["level"], line["logger"]) == ("WARNING", "longreel.api")
    assert "GET /v1/sessions/{session} ended in 503" in line["message"]
    assert line["time"].endswith("Z")


def test_requests_that_go_well_are_not_logged(lines: io.StringIO) -> None:
    """Guards disks and readers: a line for each of a stream's frames helps nobody."""

    async def scenario() -> None:
        async with client(application(MemorySessions())) as api:
            first, second = [await api.get("/healthz") for _ in range(2)]
        assert len(first.headers["x-request-id"]) == 32
        assert first.headers["x-request-id"] != second.headers["x-request-id"]

    _run(scenario())
    assert lines.getvalue() == ""


@pytest.mark.slow
def test_a_websocket_tells_its_id_and_is_counted() -> None:
    """Guards streams, which last longest, against being the one thing that nobody sees."""
    from websockets.asyncio.client import connect

    async def scenario() -> None:
        async with served(application(MemorySessions())) as address:
            url = f"ws://{address}/v1/sessions/new/stream"
            async with connect(url, additional_headers={"X-Request-Id": "w-1"}) as socket:
                assert socket.response is not None
                assert socket.response.headers["x-request-id"] == "w-1"
                assert _value("longreel_websockets_open") == open_before + 1
        assert _value("longreel_websockets_open") == open_before

    closed = {"route": "/v1/sessions/{session}/stream", "method": "WEBSOCKET", "status": "1000"}
    before = _value("longreel_http_requests_total", **closed)
    open_before = _value("longreel_websockets_open")
    _run(scenario())
    assert _value("longreel_http_requests_total", **closed) == before + 1


@pytest.mark.parametrize(
    ("header", "request_id"),
    [("a\tb c", "abc"), ("x" * 500, "x" * 128), ("ok-1.2_3", "ok-1.2_3")],
)
def test_ids_of_clients_cannot_forge_lines(header: str, request_id: str) -> None:
    """Guards logs against line breaks and novels in a header."""
    assert ids.of_request({b"x-request-id": header.encode()}, "/").request == request_id


@pytest.mark.parametrize(
    "header", ["", "00-0-0-01", f"ff-{_TRACE}-00f067aa0ba902b7-01", f"00-{'0' * 32}-{'0' * 16}-01"]
)
def test_traces_that_cannot_be_are_begun_anew(header: str) -> None:
    """Guards traces against headers that the standard says to ignore."""
    found = ids.of_request({b"traceparent": header.encode()}, "/v1/jobs/nightly")
    assert found.span is None
    assert len(found.trace) == 32
    assert found.job == "nightly"


@pytest.mark.parametrize(
    "secret",
    [
        "Authorization: Bearer lr-0123456789",
        "headers={'Authorization': 'Bearer lr-0123456789'}",
        "GET rtsp://admin:lr-0123456789@camera.example.org/door failed",
        "https://bucket.example.org/clip.mp4?X-Amz-Signature=lr-0123456789 was refused",
        "/v1/sessions/door?key=lr-0123456789 failed",
        "http://[lr-0123456789 is no address",
        f"the key lr-0a1b2c3d4e5f-{'0123456789' * 4}abc is not known",
    ],
)
def test_secrets_are_in_no_line(lines: io.StringIO, secret: str) -> None:
    """Guards keys and signed addresses: logs are read by more people than they are meant for."""
    logger = logging.getLogger("longreel.api")
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("it failed: %s", secret)
    logger.warning("plain")
    first, second = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert "0123456789" not in json.dumps(first)
    assert "ValueError" in first["exception"]
    assert second["message"] == "plain"


def test_plain_lines_are_as_safe() -> None:
    """Guards the form that is the default."""
    record = logging.makeLogRecord(
        {"name": "longreel.api", "levelname": "ERROR", "msg": "s3: http://u:lr-01234567@h/x?k=1"}
    )
    record.session = "door"
    line = logs.PlainLines().format(record)
    assert line.endswith("Z ERROR longreel.api s3: http://h/x session=door")


def test_another_form_of_lines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a typing error that nobody notices until logs are needed."""
    monkeypatch.setenv("LONGREEL_LOG_FORMAT", "jsn")
    with pytest.raises(UsageError, match=r"LONGREEL_LOG_FORMAT must be plain or json, not 'jsn'"):
        logs.encoding()


def test_it_lies_where_ray_serve_writes(tmp_path: Path) -> None:
    """Guards our lines against the handlers of a process that has none, or gets others later: they
    would be lost, or written with secrets.
    """

    def handler(name: str) -> MemoryHandler:
        file = logging.FileHandler(tmp_path / name)
        file.setFormatter(JSONFormatter())
        return MemoryHandler(1, target=file)

    served_logger, ours = logging.getLogger("ray.serve"), logging.getLogger("longreel")
    before = list(served_logger.handlers), list(ours.handlers), ours.propagate, ours.level
    # Ray Serve itself, in tests before this one, may have set it otherwise.
    set_so = served_logger.level, served_logger.disabled, list(served_logger.filters)
    try:
        served_logger.setLevel(logging.INFO)
        served_logger.disabled, served_logger.filters = False, []
        served_logger.handlers = [handler("log")]
        logs.install()
        logs.install()
        logging.getLogger("longreel.sessions").warning("lost")
        served_logger.error("theirs")
        served_logger.handlers = [handler("later")]
        logging.getLogger("longreel.sessions").warning("http://u:p@h/")
    finally:
        served_logger.handlers, ours.handlers, ours.propagate = before[:3]
        ours.setLevel(before[3])
        served_logger.setLevel(set_so[0])
        served_logger.disabled, served_logger.filters = set_so[1:]
    found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["message"] for line in found] == ["lost", "theirs"]
    (later,) = (tmp_path / "later").read_text().splitlines()
    assert json.loads(later)["message"] == "http://h/"
