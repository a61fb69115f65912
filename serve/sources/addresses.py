"""Where a source may be: schemes, and the addresses that a host's name leads to."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from longreel.errors import LongreelError
from serve.addresses import is_public

PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}
SCHEMES = (*PORTS, "s3")


class SourceError(LongreelError):
    """A source cannot be opened or broke off; the message never holds its credentials.

    Attributes:
        final: another try would end the same way.
    """

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message, final)
        self.message = message
        self.final = final

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class SourceSettings:
    """What sources may be and how long they are waited for.

    Attributes:
        allow_private: loopback and private addresses too.
        s3_buckets: that ``s3://`` may name.
        open_s, read_s: seconds without an answer, or without data, after which a source is lost.
        segment_s: the same of a live playlist's next segment, which comes as a whole.
        max_pixels: of one picture.
        first_pause_s, longest_pause_s: before a source is opened again; it doubles in between.
    """

    allow_private: bool = False
    s3_buckets: Sequence[str] = field(default_factory=tuple)
    open_s: float = 10.0
    read_s: float = 10.0
    segment_s: float = 30.0
    max_pixels: int = 50_000_000
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0


@dataclass(frozen=True)
class Place:
    """A checked network address.

    Attributes:
        address: numeric; connecting to it by number leaves no second look-up to be lied to.
        user, password: as they stood in the URL, decoded; None without.
        target: path and query.
    """

    scheme: str
    host: str
    port: int
    address: str
    user: str | None
    password: str | None
    target: str


def place_of(url: str, settings: SourceSettings) -> Place:
    """Check a network URL and look its host up.

    Raises:
        SourceError: final where it is not allowed, else where the name is not known now.
    """
    if any(character <= " " or character == "\x7f" for character in url):
        raise SourceError("a URL holds no spaces or control characters", final=True)
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        raise SourceError("this is no URL", final=True) from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise SourceError(f"a source is one of {', '.join(f'{s}://' for s in SCHEMES)}", final=True)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    address = _address(parts.hostname, port, settings)
    user, password = _credentials(parts)
    return Place(parts.scheme, parts.hostname, port, address, user, password, target)


def check_bucket(url: str, settings: SourceSettings) -> None:
    """Raises final ``SourceError`` for a bucket that is not configured."""
    bucket = url.removeprefix("s3://").partition("/")[0]
    if bucket not in settings.s3_buckets:
        raise SourceError(f"bucket {bucket!r} is not one that sources may name", final=True)


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    user, password = parts.username, parts.password
    return (
        unquote(user) if user is not None else None,
        unquote(password) if password is not None else None,
    )


def _address(host: str, port: int, settings: SourceSettings) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SourceError(f"the name {host!r} cannot be looked up") from None
    addresses = [str(each[4][0]) for each in found]
    # All of them: of a name that leads inside and outside nothing good is meant.
    if not settings.allow_private and not all(map(is_public, addresses)):
        raise SourceError(f"{host!r} is not a public address", final=True)
    return addresses[0]
