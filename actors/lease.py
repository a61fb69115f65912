"""One run at a time on one output: a small object there says who works on it, while it does.

``actors.holder`` tells a run that works from one that is dead. Whoever writes rows asks for the
lease before each file, so that a run that was taken for dead and wakes up writes nothing more.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from actors.holder import RENEW_S, STALE_S, Watch, dead, here, read_holder, same_place
from actors.objects import delete_object, join_uri, write_bytes
from longreel.errors import LeaseLostError, LongreelError, StorageError

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

    def take(self) -> bool:
        """Write the lease, where it is free; whether nobody wrote another at the same time."""
        self._write()
        time.sleep(_SETTLE_S)
        try:
            require(self._output, self.token)
        except LeaseLostError:
            return False
        self._renewing.start()
        return True

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
        holder = {"token": self.token, "renewed": self._count, **here()}
        write_bytes(self._uri, json.dumps(holder).encode())


@contextmanager
def leased(output: str) -> Iterator[Lease]:
    """The lease of ``output`` for the length of a run.

    Waits up to ``STALE_S`` where its holder cannot be asked whether it lives.

    Raises:
        LongreelError: another run works on it.
    """
    lease, taken = Lease(output), False
    while not taken:
        _wait_until_free(output)
        taken = lease.take()
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
    first, watch = _holder(output), Watch()
    while (holder := _holder(output)) is not None and not dead(holder):
        if holder != first or same_place(holder):
            raise LongreelError(
                f"{output} is being worked on by {_name(holder)}; two runs would mix their rows"
            )
        if watch.unchanged_s(holder, time.monotonic()) >= STALE_S:
            return
        time.sleep(1.0)


def _holder(output: str) -> dict[str, Any] | None:
    return read_holder(_uri(output))


def _uri(output: str) -> str:
    return join_uri(output, "_longreel", "lease.json")


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}"
