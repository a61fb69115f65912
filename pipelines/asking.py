"""Asking the model service, and waiting for it while replicas come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from serve.handles import replica_handle

#: The service is asked so often before there is no answer, with pauses that double from so long.
ATTEMPTS, FIRST_PAUSE_S = 5, 2.0
#: Seconds between two looks whether the model is there.
_LOOK_S = 0.1
#: Begins the error of what no replica took, as opposed to what a replica could not do.
UNAVAILABLE = "ModelUnavailable"


def replicas_once_ready(ledger: ActorHandle) -> DeploymentHandle:
    """A handle, once the driver has told the ledger that replicas are there and the right ones.

    Workers come up meanwhile. The driver ends them where no model does.
    """
    while not ray.get(ledger.ready.remote()):
        time.sleep(_LOOK_S)
    return replica_handle()


def answer(
    response: DeploymentResponse, ask_again: Callable[[], DeploymentResponse]
) -> tuple[Any, str | None]:
    """The answer, or None and one line that says why there is none."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return response.result(), None
        except (RayActorError, RayServeException) as failure:
            if attempt == ATTEMPTS:
                reason = str(failure).strip().splitlines()[0]
                return None, f"{UNAVAILABLE}: {reason} (after {attempt} attempts)"
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            response = ask_again()
        except RayTaskError as failure:
            cause = failure.cause
            reason = (str(cause).strip().splitlines() or [""])[0]
            return None, f"ModelError: {type(cause).__name__}: {reason}"
    raise AssertionError("unreachable")
