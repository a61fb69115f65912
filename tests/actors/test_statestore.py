"""The state store: what is written is there, what does not count is left out.

Guards against records that come back as others, in another order, or after a fence.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.objects import join_uri, write_bytes
from actors.statestore import (
    Manifest,
    Record,
    StateStore,
    effective,
    pack_records,
    unpack_records,
)


def _record(epoch: int, seq: int, text: str = "", about: str = "") -> Record:
    return Record("s", epoch, seq, "stop" if about else "question", {"text": text}, about=about)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.objectstore)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StateStore:
    if request.param == "folder":
        return StateStore(str(tmp_path / "state"))
    return StateStore(f"s3://{request.getfixturevalue('bucket')}/state")


@pytest.mark.slow
def test_batches_come_back_in_the_order_of_writing(store: StateStore) -> None:
    """Guards against a log that sorts its tenth batch before its second."""
    assert list(store.records("a")) == []
    written = []
    for number in range(1, 13):
        batch = [Record("s", 1, 2 * number + i, "frame", {"i": i}, bytes([i]) * 9) for i in (0, 1)]
        store.append("a", number, batch)
        written += batch
    store.append("b", 1, [_record(1, 1)])
    assert list(store.records("a")) == written
    store.delete_batch("a", 1)
    assert list(store.records("a")) == written[2:]
    store.delete_owner("a")
    assert list(store.records("a")) == []
    assert len(list(store.records("b"))) == 1


def test_a_batch_that_goes_while_a_log_is_read_is_left_out(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards sessions against others on their replica: what these need no more is deleted at any
    time, also between the listing of a log and the reading of it."""
    for number in (1, 2, 3):
        store.append("a", number, [_record(1, number)])
    listed = store._below

    def below(folder: str) -> list[str]:
        found = listed(folder)
        store.delete_batch("a", 2)
        return found

    monkeypatch.setattr(store, "_below", below)
    assert [r.seq for r in store.records("a")] == [1, 3]


def test_a_fence_stands_and_outlives_the_log(store: StateStore) -> None:
    assert not store.fenced("a")
    store.append("a", 1, [_record(1, 1)])
    store.fence("a", "it died")
    store.delete_owner("a")
    assert store.fenced("a")
    assert not store.fenced("b")


def test_what_is_written_behind_a_fence_does_not_count(store: StateStore) -> None:
    """Guards against inputs that nobody was told of, and that come back with the next owner."""
    store.append("a", 1, [_record(1, 1)])
    store.append("a", 2, [_record(1, 2)])
    store.fence("a", "lost")
    store.append("a", 3, [_record(1, 3)])
    store.fence("a", "lost again")
    assert [r.seq for r in store.records("a")] == [1, 2]


def test_manifests_and_snapshots_of_a_session(store: StateStore) -> None:
    assert store.sessions(0)[0] == []
    one = Manifest("one", 1.5, {"fps": 2.0}).assigned("a-1", "a").assigned("b-1", "b")
    assert (one.epoch, one.owner, one.tail) == (2, "b-1", ("a-1", "b-1"))
    store.write_manifest(one)
    store.write_manifest(replace(one, session="two"))
    store.write_snapshot("one", "snapshot-1", b"state")
    assert store.read_snapshot("one", "snapshot-1") == b"state"
    assert sorted(m.session for m in store.sessions(0)[0]) == ["one", "two"]
    assert [m for m in store.sessions(0)[0] if m.session == "one"] == [one]
    assert store.manifest("one") == one
    assert store.manifest("on") is None
    store.delete(store.close_session("one"))
    assert [m.session for m in store.sessions(0)[0]] == ["two"]
    assert store.manifest("one") is None


@pytest.mark.slow
def test_what_a_directory_that_was_taken_over_still_writes_changes_nothing(
    store: StateStore,
) -> None:
    """Guards the next cluster's sessions against writes of the one before that arrive late."""
    for number in (1, 2, 3):
        store.append("a", number, [_record(1, number)])
    store.fence("a", "lost", 2)
    write_bytes(join_uri(store.uri, "owners", "a", "seals", f"{1:08d}"), b'{"last": 1}')
    assert [r.seq for r in store.records("a")] == [1, 2, 3]
    old = Manifest("s", 1.5, {}, term=1).assigned("a", "A")
    new = replace(old.assigned("b", "B"), term=2)
    store.write_manifest(old)
    store.write_manifest(new)
    for term in (0, 1):
        store.write_manifest(replace(old, snapshot="late", term=term))
    assert store.sessions(0)[0] == [new]
    assert store.manifest("s") == new
    store.delete(store.close_session("s", 2))
    store.write_manifest(old)
    assert store.sessions(0)[0] == []
    assert store.manifest("s") is None
    _, left = store.sessions(3)
    for uris in left:
        store.delete(uris)
    assert store.sessions(4) == ([], [])
    store.write_manifest(replace(new, term=3))
    assert [m.term for m in store.sessions(0)[0]] == [3]


