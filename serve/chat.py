"""Chat completions as OpenAI's API spells them: what is asked for, and what is answered."""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, Field


class TextPart(BaseModel):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message; only text is understood."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """All of its text."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class ChatRequest(BaseModel):
    """A text to be answered. Answers are the likeliest words; sampling is not offered."""

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    n: Literal[1] = 1
    stream: Literal[False] = False

    @property
    def system(self) -> str:
        """What the model is told before the dialogue; empty for its own instruction."""
        return "\n".join(m.text for m in self.messages if m.role in ("system", "developer"))

    @property
    def text(self) -> str:
        """The dialogue without it."""
        return "\n".join(m.text for m in self.messages if m.role not in ("system", "developer"))

    @property
    def most_tokens(self) -> int:
        """Bound on the answer, in tokens."""
        return self.max_completion_tokens or self.max_tokens or 256


class Answered(BaseModel):
    """An answer and what it cost, in tokens of text."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


def completion(model: str, answered: Answered) -> dict[str, Any]:
    """The ``chat.completion`` object."""
    usage = {
        "prompt_tokens": answered.prompt_tokens,
        "completion_tokens": answered.completion_tokens,
        "total_tokens": answered.prompt_tokens + answered.completion_tokens,
    }
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answered.text},
                "finish_reason": answered.finish_reason,
            }
        ],
        "usage": usage,
    }
