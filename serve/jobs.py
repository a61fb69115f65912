"""Bulk jobs through the deployment that has them; what runs them lies a floor above."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from longreel.errors import UsageError
from serve.live.items import SessionError

#: A DELETE is answered by then, also while a job still writes out what it has.
_CANCEL_ANSWER_S = 20.0


class RemoteJobs:
    """``Jobs`` over the handle to what ``pipelines.jobs_service.jobs_deployment`` gives."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._cancelling: dict[str, asyncio.Task[Any]] = {}

    async def submit(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """See ``Jobs``."""
        return await self._call("submit", wanted)

    async def list(self) -> list[dict[str, Any]]:
        """See ``Jobs``."""
        return await self._call("list")

    async def get(self, job: str) -> dict[str, Any] | None:
        """See ``Jobs``."""
        return await self._call("get", job)

    async def cancel(self, job: str) -> dict[str, Any] | None:
        """See ``Jobs``; a job that is still writing is given back as running."""
        task = self._cancelling.get(job)
        if task is None:
            task = asyncio.create_task(self._call("cancel", job), name=f"cancel-{job}")
            self._cancelling[job] = task
            task.add_done_callback(lambda _: self._cancelling.pop(job, None))
        # It goes on behind: two clients, or one that left, do not undo it.
        done, _ = await asyncio.wait((task,), timeout=_CANCEL_ANSWER_S)
        return task.result() if done else await self.get(job)

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            outcome, value = await self._handle.call.remote(method, *arguments)
        except RayTaskError:
            raise  # a fault of ours, which its log tells
        except (RayError, RayServeException) as failure:
            why = f"jobs cannot be reached at present ({type(failure).__name__})"
            raise SessionError("unavailable", why) from None
        if outcome == "usage":
            raise UsageError(value)
        if outcome == "failed":
            raise SessionError("unavailable", value)
        return value
