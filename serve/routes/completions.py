"""Chat completions as OpenAI's API spells them: what is asked for, and the objects answered."""

# Without postponed annotations, as in ``serve.routes.app``.
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

#: Of a chat without pictures and videos, in characters: more than a job asks of a summarizer.
MOST_TEXT = 16_000
#: Bound on an answer where none is given, in tokens.
DEFAULT_TOKENS = 256
_EXAMPLE: dict[str, Any] = {
    "model": "longreel-tiny",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "video_url", "video_url": {"url": "https://example.org/door.mp4"}},
                {"type": "text", "text": "Who came in?"},
            ],
        }
    ],
}


class TextPart(BaseModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


class Url(BaseModel):
    """Where a picture or video is; what else clients say of it (``detail``) has no effect."""

    url: str = Field(description="data:, http(s) or s3:// URL, or an uploaded file's id")


class ImagePart(BaseModel):
    """A picture: one frame."""

    type: Literal["image_url"]
    image_url: Url


class VideoPart(BaseModel):
    """A video, seen at the model's frames a second."""

    type: Literal["video_url"]
    video_url: Url


class FileRef(BaseModel):
    """An uploaded file, or one that comes along as a data: URL."""

    file_id: str | None = None
    file_data: str | None = None

    @model_validator(mode="after")
    def _names_one(self) -> "FileRef":
        if not self.file_id and not self.file_data:
            raise ValueError("file_id or file_data is missing")
        return self


class FilePart(BaseModel):
    """A picture or video from ``/v1/files``."""

    type: Literal["file"]
    file: FileRef


Part = Annotated[TextPart | ImagePart | VideoPart | FilePart, Field(discriminator="type")]


@dataclass(frozen=True)
class Source:
    """A picture or video by its URL; ``kind`` is what it must be, None for either."""

    url: str
    kind: Literal["image", "video"] | None
    #: Where in the request it stands, for messages.
    place: str


@dataclass(frozen=True)
class Turn:
    """What one user message gives: sources in order, then a text, which may be empty."""

    sources: list[Source] = field(default_factory=list)
    text: str = ""


def _as_parts(content: Any) -> Any:
    """A text alone as a list of one, so that what is wrong in a list is told without guessing."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [] if content is None else content


class Message(BaseModel):
    """One message; only those of users hold pictures and videos."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[Part], BeforeValidator(_as_parts, json_schema_input_type=str | list[Part] | None)
    ] = []

    @model_validator(mode="after")
    def _only_users_show(self) -> "Message":
        if self.role != "user" and self.sources(""):
            raise ValueError(f"a message of role {self.role!r} holds text alone")
        return self

    @property
    def text(self) -> str:
        """All of its text."""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    def sources(self, place: str) -> list[Source]:
        """Its pictures and videos, in order."""
        found = []
        for number, part in enumerate(self.content):
            here = f"{place}.content.{number}"
            if isinstance(part, ImagePart):
                found.append(Source(part.image_url.url, "image", here))
            elif isinstance(part, VideoPart):
                found.append(Source(part.video_url.url, "video", here))
            elif isinstance(part, FilePart):
                url = part.file.file_id or part.file.file_data or ""
                found.append(Source(url, None, here))
        return found


class StreamOptions(BaseModel):
    """What a streamed answer brings beside its text."""

    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """Text, pictures and videos to be answered.

    Answers are the likeliest words, so ``temperature``, ``top_p``, ``seed`` and penalties are
    accepted and change nothing. What would change an answer's form (``tools``, ``response_format``,
    ``stop``, ``logprobs``, ``logit_bias``, ``n`` above 1) is refused.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    n: Literal[1] | None = 1
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    logit_bias: dict[str, float] | None = None

    @field_validator("tools", "functions", "stop", "logprobs", "logit_bias")
    @classmethod
    def _not_offered(cls, value: Any) -> Any:
        if value:
            raise ValueError("this is not offered")
        return value

    @field_validator("response_format")
    @classmethod
    def _only_text(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("type") != "text":
            raise ValueError("only {'type': 'text'} is offered")
        return value

    @property
    def system(self) -> str:
        """What the model is told before the dialogue; empty for its own instruction."""
        return "\n".join(m.text for m in self.messages if m.role in ("system", "developer"))

    @property
    def text(self) -> str:
        """All text of the dialogue."""
        return "\n".join(m.text for m in self.messages if m.role in ("user", "assistant"))

    @property
    def turns(self) -> list[Turn]:
        """User messages in order; those with no assistant's message between them are one turn."""
        found: list[Turn] = []
        answered = True
        for number, message in enumerate(self.messages):
            if message.role == "user":
                sources = message.sources(f"messages.{number}")
                if answered:
                    found.append(Turn(sources, message.text))
                else:
                    text = "\n".join(filter(None, (found[-1].text, message.text)))
                    found[-1] = Turn(found[-1].sources + sources, text)
            answered = message.role == "assistant" or (answered and message.role != "user")
        return found

    @property
    def most_tokens(self) -> int:
        """Bound on the answer, in tokens."""
        return self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS


def asks_for_summary(text: str, summary_request: str) -> bool:
    """Whether ``text`` is empty or ``summary_request``, whatever its case and punctuation."""

    def plain(words: str) -> str:
        return " ".join(re.findall(r"\w+", words.casefold()))

    return not text.strip() or plain(text) == plain(summary_request)


@dataclass(frozen=True)
class Usage:
    """What an answer cost, in tokens: of text and of pictures before it, and its own."""

    text: int
    vision: int
    answer: int

    def object(self) -> dict[str, Any]:
        """As OpenAI's API spells it."""
        prompt = self.text + self.vision
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.answer,
            "total_tokens": prompt + self.answer,
            "prompt_tokens_details": {"vision_tokens": self.vision},
        }


class Completion:
    """The objects of one answer, which share an id."""

    def __init__(self, model: str) -> None:
        self._common = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, finish_reason: str, usage: Usage) -> dict[str, Any]:
        """The ``chat.completion``."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        common = {**self._common, "object": "chat.completion"}
        return {**common, "choices": [choice], "usage": usage.object()}

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        """A ``chat.completion.chunk``, as a server-sent event."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._event({"choices": [choice]})

    def usage_chunk(self, usage: Usage) -> str:
        """The chunk that brings the usage and no text."""
        return self._event({"choices": [], "usage": usage.object()})

    def _event(self, own: dict[str, Any]) -> str:
        return event({**self._common, "object": "chat.completion.chunk", **own})


def event(data: dict[str, Any]) -> str:
    """A server-sent event without a name."""
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
