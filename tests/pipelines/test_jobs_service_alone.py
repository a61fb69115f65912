"""What the service of jobs says by itself: no cluster is there."""

from __future__ import annotations

import pytest

from longreel.errors import UsageError
from pipelines.jobs_service import JobsService


def test_what_is_no_uri_is_the_senders_fault() -> None:
    """Guards against 503, after which the same request is sent again, for what can never work."""
    service = JobsService("http://127.0.0.1:9")
    for sources, output in ((["s3://_/x"], "/rows"), (["/videos/"], "s3://_/rows")):
        with pytest.raises(UsageError, match="no valid bucket name"):
            service.submit({"sources": sources, "output": output})
