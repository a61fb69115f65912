"""An HTTP proxy that misbehaves by rules, in front of the object store, for tests.

``python -m infra.faultyproxy --rule 503:share=0.1`` runs one in the foreground. The ``Host`` header
passes as it came, so that requests signed for the proxy's address hold at the store.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import http.client
import signal
import socket
import struct
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

#: A rule answers with an error code of S3, or does one of ``RESET``, ``STALL``, ``DRIP``, ``CUT``.
ANSWERS = {
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "SlowDown": (503, "Please reduce your request rate."),
    "ExpiredToken": (403, "The provided token has expired."),
    "AccessDenied": (403, "Access Denied."),
    "NoSuchKey": (404, "The specified key does not exist."),
}
RESET, STALL, DRIP, CUT = "reset", "stall", "drip", "cut"
FAULTS = (*ANSWERS, RESET, STALL, DRIP, CUT)

#: Clients give up after a few attempts in vain: no draw shall decide whether they do.
IN_A_ROW = 3

_UPSTREAM_TIMEOUT_S = 60.0
_DRIP_STEP_S = 0.05
_HOP_BY_HOP = ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect")


@dataclass
class Rule:
    """A fault, and the requests that it befalls; the first rule that befalls one decides.

    Attributes:
        fault: one of ``FAULTS``. ``reset`` breaks the connection, ``stall`` never answers,
            ``drip`` sends a body slowly, ``cut`` ends the connection amid a body.
        method: such as ``GET``; empty for all.
        contains: a part of ``bucket/key``; empty for all.
        skip: so many matching requests pass first.
        first: it befalls at most so many requests; None for no bound.
        share: of the matching requests, 0 to 1, picked by the proxy's seed; a share under 1 never
            makes more than ``IN_A_ROW`` requests for the same bytes fail one after the other.
        at_byte: where in the answer's body ``reset``, ``stall``, ``drip`` and ``cut`` begin; None
            is before any answer, for ``drip`` the body's start and for ``cut`` its middle.
        bytes_per_s: of ``drip``.
    """

    fault: str
    method: str = ""
    contains: str = ""
    skip: int = 0
    first: int | None = None
    share: float = 1.0
    at_byte: int | None = None
    bytes_per_s: float = 10.0

    def __post_init__(self) -> None:
        if self.fault not in FAULTS:
            raise ValueError(f"{self.fault!r} is none of {', '.join(FAULTS)}")

    def matches(self, method: str, name: str) -> bool:
        """Whether it is about such a request."""
        return self.method in ("", method) and self.contains in name


@dataclass
class Seen:
    """One request: ``name`` is ``bucket/key``, ``range`` its Range header, ``sent`` body bytes."""

    method: str
    name: str
    range: str
    fault: str = ""
    sent: int = 0


class FaultyProxy:
    """A running proxy. ``start`` and ``stop`` by hand, or a ``with`` block.

    The same seed and the same requests of an object give the same faults, however requests of
    several objects interleave.

    Args:
        upstream: the store's ``http://host:port``.
        rules: may also be changed while it runs, by assigning to ``rules``.
    """

    def __init__(
        self, upstream: str, rules: Sequence[Rule] = (), *, seed: int = 0, port: int = 0
    ) -> None:
        self.endpoint_url = ""
        self.upstream = upstream
        self.seen: list[Seen] = []
        self._rules: tuple[Rule, ...] = tuple(rules)
        self._seed = seed
        self._port = port
        self._lock = threading.Lock()
        self._matched: Counter[object] = Counter()
        self._in_vain: Counter[object] = Counter()
        self._actions: list[tuple[str, str, Callable[[], None]]] = []
        self._server: ThreadingHTTPServer | None = None
        self.stopping = threading.Event()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those in force."""
        return self._rules

    @rules.setter
    def rules(self, rules: Sequence[Rule]) -> None:
        """Put other rules in force; what was counted for the old ones is forgotten."""
        with self._lock:
            self._rules = tuple(rules)
            self._matched.clear()
            self._in_vain.clear()

    def before(self, method: str, contains: str, action: Callable[[], None]) -> None:
        """Call ``action`` once, before the first such request is decided on and passed."""
        with self._lock:
            self._actions.append((method, contains, action))

    def requests(
        self, method: str = "", contains: str = "", fault: str | None = None
    ) -> list[Seen]:
        """Requests so far, in order of arrival; only those with a fault, if given."""
        return [
            seen
            for seen in list(self.seen)
            if method in ("", seen.method) and contains in seen.name and fault in (None, seen.fault)
        ]

    def bytes_sent(self, contains: str = "") -> int:
        """Bytes of bodies that went to clients."""
        return sum(seen.sent for seen in self.requests(contains=contains))

    def environment(self) -> dict[str, str]:
        """The variable that sends boto3 and this project here; the rest is the store's."""
        return {"AWS_ENDPOINT_URL": self.endpoint_url}

    def start(self) -> FaultyProxy:
        """Returns once it listens. Raises ``OSError`` when the port is taken."""
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", self._port), handler)
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Ends every connection, stalled ones too; harmless when nothing runs."""
        self.stopping.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> FaultyProxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def admit(self, method: str, name: str, range_: str) -> tuple[Seen, Rule | None]:
        """Record a request; the rule that befalls it, if any."""
        with self._lock:
            due = [a for a in self._actions if a[0] in ("", method) and a[1] in name]
            self._actions = [a for a in self._actions if a not in due]
        for _, _, action in due:
            action()
        with self._lock:
            seen = Seen(method, name, range_)
            self.seen.append(seen)
            # A read that goes on where it broke still ends at the same byte.
            again = method, name, range_.rpartition("-")[2]
            for number, rule in enumerate(self._rules):
                if not rule.matches(method, name) or not self._befalls(number, rule, method, name):
                    continue
                if rule.share == 1 or self._in_vain[again] < IN_A_ROW:
                    self._in_vain[again] += 1
                    seen.fault = rule.fault
                    return seen, rule
            self._in_vain[again] = 0
            return seen, None

    def _befalls(self, number: int, rule: Rule, method: str, name: str) -> bool:
        nth = self._matched[number, method, name]
        self._matched[number, method, name] += 1
        if not _drawn(rule.share, self._seed, number, method, name, nth):
            return False
        self._matched[number] += 1
        count = self._matched[number] - rule.skip
        return count > 0 and (rule.first is None or count <= rule.first)


def _drawn(share: float, *what: object) -> bool:
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A stalled connection would hold up the end.
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    proxy: ClassVar[FaultyProxy]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Head and body leave in one packet where they can.
    wbufsize = -1

    def handle_one_request(self) -> None:
        self.requestline, self.close_connection = "", True
        self.raw_requestline = self.rfile.readline(65537)
        # False also for a request line that is no HTTP.
        if not self.raw_requestline or not self.parse_request():
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = unquote(urlsplit(self.path).path.lstrip("/"))
        seen, rule = self.proxy.admit(self.command, name, self.headers.get("Range", ""))
        if rule is not None and rule.fault in ANSWERS:
            self._refuse(seen, rule.fault)
        elif rule is not None and rule.at_byte is None and rule.fault == RESET:
            self._reset()
        elif rule is not None and rule.at_byte is None and rule.fault == STALL:
            self.proxy.stopping.wait()
            self.close_connection = True
        else:
            self._pass(body, seen, rule)
        if self.close_connection is False:
            self.wfile.flush()

    def handle_expect_100(self) -> bool:
        # At once: boto3 waits a second for it before it sends a body.
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _refuse(self, seen: Seen, code: str) -> None:
        status, message = ANSWERS[code]
        text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self._head(status, [("Content-Type", "application/xml"), ("Content-Length", len(text))])
        if self.command != "HEAD":
            self._send(seen, text)

    def _pass(self, body: bytes, seen: Seen, rule: Rule | None) -> None:
        parts = urlsplit(self.proxy.upstream)
        upstream = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=_UPSTREAM_TIMEOUT_S
        )
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for key, value in self.headers.items():
                if key.lower() not in _HOP_BY_HOP:
                    upstream.putheader(key, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP]
        if answer.getheader("Content-Length") is None:
            kept.append(("Content-Length", str(len(content))))
        self._head(answer.status, kept)
        if self.command != "HEAD":
            self._misbehave(seen, content, rule)

    def _misbehave(self, seen: Seen, content: bytes, rule: Rule | None) -> None:
        if rule is None or not content:
            self._send(seen, content)
            return
        at = rule.at_byte
        if at is None:
            at = len(content) // 2 if rule.fault == CUT else 0
        # Something must stay away, else the fault would be none.
        at = min(at, len(content) - 1)
        self._send(seen, content[:at])
        self.wfile.flush()
        self.close_connection = True
        if rule.fault == RESET:
            self._reset()
        elif rule.fault == STALL:
            self.proxy.stopping.wait()
        elif rule.fault == DRIP:
            self._drip(seen, content[at:], rule.bytes_per_s)

    def _drip(self, seen: Seen, content: bytes, bytes_per_s: float) -> None:
        started, sent = time.monotonic(), 0
        while sent < len(content) and not self.proxy.stopping.wait(_DRIP_STEP_S):
            due = int((time.monotonic() - started) * bytes_per_s)
            if due > sent:
                self._send(seen, content[sent:due])
                self.wfile.flush()
                sent = due

    def _head(self, status: int, headers: Sequence[tuple[str, object]]) -> None:
        self.send_response_only(status)
        for key, value in headers:
            self.send_header(key, str(value))
        self.end_headers()

    def _send(self, seen: Seen, data: bytes) -> None:
        # Counted first: whoever has the last byte may ask at once.
        seen.sent += len(data)
        self.wfile.write(data)

    def _reset(self) -> None:
        # What was sent shall arrive first: a reset overtakes what the kernel still holds.
        deadline = time.monotonic() + 1
        while _unacknowledged(self.connection) and time.monotonic() < deadline:
            time.sleep(0.001)
        # Closing with unsent data dropped is what makes the kernel send a reset.
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        # The server would end the connection in an orderly way first.
        self.connection.close()


def _unacknowledged(connection: socket.socket) -> int:
    """Bytes sent that the other side's kernel does not have yet."""
    answer = fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", answer)[0])


