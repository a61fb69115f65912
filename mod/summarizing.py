"""Summaries by rule, for checkpoints that have not learned to make them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mod.world.summaries import digest


def by_rule(texts: Sequence[str]) -> str:
    """A digest of narrations or summaries; where they say nothing it knows, the first and last."""
    try:
        return digest(texts).sentence
    except ValueError:
        said = [text for text in texts if text]
        return " ".join(said[:1] + said[1:][-1:]) or "Nothing was narrated."


#: What stands before a narration that is given with its time, and above those of one part.
_TIME = re.compile(r"^[\d.]+ s: |^[\d.]+ to [\d.]+ s:$")


def plain_lines(text: str) -> list[str]:
    """The narrations or summaries of a text that gives each in a line, without their times."""
    lines = (_TIME.sub("", line).strip() for line in text.splitlines())
    return [line for line in lines if line]
