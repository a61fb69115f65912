"""``longreel keys`` as an operator types it, and its keys at a service; no key is ever said."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longreel.client import APIError, Client
from longreel.errors import UsageError
from longreel.options import asks_for_keys, is_loopback
from tests.longreel.commands import run
from tests.serve.keyed import Keyed
from tests.serve.routes_server import picture
from tests.serve.served import served

KEY = re.compile(r"lr-([0-9a-f]{12})-([A-Za-z0-9_-]{43})\n")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def address(store: Path) -> Iterator[str]:
    with served(Keyed(store).app()) as url:
        yield url


@pytest.mark.slow
def test_from_making_a_key_to_revoking_it(store: Path, address: str, tmp_path: Path) -> None:
    """Guards against a key that cannot be piped, is shown again, or does not open anything."""
    limits = ["--sessions", "2", "--frames-per-second", "0.5", "--jobs", "0"]
    made = run("keys", "create", "the door", *limits, "--state", str(store))
    assert made.returncode == 0, made.stderr
    found = KEY.fullmatch(made.stdout)
    assert found is not None, "standard output is the key alone"
    key, id_, secret = made.stdout.strip(), *found.groups()
    assert secret not in made.stderr
    listed = run("keys", "list", "--state", str(store)).stdout
    assert id_ in listed
    assert "the door" in listed
    assert "2 sessions, 0.5 frames/s, 0 jobs" in listed
    assert secret not in listed
    assert all(secret not in file.read_text() for file in (store / "keys").iterdir())

    frame = tmp_path / "frame.jpg"
    frame.write_bytes(picture(200))
    chat = ["chat", str(frame), "What is there?"]
    told = run(*chat, LONGREEL_SERVER=address, LONGREEL_API_KEY=key)
    assert (told.returncode, told.stderr) == (0, "")
    assert "What is there?" in told.stdout
    for refused in (
        run(*chat, LONGREEL_SERVER=address),
        run(*chat, LONGREEL_SERVER=address, LONGREEL_API_KEY=key[:-1] + "!"),
        run("watch", str(frame), "--server", address, "--api-key", key[:-1] + "!"),
    ):
        assert refused.returncode == 1
        assert "invalid_api_key" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
        assert secret[:-1] not in refused.stdout + refused.stderr

    # Whoever pastes the whole key means its id.
    revoked = run("keys", "revoke", key, "--state", str(store))
    assert revoked.stdout == f"revoked key {id_} of the door\n"
    assert re.search(rf"{id_}.* revoked 20", run("keys", "list", "--state", str(store)).stdout)


@pytest.mark.slow
def test_what_cannot_be_is_one_line(store: Path) -> None:
    """Guards against a traceback, which might show a key."""
    given = "--state", str(store)
    for arguments, said in (
        (["keys", "create", ""], "the name of a key has"),
        (["keys", "create", "a", "--sessions", "-1"], "sessions of a key must be 0 or more"),
        (["keys", "revoke", "0123456789ab"], "there is no key 0123456789ab in"),
        (["keys", "revoke", "lr-0123456789ab-half"], "no id of a key"),
    ):
        refused = run(*arguments, *given)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert "half" not in refused.stderr
    assert run("keys", "list", *given).stdout == f"no keys in {store}\n"


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.5", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_keys_are_asked_for_where_others_can_connect(host: str, here: bool) -> None:
    """Guards against a service that the network may use because nobody thought of it."""
    assert is_loopback(host) == here
    assert asks_for_keys(None, host) == (not here)
    assert asks_for_keys("required", host)
    assert not asks_for_keys("off", host)
    with pytest.raises(UsageError, match="'required' or 'off'"):
        asks_for_keys("on", host)


def test_a_client_says_its_key_to_nobody(address: str, caplog: Any, capfd: Any) -> None:
    """Guards against keys in errors and logs of programs that use the client."""
    caplog.set_level(logging.DEBUG)
    key = "lr-0123456789ab-" + "s3cret" * 7 + "x"
    said = []
    for server in (address, "http://127.0.0.1:9"):
        with Client(server, api_key=key, patience=0) as client:
            said.append(repr(client) + repr(vars(client)))
            with pytest.raises(APIError) as refused:
                client.models()
            said.append(repr(refused.value) + str(refused.value))
    assert "invalid_api_key" in said[1]
    for odd in (f"{key}\nx", f"{key}é", f"{key} y"):
        with pytest.raises(UsageError) as wrong:
            Client(address, api_key=odd)
        said.append(repr(wrong.value))
    with Client(address, api_key=f"{key}\n"):
        pass
    said += [record.getMessage() for record in caplog.records]
    assert "s3cret" not in "".join([*said, *capfd.readouterr()])
