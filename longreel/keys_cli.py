"""``longreel keys``: who may use a service, as it stands in the service's state store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from longreel.errors import UsageError
from longreel.options import State, state_uri

if TYPE_CHECKING:
    from serve.keys.key import ApiKey, Limits

keys = typer.Typer(
    help="API keys of a service: create, list, revoke.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@keys.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Whose key it is.", show_default=False)
    ],
    sessions: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Sessions open at once, those of streams and of chats about videos among them.",
            show_default="no limit",
        ),
    ] = None,
    frames_per_second: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Frames a second pushed into all of its sessions, and pulled by its streams.",
            show_default="no limit",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Bulk jobs pending or running at once.", show_default="no limit"
        ),
    ] = None,
    upload_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Bytes sent in one day of UTC, of any kind.", show_default="no limit"
        ),
    ] = None,
    state: State = None,
) -> None:
    """Make a key and print it, once: only its hash is kept.

    The service takes it within two seconds. Standard output is the key alone.
    """
    from serve.keys.key import Limits, new_key
    from serve.keys.keystore import write_key

    limits = Limits(sessions, frames_per_second, jobs, upload_bytes)
    key, secret = new_key(name, limits)
    store = state_uri(state)
    write_key(store, key)
    typer.echo(secret)
    typer.echo(f"made key {key.id} of {name} in {store}; it is shown only now", err=True)


@keys.command("list")
def list_keys(state: State = None) -> None:
    """Print all keys, revoked ones too; their secrets are not known any more."""
    from rich.console import Console
    from rich.table import Table

    from longreel.readable import visible
    from serve.keys.keystore import stored_keys

    store = state_uri(state)
    found = stored_keys(store)
    if not found:
        typer.echo(f"no keys in {store}")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "name", "created", "limits", "state"):
        table.add_column(column, no_wrap=column in ("id", "created"))
    for key in found:
        table.add_row(
            key.id, visible(key.name), _when(key.created), _limits(key.limits), _state(key)
        )
    Console().print(table, markup=False, highlight=False)


@keys.command()
def revoke(
    key: Annotated[
        str, typer.Argument(metavar="ID", help="Id that list shows.", show_default=False)
    ],
    state: State = None,
) -> None:
    """Revoke a key for good; what it has open, and its streams, end in seconds; the rest stays."""
    from serve.keys.key import key_id
    from serve.keys.keystore import revoke_key

    id_ = key_id(key)
    if id_ is None:
        # Not repeated: it may be a part of a key.
        raise UsageError("no id of a key; longreel keys list shows them")
    revoked = revoke_key(state_uri(state), id_)
    typer.echo(f"revoked key {revoked.id} of {revoked.name}")


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _limits(limits: Limits) -> str:
    said = {
        "sessions": limits.sessions,
        "frames/s": limits.frames_per_second,
        "jobs": limits.jobs,
        "bytes/day": limits.upload_bytes,
    }
    return ", ".join(f"{value:.12g} {name}" for name, value in said.items() if value is not None)


def _state(key: ApiKey) -> str:
    return "holds" if key.revoked is None else f"revoked {_when(key.revoked)}"
