"""The calls on everything but sessions, as steps: chat, models, files, jobs, live sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from longreel.client import types
from longreel.client.errors import APIError
from longreel.client.media import Video, media_type
from longreel.client.sse import EventParser
from longreel.client.steps import (
    Backoff,
    Emit,
    LostError,
    Next,
    Open,
    Pause,
    Request,
    Send,
    Steps,
    ask,
    attempt,
)
from longreel.errors import UsageError

T = TypeVar("T")
#: What a job's status says while it goes on.
_UNFINISHED = ("pending", "running")
#: Seconds without a word after which deleting an upload is given up: nobody waits for it.
_FORGET_S = 10.0
#: Earlier questions of a dialogue, each with its answer.
History = Sequence[tuple[str, str]]


def listed(path: str, read: Callable[[Mapping[str, Any]], T], patience_s: float) -> Steps[list[T]]:
    """All objects of a kind."""
    told = yield from ask(Request("GET", path), patience_s)
    return [read(one) for one in told["data"]]


def got(
    path: str, name: str, read: Callable[[Mapping[str, Any]], T], patience_s: float
) -> Steps[T]:
    """One object."""
    return read((yield from ask(Request("GET", f"{path}/{quote(name, safe='')}"), patience_s)))


def deleted(path: str, name: str, patience_s: float) -> Steps[Any]:
    """Delete, stop or cancel one object; what the service says of it then."""
    return (yield from ask(Request("DELETE", f"{path}/{quote(name, safe='')}"), patience_s))


def ended(
    path: str, name: str, read: Callable[[Mapping[str, Any]], T], patience_s: float
) -> Steps[T]:
    """Stop or cancel one object; how it stands then."""
    return read((yield from deleted(path, name, patience_s)))


def begun(
    path: str,
    wanted: Mapping[str, Any],
    read: Callable[[Mapping[str, Any]], T],
    patience_s: float,
) -> Steps[T]:
    """Begin something; asked again only where the service cannot have begun it."""
    body = {key: value for key, value in wanted.items() if value is not None}
    told = yield from ask(Request("POST", path, json=body, repeatable=False), patience_s)
    return read(told)


def job_wanted(
    sources: str | Sequence[str], output: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a bulk job is begun with."""
    named = [sources] if isinstance(sources, str) else list(sources)
    return {"sources": named, "output": output, **options}


def wait_for_job(
    name: str, poll_s: float, timeout_s: float | None, patience_s: float
) -> Steps[types.Job]:
    """Look at a job until it has ended.

    Raises:
        APIError: ``timeout`` where it goes on after ``timeout_s``.
    """
    waited = 0.0
    while True:
        found = yield from got("/v1/jobs", name, types.job, patience_s)
        if found.status not in _UNFINISHED:
            return found
        if timeout_s is not None and waited >= timeout_s:
            raise APIError(0, "timeout", f"job {name} is still {found.status}")
        yield Pause(poll_s)
        waited += poll_s


def upload(given: Video, name: str | None, purpose: str, patience_s: float) -> Steps[types.File]:
    """Store a file with the service.

    Args:
        given: its path, which is read as it is sent, or its bytes.

    Raises:
        UsageError: the file cannot be read.
        APIError: the service does not take it.
    """
    if isinstance(given, str | PathLike):
        # On disk a name is bytes, which need not be text.
        shown = (name or Path(given).name).encode(errors="replace").decode()
        try:
            with open(given, "rb") as opened:
                part = (shown, opened, media_type(opened.read(16), shown))
                opened.seek(0)
                return (yield from _uploaded(part, purpose, patience_s))
        except OSError as failure:
            raise UsageError(f"cannot read {given}: {failure.strerror}") from None
    shown = name or "upload"
    return (yield from _uploaded((shown, given, media_type(given, shown)), purpose, patience_s))


def _uploaded(part: Any, purpose: str, patience_s: float) -> Steps[types.File]:
    request = Request(
        "POST", "/v1/files", form={"purpose": purpose}, files=[("file", part)], repeatable=False
    )
    return types.file((yield from ask(request, patience_s)))


def content(name: str, patience_s: float) -> Steps[bytes]:
    """The bytes of a file."""
    request = Request("GET", f"/v1/files/{quote(name, safe='')}/content")
    return (yield from attempt(Send(request), Backoff(patience_s))).body


def forgotten(name: str, patience_s: float) -> Steps[None]:
    """Delete what was uploaded for a question; a file that stays can be deleted later."""
    request = Request("DELETE", f"/v1/files/{quote(name, safe='')}", silence_s=_FORGET_S)
    with suppress(APIError):
        yield from ask(request, patience_s)


def chat(
    part: dict[str, Any] | None,
    question: str,
    model: str | None,
    instructions: str | None,
    max_tokens: int | None,
    history: History,
    patience_s: float,
) -> Steps[types.Answer]:
    """Ask about a video; the answer's words are emitted as they come.

    Args:
        part: the content part of the video; None for a question without one.
    """
    if model is None:
        models = yield from listed("/v1/models", types.model, patience_s)
        model = models[0].id
    body = {
        "model": model,
        "messages": _messages(part, question, instructions, history),
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"max_tokens": max_tokens} if max_tokens is not None else {}),
    }
    return (yield from _answered(body, patience_s))


def _messages(
    part: dict[str, Any] | None, question: str, instructions: str | None, history: History
) -> list[dict[str, Any]]:
    """The dialogue in OpenAI's form; the video stands before the first question."""
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    for asked, answered in history:
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answered})
    messages.append({"role": "user", "content": question})
    if part is not None:
        first = next(m for m in messages if m["role"] == "user")
        first["content"] = [part, {"type": "text", "text": first["content"]}]
    return messages


def _answered(body: dict[str, Any], patience_s: float) -> Steps[types.Answer]:
    """Read a streamed completion to its end.

    An answer is the likeliest words and changes nothing in the service. Where one breaks off the
    question is asked again, and only what is new is emitted.
    """
    backoff = Backoff(patience_s)
    said = ""
    question = Open(Request("POST", "/v1/chat/completions", json=body))
    while True:
        text, finish = "", None
        usage: dict[str, Any] = {}
        reason = "the answer broke off"
        yield from attempt(question, backoff)
        parser = EventParser()
        try:
            while piece := (yield Next()):
                for event in parser.feed(piece):
                    if event.data == "[DONE]":
                        return types.counted(text, finish, {"usage": usage})
                    chunk = json.loads(event.data)
                    if "error" in chunk:
                        raise _failed(chunk["error"])
                    usage = chunk.get("usage") or usage
                    for choice in chunk.get("choices") or ():
                        finish = choice.get("finish_reason") or finish
                        text += choice.get("delta", {}).get("content") or ""
                    if not (said.startswith(text) or text.startswith(said)):
                        raise APIError(0, "connection_lost", "the answer broke off and changed")
                    if len(text) > len(said):
                        yield Emit(text[len(said) :])
                        said = text
                        backoff.reset()
        except LostError as lost:
            reason = lost.reason
        failure = APIError(0, "unreachable", reason)
        wait = backoff.pause()
        if wait is None:
            raise failure
        yield Pause(wait, failure)


def _failed(told: Mapping[str, Any]) -> APIError:
    """An error that came amid an answer."""
    return APIError(500, str(told.get("code") or ""), str(told.get("message") or "it failed"))
