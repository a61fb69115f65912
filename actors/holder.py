"""Who holds something in a store: a small object says so, and its holder renews it while it lives.

A holder on this machine is known to be gone as soon as its process is. One elsewhere is known by
its object, which stays unchanged, measured on the reader's own clock.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.objects import read_bytes
from longreel.errors import StorageError

#: Seconds between two renewals, and without one after which a holder elsewhere counts as gone.
RENEW_S, STALE_S = 4.0, 20.0


class Watch:
    """How long a reader has seen a holder's object unchanged; no other clock is asked."""

    def __init__(self) -> None:
        self._seen: list[Any] = []
        self._since = 0.0

    def unchanged_s(self, holder: Any, now: float) -> float:
        """Seconds for which it was what it is now.

        Args:
            holder: as it was read.
            now: on a clock that only goes forward.
        """
        if self._seen != [holder]:
            self._seen, self._since = [holder], now
        return now - self._since

    def interrupted(self) -> None:
        """It could not be read: its holder may not have been able to renew it either."""
        self._seen = []


def here(pid: int | None = None) -> dict[str, Any]:
    """A process, this one by default, and the place in which its number means something."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    place = boot.read_text().strip() if boot.exists() else socket.gethostname()
    with suppress(OSError):
        place += " " + os.readlink("/proc/self/ns/pid")
    pid = pid or os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "began": _began(pid), "place": place}


def read_holder(uri: str) -> dict[str, Any] | None:
    """What the object says; None where there is none, or nothing that can be read."""
    try:
        holder = json.loads(read_bytes(uri))
    except StorageError as failure:
        if failure.kind != "NotFound":
            raise
        return None
    except ValueError:
        return None
    return holder if isinstance(holder, dict) else None


def same_place(holder: dict[str, Any]) -> bool:
    """Whether the holder's process can be seen from here."""
    return bool(holder.get("began")) and holder.get("place") == here()["place"]


def dead(holder: dict[str, Any]) -> bool:
    """Whether the holder's process is known to be gone."""
    return same_place(holder) and _began(int(holder["pid"])) != holder["began"]


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None when there is none or nobody can say."""
    try:
        # The second field is the name in brackets, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
