"""One API key: how it is spelled, what is kept of it, and how one is told from a forgery."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from longreel.errors import UsageError

#: Of a key: an id that may be shown, then 256 random bits that may not.
_KEY = re.compile(r"lr-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
_ID = re.compile(r"[0-9a-f]{12}")
_MOST_NAME = 100
#: Compared with where there is no such key, so that this takes as long.
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


@dataclass(frozen=True)
class Limits:
    """What the holder of a key may use; None is no limit.

    Attributes:
        sessions: open at once, those of streams and of chats about videos among them.
        frames_per_second: pushed into all of its sessions, and pulled by all of its streams.
        jobs: pending or running at once.
        upload_bytes: sent in a day of UTC, in bodies and messages of any kind.
    """

    sessions: int | None = None
    frames_per_second: float | None = None
    jobs: int | None = None
    upload_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 <= value < 2**53:
                raise UsageError(f"{name} of a key must be 0 or more, not {value:g}")


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key, in the state store and in memory: never its secret.

    Attributes:
        id: names the key in lists and records; no secret.
        name: whose it is, in words.
        created, revoked: seconds since 1970; None while it holds.
        sha256: of the secret, in hex. It has 256 random bits, so a slow hash would add nothing.
    """

    id: str
    name: str
    created: float
    sha256: str
    limits: Limits = field(default_factory=Limits)
    revoked: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def of(cls, kept: dict[str, Any]) -> ApiKey:
        """The key that ``as_dict`` gave. Raises ``KeyError`` or ``TypeError`` for another dict."""
        return cls(
            id=kept["id"],
            name=kept["name"],
            created=kept["created"],
            sha256=kept["sha256"],
            limits=Limits(**kept["limits"]),
            revoked=kept["revoked"],
        )

    def as_revoked(self) -> ApiKey:
        """The same, revoked now or when it was."""
        return self if self.revoked is not None else replace(self, revoked=time.time())


@dataclass(frozen=True)
class Presented:
    """A key as a client sent it; its secret shows in no representation."""

    id: str
    secret: str = field(repr=False)


def new_key(name: str, limits: Limits) -> tuple[ApiKey, str]:
    """A new key, and its whole text, which is to be shown once and kept nowhere.

    Raises:
        UsageError: the name is empty, too long or not printable.
    """
    if not (name.strip() and len(name) <= _MOST_NAME and name.isprintable()):
        raise UsageError(f"the name of a key has 1 to {_MOST_NAME} printable characters")
    id_, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return ApiKey(id_, name, time.time(), _hashed(secret), limits), f"lr-{id_}-{secret}"


def presented(text: str) -> Presented | None:
    """What a client sent, taken apart; None where it cannot be a key."""
    found = _KEY.fullmatch(text)
    return None if found is None else Presented(found[1], found[2])


def key_id(text: str) -> str | None:
    """The id that ``text`` is, or that the whole key which it is has; None for anything else."""
    if whole := presented(text):
        return whole.id
    return text if _ID.fullmatch(text) else None


def matches(given: Presented | None, kept: ApiKey | None) -> bool:
    """Whether ``given`` is the key ``kept``, and that holds; as much work wherever it does not."""
    same = hmac.compare_digest(
        _hashed(given.secret if given else ""), kept.sha256 if kept else _NOBODY
    )
    return same and given is not None and kept is not None and kept.revoked is None


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
