"""Keys in the state store: ``keys/ID.json``, one object for each, and no secret in any."""

from __future__ import annotations

import json

from actors.objects import ObjectStat, join_uri, list_objects, read_bytes, write_bytes
from longreel.errors import LongreelError, StorageError, UsageError
from serve.keys.key import ApiKey


def write_key(store: str, key: ApiKey) -> None:
    """Keep it. Raises ``StorageError``."""
    write_bytes(_uri(store, key.id), json.dumps(key.as_dict()).encode())


def stored_keys(store: str) -> list[ApiKey]:
    """All keys, revoked ones among them, oldest first. Raises ``StorageError``."""
    keys = [read_key(found.uri) for found in key_objects(store)]
    return sorted(keys, key=lambda key: (key.created, key.id))


def revoke_key(store: str, id_: str) -> ApiKey:
    """Revoke the key for good; one that is revoked stays so.

    Raises:
        UsageError: there is none of that id.
        StorageError: the store cannot be reached.
    """
    try:
        key = read_key(_uri(store, id_)).as_revoked()
    except StorageError as error:
        if error.kind == "NotFound":
            raise UsageError(f"there is no key {id_} in {store}") from None
        raise
    write_key(store, key)
    return key


def key_objects(store: str) -> list[ObjectStat]:
    """Where the keys lie, with what tells one version from the next. Raises ``StorageError``."""
    try:
        found = list(list_objects(join_uri(store, "keys")))
    except StorageError as error:
        if error.kind == "NotFound":
            return []
        raise
    return [each for each in found if each.uri.endswith(".json")]


def read_key(uri: str) -> ApiKey:
    """The key at ``uri``.

    Raises:
        StorageError: it cannot be read.
        LongreelError: what lies there is no key.
    """
    try:
        return ApiKey.of(json.loads(read_bytes(uri)))
    except (ValueError, KeyError, TypeError, UsageError):
        raise LongreelError(f"what lies at {uri} is no key") from None


def key_holds(store: str, id_: str) -> bool:
    """Whether the key ``id_`` is not revoked.

    Raises:
        StorageError: nobody can tell: the store cannot be reached, or has no such key. A key that
            is revoked stays there.
    """
    try:
        key = read_key(_uri(store, id_))
    except StorageError:
        raise
    except LongreelError:  # the gateway lets nobody in with it
        return False
    return key.id == id_ and key.revoked is None


def _uri(store: str, id_: str) -> str:
    return join_uri(store, "keys", f"{id_}.json")
