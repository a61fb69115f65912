"""The Serve application: how it is put together, deployed, and reached by bulk jobs."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.deployment import Application, Deployment
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from longreel import __version__
from longreel.errors import LongreelError, UsageError
from mod.checkpoint import Checkpoint, find_checkpoint
from serve.directory import start_directory
from serve.gateway import GatewayDeployment, GatewayPlan
from serve.routes.context import ApiSettings

APP = "longreel"
# By its name: torch takes seconds to import, and of all processes only replicas need it.
_REPLICA = serve.deployment(
    name="replica",
    graceful_shutdown_wait_loop_s=0.1,  # what a replica that has nothing to do waits to end
    user_config={},  # makes Ray Serve call ``reconfigure``
)("serve.replica.Replica")
#: Calls that a replica has at once: segments of bulk jobs; with sessions, whoever awaits events.
_BULK_CALLS, _SESSION_CALLS = 8, 2000


@dataclass(frozen=True)
class ReplicaPlan:
    """How replicas are made.

    Attributes:
        model: name or folder of the checkpoint.
        keep_ratio: overrides the checkpoint's own when not None.
        min_replicas, max_replicas: bounds of autoscaling.
        num_gpus: of each replica.
        threads: of torch in each replica; 0 leaves torch's default.
        state: uri of the state store of live sessions; None serves bulk jobs alone.
        idle_s: after which a session that nobody uses is kept in the store alone.
        router: takes the place of the checkpoint's own when not None; see :mod:`mod.choice`.
        quantize: what the decoder's weights are turned into; see :mod:`mod.quantized`.
    """

    model: str
    keep_ratio: float | None = None
    min_replicas: int = 1
    max_replicas: int = 1
    num_gpus: float = 0.0
    threads: int = 1
    state: str | None = None
    idle_s: float = 120.0
    router: str | None = None
    quantize: str | None = None

    @property
    def version(self) -> str:
        """Replicas of one version are the same; those of another replace them."""
        same: list[Any] = [__version__, find_checkpoint(self.model).revision]
        same += [self.keep_ratio, self.num_gpus, self.threads, self.state, self.idle_s]
        same += [self.router, self.quantize]
        return hashlib.sha256(json.dumps(same).encode()).hexdigest()[:12]


def deploy(
    plan: ReplicaPlan,
    *,
    http: tuple[str, int] | None,
    settings: ApiSettings | None = None,
    jobs: Application | None = None,
    router: str = "serve.routing.SessionRouter",
) -> None:
    """Deploy the application and wait until it answers.

    Done again with other bounds it scales the running one, whose replicas stay.

    Args:
        http: host and port of the gateway; None deploys the replica alone, for bulk jobs.
        settings: what clients may send.
        jobs: takes bulk jobs; None where there is no such service.
        router: class of the replicas' request router.

    Raises:
        LongreelError: the model did not come up.
    """
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    directory = start_directory(plan.state) if plan.state else None
    replica = _REPLICA.options(
        max_ongoing_requests=_SESSION_CALLS if plan.state else _BULK_CALLS,
        request_router_config=RequestRouterConfig(request_router_class=router),
        autoscaling_config=AutoscalingConfig(
            min_replicas=plan.min_replicas,
            initial_replicas=plan.min_replicas,
            max_replicas=max(plan.min_replicas, plan.max_replicas),
            # Whoever awaits the events of a session is a call as well.
            target_ongoing_requests=64 if plan.state else 2,
        ),
        ray_actor_options={"num_cpus": 1, "num_gpus": plan.num_gpus},
        logging_config=quiet,
    )
    replica = _as_version(replica, plan.version).bind(
        plan.model,
        plan.keep_ratio,
        plan.threads,
        plan.state,
        directory,
        plan.idle_s,
        plan.router,
        plan.quantize,
    )
    if http is None:
        serve.start(proxy_location="Disabled", logging_config=quiet)
        target, prefix = replica, None
    else:
        host, port = http
        serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
        if plan.state is None or directory is None:
            raise ValueError("the gateway needs a state store")
        made = GatewayPlan(plan.state, directory, settings or ApiSettings())
        gateway = GatewayDeployment.options(logging_config=quiet)
        # What clients may send is the gateway's alone: other settings replace it and no replica.
        version = f"{plan.version}-{made.settings}-{jobs is not None}"
        target, prefix = _as_version(gateway, version).bind(made, replica, jobs), "/"
    try:
        serve.run(target, name=APP, route_prefix=prefix, logging_config=quiet)
    except RuntimeError as failure:
        reason = _why_not() or str(failure).strip().splitlines()[-1]
        raise LongreelError(f"the model service did not start: {reason}") from None


def _why_not() -> str | None:
    """What the last replica that could not start said, where Ray Serve has kept it."""
    application = serve.status().applications.get(APP)
    for deployment in application.deployments.values() if application else ():
        for line in reversed(deployment.message.splitlines()):
            # Ray Serve puts a traceback in between and remarks of its own after it.
            if found := re.search(r"(?:Error|Exception): (.+)", line):
                return found[1]
    return None


def _as_version(deployment: Deployment, version: str) -> Deployment:
    """The deployment as ``version``: Ray Serve keeps replicas of the same one when it scales.

    It gives each deployment a random version otherwise, replaces all replicas at each deploying,
    and has no public way to say that nothing else has changed.
    """
    deployment._version = version
    return deployment


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
        UsageError: it holds another model, or routes otherwise.
    """
    have, keep_ratio, router, quantize = replica_handle().describe.remote().result()
    if have.revision != wanted.revision:
        raise UsageError(
            f"the running service holds model {have.name} {have.revision}, "
            f"the job wants {wanted.name} {wanted.revision}"
        )
    ratio = wanted.keep_ratio if plan.keep_ratio is None else plan.keep_ratio
    if keep_ratio != ratio:
        raise UsageError(f"the running service uses keep ratio {keep_ratio}, the job wants {ratio}")
    if router != plan.router:
        used, asked = (name or "the model's own" for name in (router, plan.router))
        raise UsageError(f"the running service uses router {used}, the job wants {asked}")
    if quantize != plan.quantize:
        used, asked = (name or "whole" for name in (quantize, plan.quantize))
        raise UsageError(f"the running service has weights {used}, the job wants them {asked}")
