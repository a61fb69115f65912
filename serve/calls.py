"""What routes and pullers do with sessions, wherever the sessions live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from serve.live.items import Input, Kept, Receipt, SessionEvent, SessionOptions, SessionView


class Sessions(Protocol):
    """Calls on sessions by their id; they find the replica, and the next one where it is lost.

    Every method raises ``SessionError`` for what the caller did wrong, and with the codes
    ``overloaded`` or ``unavailable`` where the service cannot at present.
    """

    async def open(self, options: SessionOptions, session: str | None = None) -> SessionView:
        """A new session; ``session`` wishes an id, which must be free."""

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        """Hand in inputs in order; they are durable when this returns.

        Args:
            seq: sequence number of the first, one each; None goes on after the last. Numbers
                that the session has already are answered as before and not applied again.
        """

    async def cancel(self, session: str, response: str | None = None) -> bool:
        """End what is being said, or withdraw the waiting question behind ``response``.

        Frames stay. Returns whether there was anything to end.
        """

    async def events(
        self, session: str, after: int = 0, wait_s: float = 10.0
    ) -> list[SessionEvent]:
        """Events with numbers above ``after``; waits for the first, empty when none came."""

    async def kept(self, session: str, frame: int) -> Kept:
        """What the router kept of one of the last frames, of a session that asks for it."""

    async def view(self, session: str) -> SessionView:
        """How it stands."""

    async def owner(self, session: str) -> str | None:
        """Id of the API key that it belongs to; None where it belongs to nobody."""

    async def list(self) -> list[SessionView]:
        """All sessions that are not closed."""

    async def close(self, session: str) -> None:
        """End it; what waits is forgotten, its state is deleted."""