def test_a_store_from_before_there_were_terms_is_read(store: StateStore) -> None:
    """Guards sessions against an upgrade of what is installed."""
    store.append("a", 1, [_record(1, 1)])
    store.append("a", 2, [_record(1, 2)])
    write_bytes(join_uri(store.uri, "owners", "a", "sealed"), b'{"last": 1}')
    assert [r.seq for r in store.records("a")] == [1]
    fields = {"session": "s", "created": 1.5, "options": {}, "tail": ["a"], "epoch": 1}
    manifest = json.dumps({**fields, "owner": "a", "replica": "A"}).encode()
    write_bytes(join_uri(store.uri, "sessions", "s", "manifest.json"), manifest)
    assert store.sessions(0)[0] == [Manifest("s", 1.5, {}, 1, "a", "A", tail=("a",))]


@pytest.mark.slow
@given(
    st.lists(
        st.builds(
            Record,
            life=st.text("ab", min_size=1),
            epoch=st.integers(1, 9),
            seq=st.integers(1, 99),
            kind=st.sampled_from(["frame", "question"]),
            data=st.dictionaries(st.text(), st.integers() | st.text() | st.none()),
            blob=st.binary(max_size=40),
            about=st.text(max_size=3),
        )
    )
)
def test_records_come_back_as_they_were(records: list[Record]) -> None:
    assert list(unpack_records(pack_records(records))) == records


def test_what_a_lost_owner_wrote_after_the_takeover_does_not_count() -> None:
    """Guards the promise from the other side: what was never acknowledged may not come back amid
    what was."""
    first = [_record(1, seq, f"first {seq}") for seq in range(1, 6)]
    second = [_record(2, seq, f"second {seq}") for seq in (4, 5)]
    third = [_record(3, 6, "third")]
    found = effective([*first, *second, *third])
    assert [r.data["text"] for r in found] == [
        "first 1",
        "first 2",
        "first 3",
        "second 4",
        "second 5",
        "third",
    ]


def test_of_two_attempts_at_a_number_the_later_counts() -> None:
    found = effective([_record(1, 1, "failed"), _record(1, 1, "again"), _record(1, 2, "next")])
    assert [r.data["text"] for r in found] == ["again", "next"]


def test_the_end_of_an_attempt_that_failed_does_not_come_back() -> None:
    """Guards against inputs that nobody was told of behind those that were acknowledged later: the
    next ones would be taken for theirs, and be lost."""
    before = [_record(1, 1, "before"), _record(1, 1, about="frame-0")]
    failed = [_record(1, seq, "failed") for seq in range(2, 10)]
    again = [_record(1, 2, "again"), _record(1, 2, about="frame-1"), _record(1, 3, "again")]
    found = effective([*before, *failed, *again])
    assert [(r.seq, r.data["text"], r.about) for r in found if not r.about] == [
        (1, "before", ""),
        (2, "again", ""),
        (3, "again", ""),
    ]
    assert [(r.seq, r.about) for r in found if r.about] == [(1, "frame-0"), (2, "frame-1")]
    # Behind it nothing may come to light, nor in a log that was read twice.
    assert effective([*before, *failed, *again, _record(2, 4)])[-1].epoch == 2
    assert effective([*before, *failed, *again, *again]) == found
    assert effective([*before, *failed]) == effective([*before, *before, *failed, *failed])


def test_the_end_of_an_attempt_that_failed_does_not_come_back_after_a_snapshot(
    store: StateStore,
) -> None:
    """Guards against the same where a snapshot has what was acknowledged later, so that its batch
    is deleted; and against leaving out what was acknowledged after the snapshot."""
    store.append("a", 1, [_record(1, seq, "failed") for seq in range(2, 10)])
    store.append("a", 2, [_record(1, seq, "again") for seq in (2, 3)])
    store.append("a", 3, [_record(1, 3, about="frame-1"), _record(1, 4), _record(1, 5)])
    assert [r.seq for r in effective(list(store.records("a")), 3) if r.seq > 3] == [4, 5]
    store.delete_batch("a", 2)
    assert [r.seq for r in effective(list(store.records("a")), 3) if r.seq > 3] == [4, 5]
    store.delete_batch("a", 3)
    assert not effective(list(store.records("a")), 3)
    # Whether it was acknowledged cannot be known where nothing came after it.
    assert [r.seq for r in effective(list(store.records("a")), 1)] == list(range(2, 10))


def test_remarks_keep_their_place_and_drop_no_input() -> None:
    """Guards against the end of a turn, written under the number of the input before it, that
    pushes that input out, in its own assignment or in the next."""
    found = effective(
        [_record(1, 1, "q"), _record(1, 1, about="frame-0"), _record(2, 1, about="frame-1")]
    )
    assert [(r.seq, r.about) for r in found] == [(1, ""), (1, "frame-0"), (1, "frame-1")]
