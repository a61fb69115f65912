"""The Serve application: how it is put together, deployed, and reached by bulk jobs."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.deployment import Application, Deployment
from ray.serve.schema import ApplicationStatusOverview, LoggingConfig

from actors.keepout import KEEP_OUT
from longreel import __version__
from longreel.errors import LongreelError, UsageError
from mod.checkpoint import find_checkpoint
from serve.directory import claim_store, directory_name
from serve.handles import APP, GATEWAY, REPLICA, replica_handle
from serve.observe.logs import encoding
from serve.served import Served, difference
from serve.settings import ApiSettings

# By its name: torch takes seconds to import, and of all processes only replicas need it.
_REPLICA = serve.deployment(
    name=REPLICA,
    graceful_shutdown_wait_loop_s=0.1,  # what a replica that has nothing to do waits to end
    user_config={},  # makes Ray Serve call ``reconfigure``
)("serve.replica.Replica")
_ENVIRONMENT = {
    # How often replicas tell the controller what ``serve.scaling`` decides by, in seconds; a flash
    # crowd is there within seconds.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    # Where a job started Ray Serve, its own environment would be handed on.
    KEEP_OUT: "",
}
#: Seconds between two looks at a deployment that is mended.
_LOOK_S = 0.2
#: Calls that a replica has at once: segments of bulk jobs; with sessions, whoever awaits events.
_BULK_CALLS, _SESSION_CALLS = 8, 2000


@dataclass(frozen=True)
class ReplicaPlan:
    """How replicas are made.

    Attributes:
        model: name or folder of the checkpoint.
        keep_ratio: overrides the checkpoint's own when not None.
        min_replicas, max_replicas: bounds of autoscaling; with 0, the last one goes after minutes
            without work, and the next session or job brings one back.
        num_gpus: of each replica.
        threads: of torch in each replica; 0 leaves torch's default.
        state: uri of the state store of live sessions; None serves bulk jobs alone.
        idle_s: after which a session that nobody uses is kept in the store alone.
        router: takes the place of the checkpoint's own when not None; see :mod:`mod.choice`.
        quantize: what the decoder's weights are turned into; see :mod:`mod.quantized`.
        aims: of autoscaling, where they are not the defaults of ``serve.scaling.Aims``.
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
    aims: Mapping[str, float] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Replicas of one version are the same; those of another replace them."""
        same: list[Any] = [__version__, find_checkpoint(self.model).revision]
        same += [self.keep_ratio, self.num_gpus, self.threads, self.state, self.idle_s]
        same += [self.router, self.quantize]
        return hashlib.sha256(json.dumps(same).encode()).hexdigest()[:12]


def _quiet() -> LoggingConfig:
    return LoggingConfig(log_level="WARNING", enable_access_log=False, encoding=encoding())


def build(
    plan: ReplicaPlan,
    *,
    gateway: bool,
    settings: ApiSettings | None = None,
    jobs: Application | None = None,
    router: str = "serve.routing.SessionRouter",
) -> Application:
    """The application, bound; nothing is started.

    Args:
        gateway: with the HTTP API before the replicas; without it, for bulk jobs alone.
        settings: what clients may send.
        jobs: takes bulk jobs; None where there is no such service.
        router: class of the replicas' request router.

    Raises:
        ValueError: the gateway is asked for and the plan has no state store.
    """
    replica = _REPLICA.options(
        max_ongoing_requests=_SESSION_CALLS if plan.state else _BULK_CALLS,
        request_router_config=RequestRouterConfig(request_router_class=router),
        autoscaling_config=AutoscalingConfig(
            min_replicas=plan.min_replicas,
            # One comes up at first in any case: whether the model can be had shows at once.
            initial_replicas=max(1, plan.min_replicas),
            max_replicas=max(1, plan.min_replicas, plan.max_replicas),
            # The policy knows itself how long to wait.
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            policy=AutoscalingPolicy(
                policy_function="serve.scaling:ReplicaPolicy", policy_kwargs=dict(plan.aims)
            ),
        ),
        ray_actor_options={
            "num_cpus": 1,
            "num_gpus": plan.num_gpus,
            "runtime_env": {"env_vars": _ENVIRONMENT},
        },
        logging_config=_quiet(),
    )
    directory = directory_name(plan.state) if plan.state else None
    bound = _as_version(replica, plan.version).bind(
        plan.model,
        plan.keep_ratio,
        plan.threads,
        plan.state,
        directory,
        plan.idle_s,
        plan.router,
        plan.quantize,
    )
    if not gateway:
        return bound
    if plan.state is None or directory is None:
        raise ValueError("the gateway needs a state store")
    from serve.gateway import GatewayDeployment, GatewayPlan  # half a second that no job needs

    made = GatewayPlan(plan.state, directory, settings or ApiSettings())
    # What clients may send is the gateway's alone: other settings replace it and no replica.
    version = f"{plan.version}-{made.settings}-{jobs is not None}"
    front = GatewayDeployment.options(logging_config=_quiet())
    return _as_version(front, version).bind(made, bound, jobs)


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
        settings, jobs, router: see ``build``.

    Raises:
        LongreelError: the model did not come up, or another cluster serves from the state store.
    """
    if plan.state:
        claim_store(plan.state)
    gateway = http is not None
    target = build(plan, gateway=gateway, settings=settings, jobs=jobs, router=router)
    if http is None:
        serve.start(proxy_location="Disabled", logging_config=_quiet())
    else:
        host, port = http
        serve.start(http_options={"host": host, "port": port}, logging_config=_quiet())
    try:
        serve.run(target, name=APP, route_prefix="/" if gateway else None, logging_config=_quiet())
    except RuntimeError as failure:
        if not _mended():
            reason = _why_not() or str(failure).strip().splitlines()[-1]
            raise LongreelError(f"the model service did not start: {reason}") from None


