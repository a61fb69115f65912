"""How the cluster stands: its replicas, and how full each is."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from serve.live.items import SessionError
from serve.routes import docs
from serve.routes.context import Context

_ERRORS = {503: docs.ERRORS[503]}
_REPLICA: dict[str, Any] = {
    "replica": "replica-1",
    "sessions": 3,
    "cache_bytes": 402653184,
    "cache_capacity_bytes": 2147483648,
    "waiting_frames": 2,
    "waiting_questions": 0,
    "lag_s": 0.12,
    "reported_s": 0.4,
}
_CLUSTER: dict[str, Any] = {
    "object": "cluster",
    "replicas": [_REPLICA],
    "sessions": 4,
    "idle_sessions": 1,
}


class ReplicaShown(BaseModel):
    """What a replica said of itself ``reported_s`` seconds ago.

    ``cache_bytes`` of its ``cache_capacity_bytes`` are in use; ``lag_s`` is the age of the oldest
    live frame that waits. ``sessions`` counts those in its memory, chats among them.
    """

    replica: str
    sessions: int
    cache_bytes: int
    cache_capacity_bytes: int
    waiting_frames: int
    waiting_questions: int
    lag_s: float
    reported_s: float


class ClusterObject(BaseModel):
    """Replicas that report, by name, and the sessions that are kept: ``idle_sessions`` of them lie
    in the state store alone.
    """

    object: Literal["cluster"] = "cluster"
    replicas: list[ReplicaShown]
    sessions: int
    idle_sessions: int

    model_config = ConfigDict(json_schema_extra={"example": _CLUSTER})


def router() -> APIRouter:
    """``/v1/cluster``."""
    api = APIRouter(tags=["cluster"], responses=_ERRORS)
    api.get("/v1/cluster", summary="Replicas, and how full they are")(get_cluster)
    return api


async def get_cluster(request: Request) -> ClusterObject:
    """As replicas report it, once a second."""
    context: Context = request.app.state.context
    if context.cluster is None:
        raise SessionError("unavailable", "this service keeps no account of its replicas")
    return ClusterObject.model_validate(await context.cluster.state())
