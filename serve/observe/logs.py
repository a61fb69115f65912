"""Lines of logs: which request and session they are about, and nothing that is secret.

They go where Ray Serve's own go, a file for each gateway and replica.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from typing import Any

from actors.objects import printable_uri
from longreel.errors import UsageError
from serve.observe.ids import current

#: Environment variable of whoever deploys: ``plain`` or ``json``.
FORMAT = "LONGREEL_LOG_FORMAT"
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>\\]+")
_QUERY = re.compile(r"(?<=[\w/}])\?[\w.~%-]+=[^\s\"'<>\\]*")
_AUTHORIZATION = re.compile(
    r"(?i)(authorization|x-api-key|api[_-]?key)(\W{1,6})(?:(?:bearer|basic)\s+)?[^\s\"',;)}\]]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")
#: A key of ours: its first part only says which.
_KEY = re.compile(r"\b(lr-[0-9a-f]{12})-[A-Za-z0-9_-]{43}")
_IDS = ("request", "session", "job", "trace")


def encoding() -> str:
    """``TEXT`` or ``JSON``, as Ray Serve calls what the environment asks for.

    Raises:
        UsageError: it asks for something else.
    """
    asked = os.environ.get(FORMAT) or "plain"
    try:
        return {"plain": "TEXT", "json": "JSON"}[asked]
    except KeyError:
        raise UsageError(f"{FORMAT} must be plain or json, not {asked!r}") from None


def without_secrets(text: str) -> str:
    """``text`` without what stands in it of keys, and of URLs without credentials and queries."""
    text = _KEY.sub(r"\1-***", text)
    text = _URL.sub(lambda found: _printable(found[0]), text)
    text = _QUERY.sub("?...", text)
    text = _AUTHORIZATION.sub(r"\1\2***", text)
    return _BEARER.sub(r"\1 ***", text)


def _printable(url: str) -> str:
    try:
        return printable_uri(url)
    except ValueError:  # it is none
        return "***"


def _about(record: logging.LogRecord) -> dict[str, str]:
    """The ids of a line, and whose it is, as far as they are known."""
    ids = current()
    found = {} if ids is None else {name: getattr(ids, name) for name in _IDS}
    # Ray Serve's own.
    found |= {name: getattr(record, name, None) for name in ("deployment", "replica")}
    found |= {name: value for name in _IDS if (value := getattr(record, name, None))}
    return {name: str(value) for name, value in found.items() if value}


class PlainLines(logging.Formatter):
    """A line for people: time, level, logger, message, then ids."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s%(about)s")
        self.converter = time.gmtime
        self.default_time_format, self.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        record.about = "".join(f" {name}={value}" for name, value in _about(record).items())
        return without_secrets(super().format(record))


class JsonLines(logging.Formatter):
    """A line for programs: one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            **_about(record),
        }
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line)


def install() -> None:
    """Lines of this process, ours and Ray Serve's, from now on in one form and in one place.

    Which form, whoever deployed it said with ``encoding``; it came with Ray Serve's configuration.
    """
    served, ours = logging.getLogger("ray.serve"), logging.getLogger("longreel")
    for handler in served.handlers:
        # What Ray Serve gives lines to may only hold them for the one that writes.
        writer = getattr(handler, "target", None) or handler
        if not isinstance(writer.formatter, PlainLines | JsonLines):
            as_json = type(writer.formatter).__name__ == "JSONFormatter"
            writer.setFormatter(JsonLines() if as_json else PlainLines())
    if served.handlers and not any(isinstance(each, _ToRayServe) for each in ours.handlers):
        ours.handlers, ours.propagate = [_ToRayServe()], False
        ours.setLevel(logging.INFO)


class _ToRayServe(logging.Handler):
    """Hands lines to wherever Ray Serve writes at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        # It makes its handlers anew where a deployment's configuration of logs changes.
        install()
        logging.getLogger("ray.serve").handle(record)
