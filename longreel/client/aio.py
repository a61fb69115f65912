"""The client for asyncio; what its methods take and give is said at ``longreel.client.sync``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx

from longreel.client import event_calls, service_calls, session_calls, types, wire
from longreel.client.media import Video, file_part, picture, remote_part, video
from longreel.client.resources import AsyncFiles, AsyncJobs, AsyncStreams
from longreel.client.service_calls import History
from longreel.client.transport import AsyncTransport, OnRetry

if TYPE_CHECKING:
    from longreel.client.media import Picture


class AsyncClient:
    """``Client`` in an event loop; an ``async with`` block closes it."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = wire.DEFAULT_TIMEOUT_S,
        patience: float = wire.DEFAULT_PATIENCE_S,
        on_retry: OnRetry | None = None,
    ) -> None:
        http = httpx.AsyncClient(**wire.settings(base_url, api_key, timeout))
        self._transport = AsyncTransport(http, on_retry)
        self._patience_s = patience
        #: Ids of files that lie with the service for a question.
        self._uploads: set[str] = set()
        self.files = AsyncFiles(self._transport, patience)
        self.jobs = AsyncJobs(self._transport, patience)
        self.streams = AsyncStreams(self._transport, patience)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See ``Client.close``."""
        for name in list(self._uploads):
            await self._forget(name, 0.0)
        await self._transport.close()

    async def models(self) -> list[types.Model]:
        """See ``Client.models``."""
        steps = service_calls.listed("/v1/models", types.model, self._patience_s)
        return await self._transport.run(steps)

    async def chat(
        self,
        video: Video | None,
        question: str,
        *,
        model: str | None = None,
        instructions: str | None = None,
        max_tokens: int | None = None,
        history: History = (),
    ) -> types.Answer:
        """See ``Client.chat``."""
        async with self._within_reach(video) as part:
            steps = service_calls.chat(
                part, question, model, instructions, max_tokens, history, self._patience_s
            )
            return await self._transport.run(steps)

    async def chat_stream(
        self,
        video: Video | None,
        question: str,
        *,
        model: str | None = None,
        instructions: str | None = None,
        max_tokens: int | None = None,
        history: History = (),
    ) -> AsyncGenerator[str, None]:
        """See ``Client.chat_stream``."""
        async with self._within_reach(video) as part:
            steps = service_calls.chat(
                part, question, model, instructions, max_tokens, history, self._patience_s
            )
            async with aclosing(self._transport.iterate(steps)) as words:
                async for word in words:
                    yield word

    def session(
        self,
        *,
        id: str | None = None,
        instructions: str | None = None,
        fps: float | None = None,
        silence_threshold: float | None = None,
        memory: str | Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
    ) -> AsyncOpening:
        """See ``Client.session``; ``async with`` opens and closes it, ``await`` opens it."""
        options: dict[str, Any] = {
            "instructions": instructions,
            "fps": fps,
            "silence_threshold": silence_threshold,
            "memory": memory,
            "max_tokens": max_tokens,
        }
        return AsyncOpening(self._transport, id, options, self._patience_s)

    async def sessions(self) -> list[types.SessionInfo]:
        """See ``Client.sessions``."""
        return await self._transport.run(session_calls.sessions(self._patience_s))

    @asynccontextmanager
    async def uploaded(self, video: Video) -> AsyncIterator[str]:
        """See ``Client.uploaded``."""
        name = (await self.files.upload(video)).id
        self._uploads.add(name)
        # After a failure, it shall be heard of soon.
        patience_s = 0.0
        try:
            yield name
            patience_s = self._patience_s
        finally:
            # Who is cancelled once more shall not cut it short.
            await asyncio.shield(self._forget(name, patience_s))

    @asynccontextmanager
    async def _within_reach(self, video: Video | None) -> AsyncIterator[dict[str, Any] | None]:
        """The content part of a video, which lies with the service for as long as the block."""
        part = remote_part(video)
        if part is not None or video is None:
            yield part
            return
        async with self.uploaded(video) as name:
            yield file_part(name)

    async def _forget(self, name: str, patience_s: float) -> None:
        # Not what was deleted when the client was closed.
        if name in self._uploads:
            await self._transport.run(service_calls.forgotten(name, patience_s))
            self._uploads.discard(name)


class AsyncOpening:
    """A session that is about to be opened; see ``AsyncClient.session``."""

    def __init__(
        self,
        transport: AsyncTransport,
        id: str | None,
        options: Mapping[str, Any],
        patience_s: float,
    ) -> None:
        self._transport = transport
        self._id = id
        self._options = options
        self._patience_s = patience_s
        self._session: AsyncSession | None = None

    def __await__(self) -> Generator[Any, None, AsyncSession]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncSession:
        self._session = await self._open()
        return self._session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._id is None and self._session is not None:
            patience_s = self._patience_s if error is None else 0.0
            steps = session_calls.left(self._session.id, patience_s, quiet=error is not None)
            await self._transport.run(steps)

    async def _open(self) -> AsyncSession:
        steps = session_calls.opened(self._id, self._options, self._patience_s)
        info = await self._transport.run(steps)
        return AsyncSession(self._transport, info, self._id is None, self._patience_s)


class AsyncSession:
    """``Session`` in an event loop. May be shared by tasks."""

    def __init__(
        self, transport: AsyncTransport, info: types.SessionInfo, owned: bool, patience_s: float
    ) -> None:
        self.id = info.id
        #: How it stood when it was opened or attached to.
        self.opened = info
        self._transport = transport
        self._patience_s = patience_s
        self._numbers = session_calls.Numbers(info.id, asyncio.Lock(), not owned, info.seq)

    async def push(
        self,
        pictures: Picture | Sequence[Picture],
        time_s: float | Sequence[float] | None = None,
        *,
        wait: bool = True,
    ) -> list[types.FrameOutcome]:
        """See ``Session.push``."""
        given, times = session_calls.in_order(pictures, time_s)
        encoded = [picture(one) for one in given]
        return await self._transport.run(
            session_calls.push(self._numbers, encoded, times, wait, self._patience_s)
        )

    async def push_video(
        self, piece: Video, time_s: float | None = None, *, wait: bool = True
    ) -> list[types.FrameOutcome]:
        """See ``Session.push_video``."""
        return await self._transport.run(
            session_calls.push_video(self._numbers, video(piece), time_s, wait, self._patience_s)
        )

    async def ask(self, text: str, *, max_tokens: int | None = None) -> types.Response:
        """See ``Session.ask``."""
        return await self._transport.run(
            event_calls.respond(self._numbers, text, max_tokens, self._patience_s)
        )

    def ask_stream(self, text: str, *, max_tokens: int | None = None) -> AsyncGenerator[str, None]:
        """See ``Session.ask_stream``."""
        return self._transport.iterate(
            event_calls.respond(self._numbers, text, max_tokens, self._patience_s)
        )

    def events(self, after: int = 0, *, frames: bool = False) -> AsyncGenerator[types.Event, None]:
        """See ``Session.events``."""
        return self._transport.iterate(event_calls.events(self.id, after, frames, self._patience_s))

    async def cancel(self, response: str | None = None) -> bool:
        """See ``Session.cancel``."""
        return await self._transport.run(session_calls.cancel(self.id, response, self._patience_s))

    async def view(self) -> types.SessionInfo:
        """See ``Session.view``."""
        return await self._transport.run(session_calls.view(self.id, self._patience_s))

    async def close(self) -> None:
        """See ``Session.close``."""
        await self._transport.run(session_calls.close(self.id, self._patience_s))
