"""``infra/serve.yaml`` on a real Ray Serve: that it is what ``longreel serve`` deploys, and what
deploying it again does to those who are there.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml
from pydantic import ValidationError
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.serve.config import AutoscalingConfig
from ray.serve.deployment import Application
from ray.serve.schema import ServeDeploySchema

from actors.claim import StoreClaim
from longreel import cli
from longreel.deployed import ServiceArgs
from longreel.deployed import build as built
from longreel.errors import UsageError
from pipelines.cluster import connected
from serve.app import build
from serve.routes.context import ApiSettings
from tests.ports import free_ports

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "infra" / "serve.yaml").read_text())
BOUNDS = ("min_replicas", "initial_replicas", "max_replicas")


def replica_override(config: dict[str, Any]) -> dict[str, Any]:
    """The autoscaling that a config gives the replicas."""
    (override,) = config["applications"][0]["deployments"]
    found: dict[str, Any] = override["autoscaling_config"]
    return found


def test_every_option_of_serve_can_be_said_in_a_config() -> None:
    """Guards against an option that a cluster cannot be given."""
    elsewhere = {"host", "port", "address", "replicas"}
    # Several may be given one by one there, and units are not part of an option's name.
    named = {"s3_bucket": "s3_buckets", "summarizer": "summarizers"}
    named |= {"decode_timeout": "decode_timeout_s", "decode_memory": "decode_memory_bytes"}
    said = {*ServiceArgs.model_fields, *(f.name for f in fields(ApiSettings))}
    assert {named.get(n, n) for n in signature(cli.serve).parameters} - elsewhere <= said


def test_the_config_fits_ray_serve_and_the_builder() -> None:
    """Guards against names in the file of which Ray Serve or the service knows nothing."""
    config = ServeDeploySchema.model_validate(CONFIG)
    (application,) = config.applications
    assert application.import_path == "longreel.deployed:build"
    ServiceArgs.model_validate(application.args)


@pytest.mark.parametrize("args", [{"modle": "x"}, {"api": {"max_uploads": 1}}])
def test_an_unknown_argument_is_refused(args: dict[str, Any]) -> None:
    """Guards against a limit that is misspelt and so never holds."""
    with pytest.raises(ValidationError, match=r"modle|max_uploads"):
        ServiceArgs.model_validate(args)


def test_a_config_names_its_state_store() -> None:
    """Guards against sessions that are kept on one node's disk, where no other finds them."""
    with pytest.raises(UsageError, match=r"args\.state must name"):
        built(ServiceArgs())


def test_the_config_leaves_autoscaling_as_the_code_has_it() -> None:
    """Guards against a config that undoes it: its ``autoscaling_config`` replaces all of it."""
    gateway = build(ServiceArgs(state="/state").plan(), gateway=True)
    bound = gateway._bound_deployment.init_args[1]
    assert isinstance(bound, Application)
    assert bound._bound_deployment.name == "replica"
    code: Any = bound._bound_deployment._deployment_config.autoscaling_config
    override = replica_override(CONFIG)
    assert AutoscalingConfig(**override).model_dump() == {
        **code.model_dump(),
        **{name: override[name] for name in BOUNDS},
    }