def parse_rule(text: str) -> Rule:
    """``FAULT[:name=value,...]`` as a rule, such as ``cut:method=GET,contains=a.mp4,first=2``.

    Raises:
        ValueError: it is none.
    """
    fault, _, rest = text.partition(":")
    fault = {"500": "InternalError", "503": "SlowDown", "404": "NoSuchKey"}.get(fault, fault)
    kinds: dict[str, Callable[[str], Any]] = {
        "skip": int, "first": int, "at_byte": int, "share": float, "bytes_per_s": float,
    }  # fmt: skip
    names = {field.name for field in fields(Rule)} - {"fault"}
    values: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        name, _, value = item.partition("=")
        if name not in names:
            raise ValueError(f"{name!r} is none of {', '.join(sorted(names))}")
        values[name] = kinds.get(name, str)(value)
    return Rule(fault, **values)


def main() -> int:
    """Runs a proxy until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.faultyproxy",
        description="Run a misbehaving HTTP proxy in front of an object store on this machine.",
        epilog="A RULE is FAULT[:name=value,...]. Faults: 500, 503, 404, "
        + ", ".join(FAULTS)
        + ". Names: method, contains (a part of bucket/key), skip, first, share, at_byte, "
        "bytes_per_s. Example: --rule 503:share=0.1 --rule cut:method=GET,contains=a.mp4,first=2",
    )
    parser.add_argument("--upstream", default="http://127.0.0.1:8075", help="the store's address")
    parser.add_argument("--port", type=int, default=8076, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=0, help="picks the requests of a share")
    parser.add_argument("--rule", type=parse_rule, action="append", default=[], metavar="RULE")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with FaultyProxy(
            arguments.upstream, arguments.rule, seed=arguments.seed, port=arguments.port
        ) as proxy:
            for name, value in proxy.environment().items():
                print(f"export {name}={value}")
            print("# ready; Ctrl-C stops it", flush=True)
            shown = 0
            while True:
                time.sleep(0.5)
                for seen in proxy.seen[shown:]:
                    print(seen.method, seen.name, seen.range, seen.fault or "passed", seen.sent)
                    shown += 1
                sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"cannot listen on port {arguments.port}: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
