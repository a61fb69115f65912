"""How calls find their replica: those of a session go to its owner, others where least waits.

The session's owner is known before the call; the handle's ``session_id`` carries the replica's
id to the router. Ray Serve 2.60: request routers are alpha.
"""

from __future__ import annotations

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

# Ray Serve sends this module by value, and the module that it names by reference: what is kept in
# the process must lie there.
from serve import routable


class SessionRouter(RequestRouter):
    """Calls with a ``session_id`` go to the replica of that id while it is there.

    Where it is not, they go to any: that one refuses them as not its own, and the caller looks the
    session up anew. Calls without one go to the shortest queue.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Ranked groups of replicas; see the class."""
        if pending_request is None:
            return [candidate_replicas]
        # A full replica is asked again after a while, not at once for ever.
        pending_request.routing_context.should_backoff = True
        wanted = pending_request.metadata.session_id
        if wanted:
            owner = [r for r in candidate_replicas if r.replica_id.unique_id == wanted]
            if owner:
                return [owner]
        return [candidate_replicas]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Ray Serve tells which replicas run."""
        super().update_replicas(replicas)
        routable.ROUTABLE.set({r.replica_id.unique_id for r in replicas})

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """A call found it dead."""
        super().on_replica_actor_died(replica_id)
        routable.ROUTABLE.discard(replica_id.unique_id)
