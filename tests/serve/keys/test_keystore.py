"""Keys in the state store, one of them at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from longreel.errors import StorageError
from serve.keys.key import Limits, new_key
from serve.keys.keystore import key_holds, revoke_key, write_key


def test_a_key_holds_while_the_gateway_would_let_it_in(tmp_path: Path) -> None:
    """Guards against a key that is over in one place and holds in another."""
    store, keys = str(tmp_path), tmp_path / "keys"
    key, _ = new_key("door", Limits())
    write_key(store, key)
    assert key_holds(store, key.id)
    (keys / "0123456789ab.json").write_bytes((keys / f"{key.id}.json").read_bytes())
    assert not key_holds(store, "0123456789ab"), "it is another's"
    (keys / "0123456789ab.json").write_bytes(b"{}")
    assert not key_holds(store, "0123456789ab"), "it is none"
    revoke_key(store, key.id)
    assert not key_holds(store, key.id)


def test_nobody_can_tell_of_a_key_that_cannot_be_read(tmp_path: Path) -> None:
    """Guards against a store that is away, or not mounted, and passes for a revocation."""
    with pytest.raises(StorageError):
        key_holds(str(tmp_path / "not mounted"), "0123456789ab")
    (tmp_path / "keys" / "0123456789ab.json").mkdir(parents=True)
    with pytest.raises(StorageError):
        key_holds(str(tmp_path), "0123456789ab")
