"""Hostile files to the service's own decoding processes: how each ended, how long it took."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.hostile.mutations import Hostile
from serve.decoding.calls import decode_pictures, decode_video, decoders, open_remote
from serve.decoding.media import kind_of
from serve.live.items import SessionError
from serve.routes.context import ApiSettings
from serve.routes.errors import status_of

SIDE, FPS = 96, 2.0
#: Files at a time.
_AT_ONCE = 2


@dataclass
class Outcome:
    """What became of some files.

    Attributes:
        codes: how many were ``accepted``, and refused with each code.
        wrong: names of those that ended in no 4xx.
        slowest: seconds and name.
        most_bytes: that a decoding process held at a time.
        died: files that ended their process; ``slow`` those that were ended for their slowness.
    """

    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    seconds: list[float] = field(default_factory=list)
    most_bytes: int = 0
    died: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """As the bench prints it."""
        ordered = sorted(self.seconds)
        return {
            "files": len(ordered),
            "outcomes": dict(self.codes.most_common()),
            "not_4xx": self.wrong,
            "workers_died_of": self.died,
            "workers_ended_as_too_slow": self.slow,
            "median_s": ordered[len(ordered) // 2],
            "slowest_s": self.slowest[0],
            "slowest": self.slowest[1],
            "highest_worker_mib": round(self.most_bytes / 2**20),
        }


async def offer(files: Iterable[Hostile], settings: ApiSettings) -> Outcome:
    """Each of ``files`` as a frame, a piece of video, and a video in a chat."""
    outcome = Outcome()
    waiting = iter(files)

    async def some() -> None:
        for file in waiting:
            await _one(file, settings, outcome)

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    return outcome


async def _one(file: Hostile, settings: ApiSettings, outcome: Outcome) -> None:
    began = time.perf_counter()
    try:
        code = await _decoded(file.data, settings)
    except SessionError as error:
        code = error.code
        if not 400 <= status_of(error) < 500:
            outcome.wrong.append(f"{file.name}: {error}")
        if "ends the process" in error.message:
            outcome.died.append(f"{file.name}: {error}")
        elif "to decode" in error.message:
            outcome.slow.append(file.name)
    except Exception as error:
        code = "unforeseen"
        outcome.wrong.append(f"{file.name}: {type(error).__name__}: {error}")
    took = time.perf_counter() - began
    outcome.codes[code] += 1
    outcome.seconds.append(took)
    outcome.slowest = max(outcome.slowest, (took, file.name))
    found = decoders(settings)
    for pid in found.pictures.pids | found.videos.pids:
        outcome.most_bytes = max(outcome.most_bytes, _most_resident(pid))


async def _decoded(data: bytes, settings: ApiSettings) -> str:
    if kind_of(data) != "video":
        await decode_pictures([data], SIDE, settings)
        return "accepted"
    with tempfile.NamedTemporaryFile(prefix="longreel-bench-") as file:
        file.write(data)
        file.flush()
        try:
            remote = await open_remote(file.name, FPS, settings)
            async for _ in remote.decode(SIDE):
                pass
        except SessionError as error:
            # Sent as a piece it must end no better.
            with suppress(SessionError):
                await decode_video(data, SIDE, FPS, settings)
                raise RuntimeError("a piece gave frames where a video gave none") from error
            raise
    return "accepted"


def _most_resident(pid: int) -> int:
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return 1024 * int(found[1]) if found else 0
    return 0
