"""Summaries by rule take whatever was said."""

from __future__ import annotations

from mod.summarizing import by_rule


def test_known_words_are_digested() -> None:
    """Guards against a summary that only repeats its narrations."""
    said = ["A blue scene.", "Cut to a red scene."]
    assert by_rule(said).startswith(
        "It opens on a blue scene and ends on a red scene, with one cut"
    )
    assert by_rule([by_rule(said), by_rule(said)]).endswith("the camera holds still.")


def test_unknown_words_are_quoted() -> None:
    """Guards against narrations of other models that vanish from a summary, or stop it."""
    assert by_rule(["A cat.", "", "A dog.", "A bird."]) == "A cat. A bird."
    assert by_rule(["A cat."]) == "A cat."
    assert by_rule([]) == "Nothing was narrated."
