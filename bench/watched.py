"""A command's processes, watched from outside: processor time and memory of each kind."""

from __future__ import annotations

import math
import os
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Kinds, by what the title of a process holds while it is one; the first that fits counts.
KINDS = {
    "planner": ("_plan_batch",),
    "decoding actors": ("(SegmentWorker)",),
    "reducer": ("(VideoReducer)",),
    "replica": ("ServeReplica:",),
    "ledger": ("Ledger",),
    "Ray Serve": ("ray::Serve", "ray::Proxy"),
    "driver": ("longreel.cli",),
    "Ray": ("/raylet/raylet", "gcs_server", "Agent", "dashboard", "monitor", "Monitor"),
    "Ray's workers without a role": ("ray::IDLE", "default_worker.py"),
}
WITHOUT_ROLE = list(KINDS)[-1]
OTHER = "other"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def kind_of(title: str) -> str:
    """The kind of a process by its command line."""
    return next((kind for kind, parts in KINDS.items() if any(p in title for p in parts)), OTHER)


@dataclass
class Look:
    """One process at one moment.

    Attributes:
        cpu_s: so far.
        own_bytes, shared_bytes: memory of its own, and touched of what it shares with others (the
            object store).
    """

    title: str
    cpu_s: float
    own_bytes: int
    shared_bytes: int


@dataclass
class Use:
    """What the processes of a command used.

    Attributes:
        cpu_s: by kind.
        peak_bytes: by kind, the most that its processes held together, shared memory left out.
        store_bytes: the most shared memory that one process had touched.
        timeline: seconds since 1970, and processor seconds of all kinds up to then.
    """

    cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    peak_bytes: Counter[str] = field(default_factory=Counter)
    store_bytes: int = 0
    timeline: list[tuple[float, float]] = field(default_factory=list)
    _kinds: dict[int, str] = field(default_factory=dict)
    _cpu_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, at: float, looks: dict[int, Look]) -> None:
        """Take in one look at all processes there are, at a time in seconds since 1970.

        A worker of Ray has a title only while it has a role; what it does after that belongs to
        the role too.
        """
        held: Counter[str] = Counter()
        for pid, look in looks.items():
            kind = kind_of(look.title)
            if kind == WITHOUT_ROLE:
                kind = self._kinds.get(pid, kind)
            self._kinds[pid] = kind
            self.cpu_s[kind] += look.cpu_s - self._cpu_s[pid]
            self._cpu_s[pid] = look.cpu_s
            held[kind] += look.own_bytes
            self.store_bytes = max(self.store_bytes, look.shared_bytes)
        for kind, n_bytes in held.items():
            self.peak_bytes[kind] = max(self.peak_bytes[kind], n_bytes)
        self.timeline.append((at, sum(self.cpu_s.values())))

    def cpu_until(self, at: float) -> float:
        """Processor seconds up to a time, as far as the look before it saw them."""
        seen = bisect_right(self.timeline, (at, math.inf))
        return self.timeline[seen - 1][1] if seen else 0.0


class Watch:
    """Looks at all processes that inherited an environment variable, ten times a second.

    A ``with`` block; ``use`` is whole when it has ended. A process that lives shorter than a tenth
    of a second may be missed.
    """

    def __init__(self, variable: str, value: str) -> None:
        self.use = Use()
        self._mark = f"{variable}={value}".encode()
        self._ours: dict[str, bool] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            self.use.add(time.time(), dict(self._looks()))

    def _looks(self) -> Iterator[tuple[int, Look]]:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if self._ours.get(entry.name) is None:
                    environment = (entry / "environ").read_bytes()
                    # Empty before a new process has become what it is to be.
                    if environment:
                        self._ours[entry.name] = self._mark in environment.split(b"\0")
                if self._ours.get(entry.name):
                    yield int(entry.name), look_at(entry)
            except (OSError, LookupError):  # it has ended
                continue


def look_at(entry: Path) -> Look:
    """A process by its folder under ``/proc``.

    Raises:
        OSError, LookupError: it has ended.
    """
    title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    # The name in brackets may hold anything.
    numbers = (entry / "stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
    resident, shared = (1024 * int(status[name].split()[0]) for name in ("VmRSS", "RssShmem"))
    return Look(
        title=title,
        cpu_s=_TICK_S * (int(numbers[11]) + int(numbers[12])),
        own_bytes=resident - shared,
        shared_bytes=shared,
    )
