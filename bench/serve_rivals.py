"""What live sessions are measured against, on Ray Serve with the same model and replicas."""

# Without postponed annotations: routes travel to other processes with what their code names.
import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica
from ray.serve.schema import LoggingConfig

from bench.serve_body import unpacked
from mod.checkpoint import TINY
from serve.decoding.media import decode_image
from serve.routes.context import ApiSettings

_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
_CONSISTENT_HASH = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
_SIDE = 96


class RoundRobinRouter(RequestRouter):
    """Each call to the next replica."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn = 0

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The next one, then the others."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        if not candidate_replicas:
            return []
        self._turn += 1
        ordered = sorted(candidate_replicas, key=lambda r: r.replica_id.unique_id)
        first = self._turn % len(ordered)
        return [[replica] for replica in ordered[first:] + ordered[:first]]


class Noop:
    """A POST that does nothing."""

    def __serve_build_asgi_app__(self) -> Any:
        api = FastAPI()

        @api.post("/frames")
        async def frames(request: Request) -> dict[str, Any]:
            return {"bytes": len(await request.body())}

        return api


class ResendGateway:
    """No session state: each call has all frames so far, and any replica takes it."""

    def __init__(self, replica: DeploymentHandle) -> None:
        self._replica = replica

    def __serve_build_asgi_app__(self) -> Any:
        api, replica = FastAPI(), self._replica

        @api.post("/frames")
        async def frames(request: Request) -> dict[str, Any]:
            body = await request.body()
            pixels = await asyncio.to_thread(_decoded, unpacked(body))
            narrated = await replica.narrate.remote(pixels, None, 0.0)
            return {"salience": narrated.salience[-1], "narration": narrated.texts[-1]}

        return api


class HashedGateway:
    """State in the memory of the replica that a session's id hashes to, and nowhere else."""

    def __init__(self, replica: DeploymentHandle) -> None:
        self._replica = replica

    def __serve_build_asgi_app__(self) -> Any:
        api, replica = FastAPI(), self._replica

        @api.post("/{session}/frames")
        async def frames(request: Request, session: str) -> dict[str, Any]:
            body = await request.body()
            pixels = await asyncio.to_thread(_decoded, [body])
            pinned = replica.options(session_id=session)
            name, known, salience = await pinned.see.remote(session, pixels)
            return {"replica": name, "known": known, "salience": salience}

        @api.delete("/{session}")
        async def end(session: str) -> dict[str, Any]:
            await replica.options(session_id=session).end.remote(session)
            return {}

        return api


def _decoded(pictures: Sequence[bytes]) -> Any:
    settings = ApiSettings()
    return np.stack([decode_image(data, _SIDE, settings) for data in pictures])


def _behind(name: str, gateway: type) -> Any:
    return serve.deployment(
        name=name,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=10_000,
        logging_config=_QUIET,
    )(serve.ingress()(gateway))


def run_noop() -> None:
    """Under ``/noop``."""
    app = _behind("noop", Noop).bind()
    serve.run(app, name="noop", route_prefix="/noop", logging_config=_QUIET)


def run_resend(replicas: int) -> None:
    """Under ``/resend``."""
    replica = _replica("serve.replica.Replica", replicas, f"{__name__}.RoundRobinRouter")
    app = _behind("resend", ResendGateway).bind(replica.bind(TINY, None, 1))
    serve.run(app, name="resend", route_prefix="/resend", logging_config=_QUIET)


def run_hashed(replicas: int) -> None:
    """Under ``/hashed``; done again with another number it scales."""
    replica = _replica("bench.serve_held.HeldReplica", replicas, _CONSISTENT_HASH)
    gateway = _behind("hashed", HashedGateway)
    for deployment in (replica, gateway):
        # Ray Serve would replace all replicas otherwise.
        deployment._version = "held"
    app = gateway.bind(replica.bind(TINY, None, 1))
    serve.run(app, name="hashed", route_prefix="/hashed", logging_config=_QUIET)


def _replica(where: str, replicas: int, router: str) -> Any:
    return serve.deployment(
        name="replica",
        num_replicas=replicas,
        max_ongoing_requests=2000,
        ray_actor_options={"num_cpus": 0},
        request_router_config=RequestRouterConfig(request_router_class=router),
        logging_config=_QUIET,
        graceful_shutdown_wait_loop_s=0.1,
        user_config={},
    )(where)
