"""Live sessions that arrive, send two frames a second and leave: the load, in a process of its own.

``python -m bench.serve_load SPEC`` prints what became of each frame as JSON. A frame's lag runs
from the moment it is due, so that a client that falls behind is late and not slower.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Protocol

import aiohttp
from PIL import Image

from bench.bars import LAG_LIMIT_S
from bench.serve_body import packed
from mod.world.streams import World

FPS = 2.0
#: Of the frames, how many may be late.
SHARE = 0.01
#: Headers of a picture.
PNG = {"content-type": "image/png"}


@dataclass(frozen=True)
class Spec:
    """One load.

    Attributes:
        side: ``ours``, ``resend`` or ``hashed``.
        url: of the service.
        sessions: live at once, on average.
        lasts_s: each session.
        window_s: seconds that count, after the first ``lasts_s``, in which sessions gather.
    """

    side: str
    url: str
    sessions: float
    lasts_s: float
    window_s: float
    seed: int = 0

    @property
    def starts(self) -> list[float]:
        """When sessions arrive: a Poisson process, given how many come.

        Of some draws the one that comes nearest to ``sessions`` in the window: few sessions would
        otherwise be far more or none.
        """
        end = self.lasts_s + self.window_s
        draw = random.Random(self.seed)
        n = max(1, round(self.sessions * end / self.lasts_s))
        draws = [sorted(draw.uniform(0.0, end) for _ in range(n)) for _ in range(100)]
        return min(
            draws,
            key=lambda d: abs(mean_live(d, self.lasts_s, self.lasts_s, end) - self.sessions),
        )


@dataclass
class Lags:
    """What became of the frames that were due in the window.

    Attributes:
        due: of each frame, seconds since the load began; ``seen`` in the same order, None not yet.
    """

    due: list[float] = field(default_factory=list)
    seen: list[float | None] = field(default_factory=list)

    def add(self, due: float) -> int:
        """A frame was due; returns its place."""
        self.due.append(due)
        self.seen.append(None)
        return len(self.due) - 1

    def values(self, now: float) -> list[float]:
        """Seconds of each; those of a frame that is not seen yet have only begun."""
        return [(now if s is None else s) - d for d, s in zip(self.due, self.seen, strict=True)]


def quantile(values: Sequence[float], share: float) -> float:
    """The least of ``values`` that ``share`` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[max(0, min(len(ordered) - 1, int(-(-share * len(ordered) // 1)) - 1))]


def mean_live(starts: Sequence[float], lasts_s: float, begin: float, end: float) -> float:
    """Sessions live between ``begin`` and ``end`` on average."""
    return sum(max(0.0, min(end, s + lasts_s) - max(begin, s)) for s in starts) / (end - begin)


def picture(seed: int) -> bytes:
    """A PNG of the model's size: a still scene, at which the model speaks once."""
    (sample,) = islice(World(seed), 3, 4)
    out = io.BytesIO()
    Image.fromarray(sample.frame).save(out, "PNG")
    return out.getvalue()


class Side(Protocol):
    """One session's client."""

    async def open(self) -> None:
        """Begin the session."""

    async def send(self, first: int, end: int) -> None:
        """Give frames up to ``end``, of which those from ``first`` on are new; calls of the
        others return when they are seen."""

    async def close(self) -> None:
        """End the session."""


class Ours:
    """Frames that are acknowledged once durable, beside a stream of the session's events."""

    one_by_one = True

    def __init__(self, client: aiohttp.ClientSession, frame: bytes, seen: Any) -> None:
        self._client, self._frame, self._seen = client, frame, seen

    async def open(self) -> None:
        """See ``Side``."""
        async with self._client.post("/v1/sessions", json={"fps": FPS}) as reply:
            reply.raise_for_status()
            self._path = f"/v1/sessions/{(await reply.json())['id']}"
        self._listening = asyncio.create_task(self._listen())

    async def send(self, first: int, end: int) -> None:
        """See ``Side``."""
        query = f"wait=false&seq={end}&time_s={first / FPS}"
        while True:
            async with self._client.post(
                f"{self._path}/frames?{query}",
                data=self._frame,
                headers=PNG,
            ) as reply:
                if reply.status == 202:
                    return
                if reply.status != 503:
                    raise RuntimeError(await reply.text())
            await asyncio.sleep(0.1)

    async def _listen(self) -> None:
        async with self._client.get(f"{self._path}/events?frames=true") as events:
            kind = b""
            async for line in events.content:
                if line.startswith(b"event: "):
                    kind = line[7:].strip()
                elif line.startswith(b"data: ") and kind == b"frame.seen":
                    frame = json.loads(line[6:])["frame"]
                    self._seen(frame, frame + 1)

    async def close(self) -> None:
        """See ``Side``."""
        self._listening.cancel()
        async with self._client.delete(self._path):
            return


class Resend:
    """Every call carries all frames so far; what came during one goes with the next."""

    one_by_one = False

    def __init__(self, client: aiohttp.ClientSession, frame: bytes, seen: Any) -> None:
        self._client, self._frame, self._seen = client, frame, seen

    async def open(self) -> None:
        """See ``Side``."""

    async def send(self, first: int, end: int) -> None:
        """See ``Side``."""
        async with self._client.post("/resend/frames", data=packed([self._frame] * end)) as reply:
            reply.raise_for_status()
            await reply.read()
        self._seen(first, end)

    async def close(self) -> None:
        """See ``Side``."""


class Hashed:
    """One frame a call, to whichever replica the session's id hashes to."""

    one_by_one = True

    def __init__(self, client: aiohttp.ClientSession, frame: bytes, seen: Any) -> None:
        self._client, self._frame, self._seen = client, frame, seen
        self._path = f"/hashed/{random.getrandbits(64):016x}"

    async def open(self) -> None:
        """See ``Side``."""

    async def send(self, first: int, end: int) -> None:
        """See ``Side``."""
        async with self._client.post(f"{self._path}/frames", data=self._frame) as reply:
            reply.raise_for_status()
            await reply.read()
        self._seen(first, end)

    async def close(self) -> None:
        """See ``Side``."""
        async with self._client.delete(self._path):
            return


SIDES: dict[str, Any] = {"ours": Ours, "resend": Resend, "hashed": Hashed}


class Load:
    """Runs one ``Spec``."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.lags = Lags()
        self.begun = time.monotonic()
        self.errors: list[str] = []
        self.stopped = False

    @property
    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self.begun

    async def run(self) -> dict[str, Any]:
        """The load to its end, or until it is plain that it is too much."""
        spec = self.spec
        end = spec.lasts_s + spec.window_s
        pictures = [picture(seed) for seed in range(20)]
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(spec.url, timeout=timeout, connector=connector) as client:
            self.begun, cpu = time.monotonic(), time.process_time()
            starts = spec.starts
            sessions = [
                asyncio.create_task(self._session(client, start, pictures[number % 20]))
                for number, start in enumerate(starts)
            ]
            while self.now < end + LAG_LIMIT_S and not self.stopped:
                await asyncio.sleep(0.25)
                self.stopped = self._hopeless()
            values = self.lags.values(self.now)
            for task in sessions:
                task.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)
        p99 = quantile(values, 1 - SHARE)
        return {
            **{k: v for k, v in asdict(spec).items() if k not in ("url", "side")},
            "live": mean_live(starts, spec.lasts_s, spec.lasts_s, end),
            "frames": len(values),
            "p50_s": quantile(values, 0.5),
            "p99_s": p99,
            "passed": p99 < LAG_LIMIT_S and not self.stopped and not self.errors,
            "stopped_early": self.stopped,
            "errors": self.errors[:3],
            "generator_cpu_share": (time.process_time() - cpu) / self.now,
        }

    def _hopeless(self) -> bool:
        """Whether so many frames of the window are late already that it cannot pass any more."""
        expected = self.spec.sessions * FPS * self.spec.window_s
        late = sum(lag > LAG_LIMIT_S for lag in self.lags.values(self.now))
        return late > 2 * SHARE * expected + 2

    async def _session(self, client: aiohttp.ClientSession, start: float, frame: bytes) -> None:
        places: dict[int, int] = {}
        spec = self.spec

        def seen(first: int, end: int) -> None:
            for number in range(first, end):
                if number in places:
                    self.lags.seen[places[number]] = self.now

        def due(number: int) -> float:
            return start + number / FPS

        side = SIDES[spec.side](client, frame, seen)
        total = round(spec.lasts_s * FPS)
        await asyncio.sleep(start - self.now)
        begun = False
        try:
            await side.open()
            begun, sent = True, 0
            marks = asyncio.create_task(self._mark(places, due, total))
            while sent < total:
                await asyncio.sleep(due(sent) - self.now)
                ready = sent + 1
                while not side.one_by_one and ready < total and due(ready) <= self.now:
                    ready += 1
                await side.send(sent, ready)
                sent = ready
            await marks
            await asyncio.sleep(LAG_LIMIT_S)
        except (aiohttp.ClientError, RuntimeError) as error:
            self.errors.append(str(error)[:200])
        finally:
            if begun:
                # What hangs in the service shall not hang here.
                with suppress(aiohttp.ClientError, TimeoutError):
                    await asyncio.wait_for(side.close(), 10.0)

    async def _mark(self, places: dict[int, int], due: Any, total: int) -> None:
        """Frames count from when they are due, whether they could be sent then or not."""
        spec = self.spec
        for number in range(total):
            await asyncio.sleep(due(number) - self.now)
            if spec.lasts_s <= due(number) < spec.lasts_s + spec.window_s:
                places[number] = self.lags.add(due(number))


def main() -> None:
    """See the module."""
    # On one core, so that the service keeps the others.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    spec = Spec(**json.loads(sys.argv[1]))
    print(json.dumps(asyncio.run(Load(spec).run())))


if __name__ == "__main__":
    main()
