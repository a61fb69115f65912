"""The HTTP API put together: every route, the shape of errors, and what says that it is up."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
import logging

from fastapi import FastAPI, Request

from longreel import __version__
from serve.keys.ring import KeyRing
from serve.routes import (
    chat,
    cluster,
    console,
    docs,
    errors,
    files,
    jobs,
    measured,
    models,
    sessions,
    sockets,
    streams,
)
from serve.routes.backlog import BoundedBacklog
from serve.routes.bodies import BoundedBodies
from serve.routes.context import Context
from serve.routes.foreign import OwnPages
from serve.routes.guard import Guard
from serve.routes.owned import owned
from serve.routes.schemas import Alive
from serve.routes.security import describe_keys
from serve.routes.sockets import Connections


def build(context: Context, *, tells_ids: bool = True) -> FastAPI:
    """The API on ``context``, which its routes find as ``request.app.state.context``.

    Args:
        tells_ids: answers carry ``X-Request-Id``.
    """
    app = FastAPI(
        title="Longreel",
        version=__version__,
        description=docs.DESCRIPTION,
        responses={408: docs.SILENT, 422: docs.UNUSABLE},
    )
    guarded = context.settings.keys
    app.state.context = owned(context) if guarded else context
    app.state.connections = Connections()
    errors.install(app)
    # It would warn of each malformed form, as often as somebody sends one.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    app.add_middleware(BoundedBodies, most_bytes=context.settings.max_upload_bytes)
    open_metrics = not context.settings.metrics_key
    if guarded:
        # After those that read bodies, and so before them: without a key nothing is read.
        app.add_middleware(Guard, ring=KeyRing(context.store), metrics=open_metrics)
    elif context.settings.local_only:
        app.add_middleware(OwnPages)
    for routes in (chat, models, files):
        app.include_router(routes.router(), responses=docs.MEDIA_ERRORS)
    for routes in (sessions, sockets, streams, jobs, cluster, console, measured):
        app.include_router(routes.router())
    app.get("/healthz", summary="The gateway is alive", tags=["health"])(_healthz)
    app.get(
        "/readyz",
        summary="Sessions can be reached",
        tags=["health"],
        responses={503: docs.ERRORS[503]},
    )(_readyz)
    describe_keys(app, guarded, open_metrics)
    app.add_middleware(measured.Measured, tells_ids=tells_ids)
    # The last is the outermost: it must meet what the server gives, and nothing that wraps it.
    app.add_middleware(BoundedBacklog, most_body_bytes=context.settings.max_upload_bytes)
    return app


async def _healthz() -> Alive:
    """It answers, whatever else does not."""
    return Alive(status="ok")


async def _readyz(request: Request) -> Alive:
    """Requests will be served; else 503."""
    await request.app.state.context.sessions.list()
    return Alive(status="ok")
