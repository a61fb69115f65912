"""Jobs in memory, where a test is about routes and not about a cluster."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from longreel.errors import UsageError


@dataclass
class MemoryJobs:
    """Jobs that run until they are cancelled."""

    wanted: list[dict[str, Any]] = field(default_factory=list)
    _jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def submit(self, wanted: dict[str, Any]) -> dict[str, Any]:
        self.wanted.append(wanted)
        await asyncio.sleep(0.01)  # as a call to a cluster, which lets others go on
        name = wanted["job_id"] or f"made-up-{len(self._jobs)}"
        if self._jobs.get(name, {}).get("status") == "running":
            raise UsageError(f"job {name} is running already")
        self._jobs[name] = {
            "id": name,
            "object": "job",
            "status": "running",
            "created": 1,
            "output": wanted["output"],
            "progress": None,
            "error": None,
            "owner": wanted.get("owner"),
        }
        return self._jobs[name]

    async def list(self) -> list[dict[str, Any]]:
        return list(self._jobs.values())

    async def get(self, job: str) -> dict[str, Any] | None:
        return self._jobs.get(job)

    async def cancel(self, job: str) -> dict[str, Any] | None:
        if job in self._jobs:
            self._jobs[job]["status"] = "cancelled"
        return self._jobs.get(job)
