"""``/v1/chat/completions``: text alone to the model, pictures and videos through a session."""

# Without postponed annotations, as in ``serve.routes.app``.
import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from serve.live.items import MOST_CHARACTERS, SessionError
from serve.routes import docs
from serve.routes.completions import MOST_TEXT, ChatRequest, Completion, Usage, event
from serve.routes.context import Context
from serve.routes.errors import error_object, status_of
from serve.routes.models import require_model
from serve.routes.sse import KEEP_ALIVE_S, EventStream, format_comment
from serve.routes.watching import Finished, converse, shown

Told = str | tuple[Finished, Usage]
# The event loop alone would forget them.
_running: set[asyncio.Task[None]] = set()


def router() -> APIRouter:
    """``/v1/chat/completions``."""
    routes = APIRouter(tags=["chat"])

    @routes.post(
        "/v1/chat/completions",
        summary="An answer to text, pictures and videos, as OpenAI's API has it",
        response_model=None,
        responses=docs.CHAT,
    )
    async def chat(request: Request, asked: ChatRequest) -> Response:
        """See `ChatRequest` for what has an effect.

        Pictures and videos of a message are seen in order, before its text. A model that makes
        summaries by rule answers an empty text, or its own request for a summary, with the digest
        of what it narrated.
        """
        context: Context = request.app.state.context
        require_model(context, asked.model)
        answer = _Answer(asked, context)
        try:
            await answer.begun(request)
        except BaseException:
            answer.stop()
            raise
        completion = Completion(context.model.name)
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return _Stream(_chunks(answer, completion, usage), answer)
        try:
            finished, spent = await answer.whole(request)
        finally:
            answer.stop()
        return JSONResponse(completion.whole(finished.text, finished.finish_reason, spent))

    return routes


async def _answers(asked: ChatRequest, context: Context) -> AsyncIterator[Told]:
    """Pieces of the answer, then how it ended; an empty one says that nothing is wrong so far."""
    turns = asked.turns
    _require_short("system messages", asked.system, MOST_CHARACTERS)
    if not any(turn.sources for turn in turns):
        if not asked.text.strip():
            raise SessionError("invalid_value", "messages hold nothing to answer")
        _require_short("messages without pictures and videos", asked.text, MOST_TEXT)
        answered = await context.answers.chat(asked.system, asked.text, asked.most_tokens)
        yield answered.text
        finished = Finished(
            answered.text, answered.finish_reason, answered.completion_tokens, 0, []
        )
        yield finished, Usage(answered.prompt_tokens, 0, answered.completion_tokens)
        return
    for turn in turns:
        # A session would refuse it too, when it has seen all that is to be seen before.
        _require_short("text beside pictures and videos", turn.text, MOST_CHARACTERS)
    async with shown(turns, context) as readable:
        async for said in converse(readable, asked.system, asked.most_tokens, context):
            if isinstance(said, str):
                yield said
                continue
            text = 0
            with suppress(SessionError):  # an answer that is there is worth more than its account
                text = await context.answers.tokens([asked.system, *said.asked])
            vision = context.model.vision_tokens(said.frames)
            yield said, Usage(text, vision, said.tokens)


def _require_short(what: str, text: str, most: int) -> None:
    """Raises ``SessionError`` where the replica, and all who share it, would have to read on."""
    if len(text) > most:
        raise SessionError(
            "context_length_exceeded",
            f"{what} may have {most} characters in all, not {len(text)}",
        )


class _Answer:
    """An answer that is made by a task of its own.

    So that whatever becomes of the request ends it in one way: the task is cancelled, and closes
    its session undisturbed by how the server ends the request.
    """

    def __init__(self, asked: ChatRequest, context: Context) -> None:
        self._told: asyncio.Queue[Told | Exception] = asyncio.Queue()
        self._first: Told | None = None
        self._task = asyncio.create_task(self._make(asked, context))
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    def stop(self) -> None:
        """End it, if it has not ended."""
        self._task.cancel()

    async def begun(self, request: Request) -> None:
        """Until nothing of the request turned out to be wrong.

        Raises:
            SessionError: something did.
        """
        self._first = await self._next_unless_gone(request)

    async def whole(self, request: Request) -> tuple[Finished, Usage]:
        """How it ended."""
        told = self._first
        while not isinstance(told, tuple):
            told = await self._next_unless_gone(request)
        return told

    async def pieces(self) -> AsyncIterator[Told | None]:
        """As they come; None after a while of silence."""
        told: Told | None = self._first
        while True:
            yield told
            if isinstance(told, tuple):
                return
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    told = await self._next()
            except TimeoutError:
                told = None

    async def _next(self) -> Told:
        told = await self._told.get()
        if isinstance(told, Exception):
            raise told
        return told

    async def _next_unless_gone(self, request: Request) -> Told:
        """What comes next; ends the request where its client has gone."""
        coming, gone = asyncio.create_task(self._next()), asyncio.create_task(_gone(request))
        try:
            await asyncio.wait((coming, gone), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                raise SessionError("client_closed", "the client has gone")
            return coming.result()
        finally:
            coming.cancel()
            gone.cancel()

    async def _make(self, asked: ChatRequest, context: Context) -> None:
        last: Told | Exception = RuntimeError("an answer ended without saying so")
        try:
            async for told in _answers(asked, context):
                if isinstance(told, str):
                    self._told.put_nowait(told)
                else:
                    last = told
        except Exception as error:
            last = error
        # Now that its session is closed, so that nobody cancels that.
        self._told.put_nowait(last)


async def _gone(request: Request) -> None:
    """Until the client has gone; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chunks(answer: _Answer, completion: Completion, usage: bool) -> AsyncIterator[str]:
    yield completion.chunk({"role": "assistant", "content": ""})
    sent = False
    try:
        async for told in answer.pieces():
            if told is None:
                yield format_comment("keep-alive")
            elif isinstance(told, str):
                if told:
                    sent = True
                    yield completion.chunk({"content": told})
            else:
                finished, spent = told
                if finished.text and not sent:
                    yield completion.chunk({"content": finished.text})
                yield completion.chunk({}, finished.finish_reason)
                if usage:
                    yield completion.usage_chunk(spent)
    except SessionError as error:
        yield event(error_object(status_of(error), error.message, error.code))
    except Exception:
        yield event(error_object(500, "the service failed; its log says why", "internal_error"))
        raise
    yield "data: [DONE]\n\n"


class _Stream(EventStream):
    """A streamed answer; it ends with the response, also where that never began."""

    def __init__(self, content: AsyncIterator[str], answer: _Answer) -> None:
        super().__init__(content)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.stop()
