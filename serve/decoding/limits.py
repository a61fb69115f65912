"""The memory of a process that decodes what strangers send."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path


def limit_memory(most_bytes: int) -> None:
    """Bounds what this process may allocate; beyond that its allocations fail.

    Where the machine's memory runs out all the same, this process is ended before others.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
