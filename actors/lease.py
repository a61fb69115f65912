"""One run at a time on one output: a small object there says who works on it, while it does.

A run that died on this machine is known to be dead at once. One elsewhere is known by a lease that
stays unchanged, measured on the reader's own clock. Whoever writes rows asks for the lease before
each file, so that a run that was taken for dead and wakes up writes nothing more.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from actors.objects import delete_object, join_uri, read_bytes, write_bytes
from longreel.errors import LeaseLostError, LongreelError, StorageError

#: Seconds between two renewals, and without one after which a holder elsewhere counts as gone.
RENEW_S, STALE_S = 4.0, 20.0
#: Seconds after which the last of several that took the lease at once has it.
_SETTLE_S = 0.3


class Lease:
    """A held lease, renewed by a thread of its own until ``release``."""

    def __init__(self, output: str) -> None:
        self.token = secrets.token_hex(8)
        self._output = output
        self._uri = _uri(output)
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._count = 0

    def take(self) -> None:
        """Write the lease and see that nobody wrote another.

        Raises:
            LeaseLostError: somebody did.
        """
        self._write()
        time.sleep(_SETTLE_S)
        require(self._output, self.token)
        self._renewing.start()

    def release(self) -> None:
        """Leave the output to others."""
        self._released.set()
        self._renewing.join()  # else a renewal under way could bring back what is deleted here
        with suppress(LongreelError):
            require(self._output, self.token)
            delete_object(self._uri)

    def _renew(self) -> None:
        while not self._released.wait(RENEW_S):
            # A store that does not answer for once is no reason to stop; a lost lease is.
            with suppress(StorageError):
                try:
                    require(self._output, self.token)
                except LeaseLostError:
                    return
                self._write()

    def _write(self) -> None:
        self._count += 1
        holder = {"token": self.token, "renewed": self._count, **_here()}
        write_bytes(self._uri, json.dumps(holder).encode())


@contextmanager
def leased(output: str) -> Iterator[Lease]:
    """The lease of ``output`` for the length of a run.

    Waits up to ``STALE_S`` where its holder cannot be asked whether it lives.

    Raises:
        LongreelError: another run works on it.
    """
    _wait_until_free(output)
    lease = Lease(output)
    lease.take()
    try:
        yield lease
    finally:
        lease.release()


def require(output: str, token: str) -> None:
    """See that the lease of ``output`` is the one of ``token``.

    Raises:
        LeaseLostError: it is another run's by now.
    """
    holder = _holder(output)
    if holder is None or holder.get("token") != token:
        who = f"by {_name(holder)}" if holder else "and left by another run"
        raise LeaseLostError(f"{output} was taken over {who}; this run writes nothing more")


def _wait_until_free(output: str) -> None:
    first = _holder(output)
    deadline = time.monotonic() + STALE_S
    while (holder := _holder(output)) is not None and not _dead(holder):
        if holder != first or _same_place(holder):
            raise LongreelError(
                f"{output} is being worked on by {_name(holder)}; two runs would mix their rows"
            )
        if time.monotonic() >= deadline:
            return
        time.sleep(1.0)


def _holder(output: str) -> dict[str, Any] | None:
    try:
        holder = json.loads(read_bytes(_uri(output)))
    except StorageError as failure:
        if failure.kind != "NotFound":
            raise
        return None
    except ValueError:
        return None
    return holder if isinstance(holder, dict) else None


def _uri(output: str) -> str:
    return join_uri(output, "_longreel", "lease.json")


def _here() -> dict[str, Any]:
    """This process, and the place in which its number means something."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    place = boot.read_text().strip() if boot.exists() else socket.gethostname()
    with suppress(OSError):
        place += " " + os.readlink("/proc/self/ns/pid")
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "began": _began(pid), "place": place}


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None when there is none or nobody can say."""
    try:
        # The second field is the name in brackets, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _same_place(holder: dict[str, Any]) -> bool:
    return bool(holder.get("began")) and holder.get("place") == _here()["place"]


def _dead(holder: dict[str, Any]) -> bool:
    return _same_place(holder) and _began(int(holder["pid"])) != holder["began"]


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}"
