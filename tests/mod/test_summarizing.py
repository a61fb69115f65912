"""Summaries: asked of a model that can, made by rule for one that cannot."""

from __future__ import annotations

from mod.session import Session
from mod.summarizing import by_rule, summarize_session, summarize_texts
from tests.mod.small import small_layout, small_model, some_frames


def test_a_checkpoint_that_cannot_summarize_is_not_asked() -> None:
    """Guards against made-up summaries: every word of a digest comes from the narrations."""
    model = small_model(summarizer="digest")
    layout = small_layout(model.config)
    told = ["A red scene.", "Cut to a dark blue scene.", "The camera moves."]
    expected = (
        "It opens on a red scene and ends on a dark blue scene, with one cut; the camera moves."
    )
    session = Session(model, layout)
    before = session.position
    assert summarize_session(session, model, told) == expected
    assert session.position == before
    assert summarize_texts(model, layout, [expected, expected]).startswith("It opens on a red")


def test_a_model_that_can_is_asked_in_its_session() -> None:
    model = small_model(summarizer="model", seed=2)
    layout = small_layout(model.config)
    session = Session(model, layout, max_new_tokens=5)
    session.watch(some_frames(3))
    again = Session(model, layout, max_new_tokens=5)
    again.watch(some_frames(3))
    assert summarize_session(session, model, []) == again.ask(model.config.summary_request)
    assert session.position == again.position


def test_narrations_in_other_words_are_quoted() -> None:
    """Guards against an error where a user's own model narrates freely."""
    assert by_rule(["A man enters.", "He sits.", "He leaves."]) == "A man enters. He leaves."
    assert by_rule(["A man enters."]) == "A man enters."
    assert by_rule([]) == "Nothing was narrated."
