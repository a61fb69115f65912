"""How whoever is connected to the cluster reaches the replicas of the running application."""

from __future__ import annotations

from ray import serve
from ray.serve.handle import DeploymentHandle

#: By which name the application is deployed.
APP = "longreel"
#: Of its deployments, the one that clients connect to; it is not there where only bulk jobs run.
GATEWAY = "gateway"
#: The one that holds the model.
REPLICA = "replica"


def replica_handle() -> DeploymentHandle:
    """A handle to the replicas."""
    return serve.get_deployment_handle(REPLICA, APP)
