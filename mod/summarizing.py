"""Summaries by rule, for checkpoints that have not learned to make them."""

from __future__ import annotations

from collections.abc import Sequence

from mod.world.summaries import digest


def by_rule(texts: Sequence[str]) -> str:
    """A digest of narrations or summaries; where they say nothing it knows, the first and last."""
    try:
        return digest(texts).sentence
    except ValueError:
        said = [text for text in texts if text]
        return " ".join(said[:1] + said[1:][-1:]) or "Nothing was narrated."
