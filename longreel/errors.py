"""The errors a user can cause, each with one line that names the thing."""

from __future__ import annotations

#: Exit statuses beside 0: the job failed; wrong use; finished, not all videos ok; interrupted.
JOB_FAILED, WRONG_USE, NOT_ALL_OK, INTERRUPTED = 1, 2, 3, 130


class LongreelError(Exception):
    """An error whose message is one complete line for the user; shown without a traceback."""


class UsageError(LongreelError):
    """The command was given something that cannot work (exit status 2)."""


class StorageError(LongreelError):
    """An object or bucket could not be listed, read or written.

    ``kind`` is a short class name for rows and programs, such as ``NoSuchBucket``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class VideoError(LongreelError):
    """A video that cannot be used, wholly or from some point on.

    ``kind`` is a short class name (``Empty``, ``NotAVideo``, ``NoVideoStream``, ``Truncated``,
    ``Damaged``); ``where`` says where in the file, when that is known.
    """

    def __init__(self, kind: str, message: str, where: str | None = None) -> None:
        super().__init__(f"{kind}: {message}" + (f" ({where})" if where else ""))
        self.kind = kind
        self.where = where
