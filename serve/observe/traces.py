"""Spans for OpenTelemetry, where it is installed (``longreel[trace]``) and told where to send them.

Else nothing of it is imported, and a span is one look at a variable. Who is whose parent comes from
``serve.observe.ids``, which travel with calls; Ray's own tracing is not needed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

from longreel import __version__
from serve.observe.ids import Ids, current, use

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_FLUSH_MS = 5000


@cache
def enabled() -> bool:
    """Whether spans of this process are sent anywhere."""
    return any(os.environ.get(name) for name in _ENDPOINTS) and _provider() is not None


class Span:
    """A span that nobody sends."""

    def name(self, name: str) -> None:
        """Call it otherwise."""

    def set(self, **about: str | int) -> None:
        """Say more of it; ``__`` stands for a dot."""

    def fail(self) -> None:
        """What it tells of went wrong."""


class _Sent(Span):
    def __init__(self, span: Any) -> None:
        self._span = span

    def name(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, **about: str | int) -> None:
        self._span.set_attributes(_dotted(about))

    def fail(self) -> None:
        _fail(self._span)


_NOBODYS = Span()


@contextmanager
def span(name: str, kind: str = "INTERNAL", **about: str | int) -> Iterator[Span]:
    """What is done within is the span ``name``, a child of the current one.

    Args:
        kind: of OpenTelemetry's ``SpanKind``.
        about: attributes; ``__`` stands for a dot.
    """
    ids = current()
    if ids is None or not enabled():
        yield _NOBODYS
        return
    begun = _begin(name, kind, ids, time.time_ns(), about)
    told = begun.get_span_context()
    ids = replace(ids, trace=f"{told.trace_id:032x}")
    use(replace(ids, span=f"{told.span_id:016x}"))
    try:
        yield _Sent(begun)
    except Exception:
        _fail(begun)
        raise
    finally:
        begun.end()
        use(ids)


def record(
    name: str, parent: Ids | None, began_ns: int, *, failed: bool = False, **about: str | int
) -> None:
    """A span that began at ``began_ns``, in nanoseconds since 1970, and ends now."""
    if enabled() and parent is not None:
        done = _begin(name, "INTERNAL", parent, began_ns, about)
        if failed:
            _fail(done)
        done.end()


def flush() -> None:
    """Send what waits, for a process that may be about to end."""
    if enabled():
        _provider().force_flush(_FLUSH_MS)


@cache
def _provider() -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return None
    named = {"service.version": __version__}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        named["service.name"] = "longreel"
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _dotted(about: Mapping[str, str | int]) -> dict[str, str | int]:
    return {name.replace("__", "."): value for name, value in about.items()}


def _begin(name: str, kind: str, parent: Ids, began_ns: int, about: Mapping[str, str | int]) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        SpanKind,
        TraceFlags,
        set_span_in_context,
    )

    above = Context()
    if parent.span is not None:
        flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
        told = SpanContext(int(parent.trace, 16), int(parent.span, 16), True, flags)
        above = set_span_in_context(NonRecordingSpan(told), above)
    tracer = _provider().get_tracer("longreel", __version__)
    return tracer.start_span(
        name, above, SpanKind[kind], attributes=_dotted(about), start_time=began_ns
    )


def _fail(span: Any) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR))
