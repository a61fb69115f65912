"""Where new sessions go, as a pure function."""

from __future__ import annotations

from actors.placement import Load, choose

MIB = 2**20


def test_most_free_memory_wins_and_nobody_is_an_answer() -> None:
    assert choose({}, {}, MIB) is None
    loads = {"a": Load(free_bytes=5 * MIB), "b": Load(free_bytes=9 * MIB)}
    assert choose(loads, {}, MIB) == "b"


def test_sessions_placed_since_the_last_report_count() -> None:
    """Guards against a burst that goes to one replica whole: reports come once a second."""
    loads = {"a": Load(free_bytes=9 * MIB), "b": Load(free_bytes=9 * MIB)}
    placed = {"a": 0, "b": 0}
    for _ in range(10):
        owner = choose(loads, placed, MIB)
        assert owner is not None
        placed[owner] += 1
    assert placed == {"a": 5, "b": 5}


def test_who_lags_gets_none_unless_all_do() -> None:
    loads = {"a": Load(free_bytes=9 * MIB, lag_s=3.0), "b": Load(free_bytes=MIB)}
    assert choose(loads, {}, MIB) == "b"
    late = {name: Load(free_bytes=load.free_bytes, lag_s=3.0) for name, load in loads.items()}
    assert choose(late, {}, MIB) == "a"
