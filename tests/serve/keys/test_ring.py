"""The keys as the gateway knows them: news from the store, and a store that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from longreel.errors import StorageError
from serve.keys import ring as rings
from serve.keys.key import ApiKey, Limits, new_key
from serve.keys.keystore import key_objects, revoke_key, write_key
from serve.keys.ring import FRESH_S, GRACE_S, KeyRing
from serve.live.items import SessionError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Store:
    """A store in a folder, whose listing can be counted and can fail."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.uri, self.lists, self.away = str(folder), 0, False
        self.clock = Clock()
        self.ring = KeyRing(self.uri, self.clock)
        patch.setattr(rings, "key_objects", self._listed)

    def _listed(self, store: str) -> Any:
        self.lists += 1
        if self.away:
            raise StorageError("Unreachable", "cannot list keys")
        return key_objects(store)

    def add(self) -> tuple[ApiKey, str]:
        key, text = new_key("door", Limits())
        write_key(self.uri, key)
        return key, text


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(tmp_path, monkeypatch)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_new_key_is_known_and_a_revoked_one_is_not_two_seconds_later(store: Store) -> None:
    """Guards against a revoked key that opens doors for longer, and a new one that waits."""

    async def scenario() -> None:
        assert await store.ring.find("lr-0123456789ab-" + "a" * 43) is None
        key, text = store.add()
        store.clock.now += 0.3
        assert await store.ring.find(text) == key
        revoke_key(store.uri, key.id)
        store.clock.now += FRESH_S + 0.1
        assert await store.ring.find(text) is None
        assert not await store.ring.holds(key.id)
        other, other_text = store.add()
        store.clock.now += 0.3
        assert await store.ring.find(other_text) == other

    run(scenario())


def test_the_store_is_asked_once_in_two_seconds_whoever_asks(store: Store) -> None:
    """Guards against made-up keys that cost a call to the store each."""

    async def scenario() -> None:
        _, text = store.add()
        await store.ring.find(text)
        store.lists = 0
        for _ in range(100):
            await store.ring.find(text)
            store.clock.now += 0.01
        assert store.lists == 0
        for number in range(100):
            await store.ring.find(f"lr-{number:012x}-" + "a" * 43)
            await store.ring.find("not even a key")
        assert store.lists <= 1
        store.clock.now += FRESH_S + 1
        store.lists = 0
        assert all(await asyncio.gather(*(store.ring.find(text) for _ in range(50))))
        assert store.lists == 1

    run(scenario())


def test_a_store_that_is_away_lets_in_whom_it_knew_for_a_while(store: Store) -> None:
    """Guards against everybody locked out by a passing fault, and a revoked key that stays in."""

    async def scenario() -> None:
        key, text = store.add()
        assert await store.ring.find(text) == key
        store.away = True
        _, unseen = store.add()
        store.clock.now += FRESH_S + 1
        assert await store.ring.find(text) == key
        assert await store.ring.find(f"lr-{key.id}-" + "a" * 43) is None
        with pytest.raises(SessionError, match="cannot be looked up") as refused:
            await store.ring.find(unseen)
        assert refused.value.code == "unavailable"
        store.clock.now += GRACE_S
        with pytest.raises(SessionError):
            await store.ring.find(text)
        assert await store.ring.holds(key.id), "what is open is not cut off"
        store.away = False
        store.clock.now += FRESH_S + 1
        assert await store.ring.find(text) == key
        assert await store.ring.find(unseen) is not None

    run(scenario())


def test_without_any_look_nobody_is_let_in(store: Store) -> None:
    """Guards against a gateway that begins while the store is away."""

    async def scenario() -> None:
        _, text = store.add()
        store.away = True
        with pytest.raises(SessionError):
            await store.ring.find(text)

    run(scenario())


def test_a_store_that_hangs_holds_no_request_up_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against each request waiting for a store that answers none."""

    async def scenario() -> None:
        key, text = store.add()
        assert await store.ring.find(text) == key
        released = asyncio.Event()

        async def hangs(*_: Any) -> None:
            await released.wait()
            raise StorageError("Unreachable", "at last")

        monkeypatch.setattr(asyncio, "to_thread", hangs)
        monkeypatch.setattr(rings, "_PATIENCE_S", 0.05)
        store.clock.now += FRESH_S + 1
        async with asyncio.timeout(5):
            for _ in range(200):  # the first waits, the others know better
                assert await store.ring.find(text) == key
                store.clock.now += 0.01
        released.set()

    run(scenario())


def test_one_damaged_object_does_not_hide_the_others(store: Store) -> None:
    """Guards against all clients locked out by one bad file, and a key under another's name."""

    async def scenario() -> None:
        key, text = store.add()
        folder = Path(store.uri) / "keys"
        (folder / "0123456789ab.json").write_text("{")
        (folder / "ba9876543210.json").write_bytes((folder / f"{key.id}.json").read_bytes())
        assert await store.ring.find(text) == key
        forged = text.replace(key.id, "ba9876543210")
        assert await store.ring.find(forged) is None

    run(scenario())


@pytest.mark.objectstore
@pytest.mark.slow
def test_keys_in_a_bucket(bucket: str) -> None:
    """Guards the same against a store that is not a folder."""

    async def scenario() -> None:
        uri, clock = f"s3://{bucket}/state", Clock()
        ring = KeyRing(uri, clock)
        assert await ring.find("lr-0123456789ab-" + "a" * 43) is None
        key, text = new_key("door", Limits())
        write_key(uri, key)
        clock.now += 0.3
        assert await ring.find(text) == key
        revoke_key(uri, key.id)
        clock.now += FRESH_S + 0.1
        assert await ring.find(text) is None

    run(scenario())
