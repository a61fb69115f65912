"""What is served: by ``longreel serve`` from its options, by Ray Serve from a config's ``args``."""

# Without postponed annotations: Ray Serve takes the builder's argument for a model only where it
# finds the class itself.
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from ray.serve.deployment import Application

from longreel.errors import UsageError
from longreel.options import replica_bounds
from mod.checkpoint import TINY, find_checkpoint
from mod.choice import choose_router, require_router
from mod.quantized import check_quantize
from serve.app import ReplicaPlan
from serve.app import build as bound
from serve.routes.context import ApiSettings


class ServiceArgs(BaseModel):
    """What makes one service unlike another; a name that is not here is refused.

    Bounds of autoscaling are not here: whatever else changes replaces every replica, and bounds
    shall not. A config has them under ``deployments``.

    Attributes:
        model: name or folder of the checkpoint; every node must have it.
        keep_ratio, router, quantize, idle_s, threads: see ``serve.app.ReplicaPlan``.
        gpus_per_replica: 0 runs the model on the CPU.
        state: uri of the state store, which all nodes must reach.
        api: what clients may send.
        jobs_address: of the cluster's Jobs API; None takes that of the connected cluster.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = TINY
    keep_ratio: float | None = None
    router: str | None = None
    quantize: str | None = None
    gpus_per_replica: float = 0.0
    threads: int = 1
    state: str | None = None
    idle_s: float = 120.0
    api: ApiSettings = ApiSettings()
    jobs_address: str | None = None

    @property
    def keep_out(self) -> str | None:
        """What jobs are kept out of: with keys the state store, where other clients' files lie."""
        return self.state if self.api.keys else None

    def plan(
        self, replicas: str = "1", *, check: Callable[[Path], None] | None = None
    ) -> ReplicaPlan:
        """How replicas are made.

        Args:
            replicas: a number of them, or MIN:MAX.
            check: see ``mod.checkpoint.find_checkpoint``.

        Raises:
            UsageError: no model can be had that way.
        """
        if self.keep_ratio is not None and not 0 < self.keep_ratio <= 1:
            raise UsageError(f"the keep ratio must lie in (0, 1], not {self.keep_ratio}")
        checkpoint = find_checkpoint(self.model, check=check)
        chosen = None if self.router is None else choose_router(self.router, checkpoint)
        require_router(self.keep_ratio, chosen.kind if chosen else None, checkpoint)
        check_quantize(self.quantize)
        low, high = replica_bounds(replicas)
        return ReplicaPlan(
            self.model,
            self.keep_ratio,
            low,
            high,
            self.gpus_per_replica,
            threads=self.threads,
            state=self.state,
            idle_s=self.idle_s,
            router=self.router,
            quantize=self.quantize,
        )


def build(args: ServiceArgs) -> Application:
    """What a config of Ray Serve names as ``import_path``: the application of ``longreel serve``.

    Ray must be connected, as it is in the task of Ray Serve's that calls this.

    Raises:
        UsageError: no model can be had that way, or no state store is named.
    """
    from pipelines.jobs_service import jobs_deployment

    if args.state is None:
        raise UsageError("args.state must name the state store, such as s3://bucket/prefix")
    jobs = jobs_deployment(args.jobs_address, keep_out=args.keep_out)
    return bound(args.plan(), gateway=True, settings=args.api, jobs=jobs)
