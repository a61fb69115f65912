"""The plan of a step: urgency, age, a share for everybody, and never nothing.

Guards against sessions that starve, live work behind bulk work, and steps that are too large or
empty.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mod.engine.scheduler import Kind, Work, plan

WORKS = st.lists(
    st.builds(
        Work,
        session=st.uuids().map(str),
        kind=st.sampled_from(Kind),
        since=st.floats(0, 100),
        fixed_tokens=st.integers(1, 50),
        units=st.integers(0, 40),
        unit_tokens=st.integers(1, 30),
    ),
    max_size=20,
    unique_by=lambda work: work.session,
)


@given(WORKS, st.integers(1, 2000))
def test_a_step_keeps_its_budget_and_is_never_empty(works: list[Work], budget: int) -> None:
    taken = plan(works, budget)
    assert bool(taken) == bool(works)
    assert len({t.work.session for t in taken}) == len(taken)
    used = sum(t.work.fixed_tokens + t.units * t.work.unit_tokens for t in taken)
    assert used <= budget or len(taken) == 1
    for t in taken:
        assert min(1, t.work.units) <= t.units <= t.work.units


@given(WORKS, st.integers(1, 2000))
def test_nothing_urgent_waits_for_something_that_is_not(works: list[Work], budget: int) -> None:
    order = sorted(works, key=lambda work: (work.kind, work.since, work.session))
    taken = plan(works, budget)
    assert [t.work for t in taken] == order[: len(taken)]
    if len(taken) < len(order):
        work = order[len(taken)]
        used = sum(t.work.fixed_tokens + min(1, t.units) * t.work.unit_tokens for t in taken)
        assert used + work.fixed_tokens + min(1, work.units) * work.unit_tokens > budget


def _live(name: str, since: float, units: int) -> Work:
    return Work(name, Kind.LIVE, since, 0, units, 11)


def test_words_come_before_frames_frames_before_questions_and_bulk_last() -> None:
    works = [
        Work("bulk", Kind.BULK, 0.0, 0, 32, 11),
        Work("asked", Kind.QUESTION, 1.0, 20),
        _live("late", 2.0, 3),
        _live("later", 3.0, 3),
        Work("words", Kind.DECODE, 9.0, 1),
    ]
    assert [t.work.session for t in plan(works, 10_000)] == [
        "words",
        "late",
        "later",
        "asked",
        "bulk",
    ]
    # With little room the urgent ones share it, oldest first.
    assert [(t.work.session, t.units) for t in plan(works, 1 + 11 + 11 + 11)] == [
        ("words", 0),
        ("late", 2),
        ("later", 1),
    ]


def test_what_runs_alone_shares_no_step() -> None:
    alone = [Work(name, Kind.BULK, 0.0, 0, 9, 11, alone=True) for name in ("a", "b")]
    assert [(t.work.session, t.units) for t in plan(alone, 1000)] == [("a", 9)]
    assert [t.work.session for t in plan([*alone, _live("x", 5.0, 1)], 1000)] == ["x"]


def test_a_long_run_takes_nobodys_first_frame() -> None:
    taken = plan([_live("old", 0.0, 100), *(_live(f"new{i}", 1.0, 1) for i in range(5))], 110)
    assert {t.work.session: t.units for t in taken} == {
        "old": 5,
        "new0": 1,
        "new1": 1,
        "new2": 1,
        "new3": 1,
        "new4": 1,
    }
