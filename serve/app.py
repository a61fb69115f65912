"""The Serve application: how it is put together, deployed, and reached by bulk jobs."""

from __future__ import annotations

from dataclasses import dataclass

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from longreel.errors import LongreelError, UsageError
from mod.checkpoint import Checkpoint
from serve.gateway import GatewayDeployment

APP = "longreel"
# By its name: torch takes seconds to import, and of all processes only replicas need it.
_REPLICA = serve.deployment(
    name="replica",
    max_ongoing_requests=8,
    graceful_shutdown_wait_loop_s=0.1,  # what a replica that has nothing to do waits to end
)("serve.replica.Replica")


@dataclass(frozen=True)
class ReplicaPlan:
    """How replicas are made.

    Attributes:
        model: name or folder of the checkpoint.
        keep_ratio: overrides the checkpoint's own when not None.
        min_replicas, max_replicas: bounds of autoscaling.
        num_gpus: of each replica.
        threads: of torch in each replica; 0 leaves torch's default.
    """

    model: str
    keep_ratio: float | None = None
    min_replicas: int = 1
    max_replicas: int = 1
    num_gpus: float = 0.0
    threads: int = 1


def deploy(plan: ReplicaPlan, *, http: tuple[str, int] | None) -> None:
    """Deploy the application and wait until it answers.

    Args:
        http: host and port of the gateway; None deploys the replica alone, for bulk jobs.

    Raises:
        LongreelError: the model did not come up.
    """
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    replica = _REPLICA.options(
        autoscaling_config=AutoscalingConfig(
            min_replicas=plan.min_replicas,
            initial_replicas=plan.min_replicas,
            max_replicas=max(plan.min_replicas, plan.max_replicas),
            target_ongoing_requests=2,
        ),
        ray_actor_options={"num_cpus": 1, "num_gpus": plan.num_gpus},
        logging_config=quiet,
    ).bind(plan.model, plan.keep_ratio, plan.threads)
    if http is None:
        serve.start(proxy_location="Disabled", logging_config=quiet)
        target, prefix = replica, None
    else:
        host, port = http
        serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
        target, prefix = GatewayDeployment.options(logging_config=quiet).bind(replica), "/"
    try:
        serve.run(target, name=APP, route_prefix=prefix, logging_config=quiet)
    except RuntimeError as failure:
        reason = str(failure).strip().splitlines()[-1]
        raise LongreelError(f"the model service did not start: {reason}") from None


def running() -> bool:
    """Whether the application is deployed on the connected cluster."""
    applications = serve.status().applications
    return APP in applications and applications[APP].status == "RUNNING"


def replica_handle() -> DeploymentHandle:
    """A handle to the replicas, for bulk work."""
    return serve.get_deployment_handle("replica", APP)


def require_same(plan: ReplicaPlan, wanted: Checkpoint) -> None:
    """Check that the running application serves what a job wants.

    Raises:
        UsageError: it holds another model or keep ratio.
    """
    have, keep_ratio = replica_handle().describe.remote().result()
    if have.revision != wanted.revision:
        raise UsageError(
            f"the running service holds model {have.name} {have.revision}, "
            f"the job wants {wanted.name} {wanted.revision}"
        )
    ratio = wanted.keep_ratio if plan.keep_ratio is None else plan.keep_ratio
    if keep_ratio != ratio:
        raise UsageError(f"the running service uses keep ratio {keep_ratio}, the job wants {ratio}")
