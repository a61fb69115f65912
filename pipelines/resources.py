"""What a machine has for a cluster, and what work would wait for without end; without loading Ray.

Ray schedules what there is no room for when more nodes come, and says nothing meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from longreel.errors import UsageError

#: Of a cluster started for a job, for a worker and what Ray's own helpers take.
JOB_CPUS = 2
#: The limit of a container (``docker run --cpus``) on Linux with cgroup version 2.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores(quota: Path = _QUOTA) -> int:
    """Processor cores this process may use: by its affinity, and by its container's limit.

    Args:
        quota: file with microseconds of processor time in a period, and the period's length.
    """
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # there is none, or it says "max"
        time_us, period_us = quota.read_text().split()
        allowed = min(allowed, max(1, int(time_us) // int(period_us)))
    return allowed


def logical_cpus() -> int:
    """Logical CPUs of a cluster started here.

    On purpose more than cores: decoding actors and the replica get one each and are pinned to one
    thread; Ray's own helpers need some to be scheduled at all.
    """
    return 2 * cores() + 2


def here(gpus: bool = True) -> dict[str, float]:
    """What a cluster that is started here would have.

    Args:
        gpus: look for some, which takes seconds.
    """
    if not gpus:
        return {"CPU": logical_cpus()}
    import torch

    return {"CPU": logical_cpus(), "GPU": torch.cuda.device_count()}


def lacking(count: int, gpus: float, have: Mapping[str, float], *, beside: int = 0) -> str | None:
    """What so many processes of a CPU and ``gpus`` each need beyond ``have``; None if all is there.

    Args:
        have: a cluster's resources.
        beside: CPUs that others need for the work to go on.
    """
    who = f"{count} and what works beside them" if beside else f"{count}"
    for resource, said, needed in (("CPU", who, count + beside), ("GPU", f"{count}", count * gpus)):
        there = have.get(resource, 0)
        if there < needed:
            return f"{said} need {needed:g} {resource}s, there are {there:g}"
    return None


def refuse_replicas(count: int, gpus: float, have: Mapping[str, float], *, beside: int = 0) -> None:
    """Raises ``UsageError`` where ``lacking`` finds something for replicas that were asked for."""
    if short := lacking(count, gpus, have, beside=beside):
        options = "--replicas and --gpus-per-replica" if gpus else "--replicas"
        raise UsageError(f"{options}: {short}")
