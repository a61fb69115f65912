"""Claims on a state store: one cluster holds it, and the next one when that has ended."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors import claim as module
from actors.claim import StoreClaim
from actors.objects import list_objects, write_bytes
from longreel.errors import LongreelError, StorageError

pytestmark = pytest.mark.waits


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.objectstore)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "state")
    return f"s3://{request.getfixturevalue('bucket')}/state"


def test_one_cluster_holds_it_and_goes_on_at_once_when_it_begins_anew(store: str) -> None:
    """Guards against two clusters that serve from one store, and against a wait where the same
    one comes back."""
    first = StoreClaim(store, "a")
    assert first.look()
    assert (first.term, first.renew()) == (1, True)
    assert not StoreClaim(store, "b").look()
    again = StoreClaim(store, "a")
    assert again.look()
    assert again.term == 1
    assert first.holds(1)


@pytest.mark.slow
def test_what_is_given_up_is_free_at_once_and_stays_lost(store: str) -> None:
    """Guards an upgrade against a wait, and the next holder against one that comes back."""
    first, second = StoreClaim(store, "a"), StoreClaim(store, "b")
    first.look()
    assert not second.look()
    first.release()
    assert not first.holds(1)
    assert second.look()
    assert second.term == 2
    assert not first.look()
    assert not first.renew()
    second.release()
    # Given up and taken again, it is another term: what was begun in the first is void.
    assert second.look()
    assert (second.term, second.holds(2), second.holds(3)) == (3, False, True)


@pytest.mark.slow
def test_a_claim_that_is_not_renewed_goes_stale_by_the_readers_own_clock(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a dead cluster that keeps a store for ever, and against clocks that differ."""
    monkeypatch.setattr(module, "STALE_S", 0.3)
    first, second = StoreClaim(store, "a"), StoreClaim(store, "b")
    first.look()
    for _ in range(4):
        assert not second.look()
        time.sleep(0.15)
        assert first.renew()
    assert not second.look()
    time.sleep(0.4)
    assert second.look()
    # The first one wakes up: whatever it writes, the store is the second's.
    assert not first.renew()
    write_bytes(f"{store}/claims/00000001-{first._name}", b"{}")
    assert not first.holds(1)
    assert second.holds(2)
    assert second.renew()
    assert first.other().startswith("another cluster serves from it")


@pytest.mark.slow
def test_a_holder_whose_process_is_gone_is_followed_at_once(tmp_path: Path) -> None:
    """Guards against twenty seconds without a service after kill -9 on one machine."""
    script = "import sys; from actors.claim import StoreClaim; StoreClaim(sys.argv[1], 'a').look()"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    second = StoreClaim(str(tmp_path), "b")
    assert second.look()
    assert second.term == 2


@pytest.mark.slow
def test_whoever_is_told_to_start_is_refused_and_told_by_whom(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards an operator's second start: refused as soon as the holder is seen to live."""
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    first = StoreClaim(store, "a")
    first.take()
    began = time.strftime("%Y-%m-%d %H", time.gmtime())
    renewing = threading.Timer(0.3, first.renew)
    renewing.start()
    said = rf"{store} is in use: another cluster .* on {socket.gethostname()} since {began}:"
    with pytest.raises(LongreelError, match=said):
        StoreClaim(store, "b").take()
    renewing.join()
    assert first.holds(1)


def test_whoever_is_told_to_start_waits_for_a_silent_holder_to_be_stale(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a start after the holder's machine died: it waits once, and serves."""
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(module, "STALE_S", 0.3)
    StoreClaim(store, "a").take()
    second = StoreClaim(store, "b")
    second.take()
    assert second.holds(2)


@pytest.mark.slow
def test_of_several_that_come_at_once_one_holds(store: str) -> None:
    """Guards the takeover of a store that several clusters wait for."""
    first = StoreClaim(store, "a")
    first.look()
    first.release()
    waiting = [StoreClaim(store, name) for name in "bcdef"]
    with ThreadPoolExecutor(len(waiting)) as threads:
        list(threads.map(StoreClaim.look, waiting))
    held = [claim for claim in waiting if claim.term and claim.holds(claim.term)]
    assert len(held) == 1
    for claim in waiting:
        claim.look()
        claim.renew()
    assert [claim for claim in waiting if claim.term] == held


@pytest.mark.slow
def test_a_store_that_could_not_be_read_was_not_seen_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a holder that could renew as little as the others could read, against being taken
    for gone; and its claim against one failure of the store."""
    monkeypatch.setattr(module, "STALE_S", 0.4)
    first, second = StoreClaim(str(tmp_path), "a"), StoreClaim(str(tmp_path), "b")
    first.look()
    assert not second.look()
    claims = tmp_path / "claims"
    claims.rename(tmp_path / "away")
    claims.write_text("no folder")
    for broken in (first.renew, second.look, lambda: first.holds(1)):
        with pytest.raises(StorageError):
            broken()
    time.sleep(0.5)
    claims.unlink()
    (tmp_path / "away").rename(claims)
    assert not second.look()
    assert first.renew()
    assert first.holds(1)


@pytest.mark.slow
def test_claims_of_the_past_are_taken_away(store: str) -> None:
    """Guards a store that sees many upgrades."""
    for name in "abc":
        claim = StoreClaim(store, name)
        assert claim.look()
        claim.renew()
        claim.release()
    assert len(list(list_objects(f"{store}/claims/"))) == 1


def test_a_claim_that_is_no_json_is_not_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a store locked for ever by a damaged object."""
    monkeypatch.setattr(module, "STALE_S", 0.2)
    write_bytes(str(tmp_path / "claims" / f"00000007-{0:012x}"), b"{")
    claim = StoreClaim(str(tmp_path), "a")
    assert not claim.look()
    time.sleep(0.3)
    assert claim.look()
    assert claim.term == 8
