"""Files, jobs and live sources, as groups of methods; for plain code, and again for asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from longreel.client import service_calls as calls
from longreel.client import types
from longreel.client.media import Video
from longreel.client.transport import AsyncTransport, Transport

_FILES, _JOBS, _STREAMS = "/v1/files", "/v1/jobs", "/v1/streams"


class _Group:
    def __init__(self, transport: Transport, patience_s: float) -> None:
        self._run = transport.run
        self._patience_s = patience_s


class Files(_Group):
    """Videos and pictures that lie with the service, for several questions."""

    def upload(
        self, file: Video, *, name: str | None = None, purpose: str = "vision"
    ) -> types.File:
        """Store a file: its path or bytes."""
        return self._run(calls.upload(file, name, purpose, self._patience_s))

    def list(self) -> list[types.File]:
        """All that are stored."""
        return self._run(calls.listed(_FILES, types.file, self._patience_s))

    def get(self, file_id: str) -> types.File:
        """One of them."""
        return self._run(calls.got(_FILES, file_id, types.file, self._patience_s))

    def content(self, file_id: str) -> bytes:
        """Its bytes."""
        return self._run(calls.content(file_id, self._patience_s))

    def delete(self, file_id: str) -> None:
        """Delete it."""
        self._run(calls.deleted(_FILES, file_id, self._patience_s))


class Jobs(_Group):
    """Bulk jobs in the service."""

    def submit(self, sources: str | Sequence[str], output: str, **options: Any) -> types.Job:
        """Begin one.

        Args:
            sources: files, folders, globs, ``s3://`` prefixes or manifests, as the service sees
                them.
            output: folder or ``s3://`` prefix of the rows.
            options: ``model``, ``fps``, ``segment_seconds``, ``prompt``, ``keep_ratio``,
                ``router``, ``quantize``, ``silence_threshold``, ``mode``, ``summarizer``,
                ``summarizer_model``, ``job_id``.
        """
        wanted = calls.job_wanted(sources, output, options)
        return self._run(calls.begun(_JOBS, wanted, types.job, self._patience_s))

    def list(self) -> list[types.Job]:
        """All that the service knows."""
        return self._run(calls.listed(_JOBS, types.job, self._patience_s))

    def get(self, job_id: str) -> types.Job:
        """How one stands."""
        return self._run(calls.got(_JOBS, job_id, types.job, self._patience_s))

    def cancel(self, job_id: str) -> types.Job:
        """Stop it; what it worked out is kept."""
        return self._run(calls.ended(_JOBS, job_id, types.job, self._patience_s))

    def wait(self, job_id: str, *, poll: float = 2.0, timeout: float | None = None) -> types.Job:
        """Look every ``poll`` seconds until it has ended.

        Raises:
            APIError: with the code ``timeout`` where it goes on after ``timeout`` seconds.
        """
        return self._run(calls.wait_for_job(job_id, poll, timeout, self._patience_s))


class Streams(_Group):
    """Live sources that the service pulls."""

    def start(self, url: str, **options: Any) -> types.Stream:
        """Begin to pull an rtsp, http(s) or s3 URL into a new session.

        Args:
            options: those of a session, and ``reconnect``.
        """
        wanted = {"url": url, **options}
        return self._run(calls.begun(_STREAMS, wanted, types.stream, self._patience_s))

    def list(self) -> list[types.Stream]:
        """All that the service knows."""
        return self._run(calls.listed(_STREAMS, types.stream, self._patience_s))

    def get(self, stream_id: str) -> types.Stream:
        """How one stands."""
        return self._run(calls.got(_STREAMS, stream_id, types.stream, self._patience_s))

    def stop(self, stream_id: str) -> types.Stream:
        """End the pulling; the session stays."""
        return self._run(calls.ended(_STREAMS, stream_id, types.stream, self._patience_s))


class _AsyncGroup:
    def __init__(self, transport: AsyncTransport, patience_s: float) -> None:
        self._run = transport.run
        self._patience_s = patience_s


class AsyncFiles(_AsyncGroup):
    """``Files`` in an event loop."""

    async def upload(
        self, file: Video, *, name: str | None = None, purpose: str = "vision"
    ) -> types.File:
        """See ``Files.upload``."""
        return await self._run(calls.upload(file, name, purpose, self._patience_s))

    async def list(self) -> list[types.File]:
        """See ``Files.list``."""
        return await self._run(calls.listed(_FILES, types.file, self._patience_s))

    async def get(self, file_id: str) -> types.File:
        """See ``Files.get``."""
        return await self._run(calls.got(_FILES, file_id, types.file, self._patience_s))

    async def content(self, file_id: str) -> bytes:
        """See ``Files.content``."""
        return await self._run(calls.content(file_id, self._patience_s))

    async def delete(self, file_id: str) -> None:
        """See ``Files.delete``."""
        await self._run(calls.deleted(_FILES, file_id, self._patience_s))


class AsyncJobs(_AsyncGroup):
    """``Jobs`` in an event loop."""

    async def submit(self, sources: str | Sequence[str], output: str, **options: Any) -> types.Job:
        """See ``Jobs.submit``."""
        wanted = calls.job_wanted(sources, output, options)
        return await self._run(calls.begun(_JOBS, wanted, types.job, self._patience_s))

    async def list(self) -> list[types.Job]:
        """See ``Jobs.list``."""
        return await self._run(calls.listed(_JOBS, types.job, self._patience_s))

    async def get(self, job_id: str) -> types.Job:
        """See ``Jobs.get``."""
        return await self._run(calls.got(_JOBS, job_id, types.job, self._patience_s))

    async def cancel(self, job_id: str) -> types.Job:
        """See ``Jobs.cancel``."""
        return await self._run(calls.ended(_JOBS, job_id, types.job, self._patience_s))

    async def wait(
        self, job_id: str, *, poll: float = 2.0, timeout: float | None = None
    ) -> types.Job:
        """See ``Jobs.wait``."""
        return await self._run(calls.wait_for_job(job_id, poll, timeout, self._patience_s))


class AsyncStreams(_AsyncGroup):
    """``Streams`` in an event loop."""

    async def start(self, url: str, **options: Any) -> types.Stream:
        """See ``Streams.start``."""
        wanted = {"url": url, **options}
        return await self._run(calls.begun(_STREAMS, wanted, types.stream, self._patience_s))

    async def list(self) -> list[types.Stream]:
        """See ``Streams.list``."""
        return await self._run(calls.listed(_STREAMS, types.stream, self._patience_s))

    async def get(self, stream_id: str) -> types.Stream:
        """See ``Streams.get``."""
        return await self._run(calls.got(_STREAMS, stream_id, types.stream, self._patience_s))

    async def stop(self, stream_id: str) -> types.Stream:
        """See ``Streams.stop``."""
        return await self._run(calls.ended(_STREAMS, stream_id, types.stream, self._patience_s))
