"""What goes wrong between a client and the service."""

from __future__ import annotations

from longreel.errors import LongreelError


class APIError(LongreelError):
    """The service refused a request, or could not be reached.

    Attributes:
        status: of the HTTP reply; 0 where none came.
        code: for programs, such as ``session_not_found`` or ``overloaded``; ``unreachable`` where
            no reply came, ``connection_lost`` where one broke off and asking again might do
            something twice.
        message: one line that names the thing.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})" if self.code else self.message
