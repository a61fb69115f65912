"""Summaries of a session, and of summaries: asked of the model, or made by rule."""

from __future__ import annotations

from collections.abc import Sequence

from mod.layout import StreamLayout
from mod.modeling import VideoLLMMoD
from mod.session import Session
from mod.world.summaries import digest


def summarize_session(session: Session, model: VideoLLMMoD, texts: Sequence[str]) -> str:
    """What the session saw, in a sentence or a few.

    Args:
        texts: the session's narrations, in order of time.
    """
    if model.config.summarizer == "digest":
        return by_rule(texts)
    return session.ask(model.config.summary_request)


def summarize_texts(model: VideoLLMMoD, layout: StreamLayout, texts: Sequence[str]) -> str:
    """One summary of the summaries of consecutive parts, in order of time."""
    if model.config.summarizer == "digest":
        return by_rule(texts)
    session = Session(model, layout)
    return session.ask(" ".join([*texts, model.config.summary_request]))


def by_rule(texts: Sequence[str]) -> str:
    """A digest of ``texts``; where they say nothing it knows, the first and last of them."""
    try:
        return digest(texts).sentence
    except ValueError:
        said = [text for text in texts if text]
        return " ".join(said[:1] + said[1:][-1:]) or "Nothing was narrated."
