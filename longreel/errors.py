"""The errors a user can cause, each with one line that names the thing."""

from __future__ import annotations

#: Exit statuses beside 0: the job failed; wrong use; finished, not all videos ok; interrupted.
JOB_FAILED, WRONG_USE, NOT_ALL_OK, INTERRUPTED = 1, 2, 3, 130


class LongreelError(Exception):
    """An error whose message is one complete line for the user; shown without a traceback."""


class UsageError(LongreelError):
    """The command was given something that cannot work (exit status 2)."""


#: Kinds of ``StorageError`` for which no object is to blame: with such credentials and settings
#: the next one would fail alike.
UNUSABLE_ACCESS = frozenset(
    (
        "BadSetting",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NoCredentials",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    )
)


class StorageError(LongreelError):
    """An object or bucket could not be listed, read or written.

    ``kind`` is a short class name for rows and programs, such as ``NoSuchBucket``.
    """

    def __init__(self, kind: str, message: str) -> None:
        # As they were given: pickling makes an exception anew from its arguments.
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class LeaseLostError(LongreelError):
    """Another run has taken the output over."""


class VideoError(LongreelError):
    """A video that cannot be used, wholly or from some point on.

    ``kind`` is one of ``KINDS``; ``where`` says where in the file, when that is known.
    """

    KINDS = frozenset(("Empty", "NotAVideo", "NoVideoStream", "TooLarge", "Truncated", "Damaged"))

    def __init__(self, kind: str, message: str, where: str | None = None) -> None:
        super().__init__(kind, message, where)
        self.kind = kind
        self.message = message
        self.where = where

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" + (f" ({self.where})" if self.where else "")


def kind_of(error: str) -> str:
    """The class name that an error in a row begins with."""
    return error.partition(":")[0]
