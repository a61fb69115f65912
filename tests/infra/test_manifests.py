"""The Kubernetes files against the schemas of Kubernetes, Ray and KubeRay's fields, and each other.

Every check is shown to fail on a file with a mistake in it.

Guards against manifests that a cluster refuses, or takes with a field ignored.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import ray
import yaml
from click.testing import CliRunner
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.dashboard.modules.job.cli import submit
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
)

from infra.manifests import KUBERAY, documents, misfits
from longreel.cli import summarize
from tests.infra.kuberay_fields import SPECS, pods
from tests.infra.kuberay_fields import misfits as unknown

FILES = [document for path in sorted(KUBERAY.glob("*.yaml")) for document in documents(path)]
OURS = {each["kind"]: each for each in FILES if each["apiVersion"] == "ray.io/v1"}
CORE = [each for each in FILES if each["apiVersion"] != "ray.io/v1"]
CLUSTERS = {
    "RayService": OURS["RayService"]["spec"]["rayClusterConfig"],
    "RayJob": OURS["RayJob"]["spec"]["rayClusterSpec"],
}
KUBERNETES = "1.33"


def valid(document: dict[str, Any]) -> None:
    """Kubernetes' own schema, unknown fields refused."""
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def templates() -> Iterator[dict[str, Any]]:
    """Every pod template that KubeRay is given, as an object of its own."""
    for kind, document in OURS.items():
        for template in pods(document["spec"], SPECS[kind]):
            yield {
                "apiVersion": "v1",
                "kind": "PodTemplate",
                "metadata": {"name": "x"},
                "template": template,
            }


@pytest.mark.slow
@pytest.mark.parametrize("document", CORE, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_kubernetes_knows_every_field(document: dict[str, Any]) -> None:
    valid(document)


def test_kubernetes_knows_every_field_of_the_pods() -> None:
    found = list(templates())
    assert len(found) == 7  # two heads, two groups of workers each, and what submits the job
    for template in found:
        valid(template)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda pod: pod["containers"][0].update(livenessProb={}),
        lambda pod: pod["containers"][0]["livenessProbe"].update(periodSeconds="5"),
        lambda pod: pod.update(volumes=[{"name": "x", "emptyDirectory": {}}]),
    ],
)
def test_a_mistake_in_a_pod_is_found(mistake: Any) -> None:
    template = deepcopy(list(templates())[-1])
    mistake(template["template"]["spec"])
    with pytest.raises(kubernetes_validate.ValidationError):
        valid(template)


@pytest.mark.parametrize("kind", sorted(OURS))
def test_kuberay_knows_every_field(kind: str) -> None:
    assert list(unknown(OURS[kind]["spec"], SPECS[kind])) == []


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda s: s.update(upgradeStrategy={"type": "Rolling"}), "upgradeStrategy.type: 'Rol"),
        (lambda s: s["rayClusterConfig"].update(autoscaling=True), "autoscaling: is no field"),
        (
            lambda s: s["rayClusterConfig"]["workerGroupSpecs"][0].update(maxReplicas="8"),
            "workerGroupSpecs[0].maxReplicas: '8' is no int",
        ),
        (
            lambda s: s["rayClusterConfig"]["headGroupSpec"]["rayStartParams"].update(x=0),
            "rayStartParams: maps to other than strings",
        ),
    ],
)
def test_a_mistake_in_a_field_of_kuberay_is_found(mistake: Any, told: str) -> None:
    spec = deepcopy(OURS["RayService"]["spec"])
    mistake(spec)
    (line,) = unknown(spec, SPECS["RayService"])
    assert told in line


def test_the_service_serves_what_serve_yaml_says() -> None:
    """Guards against two configs that drift apart."""
    inside = yaml.safe_load(OURS["RayService"]["spec"]["serveConfigV2"])
    assert inside == yaml.safe_load((KUBERAY.parent / "serve.yaml").read_text())
    assert unknown_to_ray(inside) == set()


def unknown_to_ray(config: dict[str, Any]) -> set[str]:
    """The names in a config that Ray Serve takes no notice of.

    Raises:
        ValueError: it refuses the config.
    """
    ServeDeploySchema.model_validate(config)
    found = set(config) - set(ServeDeploySchema.model_fields)
    found |= set(config["http_options"]) - set(HTTPOptionsSchema.model_fields)
    for application in config["applications"]:
        found |= set(application) - set(ServeApplicationSchema.model_fields)
        for deployment in application["deployments"]:
            found |= set(deployment) - set(DeploymentSchema.model_fields)
    return found


