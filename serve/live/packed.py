"""A snapshot of a session as bytes: what it knows itself as JSON, then the engine's state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

#: Entries of a list that are encoded at once: no other thread has a turn meanwhile.
PART = 500


def packed(head: dict[str, Any], state: bytes) -> bytes:
    """A snapshot, in any thread.

    Args:
        head: plain values, and objects that stand for a dict of their fields.
        state: of the engine.
    """
    encoded = "".join(parts(head)).encode()
    return b"".join([len(encoded).to_bytes(4, "little"), encoded, state])


def unpacked(snapshot: bytes) -> tuple[dict[str, Any], bytes]:
    """What ``packed`` packed; of objects the dicts that they stood for."""
    size = int.from_bytes(snapshot[:4], "little")
    return json.loads(snapshot[4 : 4 + size]), snapshot[4 + size :]


def parts(value: Any) -> Iterator[str]:
    """``value`` in JSON as ``json.dumps`` spells it, each part of bounded size where dicts hold
    long lists.
    """
    if isinstance(value, dict) and value:
        before = "{"
        for name, each in value.items():
            yield f"{before}{json.dumps(name)}: "
            yield from parts(each)
            before = ", "
        yield "}"
    elif isinstance(value, list) and len(value) > PART:
        before = "["
        for start in range(0, len(value), PART):
            yield before + json.dumps(value[start : start + PART], default=vars)[1:-1]
            before = ", "
        yield "]"
    else:
        yield json.dumps(value, default=vars)
