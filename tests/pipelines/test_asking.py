"""How workers reach the model service, and what they need for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines import asking


@pytest.mark.slow
@pytest.mark.parametrize("module", ["worker", "stream", "videos", "plan"])
def test_a_worker_loads_no_torch(module: str) -> None:
    """Guards against decoding processes that begin seconds late and hold a model's libraries."""
    script = (
        f"import sys, pipelines.{module}; print({{'torch', 'transformers'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr


class _Ledger:
    """Stands in for the ledger's actor: says "not yet" so often."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.ready = self

    def remote(self) -> bool:
        self.times -= 1
        return self.times < 0


def test_workers_come_up_before_the_model_and_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against frames that are given to a model which is not there, or is not the job's."""
    handle, ledger = object(), _Ledger(3)
    monkeypatch.setattr("ray.get", lambda answer: answer)

    def replicas() -> object:
        assert ledger.times < 0
        return handle

    monkeypatch.setattr(asking, "replica_handle", replicas)
    assert asking.replicas_once_ready(ledger) is handle
