"""The routes of jobs on the cluster that the environment names: ``python -m ... GCS PORT STORE``.

``STORE`` is a state store with API keys.
"""

from __future__ import annotations

import sys
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from pipelines.jobs_service import jobs_deployment
from serve.jobs import RemoteJobs
from serve.routes.app import build
from serve.routes.context import ApiSettings, Context, ModelInfo


class Gateway:
    """What the service's gateway is, with jobs alone."""

    def __init__(self, jobs: DeploymentHandle, store: str) -> None:
        model = ModelInfo("tiny", "1", 64, 2.0, 1.0, "none", 9, True, "Summarize.")
        settings = ApiSettings(keys=True, summarizers=("http://127.0.0.1:9/v1",))
        self._context = Context(None, None, model, store, settings, jobs=RemoteJobs(jobs))  # type: ignore[arg-type]

    def __serve_build_asgi_app__(self) -> Any:
        return build(self._context)


def main() -> None:
    """Serve until the end of standard input."""
    ray.init(address=sys.argv[1], log_to_driver=False)
    jobs = jobs_deployment(keep_out=sys.argv[3])
    assert jobs is not None
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    made: Any = serve.deployment(name="gateway", ray_actor_options={"num_cpus": 0})(
        serve.ingress()(Gateway)
    )
    serve.run(made.bind(jobs, sys.argv[3]), name="api", route_prefix="/")
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
