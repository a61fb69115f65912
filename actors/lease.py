"""One run at a time on one output: a small object there says who works on it, while it does.

``_longreel/lease.json`` names the run. It is written when the run takes the output, and never
again: what says that the run still lives goes to an object of its own. A renewal that was under way
while the run was taken for dead may land at any time, and must not take the output back.

``actors.holder`` tells a run that works from one that is dead. Whoever writes rows asks for the
lease before each file, so that a run that was taken for dead and wakes up writes nothing more.
"""

from __future__ import annotations

import json
import re
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
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self) -> bool:
        """Write the lease, where it is free; whether nobody wrote another at the same time."""
        before = read_holder(_uri(self._output))
        holder = {"token": self.token, **here()}
        write_bytes(_uri(self._output), json.dumps(holder).encode())
        time.sleep(_SETTLE_S)
        try:
            require(self._output, self.token)
        except LeaseLostError:
            return False
        if before is not None and before.get("token") != self.token:
            with suppress(StorageError):
                delete_object(_alive(self._output, before))
        self._renewing.start()
        return True

    def release(self) -> None:
        """Leave the output to others."""
        self._released.set()
        self._renewing.join()  # else a renewal under way could bring back what is deleted here
        with suppress(LongreelError):
            require(self._output, self.token)
            delete_object(_uri(self._output))
        with suppress(StorageError):
            delete_object(_alive(self._output, {"token": self.token}))

    def _renew(self) -> None:
        renewed = 0
        while not self._released.wait(RENEW_S):
            # A store that does not answer for once is no reason to stop; a lost lease is.
            with suppress(StorageError):
                try:
                    require(self._output, self.token)
                except LeaseLostError:
                    return
                renewed += 1
                alive = json.dumps({"renewed": renewed}).encode()
                write_bytes(_alive(self._output, {"token": self.token}), alive)


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
    first, watch = _seen(output), Watch()
    while (seen := _seen(output)) is not None and not dead(seen[0]):
        if seen != first or same_place(seen[0]):
            raise LongreelError(
                f"{output} is being worked on by {_name(seen[0])}; two runs would mix their rows"
            )
        if watch.unchanged_s(seen, time.monotonic()) >= STALE_S:
            return
        time.sleep(1.0)


def _seen(output: str) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
    """The holder and its last renewal; None where there is no holder."""
    holder = _holder(output)
    return None if holder is None else (holder, read_holder(_alive(output, holder)))


def _holder(output: str) -> dict[str, Any] | None:
    return read_holder(_uri(output))


def _uri(output: str) -> str:
    return join_uri(output, "_longreel", "lease.json")


def _alive(output: str, holder: dict[str, Any]) -> str:
    """Where a holder says that it lives."""
    token = re.sub("[^0-9a-z]", "", str(holder.get("token")))
    return join_uri(output, "_longreel", f"lease-{token}.json")


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}"
