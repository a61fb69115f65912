"""Spans where nobody wants them: nothing is loaded, and nothing fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_USE = """
import sys
from serve.observe import ids, traces
{before}
ids.use(ids.of_request({{}}, "/"))
with traces.span("GET", "SERVER") as span:
    span.set(http__route="/")
    span.name("GET /")
    span.fail()
    assert ids.current().span is None
traces.record("segment", ids.current(), 0)
traces.flush()
assert not traces.enabled()
{after}
"""


def _ran(endpoint: str | None, before: str = "", after: str = "") -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    if endpoint:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    code = _USE.format(before=before, after=after)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=_ROOT, env=environment, timeout=60)


@pytest.mark.parametrize("name", ["opentelemetry", "google.protobuf"])
def test_nothing_is_loaded_without_an_endpoint(name: str) -> None:
    """Guards seconds and megabytes of every process that sends no spans."""
    _ran(None, after=f"assert {name!r} not in sys.modules")


def test_an_endpoint_without_the_packages_is_no_error() -> None:
    """Guards a service whose image lacks the extra: it serves without spans."""
    _ran("http://127.0.0.1:9", before="sys.modules['opentelemetry'] = None")
