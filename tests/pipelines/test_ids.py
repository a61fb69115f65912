"""Ids name the work: the same work has the same id, other work another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.ids import Recipe, prompt_hash, segment_id, video_id

RECIPE = Recipe("m", "rev", prompt_hash("p"), 0.2, 2.0, 30.0, 0.0)


def test_ids_are_stable_across_processes_and_releases() -> None:
    """Guards against an id that depends on Python's hash seed: resume would redo everything."""
    assert segment_id("/a.mp4", "e", 0.0, 30.0, RECIPE) == "7326e7bbe6eedeba1d36"
    assert video_id("/a.mp4", "e") == "bc7bc0131d6a9722"


@pytest.mark.parametrize(
    "change",
    [
        {"model_revision": "other"},
        {"prompt_hash": prompt_hash("q")},
        {"fps": 1.0},
        {"keep_ratio": 0.3},
        {"silence_threshold": 0.5},
        {"mode": "stream"},
        {"router": "redundancy"},
        {"quantize": "int8"},
    ],
)
def test_what_decides_a_rows_content_changes_its_id(change: dict[str, object]) -> None:
    """Guards against a resume that keeps rows of another model, prompt or rate."""
    other = replace(RECIPE, **change)  # type: ignore[arg-type]
    assert segment_id("/a", "e", 0.0, 30.0, RECIPE) != segment_id("/a", "e", 0.0, 30.0, other)


def test_fields_cannot_run_into_each_other() -> None:
    """Guards against two works with one id, of which one would never be done."""
    assert video_id("ab", "c") != video_id("a", "bc")
    assert segment_id("/a", "e", 1.0, 11.0, RECIPE) != segment_id("/a", "e", 1.01, 1.0, RECIPE)
