"""Where new sessions go, who has room and who is relieved, as pure functions."""

from __future__ import annotations

from actors.placement import Load, choose, has_room, overloaded, takes

MIB = 2**20


def _load(free_mib: int = 9, **fields: float) -> Load:
    return Load(free_bytes=free_mib * MIB, capacity_bytes=10 * MIB, **fields)  # type: ignore[arg-type]


def test_most_free_memory_wins_and_nobody_is_an_answer() -> None:
    """Guards against sessions heaped on one replica, and one placed where there is no room."""
    assert choose({}, {}, MIB) is None
    assert choose({"a": _load(5), "b": _load(9)}, {}, MIB) == "b"


def test_what_is_scarce_decides() -> None:
    """Guards against a replica whose sessions hold little and bring much: memory alone would send
    it all new ones."""
    loads = {"a": _load(9, live=0.8, sessions=4), "b": _load(5, live=0.2, sessions=4)}
    assert choose(loads, {}, MIB) == "b"


def test_sessions_placed_since_the_last_report_count() -> None:
    """Guards against a burst that goes to one replica whole: reports come once a second."""
    for load in (_load(), _load(9, live=0.3, sessions=10)):
        placed = {"a": 0, "b": 0}
        for _ in range(10):
            owner = choose({"a": load, "b": load}, placed, MIB)
            assert owner is not None
            placed[owner] += 1
        assert placed == {"a": 5, "b": 5}


def test_sessions_that_are_gone_keep_nobody_away() -> None:
    """Guards against a burst that passes by the replica whose sessions, all closed, last brought
    most: what they brought is an average, and fades."""
    loads = {"a": _load(10, live=0.6), "b": _load(10), "c": _load(10, live=0.1)}
    placed = dict.fromkeys(loads, 0)
    for _ in range(30):
        owner = choose(loads, placed, MIB // 100)
        assert owner is not None
        placed[owner] += 1
    assert placed == {"a": 10, "b": 10, "c": 10}


def test_who_lags_gets_none_unless_all_do() -> None:
    """Guards against a replica that is behind and is given more."""
    assert choose({"a": _load(9, lag_s=3.0), "b": _load(1)}, {}, MIB) == "b"
    assert choose({"a": _load(9, lag_s=3.0), "b": _load(1, lag_s=3.0)}, {}, MIB) == "a"


def test_room_ends_where_sessions_would_be_late_or_memory_is_in_use() -> None:
    """Guards admission: a session more must not make all others late, and one that rests makes
    room."""
    assert has_room(_load(9, live=0.9), 0, MIB)
    assert has_room(_load(9, lag_s=5.0), 0, MIB)  # recorded video that came at once
    assert has_room(_load(9, live=1.2), 0, MIB)  # it does not show yet
    assert not has_room(_load(9, live=1.2, lag_s=5.0), 0, MIB)
    some = MIB // 2
    assert has_room(_load(3), 5, some)
    assert not has_room(_load(3), 6, some)
    assert has_room(_load(3, resting=1), 6, some)


def test_a_small_replica_takes_sessions_too() -> None:
    """Guards against one that refuses all, since each is reckoned to take more than it has."""
    assert has_room(_load(9), 0, 100 * MIB)
    assert not has_room(_load(0), 0, 100 * MIB)


def test_relief_goes_to_who_stays_able_to_keep_up() -> None:
    """Guards against sessions that are sent to and fro between two full replicas."""
    behind = _load(5, live=1.3, lag_s=4.0, sessions=10)
    assert overloaded(behind)
    assert not overloaded(_load(5, live=1.3))
    # It does not fall further behind, and would be late for minutes.
    assert overloaded(_load(5, live=0.95, lag_s=4.0, behind_s=1.5))
    assert not overloaded(_load(5, live=0.5, lag_s=4.0, behind_s=1.0))
    assert takes(_load(9, live=0.5), behind)
    assert not takes(_load(9, live=0.7), behind)
    assert not takes(_load(9, live=0.5, lag_s=2.0), behind)