@dataclass
class Cluster:
    """A Ray cluster to deploy configs on, as ``serve deploy`` does."""

    client: ServeSubmissionClient
    port: int
    state: str

    def deploy(self, replicas: int, **args: Any) -> None:
        """The config with so many replicas, on the CPU, in a folder of this machine."""
        config = deepcopy(CONFIG)
        config["http_options"] = {"host": "127.0.0.1", "port": self.port}
        config["applications"][0]["args"] = {"state": self.state, **args}
        replica_override(config).update(dict.fromkeys(BOUNDS, replicas))
        self.client.deploy_applications(config)

    def pids(self) -> dict[str, set[int]]:
        """The processes of each deployment."""
        deployments = self._application()["deployments"]
        return {
            name: {replica["pid"] for replica in found["replicas"] if replica["state"] == "RUNNING"}
            for name, found in deployments.items()
        }

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The application as Ray Serve's API has it, once that holds."""
        end = time.monotonic() + 90
        while not holds(found := self._application()):
            assert time.monotonic() < end, found
            time.sleep(0.1)
        return found

    def running(self, replicas: int) -> dict[str, set[int]]:
        """``pids`` once so many replicas run and nothing else does."""

        def there(found: dict[str, Any]) -> bool:
            replica = found["deployments"].get("replica", {"replicas": []})["replicas"]
            states = [each["state"] for each in replica]
            return found["status"] == "RUNNING" and states == ["RUNNING"] * replicas

        self.until(there)
        return self.pids()

    def get(self, path: str) -> httpx.Response:
        """What the HTTP API answers."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=120)

    def _application(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get_serve_details()["applications"]["longreel"]
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    (port,) = free_ports(1)
    with connected("local", takes_jobs=True):
        client = ServeSubmissionClient(f"http://{ray._private.worker._global_node.webui_url}")
        yield Cluster(client, port, str(tmp_path_factory.mktemp("state")))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_deployed_again_it_replaces_only_what_it_must(cluster: Cluster) -> None:
    """Guards the upgrade notes of docs/cluster.md: what bounds, arguments and mistakes do."""
    cluster.deploy(1)
    first = cluster.running(1)
    assert cluster.get("/readyz").status_code == 200
    assert cluster.get("/v1/jobs").json() == {"object": "list", "data": []}
    opened = httpx.post(f"http://127.0.0.1:{cluster.port}/v1/sessions", json={}, timeout=120)
    session = opened.json()["id"]

    cluster.deploy(2)
    scaled = cluster.running(2)
    assert scaled["replica"] > first["replica"]
    assert scaled["gateway"] == first["gateway"]

    cluster.deploy(1, idle_s=60.0)
    cluster.until(lambda found: not cluster.pids().get("replica", {0}) & scaled["replica"])
    replaced = cluster.running(1)
    assert cluster.get(f"/v1/sessions/{session}").json()["id"] == session

    cluster.deploy(1, keep_ratio=7.0)
    failed = cluster.until(lambda found: found["status"] == "DEPLOY_FAILED")
    assert "the keep ratio must lie in (0, 1], not 7.0" in failed["message"]
    # Those who were there serve on, until a config that can be built comes.
    assert cluster.get(f"/v1/sessions/{session}").json()["id"] == session
    cluster.deploy(1, idle_s=60.0)
    assert cluster.running(1)["replica"] == replaced["replica"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_it_waits_for_a_store_that_another_cluster_holds(cluster: Cluster, tmp_path: Path) -> None:
    """Guards an upgrade from cluster to cluster: the next one says whom it waits for, serves
    nobody before that one has ended, goes on by itself then, and ends itself by `serve shutdown`.
    """
    next_one = replace(cluster, state=str(tmp_path))
    sessions = f"http://127.0.0.1:{cluster.port}/v1/sessions"

    def until(status: int, within_s: float) -> None:
        end = time.monotonic() + within_s
        while next_one.get("/readyz").status_code != status:
            assert time.monotonic() < end
            time.sleep(0.1)

    with _another_cluster(str(tmp_path)) as other:
        next_one.deploy(1)
        until(503, 90)
        next_one.running(1)
        message = next_one.get("/readyz").json()["error"]["message"]
        assert f"another cluster serves from it, on {socket.gethostname()} since 20" in message
        refused = httpx.post(sessions, json={}, timeout=120)
        assert (refused.status_code, refused.json()["error"]["message"]) == (503, message)
        assert next_one.get("/healthz").status_code == 200
    until(200, 10)
    assert httpx.post(sessions, json={}, timeout=120).status_code == 201
    assert not other.look()
    cluster.client.delete_applications()
    end = time.monotonic() + 30
    while not other.look():
        assert time.monotonic() < end
        time.sleep(0.1)


@contextmanager
def _another_cluster(store: str) -> Iterator[StoreClaim]:
    """The claim of a cluster that lives until then, and gives its store up."""
    claim, ended = StoreClaim(store, "another"), threading.Event()
    claim.take()

    def renew() -> None:
        while not ended.wait(1.0):
            claim.renew()

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield claim
    finally:
        ended.set()
        renewing.join()
        claim.release()
