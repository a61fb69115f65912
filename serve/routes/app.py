"""The HTTP API put together: every route, the shape of errors, and what says that it is up."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
import importlib

from fastapi import FastAPI, Request

from longreel import __version__
from serve.routes import errors
from serve.routes.bodies import BoundedBodies
from serve.routes.context import Context
from serve.routes.schemas import Alive, ErrorBody
from serve.routes.sockets import Connections

DESCRIPTION = """
Video in, narrations and answers out.
"""


def build(context: Context) -> FastAPI:
    """The API on ``context``, which its routes find as ``request.app.state.context``."""
    app = FastAPI(
        title="Longreel",
        version=__version__,
        description=DESCRIPTION,
        responses={422: {"model": ErrorBody, "description": "What was sent cannot be used"}},
    )
    app.state.context = context
    app.state.connections = Connections()
    errors.install(app)
    app.add_middleware(BoundedBodies, most_bytes=context.settings.max_upload_bytes)
    for name in ("sessions", "sockets", "chat", "models", "files", "streams", "jobs"):
        try:
            module = importlib.import_module(f"serve.routes.{name}")
        except ModuleNotFoundError:
            continue
        app.include_router(module.router())

    @app.get("/healthz", summary="The gateway is alive", tags=["health"])
    async def healthz() -> Alive:
        return Alive(status="ok")

    @app.get("/readyz", summary="Sessions can be reached", tags=["health"])
    async def readyz(request: Request) -> Alive:
        await request.app.state.context.sessions.list()
        return Alive(status="ok")

    return app
