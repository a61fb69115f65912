"""What a user imports and types: the command line, the client, errors and schemas of the rows.

Schemas, metrics and errors are the ground floor that every other package may import; the command
line and the client of the service (``from longreel import Client``) are the roof, and load Ray,
torch or a codec only when a command needs it. What a job, the service or the model does lies
elsewhere.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longreel.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Everything imports this package; only who wants a client pays for one.
    if name in ("AsyncClient", "Client"):
        from importlib import import_module

        return getattr(import_module("longreel.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
