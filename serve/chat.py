"""What a replica answers to text alone; it travels between processes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Answered(BaseModel):
    """An answer and what it cost, in tokens of text."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