#: Seconds after which replicas of bulk jobs alone that do not come up are replaced by the next job:
#: a large model takes minutes to load.
_GIVEN_UP_S = 900.0


def _mended() -> bool:
    """Whether nothing failed but a replica that died meanwhile; waits for the one in its place.

    Ray Serve calls a deployment failed whose replica dies while it is changed, and goes on all the
    same.
    """
    application = _settled()
    return application is not None and application.status == "RUNNING"


def _settled(patience_s: float = math.inf) -> ApplicationStatusOverview | None:
    """The application once it runs or has failed for good; None once there is none.

    Waits while it comes up, is changed, has another replica start in the place of one that died,
    or goes.

    Args:
        patience_s: without any replica, of an application that serves bulk jobs alone: who deployed
            it may be gone, and what it waits for never come.
    """
    until = time.monotonic() + patience_s
    while application := serve.status().applications.get(APP):
        failed = [d for d in application.deployments.values() if d.status == "DEPLOY_FAILED"]
        lost = [d for d in failed if d.status_trigger == "HEALTH_CHECK_FAILED"]
        for_good = application.status == "DEPLOY_FAILED" and (not failed or len(lost) < len(failed))
        there = [d.replica_states.get("RUNNING", 0) for d in application.deployments.values()]
        if GATEWAY in application.deployments or any(there):
            until = time.monotonic() + patience_s
        if application.status == "RUNNING" or for_good or time.monotonic() > until:
            return application
        time.sleep(_LOOK_S)
    return None


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


def ensure(plan: ReplicaPlan, wanted: Served) -> None:
    """Have replicas that serve a job: those of the running application, else new ones by ``plan``.

    An application that is not up yet, or not whole, is waited for and not replaced: others may work
    on it. Only replicas of bulk jobs alone that do not come up for ``_GIVEN_UP_S`` are.

    Raises:
        UsageError: what runs is not what the job wants.
        LongreelError: nothing comes up.
    """
    application = _settled(_GIVEN_UP_S)
    if application is None or application.status != "RUNNING":
        if application is not None and GATEWAY in application.deployments:
            reason = _why_not() or application.message.strip() or "Ray Serve does not say why"
            raise LongreelError(f"the service on this cluster does not start: {reason}")
        deploy(plan, http=None)
    # Also of what was deployed here: another job may have done the same, at the same time.
    if differs := difference(replica_handle().describe.remote().result(), wanted):
        raise UsageError(differs)