def test_a_mistake_in_the_serve_config_is_found() -> None:
    """Ray Serve itself refuses wrong values and lets wrong names pass."""
    config = yaml.safe_load(OURS["RayService"]["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    application["deployments"][0]["autoscaling"] = {"min_replicas": 1}
    config["http"] = {}
    assert unknown_to_ray(config) == {"autoscaling", "http"}
    application["deployments"][0]["max_ongoing_requests"] = -1
    with pytest.raises(ValueError, match="max_ongoing_requests"):
        unknown_to_ray(config)


@pytest.mark.parametrize("kind", sorted(CLUSTERS))
def test_rays_autoscaler_finds_the_gpus(kind: str) -> None:
    """Guards against workers that it would start and then find nothing on."""
    made = autoscaling_config._derive_autoscaling_config_from_ray_cr(
        {"metadata": {"namespace": "longreel", "name": "longreel"}, "spec": CLUSTERS[kind]}
    )
    nodes = made["available_node_types"]
    assert {name for name, node in nodes.items() if node["resources"].get("GPU")} == {"gpu"}
    assert nodes["gpu"]["resources"]["CPU"] >= 1
    assert nodes["headgroup"]["resources"]["CPU"] == 0
    bounds = (nodes["gpu"]["min_workers"], nodes["gpu"]["max_workers"])
    assert bounds == {"RayService": (2, 8), "RayJob": (0, 8)}[kind]


def test_workers_can_hold_as_many_replicas_as_the_config_asks_for() -> None:
    """Guards against replicas that wait for a node that may never be added."""
    config = yaml.safe_load(OURS["RayService"]["spec"]["serveConfigV2"])["applications"][0]
    scaling = config["deployments"][0]["autoscaling_config"]
    gpus = config["args"]["gpus_per_replica"]
    group = CLUSTERS["RayService"]["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"]) == (
        scaling["min_replicas"] * gpus,
        scaling["max_replicas"] * gpus,
    )


def test_the_job_gets_what_it_asks_for() -> None:
    """Guards against options that are not there, and workers for which there is no processor."""
    shell, flag, line = shlex.split(OURS["RayJob"]["spec"]["entrypoint"])
    assert (shell, flag) == ("sh", "-c")
    program, command, *words = shlex.split(line)
    options = dict(word.split("=") for word in words[: words.index("--")])
    assert (program, command) == ("longreel", "summarize")
    known = {f"--{name.replace('_', '-')}" for name in signature(summarize).parameters}
    assert set(options) <= known
    asked, most = int(options["--workers"]), int(options["--replicas"].partition(":")[2])
    gpu, cpu = CLUSTERS["RayJob"]["workerGroupSpecs"]
    assert most == gpu["maxReplicas"]
    (container,) = cpu["template"]["spec"]["containers"]
    assert asked <= cpu["maxReplicas"] * int(container["resources"]["requests"]["cpu"])


def script(path: Path, text: str) -> None:
    """A program that a shell runs."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("status", "ends"), [(0, 0), (3, 0), (1, 1)])
def test_a_job_with_some_videos_that_failed_has_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, ends: int
) -> None:
    """Guards against an exit status that is looked at where the job is submitted, and not where it
    ends: the job would then count as failed, and be done again."""
    script(tmp_path / "ray", f"printf '%s\\0' \"$@\" > {tmp_path}/given")
    script(tmp_path / "longreel", f'echo "$@" > {tmp_path}/asked; exit {status}')
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    # As KubeRay has a job submitted, and then Ray runs it.
    submits = f"ray job submit --no-wait -- {OURS['RayJob']['spec']['entrypoint']} ;"
    subprocess.run(["bash", "-c", submits], env=environment, check=True)
    given = (tmp_path / "given").read_text().split("\0")[2:-1]
    client = MagicMock()
    monkeypatch.setattr("ray.dashboard.modules.job.cli._get_sdk_client", lambda *_, **__: client)
    told = CliRunner().invoke(submit, given)
    assert told.exit_code == 0, told.output
    line = client.submit_job.call_args.kwargs["entrypoint"]
    assert subprocess.run(line, shell=True, env=environment, check=False).returncode == ends
    assert (tmp_path / "asked").read_text().endswith(" -- s3://longreel/archive/\n")


@pytest.mark.parametrize("kind", sorted(CLUSTERS))
def test_the_cluster_runs_the_ray_of_the_image(kind: str) -> None:
    assert CLUSTERS[kind]["rayVersion"] == ray.__version__


def test_every_pod_is_what_budget_and_network_policy_select() -> None:
    """Guards against a selector that selects nothing."""
    labels = [each["template"]["metadata"]["labels"] for each in templates()]
    selectors = [
        each["spec"]["selector"]["matchLabels"]
        for each in CORE
        if each["kind"] == "PodDisruptionBudget"
    ]
    for selector in selectors:
        assert [each for each in labels if selector.items() <= each.items()]
    assert all(each["app"] == "longreel" for each in labels)


def test_whom_the_page_says_to_let_in_is_let_in() -> None:
    """Guards against a Prometheus, or clients, that the network policy keeps out."""
    (policy,) = (
        each["spec"]
        for each in CORE
        if (each["kind"], each["metadata"]["name"]) == ("NetworkPolicy", "longreel")
    )
    opened = {
        f"{name}={value}": {port["port"] for port in rule["ports"]}
        for rule in policy["ingress"]
        for peer in rule["from"]
        for name, value in peer.get("namespaceSelector", {}).get("matchLabels", {}).items()
    }
    # 8080 is what KubeRay gives Ray's agents for metrics where a pod names no port for them.
    assert opened == {"longreel/clients=true": {8000}, "longreel/metrics=true": {8000, 8080}}
    assert "name: metrics" not in (KUBERAY / "rayservice.yaml").read_text()
    for page in ("cluster.md", "operations.md"):
        text = (KUBERAY.parents[1] / "docs" / page).read_text()
        assert set(re.findall(r"longreel/[a-z]+=\w+", text)) <= set(opened)


def test_a_pod_ends_as_late_as_ray_takes_to_stop() -> None:
    """Guards against a kill amid what a job or a replica still writes."""
    stopping = 0
    for each in templates():
        pod = each["template"]["spec"]
        for container in pod["containers"]:
            if hook := container.get("lifecycle"):
                *_, grace = hook["preStop"]["exec"]["command"]
                assert int(grace) < pod["terminationGracePeriodSeconds"]
                stopping += 1
    assert stopping == 4


def test_every_secret_comes_from_a_secret() -> None:
    """Guards against a password that is committed."""
    assert not [each for each in CORE if each["kind"] == "Secret"]
    text = "".join(path.read_text() for path in KUBERAY.glob("*.yaml"))
    assert "password: " not in text


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec:
  group: ray.io
  names: {kind: RayService}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              required: [n]
              properties:
                n: {type: integer, minimum: 0}
                size: {x-kubernetes-int-or-string: true}
                list: {type: array, items: {type: object, properties: {a: {enum: [x]}}}}
                map: {type: object, additionalProperties: {type: string}}
                any: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {}}
"""


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"n": 1, "size": "1Gi", "list": [{"a": "x"}], "map": {"a": "b"}, "any": {"x": 1}}, None),
        ({"n": 1, "size": 1, "list": []}, None),
        ({}, "$.spec: 'n' is a required property"),
        ({"n": -1}, "$.spec.n: -1 is less than the minimum of 0"),
        ({"n": 1, "m": 1}, "$.spec: Additional properties are not allowed ('m' was unexpected)"),
        ({"n": 1, "size": 1.5}, "$.spec.size: 1.5 is not of type 'integer', 'string'"),
        ({"n": 1, "list": [{"a": "y"}]}, "$.spec.list[0].a: 'y' is not one of ['x']"),
        ({"n": 1, "map": {"a": 1}}, "$.spec.map.a: 1 is not of type 'string'"),
    ],
)
def test_a_definition_is_held_to_the_letter(spec: dict[str, Any], told: str | None) -> None:
    document = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"x": 1}, "spec": spec}
    assert list(misfits(document, [yaml.safe_load(CRD)])) == ([] if told is None else [told])


def test_the_command_says_what_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "ray.io_rayservices.yaml").write_text(CRD)
    command = [sys.executable, "-m", "infra.manifests", "--crds", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "$.spec: 'n' is a required property" in ran.stdout
    assert "rayjob.yaml: \n  there is no definition of ray.io/v1 RayJob" in ran.stdout
