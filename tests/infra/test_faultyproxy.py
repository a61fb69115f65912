"""The misbehaving proxy: each fault looks to a client as it is meant to, and is counted."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from infra.faultyproxy import FAULTS, IN_A_ROW, FaultyProxy, Rule, parse_rule

pytestmark = pytest.mark.waits

BODY = bytes(range(256)) * 40


class _Plain(BaseHTTPRequestHandler):
    """A store of one body, that says which host it was asked as."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.send_header("X-Asked", f"{self.headers['Host']} {self.path}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(BODY)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("X-Got", str(len(data)))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Plain) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def proxy(upstream: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(upstream) as running:
        yield running


def ask(
    proxy: FaultyProxy, path: str, method: str = "GET", timeout_s: float = 10.0, asked: str = ""
) -> str:
    """What came back: head and body as Latin-1, and how it ended if not in order.

    Args:
        timeout_s: without a byte, after which it is silence; long where an answer is due, as a
            busy machine takes its time.
    """
    with socket.create_connection(("127.0.0.1", urlsplit(proxy.endpoint_url).port or 0)) as link:
        link.settimeout(timeout_s)
        head = f"{method} {path} HTTP/1.1\r\nHost: signed\r\nConnection: close\r\n"
        head += f"Range: bytes={asked}\r\n" if asked else ""
        link.sendall(f"{head}\r\n".encode())
        came = b""
        try:
            while piece := link.recv(65536):
                came += piece
        except TimeoutError:
            return came.decode("latin-1") + "<silence>"
        except ConnectionResetError:
            return came.decode("latin-1") + "<reset>"
    return came.decode("latin-1")


def body(answer: str) -> bytes:
    return answer.partition("\r\n\r\n")[2].encode("latin-1")


def test_without_a_rule_all_passes_as_it_came(proxy: FaultyProxy) -> None:
    """Guards against a changed host or path, which would break a signature."""
    answer = ask(proxy, "/b/a%20%C3%BC/../k?x=%2F&y")
    assert body(answer) == BODY
    assert "X-Asked: signed /b/a%20%C3%BC/../k?x=%2F&y" in answer
    assert body(ask(proxy, "/b/k", "HEAD")) == b""
    assert [(s.method, s.name, s.sent) for s in proxy.seen] == [
        ("GET", "b/a ü/../k", len(BODY)),
        ("HEAD", "b/k", 0),
    ]


@pytest.mark.parametrize(
    ("rule", "ends", "length"),
    [
        (Rule("reset"), "<reset>", 0),
        (Rule("reset", at_byte=100), "<reset>", 100),
        (Rule("stall"), "<silence>", 0),
        (Rule("stall", at_byte=100), "<silence>", 100),
        (Rule("cut"), "", len(BODY) // 2),
        (Rule("cut", at_byte=7), "", 7),
        (Rule("cut", at_byte=10**9), "", len(BODY) - 1),
    ],
)
def test_bodies_that_do_not_come(proxy: FaultyProxy, rule: Rule, ends: str, length: int) -> None:
    """Guards against a fault that a client would not notice."""
    proxy.rules = [rule]
    answer = ask(proxy, "/b/k", timeout_s=0.5 if rule.fault == "stall" else 10.0)
    assert answer.endswith(ends)
    assert (rule.at_byte is None and rule.fault != "cut") == ("200 OK" not in answer)
    assert body(answer.removesuffix(ends) if ends else answer) == BODY[:length]
    assert [(s.fault, s.sent) for s in proxy.seen] == [(rule.fault, length)]
    assert proxy.bytes_sent("b/k") == length


@pytest.mark.slow
def test_a_drip_is_slow_and_whole(proxy: FaultyProxy) -> None:
    """Guards against a drip that pauses long enough for a client's read timeout."""
    proxy.rules = [Rule("drip", bytes_per_s=len(BODY))]
    started = time.monotonic()
    assert body(ask(proxy, "/b/k", timeout_s=0.4)) == BODY
    assert 0.8 < time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("fault", "status"),
    [("InternalError", 500), ("SlowDown", 503), ("ExpiredToken", 403), ("NoSuchKey", 404)],
)
def test_refusals_are_those_of_s3(proxy: FaultyProxy, fault: str, status: int) -> None:
    """Guards against answers from which a client cannot read the code; HEAD has no body."""
    proxy.rules = [Rule(fault)]
    answer = ask(proxy, "/b/k")
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert f"<Code>{fault}</Code>" in answer
    assert body(ask(proxy, "/b/k", "HEAD")) == b""


def test_rules_count_and_the_first_that_befalls_decides(proxy: FaultyProxy) -> None:
    """Guards against rules that befall others' requests, or more than they should."""
    proxy.rules = [
        Rule("SlowDown", method="GET", contains="/a.", skip=1, first=2),
        Rule("NoSuchKey", contains="/b."),
    ]
    faults = [ask(proxy, f"/x/{name}") and proxy.seen[-1].fault for name in ("a.1", "b.1") * 4]
    assert faults[::2] == ["", "SlowDown", "SlowDown", ""]
    assert faults[1::2] == ["NoSuchKey"] * 4
    assert ask(proxy, "/x/a.1", "HEAD").startswith("HTTP/1.1 200")
    assert len(proxy.requests("GET", "/a.")) == 4
    assert len(proxy.requests(fault="NoSuchKey")) == 4


@pytest.mark.slow
def test_a_share_is_the_seed_s_whatever_the_order(upstream: str) -> None:
    """Guards against runs that cannot be repeated when requests of several objects interleave."""

    def faults(names: list[str], seed: int) -> dict[str, list[str]]:
        with FaultyProxy(upstream, [Rule("SlowDown", share=0.3)], seed=seed) as proxy:
            for name in names:
                ask(proxy, f"/x/{name}")
            return {n: [s.fault for s in proxy.seen if s.name == f"x/{n}"] for n in "ab"}

    one = faults(list("ab" * 30), 1)
    assert one == faults(["a"] * 30 + ["b"] * 30, 1)
    assert one != faults(list("ab" * 30), 2)
    assert 5 < sum(fault != "" for fault in one["a"] + one["b"]) < 35


def test_a_share_never_fails_one_read_too_often(proxy: FaultyProxy) -> None:
    """Guards against tests that fail once in a while, as a client gave up by a draw."""
    proxy.rules = [Rule("SlowDown", share=0.7), Rule("NoSuchKey", share=0.7)]
    ends = [100, 200]
    for number in range(60):
        # The two reads take turns: one that passes says nothing of the other.
        ask(proxy, "/x/a", asked=f"{number}-{ends[number % 2]}")
    for end in ends:
        faults = [bool(seen.fault) for seen in proxy.seen if seen.range.endswith(f"-{end}")]
        runs = [len(list(group)) for fault, group in itertools.groupby(faults) if fault]
        assert max(runs) == IN_A_ROW


def test_an_action_comes_before_its_request_and_once(proxy: FaultyProxy) -> None:
    """Guards against tests that hit a moment by luck."""
    calls: list[int] = []

    def expire() -> None:
        calls.append(len(proxy.seen))
        proxy.rules = [Rule("ExpiredToken")]

    proxy.before("GET", "x/now", expire)
    assert ask(proxy, "/x/before").startswith("HTTP/1.1 200")
    assert ask(proxy, "/x/now").startswith("HTTP/1.1 403")
    assert ask(proxy, "/x/now").startswith("HTTP/1.1 403")
    assert calls == [1]


def test_a_body_goes_up_whole_and_at_once(proxy: FaultyProxy) -> None:
    """Guards against a client kept waiting for the word to go on."""
    port = urlsplit(proxy.endpoint_url).port or 0
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.settimeout(5)
        head = b"PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
        link.sendall(head)
        assert link.recv(65536).startswith(b"HTTP/1.1 100")
        link.sendall(b"0123456789")
        assert b"X-Got: 10" in link.recv(65536)


def test_stopping_frees_the_stalled(upstream: str) -> None:
    """Guards against a test run that ends only when a client gives up."""
    answers: list[str] = []
    arrived = threading.Event()
    with FaultyProxy(upstream, [Rule("stall")]) as proxy:
        proxy.before("GET", "b/k", arrived.set)
        waiting = threading.Thread(target=lambda: answers.append(ask(proxy, "/b/k", timeout_s=30)))
        waiting.start()
        assert arrived.wait(5)
    waiting.join(5)
    assert answers == [""]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("503:share=0.1", Rule("SlowDown", share=0.1)),
        ("cut:method=GET,contains=a.mp4,first=2", Rule("cut", "GET", "a.mp4", first=2)),
        ("drip:bytes_per_s=20,at_byte=5", Rule("drip", bytes_per_s=20.0, at_byte=5)),
    ],
)
def test_rules_by_hand(text: str, rule: Rule) -> None:
    """Guards against a rule that means another thing on the command line."""
    assert parse_rule(text) == rule


@pytest.mark.parametrize("text", ["", "burn", "cut:frist=2", "cut:first=two"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    """Guards against a fault that never comes because of a slip of the pen."""
    with pytest.raises(ValueError, match=r"is none of|invalid literal"):
        parse_rule(text)


def test_its_help_names_every_fault() -> None:
    """Guards against faults that nobody finds."""
    command = [sys.executable, "-m", "infra.faultyproxy", "--help"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0
    for fault in FAULTS:
        assert fault in run.stdout
