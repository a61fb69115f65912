"""One key: what is kept of it, which text is it, and keys in a store."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from longreel.errors import LongreelError, UsageError
from serve.keys.key import ApiKey, Limits, key_id, matches, new_key, presented
from serve.keys.keystore import revoke_key, stored_keys, write_key


def test_a_key_opens_what_it_was_made_for_and_nothing_else() -> None:
    """Guards against a key that another text passes for, and one that goes on when revoked."""
    made, text = new_key("door", Limits())
    other, other_text = new_key("door", Limits())
    assert text != other_text
    assert matches(presented(text), made)
    assert not matches(presented(other_text), made)
    assert not matches(presented(text), other)
    assert not matches(presented(text), None)
    assert not matches(None, made)
    assert not matches(presented(text), made.as_revoked())
    mixed = f"lr-{made.id}-{other_text.rpartition(f'{other.id}-')[2]}"
    assert presented(mixed) is not None
    assert not matches(presented(mixed), made)


def test_what_is_kept_is_a_hash_of_256_random_bits() -> None:
    """Guards against a store, a log or a traceback that gives keys away."""
    made, text = new_key("door", Limits(sessions=2, frames_per_second=0.5))
    secret = text.removeprefix(f"lr-{made.id}-")
    assert len(secret) == 43, "32 bytes in base64"
    assert made.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    for told in (str(made.as_dict()), repr(made), repr(presented(text))):
        assert secret not in told
    assert ApiKey.of(made.as_dict()) == made


@pytest.mark.parametrize(
    "text",
    ["", "lr-", "none", "lr-0123456789ab-", "lr-0123456789AB-" + "a" * 43, "x" * 100_000,
     "lr-../../etc/pw-" + "a" * 43, "lr-0123456789ab-" + "a" * 43 + "\n",
     "lr-0123456789ab-" + "é" * 43],
)  # fmt: skip
def test_other_texts_are_no_keys(text: str) -> None:
    """Guards against an id that leads out of the folder of keys."""
    assert presented(text) is None
    assert not matches(presented(text), None)
    assert key_id(text) is None


def test_unknown_ids_take_as_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a reply whose time tells which ids there are."""
    made, text = new_key("door", Limits())
    compared: list[int] = []

    def counted(one: str, other: str) -> bool:
        compared.append(len(one) + len(other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for kept in (made, None, made.as_revoked()):
        matches(presented(text), kept)
    assert compared == [128] * 3


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "\x1b[31mred", "x" * 101])
def test_a_name_can_be_shown(name: str) -> None:
    """Guards against names that break the line of a log or a table."""
    with pytest.raises(UsageError, match="printable"):
        new_key(name, Limits())


@pytest.mark.parametrize(
    "limits", [{"sessions": -1}, {"frames_per_second": float("nan")}, {"upload_bytes": 2**60}]
)
def test_a_limit_is_a_number_from_0(limits: dict[str, int]) -> None:
    """Guards against a limit that no comparison reaches, and so is none."""
    (name,) = limits
    with pytest.raises(UsageError, match=name):
        Limits(**limits)


def test_keys_in_a_store(tmp_path: Path) -> None:
    """Guards against a key whose limits, or whose end, the store forgets."""
    store = str(tmp_path)
    assert stored_keys(store) == []
    made = [new_key(name, Limits(jobs=number))[0] for number, name in enumerate("ab")]
    for one in made:
        write_key(store, one)
    assert stored_keys(store) == made
    revoked = revoke_key(store, made[0].id)
    assert revoked.revoked is not None
    assert revoke_key(store, made[0].id) == revoked, "the first time counts"
    assert stored_keys(store) == [revoked, made[1]]
    with pytest.raises(UsageError, match="no key 0123456789ab"):
        revoke_key(store, "0123456789ab")


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    """Guards against a list that ends in a traceback, or leaves a damaged key out in silence."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "0123456789ab.json").write_text('{"id": "0123456789ab"}')
    with pytest.raises(LongreelError, match=r"0123456789ab\.json is no key"):
        stored_keys(str(tmp_path))
