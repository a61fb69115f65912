"""Connecting to a Ray cluster, or starting one here, without its chatter."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from ray.data import DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from longreel.errors import LongreelError
from pipelines.local import LOCAL, target
from pipelines.nativelog import without_native_reports
from pipelines.resources import cores, logical_cpus

#: Resource of a cluster started here: how many of its logical CPUs are cores.
CORES = "longreel_cores"


@contextmanager
def connected(address: str | None = None, *, takes_jobs: bool = False) -> Iterator[None]:
    """A connection to Ray for the length of a job.

    Args:
        address: of a running cluster (``auto`` finds one on this machine); None uses
            ``RAY_ADDRESS`` if set, else starts a cluster that ends with the job.
        takes_jobs: a cluster that is started here has Ray's dashboard, and with it the Jobs API.

    Raises:
        LongreelError: there is no cluster at the address, or none could be started.
    """
    if ray.is_initialized():
        _quiet()
        yield
        return
    cluster = target(address)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {}
    if cluster == LOCAL:
        options = {"num_cpus": logical_cpus(), "resources": {CORES: cores()}}
        options["include_dashboard"] = takes_jobs
        # Frames are handed on and done with. Ray's own second before their memory can be used
        # again lets the store grow by all that is decoded meanwhile, page by fresh page.
        os.environ.setdefault("RAY_free_objects_period_milliseconds", "50")
        # On busy cores the HTTP proxy takes longer to start than Ray Serve's own five seconds,
        # after which it is killed and the start fails.
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    with without_native_reports():
        yield from _connection(cluster, options)


def _connection(cluster: str, options: dict[str, Any]) -> Iterator[None]:
    try:
        ray.init(address=cluster, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as failure:  # Ray raises just that when it does not come up in time
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        what = f"no Ray cluster at {cluster!r}" if cluster != LOCAL else "Ray did not start here"
        raise LongreelError(f"{what}: {reason}") from None
    _quiet()
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler aborts with a stack trace; SIGTERM shall end a job as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if cluster == LOCAL:
            serve.shutdown()
        _stay_disconnected()
        ray.shutdown()


def _stay_disconnected() -> None:
    """Threads of Ray and of a job cut short live on: they must not connect anew, nor complain.

    Ray connects by default when it is called without a connection, and has no public switch for
    that once it is imported. ``ray.init`` works as before.
    """
    _log_from(logging.CRITICAL)
    if hook := getattr(ray._private, "auto_init_hook", None):
        hook.enable_auto_connect = False


def _log_from(level: int) -> None:
    for name in ("ray", "ray.data", "ray.serve"):
        logging.getLogger(name).setLevel(level)


def _quiet() -> None:
    _log_from(logging.ERROR)
    # What ends a job is told in one line of ours; Ray Data would print its stack before that.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # Cluster messages go to stdout whatever ``log_to_driver`` says, and there is no public switch.
    if hasattr(ray._private.worker, "_worker_logs_enabled"):
        ray._private.worker._worker_logs_enabled = False
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Where an actor goes that shall not be lost with another node."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
