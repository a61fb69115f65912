"""The client for plain code: every method returns when it is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx

from longreel.client import event_calls, service_calls, session_calls, types, wire
from longreel.client.media import Video, file_part, picture, remote_part, video
from longreel.client.resources import Files, Jobs, Streams
from longreel.client.service_calls import History
from longreel.client.transport import OnRetry, Transport

if TYPE_CHECKING:
    from longreel.client.media import Picture


class Client:
    """A connection to the service; a ``with`` block closes it.

    May be shared by threads.

    Args:
        base_url: such as ``http://127.0.0.1:8000``; ``LONGREEL_SERVER`` of the environment, else
            that address, when None.
        api_key: ``LONGREEL_API_KEY`` of the environment when None.
        timeout: seconds without a byte after which a connection counts as lost.
        patience: seconds that a call pauses, all in all, to try again where the service is away
            (no connection, 503) or busy (429).
        on_retry: told the ``APIError`` and the seconds before each of these pauses.

    Raises:
        UsageError: ``base_url`` is no http(s) URL.

    Every method raises ``APIError`` where the service refuses or stays away, and ``UsageError``
    for an argument that cannot work.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = wire.DEFAULT_TIMEOUT_S,
        patience: float = wire.DEFAULT_PATIENCE_S,
        on_retry: OnRetry | None = None,
    ) -> None:
        self._transport = Transport(
            httpx.Client(**wire.settings(base_url, api_key, timeout)), on_retry
        )
        self._patience_s = patience
        #: Ids of files that lie with the service for a question.
        self._uploads: set[str] = set()
        self.files = Files(self._transport, patience)
        self.jobs = Jobs(self._transport, patience)
        self.streams = Streams(self._transport, patience)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections, and delete what was uploaded for questions that go on."""
        for name in list(self._uploads):
            self._forget(name, 0.0)
        self._transport.close()

    def models(self) -> list[types.Model]:
        """The models that the service holds."""
        return self._transport.run(
            service_calls.listed("/v1/models", types.model, self._patience_s)
        )

    def chat(
        self,
        video: Video | None,
        question: str,
        *,
        model: str | None = None,
        instructions: str | None = None,
        max_tokens: int | None = None,
        history: History = (),
    ) -> types.Answer:
        """Ask about a video or picture.

        Args:
            video: path or bytes, which are uploaded for the question and deleted after it; an
                ``https://`` or ``s3://`` URL that the service fetches; the id of an uploaded
                file; None for a question without one.
            model: the service's first when None.
            history: earlier questions about it, each with its answer.
        """
        with self._within_reach(video) as part:
            return self._transport.run(
                service_calls.chat(
                    part, question, model, instructions, max_tokens, history, self._patience_s
                )
            )

    def chat_stream(
        self,
        video: Video | None,
        question: str,
        *,
        model: str | None = None,
        instructions: str | None = None,
        max_tokens: int | None = None,
        history: History = (),
    ) -> Iterator[str]:
        """The words of ``chat`` as they come."""
        with self._within_reach(video) as part:
            yield from self._transport.iterate(
                service_calls.chat(
                    part, question, model, instructions, max_tokens, history, self._patience_s
                )
            )

    def session(
        self,
        *,
        id: str | None = None,
        instructions: str | None = None,
        fps: float | None = None,
        silence_threshold: float | None = None,
        memory: str | Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
    ) -> Session:
        """Open a session, which a ``with`` block closes; or attach to one, which stays open.

        Args:
            id: of the session to attach to; the other options must then be left out.
            instructions: open the stream; the model's own when None.
            fps: frames a second that the model sees; its own when None.
            silence_threshold: probability (0-1) that silence must reach for the model to be silent.
            memory: ``full``, ``window``, ``retrieve``, or ``{"policy": ..., "frames": ...}``.
            max_tokens: bound on one narration or answer.
        """
        options: dict[str, Any] = {
            "instructions": instructions,
            "fps": fps,
            "silence_threshold": silence_threshold,
            "memory": memory,
            "max_tokens": max_tokens,
        }
        info = self._transport.run(session_calls.opened(id, options, self._patience_s))
        return Session(self._transport, info, owned=id is None, patience_s=self._patience_s)

    def sessions(self) -> list[types.SessionInfo]:
        """All sessions that are not closed."""
        return self._transport.run(session_calls.sessions(self._patience_s))

    @contextmanager
    def uploaded(self, video: Video) -> Iterator[str]:
        """The id of a video or picture that lies with the service for as long as the block.

        For several questions about it; whether it can be deleted afterwards decides nothing.

        Args:
            video: path or bytes.
        """
        name = self.files.upload(video).id
        self._uploads.add(name)
        # After a failure, it shall be heard of soon.
        patience_s = 0.0
        try:
            yield name
            patience_s = self._patience_s
        finally:
            self._forget(name, patience_s)

    @contextmanager
    def _within_reach(self, video: Video | None) -> Iterator[dict[str, Any] | None]:
        """The content part of a video, which lies with the service for as long as the block."""
        part = remote_part(video)
        if part is not None or video is None:
            yield part
            return
        with self.uploaded(video) as name:
            yield file_part(name)

    def _forget(self, name: str, patience_s: float) -> None:
        # Not what was deleted when the client was closed.
        if name in self._uploads:
            self._transport.run(service_calls.forgotten(name, patience_s))
            self._uploads.discard(name)


class Session:
    """A live session; made by ``Client.session``. May be shared by threads.

    Frames and questions carry sequence numbers, so that a call repeated after a lost reply applies
    nothing twice. One client at a time should push into a session.
    """

    def __init__(
        self, transport: Transport, info: types.SessionInfo, owned: bool, patience_s: float
    ) -> None:
        self.id = info.id
        #: How it stood when it was opened or attached to.
        self.opened = info
        self._owned = owned
        self._transport = transport
        self._patience_s = patience_s
        self._numbers = session_calls.Numbers(info.id, threading.Lock(), not owned, info.seq)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._owned:
            # After a failure, it shall be heard of soon, rather than that closing fails as well.
            patience_s = self._patience_s if error is None else 0.0
            self._transport.run(session_calls.left(self.id, patience_s, quiet=error is not None))

    def push(
        self,
        pictures: Picture | Sequence[Picture],
        time_s: float | Sequence[float] | None = None,
        *,
        wait: bool = True,
    ) -> list[types.FrameOutcome]:
        """Hand in a frame, or several in order.

        Args:
            pictures: each an encoded picture, its path, or (height, width, 3) uint8 RGB.
            time_s: where each stands in the stream, in seconds, rising; one frame after the last
                when None.
            wait: for what the model makes of them; else return when they are durable.

        Returns:
            One outcome for each.
        """
        given, times = session_calls.in_order(pictures, time_s)
        encoded = [picture(one) for one in given]
        return self._transport.run(
            session_calls.push(self._numbers, encoded, times, wait, self._patience_s)
        )

    def push_video(
        self, piece: Video, time_s: float | None = None, *, wait: bool = True
    ) -> list[types.FrameOutcome]:
        """Hand in an encoded piece of video (path or bytes), sampled at the session's fps.

        Args:
            time_s: of its first frame in the stream.
        """
        steps = session_calls.push_video(
            self._numbers, video(piece), time_s, wait, self._patience_s
        )
        return self._transport.run(steps)

    def ask(self, text: str, *, max_tokens: int | None = None) -> types.Response:
        """Ask after all that was pushed before, and wait for the answer."""
        return self._transport.run(
            event_calls.respond(self._numbers, text, max_tokens, self._patience_s)
        )

    def ask_stream(self, text: str, *, max_tokens: int | None = None) -> Iterator[str]:
        """The words of ``ask`` as they come, each once, also across lost connections."""
        return self._transport.iterate(
            event_calls.respond(self._numbers, text, max_tokens, self._patience_s)
        )

    def events(self, after: int = 0, *, frames: bool = False) -> Iterator[types.Event]:
        """Events above the number ``after``, as they come, until the session is closed.

        A lost connection is taken up again where it broke.

        Args:
            frames: tell of each frame that is seen, too.
        """
        return self._transport.iterate(event_calls.events(self.id, after, frames, self._patience_s))

    def cancel(self, response: str | None = None) -> bool:
        """End what is being said, or that response; whether there was anything to end."""
        return self._transport.run(session_calls.cancel(self.id, response, self._patience_s))

    def view(self) -> types.SessionInfo:
        """How it stands."""
        return self._transport.run(session_calls.view(self.id, self._patience_s))

    def close(self) -> None:
        """End it; what waits is forgotten, its state is deleted."""
        self._transport.run(session_calls.close(self.id, self._patience_s))
