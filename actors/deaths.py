"""Work that ends its own process, as by memory: how often, and from when on it has failed."""

from __future__ import annotations

from collections import Counter

#: So often may work on a video or a segment end its process before that has failed.
MOST_DEATHS = 8
#: Begins the error of such work. It is no verdict on the video: a later run tries it again.
WORKER_DIED = "WorkerDied"


class Deaths:
    """Knows what has begun and has not ended. Lives in another process than the work."""

    def __init__(self) -> None:
        self._begun: Counter[object] = Counter()

    def begin(self, work: object) -> int:
        """``work`` begins; how often it did before and did not end, since its process has."""
        self._begun[work] += 1
        return self._begun[work] - 1

    def end(self, work: object) -> None:
        """``work`` has ended, well or not."""
        self._begun[work] -= 1


def died(doing: str, times: int) -> str:
    """The error of work that ended its process so often; ``doing`` such as ``decoding it``."""
    return f"{WORKER_DIED}: {doing} ended its process {times} times"
