"""The gateway's deployment: the HTTP API on Ray Serve, on the CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from grpc.aio import AioRpcError
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from actors.keepout import KEEP_OUT
from actors.owners import PATIENCE_S
from longreel import __version__
from serve.chat import Answered
from serve.decoding.calls import decoders
from serve.directory import DirectoryCluster, directory_handle, start_directory
from serve.handles import GATEWAY
from serve.jobs import RemoteJobs
from serve.live.items import SessionError
from serve.observe import logs
from serve.observe.gathering import GatheredMetrics
from serve.pinned import PinnedSessions
from serve.pulling import ServedSessions
from serve.routable import ROUTABLE
from serve.routes.app import build
from serve.routes.context import ApiSettings, Context, ModelInfo
from serve.streams import RayStreams

#: Seconds between two looks whether there is a replica.
_LOOK_S = 0.1


@dataclass(frozen=True)
class GatewayPlan:
    """How the gateway is made.

    Attributes:
        state: uri of the state store.
        directory: name of the session directory's actor.
    """

    state: str
    directory: str
    settings: ApiSettings = field(default_factory=ApiSettings)


class _Answers:
    def __init__(self, replica: DeploymentHandle) -> None:
        self._replica = replica

    async def chat(self, system: str, text: str, most_tokens: int) -> Answered:
        answered: Answered = await _asked(self._replica.chat.remote(system, text, most_tokens))
        return answered

    async def tokens(self, texts: Sequence[str]) -> int:
        count: int = await _asked(self._replica.tokens.remote(list(texts)))
        return count


async def _asked(call: Awaitable[Any]) -> Any:
    """What a replica answers, in its own time once there is one.

    Raises:
        SessionError: there is none, or none has room.
    """
    # The call itself makes Ray Serve start one, where none runs.
    asked = asyncio.ensure_future(call)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (ROUTABLE.there() or asked.done()):
                await asyncio.wait([asked], timeout=_LOOK_S)
        return await asked
    except RayTaskError:
        raise
    except BackPressureError:
        raise SessionError("overloaded", "the service has too much to do") from None
    except (TimeoutError, RayError, RayServeException, AioRpcError) as failure:
        said = f"no replica of the model answers ({type(failure).__name__})"
        raise SessionError("unavailable", said) from None
    finally:
        asked.cancel()


class Gateway:
    """The routes of ``serve.routes`` over sessions that are pinned to replicas."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, plan: GatewayPlan, replica: DeploymentHandle, jobs: DeploymentHandle | None
    ) -> None:
        logs.install()
        # Choosing a replica takes no time worth a thread of its own; the way to one and back does.
        replica._init(_run_router_in_separate_loop=False)
        directory = directory_handle(start_directory(plan.state))
        sessions = self._sessions = PinnedSessions(replica, directory)
        model = ModelInfo(**await replica.info.remote())
        # The first picture shall not wait for the process that decodes it.
        self._warming = asyncio.create_task(decoders(plan.settings).pictures.warm())
        there = ServedSessions(plan.directory)
        about = {"version": __version__, "model": model.name, "revision": model.revision}
        self._context = Context(
            sessions=sessions,
            answers=_Answers(replica),
            model=model,
            store=plan.state,
            settings=plan.settings,
            streams=RayStreams(sessions, there, model, plan.state, plan.settings),
            jobs=None if jobs is None else RemoteJobs(jobs),
            metrics=GatheredMetrics(replica, directory_handle(plan.directory), about),
            cluster=DirectoryCluster(plan.directory),
        )

    def __serve_build_asgi_app__(self) -> Any:
        # Ray Serve's proxy answers with the request's id already.
        app = build(self._context, tells_ids=False)
        self._sessions.moving = lambda sessions: app.state.connections.goaway(
            "its replica is going", sessions
        )
        return app


_ENVIRONMENT = {
    # Routes never block their loop, so it needs no thread apart from Ray Serve's own: each call
    # spares the way from one to the other and back.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # As for replicas.
    KEEP_OUT: "",
}

GatewayDeployment = serve.deployment(
    name=GATEWAY,
    ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": _ENVIRONMENT}},
    max_ongoing_requests=10_000,
)(serve.ingress()(Gateway))
