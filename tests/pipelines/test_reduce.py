"""From segments to a video's row: the tree keeps order and time, statuses tell the truth.

Guards against summaries that lose or reorder time, and a status that is better than its segments.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreel.schemas import FAILED, OK, PARTIAL
from pipelines.reduce import (
    FAN_IN,
    Node,
    build_tree,
    chapters,
    leaves_of,
    outline,
    status_of,
    video_keyframes,
)


def _leaves(n: int) -> list[Node]:
    return [Node(float(i), float(i + 1), f"<{i}>") for i in range(n)]


def _joined(nodes: Sequence[Node]) -> str:
    return "".join(node.text for node in nodes)


def _walk(node: Node) -> list[Node]:
    return [node] if not node.children else [x for c in node.children for x in _walk(c)]


@given(st.integers(1, 300))
def test_every_leaf_is_reached_once_in_order_and_within_its_parents_span(n: int) -> None:
    """Guards against a group dropped or doubled where levels do not divide evenly."""
    root = build_tree(_leaves(n), _joined)
    assert root is not None
    assert _walk(root) == _leaves(n)
    assert root.text == "".join(f"<{i}>" for i in range(n))
    assert (root.start_s, root.end_s) == (0.0, float(n))

    def check(node: Node) -> None:
        assert len(node.children) <= FAN_IN
        for child in node.children:
            assert node.start_s <= child.start_s
            assert child.end_s <= node.end_s
            check(child)

    check(root)


def test_one_summary_is_not_summarized_again() -> None:
    def refuse(nodes: Sequence[Node]) -> str:
        raise AssertionError(nodes)

    assert build_tree(_leaves(1), refuse) == _leaves(1)[0]
    assert build_tree([], _joined) is None


def test_chapters_cover_the_video() -> None:
    root = build_tree(_leaves(20), lambda nodes: f"{nodes[0].text}; and so on")
    found = chapters(root)
    assert next(c["start_s"] for c in found) == 0.0
    assert found[-1]["end_s"] == 20.0
    assert all(a["end_s"] == b["start_s"] for a, b in itertools.pairwise(found))
    assert all(c["title"] and c["summary"] for c in found)
    assert chapters(None) == []


@pytest.mark.slow
@given(st.integers(1, 300))
def test_the_outline_is_the_tree(n: int) -> None:
    """Guards against a sentence of the summary that cannot be traced to its times."""
    rows = outline(build_tree(_leaves(n), _joined))
    assert [row["parent"] for row in rows].count(None) == 1
    leaves = [row for i, row in enumerate(rows) if all(r["parent"] != i for r in rows)]
    assert [(r["start_s"], r["end_s"], r["text"]) for r in leaves] == [
        (leaf.start_s, leaf.end_s, leaf.text) for leaf in _leaves(n)
    ]
    for number, row in enumerate(rows):
        if row["parent"] is not None:
            above = rows[row["parent"]]
            assert row["parent"] < number
            assert above["start_s"] <= row["start_s"] < row["end_s"] <= above["end_s"]
    assert outline(None) == []


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(30, 400))
def test_leaves_hold_every_narration_once_and_fit(counts: list[int], most: int) -> None:
    """Guards against narrations that another model never reads, or more than it can take."""
    segments: list[dict[str, Any]] = [
        {
            "start_s": 10.0 * i,
            "end_s": 10.0 * (i + 1),
            "narrations": [
                {"time_s": 10.0 * i + 10.0 * k / count, "text": f"n{i}-{k}."} for k in range(count)
            ],
        }
        for i, count in enumerate(counts)
    ]
    leaves = leaves_of(segments, most)
    told = [line.split(" s: ")[1] for leaf in leaves for line in leaf.text.splitlines()]
    assert told == [n["text"] for s in segments for n in s["narrations"]]
    assert all(len(leaf.text) <= most for leaf in leaves)
    for leaf in leaves:
        times = [float(line.split(" s: ")[0]) for line in leaf.text.splitlines()]
        assert leaf.start_s <= times[0] + 0.1
        assert times[-1] <= leaf.end_s + 0.1
    assert all(a.end_s == b.start_s for a, b in itertools.pairwise(leaves))


def _segment(status: str, error: str | None = None, **more: Any) -> dict[str, Any]:
    return {"status": status, "error": error, "keyframes": [], **more}


def test_a_videos_status_is_its_segments() -> None:
    ok, bad = _segment(OK), _segment(FAILED, "Damaged: x")
    assert status_of([ok, ok], 2) == (OK, None)
    assert status_of([ok, bad], 2) == (PARTIAL, "Damaged: x")
    assert status_of([bad, bad], 2) == (FAILED, "Damaged: x")
    assert status_of([ok, _segment(PARTIAL, "Truncated: y"), bad], 3) == (
        PARTIAL,
        "Truncated: y (and 1 more)",
    )


def test_a_missing_segment_is_never_ok() -> None:
    """Guards against a video reported whole while a part of it has no row."""
    status, error = status_of([_segment(OK)], 2)
    assert status == PARTIAL
    assert error is not None
    assert "1 of 2" in error


def test_keyframes_of_a_video_are_spread_over_it() -> None:
    frames = [{"time_s": float(t), "score": 1.0 if t < 30 else 0.5} for t in range(600)]
    kept = video_keyframes([_segment(OK) | {"keyframes": frames}])
    assert len(kept) <= 24
    assert kept == sorted(kept, key=lambda k: k["time_s"])
    assert kept[-1]["time_s"] > 200
