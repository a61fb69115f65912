"""The HTTP API put together: every route, the shape of errors, and what says that it is up."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
from fastapi import FastAPI, Request

from longreel import __version__
from serve.routes import chat, docs, errors, files, jobs, models, sessions, sockets, streams
from serve.routes.bodies import BoundedBodies
from serve.routes.context import Context
from serve.routes.schemas import Alive
from serve.routes.sockets import Connections


def build(context: Context) -> FastAPI:
    """The API on ``context``, which its routes find as ``request.app.state.context``."""
    app = FastAPI(
        title="Longreel",
        version=__version__,
        description=docs.DESCRIPTION,
        responses={422: docs.UNUSABLE},
    )
    app.state.context = context
    app.state.connections = Connections()
    errors.install(app)
    app.add_middleware(BoundedBodies, most_bytes=context.settings.max_upload_bytes)
    for routes in (chat, models, files):
        app.include_router(routes.router(), responses=docs.MEDIA_ERRORS)
    for routes in (sessions, sockets, streams, jobs):
        app.include_router(routes.router())
    app.get("/healthz", summary="The gateway is alive", tags=["health"])(_healthz)
    app.get(
        "/readyz",
        summary="Sessions can be reached",
        tags=["health"],
        responses={503: docs.ERRORS[503]},
    )(_readyz)
    return app


async def _healthz() -> Alive:
    """It answers, whatever else does not."""
    return Alive(status="ok")


async def _readyz(request: Request) -> Alive:
    """Requests will be served; else 503."""
    await request.app.state.context.sessions.list()
    return Alive(status="ok")
