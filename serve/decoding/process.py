"""One decoding process as the gateway has it: started, asked, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from longreel.errors import StorageError
from serve.decoding.wire import Message, WireError, receive_soon, send_soon

#: A process that has not begun to work by then will not.
START_S = 60.0
#: All that is passed on of the environment: no credentials, no addresses.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
#: How long a process that closed its socket may take to end.
_DYING_S = 1.0
_MOST_PART_BYTES = 256 * 2**20
#: Of one read on behalf of a process.
_MOST_NEEDED_BYTES = 64 * 2**20

#: Reads bytes from a place on, for a process that has no way to them; blocks.
Fetch = Callable[[int, int], bytes]


class DecoderDiedError(Exception):
    """The process ended during a call, or no longer keeps to the protocol.

    Args:
        why: such as ``signal SIGSEGV``.
        slow: it was ended because the call took too long.
    """

    def __init__(self, why: str, slow: bool = False) -> None:
        super().__init__(why)
        self.why, self.slow = why, slow


class Process:
    """A running decoding process; one call at a time.

    Args:
        memory_bytes: that it may have.
    """

    def __init__(self, memory_bytes: int) -> None:
        ours, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), str(memory_bytes)]
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "serve.decoding.worker", *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._wire = ours
        self._ready = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def usable(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    async def begun(self) -> None:
        """Until it takes calls. Raises ``DecoderDiedError``."""
        if not self._ready:
            await self._within(START_S, receive_soon(self._wire, 0))
            self._ready = True

    async def call(
        self,
        call: dict[str, Any],
        payload: list[bytes],
        part: Callable[[dict[str, Any], bytearray], None],
        limit_s: float,
        fetch: Fetch | None,
    ) -> dict[str, Any]:
        """One call; ``part`` is given each part of the answer, and what ends it is returned.

        Args:
            limit_s: until a part, and from one to the next.
            fetch: of what the call reads, where that is no local file.

        Raises:
            DecoderDiedError: it cannot be asked again.
        """
        try:
            message = await self._within(limit_s, self._asked(call, payload))
            while True:
                said, data = message
                if "part" in said:
                    part(said["part"], data)
                elif "need" in said and fetch is not None:
                    # Storage has time limits of its own.
                    await self._fetched(said["need"], fetch)
                else:
                    return said
                message = await self._within(limit_s, receive_soon(self._wire, _MOST_PART_BYTES))
        except (KeyError, TypeError, ValueError):
            self.kill()
            raise DecoderDiedError("an answer that is none") from None

    async def _asked(self, call: dict[str, Any], payload: list[bytes]) -> Message:
        await send_soon(self._wire, call, payload)
        return await receive_soon(self._wire, _MOST_PART_BYTES)

    async def _fetched(self, need: Any, fetch: Fetch) -> None:
        start, length = need
        if not (start >= 0 and 0 <= length <= _MOST_NEEDED_BYTES):
            raise ValueError("a read that is out of bounds")
        try:
            data = await asyncio.to_thread(fetch, start, length)
        except StorageError as error:
            told = {"kind": error.kind, "message": error.message}
            await self._within(START_S, send_soon(self._wire, told))
        else:
            await self._within(START_S, send_soon(self._wire, {}, [data]))

    async def _within(self, limit_s: float, doing: Any) -> Any:
        try:
            async with asyncio.timeout(limit_s):
                return await doing
        except TimeoutError:
            self.kill()
            raise DecoderDiedError(f"no answer in {limit_s:g} s", slow=True) from None
        except (WireError, OSError) as failure:
            how = await asyncio.to_thread(self._how)
            self.kill()
            raise DecoderDiedError(how or str(failure)) from None

    def _how(self) -> str | None:
        """It ended, if it did."""
        with suppress(subprocess.TimeoutExpired):
            status = self._child.wait(_DYING_S)
            if status < 0:
                return f"signal {signal.Signals(-status).name}"
            return f"exit status {status}"
        return None

    def kill(self) -> None:
        """End it at once; nobody waits for that."""
        with suppress(OSError):
            self._wire.shutdown(socket.SHUT_RDWR)
        self._child.kill()
        # It may have much memory to give back. The socket's number must not be used again while
        # the event loop still watches it.
        threading.Thread(target=self._reap, name="reap", daemon=True).start()

    def _reap(self) -> None:
        self._child.wait()
        self._wire.close()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # As this process finds its modules, so must that one.
    paths = [path or os.getcwd() for path in sys.path]
    # A pool of threads for arithmetic that nobody asks of it.
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
