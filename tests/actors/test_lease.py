"""One run at a time on one output, and the next without a long wait when it has died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from actors import lease
from actors.holder import here
from actors.lease import leased, require
from actors.objects import write_bytes
from longreel.errors import LeaseLostError, LongreelError

pytestmark = pytest.mark.waits

_HOLDER = """
import sys, time
from actors.lease import leased
with leased(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def _file(output: Path) -> Path:
    return output / "_longreel" / "lease.json"


def _left(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "_longreel").iterdir())


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An output whose holder is a process of another machine."""
    holder = {"token": "t", "host": "far", "pid": 7, "began": "1", "place": "far", "renewed": 1}
    _file(tmp_path).parent.mkdir()
    _file(tmp_path).write_text(json.dumps(holder))
    return tmp_path


@pytest.mark.slow
def test_a_second_run_is_refused_and_told_who_works(tmp_path: Path) -> None:
    """Guards against two drivers that each write every row."""
    with leased(str(tmp_path)) as held:
        require(str(tmp_path), held.token)
        with pytest.raises(LongreelError, match=r"being worked on by process \d+ on "):
            leased(str(tmp_path)).__enter__()
        require(str(tmp_path), held.token)
    assert not _left(tmp_path)
    with leased(str(tmp_path)):
        pass


def test_the_first_of_two_that_begin_at_once_is_refused_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a run that did nothing yet and is told that it was taken over."""
    other = {"token": "other", "renewed": 1, **here()}
    monkeypatch.setattr(time, "sleep", lambda _: _file(tmp_path).write_text(json.dumps(other)))
    with pytest.raises(LongreelError, match=rf"being worked on by process {os.getpid()} on "):
        leased(str(tmp_path)).__enter__()


def test_the_first_of_two_goes_on_when_the_other_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against an output that neither of two runs works on, as one was killed at once."""
    others = iter([{"token": "other", "renewed": 1, **here(), "began": "1"}])

    def settle(_: float) -> None:
        for other in others:
            _file(tmp_path).write_text(json.dumps(other))

    monkeypatch.setattr(time, "sleep", settle)
    with leased(str(tmp_path)) as held:
        require(str(tmp_path), held.token)


@pytest.mark.slow
def test_a_killed_holder_is_known_to_be_dead_at_once(tmp_path: Path) -> None:
    """Guards against a wait, or a refusal for ever, after kill -9."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LongreelError, match=str(process.pid)):
            leased(str(tmp_path)).__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
        started = time.monotonic()
        with leased(str(tmp_path)):
            assert time.monotonic() - started < 5
    finally:
        process.kill()
        process.wait()


def test_a_holder_elsewhere_that_renews_is_alive(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against taking over from a machine whose processes cannot be seen from here."""
    monkeypatch.setattr(
        time, "sleep", lambda _: (_file(elsewhere).parent / "lease-t.json").write_text("{}")
    )
    with pytest.raises(LongreelError, match="being worked on by process 7 on far"):
        leased(str(elsewhere)).__enter__()


@pytest.mark.slow
def test_a_holder_elsewhere_that_stopped_renewing_is_gone(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against an output that nobody may go on with since its machine is gone."""
    monkeypatch.setattr(lease, "STALE_S", 1.5)
    (_file(elsewhere).parent / "lease-t.json").write_text('{"renewed": 7}')
    with leased(str(elsewhere)) as held:
        require(str(elsewhere), held.token)
        assert _left(elsewhere) == ["lease.json"]  # what the other said of itself is gone


def test_a_holder_of_an_older_version_is_seen_to_live(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against two runs of two versions on one output: older ones renew the lease itself."""
    monkeypatch.setattr(
        time, "sleep", lambda _: _file(elsewhere).write_text(json.dumps({"token": "t", "pid": 8}))
    )
    with pytest.raises(LongreelError, match="process 8"):
        leased(str(elsewhere)).__enter__()


def test_a_renewal_that_lands_after_a_take_over_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against rows twice: the run before was amid a renewal when it was taken for dead, and
    its write arrives when the next run works."""
    monkeypatch.setattr(lease, "RENEW_S", 0.01)
    asked, go_on = threading.Event(), threading.Event()
    written = write_bytes

    def late(uri: str, data: bytes) -> None:
        if not uri.endswith("/lease.json") and not go_on.is_set():
            asked.set()
            assert go_on.wait(10)
        written(uri, data)

    monkeypatch.setattr(lease, "write_bytes", late)
    first = lease.Lease(str(tmp_path))
    assert first.take()
    assert asked.wait(10)
    second = lease.Lease(str(tmp_path))
    assert second.take()
    go_on.set()
    first.release()
    require(str(tmp_path), second.token)
    with pytest.raises(LeaseLostError):
        require(str(tmp_path), first.token)
    second.release()
    assert not _left(tmp_path)


def test_whoever_was_taken_over_may_write_no_more(tmp_path: Path) -> None:
    """Guards against a run that slept through its lease and writes rows a second time."""
    with leased(str(tmp_path)) as held:
        _file(tmp_path).write_text(json.dumps({"token": "other", "pid": 9, "host": "far"}))
        with pytest.raises(LeaseLostError, match="process 9 on far"):
            require(str(tmp_path), held.token)
    # The other's lease stays where it is.
    assert json.loads(_file(tmp_path).read_text())["token"] == "other"


def test_a_lease_that_is_no_json_is_nobodys(tmp_path: Path) -> None:
    """Guards against an output locked for ever by a damaged file."""
    _file(tmp_path).parent.mkdir()
    _file(tmp_path).write_text("{")
    with leased(str(tmp_path)):
        pass


@pytest.mark.slow
def test_it_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a long job that others take for dead."""
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    with leased(str(tmp_path)) as held:
        deadline = time.monotonic() + 10
        said = _file(tmp_path).parent / f"lease-{held.token}.json"
        while not said.exists() or json.loads(said.read_text())["renewed"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
