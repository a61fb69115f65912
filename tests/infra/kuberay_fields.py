"""The fields of KubeRay's API (ray.io/v1, KubeRay 1.7) that our files use, and what each takes.

``python -m infra.manifests`` holds the files against the definitions themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Pod templates are Kubernetes' own and are checked as such; strings map to strings.
POD, STRINGS = object(), object()
_RESOURCES = {"requests": STRINGS, "limits": STRINGS}
_FROM_SECRET = {"valueFrom": {"secretKeyRef": {"name": str, "key": str}}}
_WORKERS = {
    "groupName": str,
    "minReplicas": int,
    "maxReplicas": int,
    "replicas": int,
    "idleTimeoutSeconds": int,
    "rayStartParams": STRINGS,
    "template": POD,
}
CLUSTER: dict[str, Any] = {
    "rayVersion": str,
    "authOptions": {"mode": {"disabled", "token"}},
    "gcsFaultToleranceOptions": {"redisAddress": str, "redisPassword": _FROM_SECRET},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": {"v1", "v2"},
        "upscalingMode": {"Default", "Aggressive", "Conservative"},
        "idleTimeoutSeconds": int,
        "resources": _RESOURCES,
        "securityContext": dict,
    },
    "headGroupSpec": {"rayStartParams": STRINGS, "template": POD},
    "workerGroupSpecs": [_WORKERS],
}
SPECS: dict[str, dict[str, Any]] = {
    "RayService": {
        "upgradeStrategy": {"type": {"NewCluster", "NewClusterWithIncrementalUpgrade", "None"}},
        "serveConfigV2": str,
        "rayClusterConfig": CLUSTER,
    },
    "RayJob": {
        "entrypoint": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
        "submitterPodTemplate": POD,
        "runtimeEnvYAML": str,
        "rayClusterSpec": CLUSTER,
    },
}


def misfits(value: Any, field: Any, path: str = "spec") -> Iterator[str]:
    """Where ``value`` has a field that is not known, or one of another kind."""
    if field is STRINGS:
        if not all(isinstance(each, str) for each in value.values()):
            yield f"{path}: maps to other than strings"
    elif isinstance(field, type):
        if type(value) is not field:
            yield f"{path}: {value!r} is no {field.__name__}"
    elif isinstance(field, set):
        if value not in field:
            yield f"{path}: {value!r} is none of {sorted(field)}"
    elif isinstance(field, list):
        for number, each in enumerate(value):
            yield from misfits(each, field[0], f"{path}[{number}]")
    elif isinstance(field, dict):
        for name, each in value.items():
            if name in field:
                yield from misfits(each, field[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}: is no field"


def pods(value: Any, field: Any) -> Iterator[dict[str, Any]]:
    """The pod templates in ``value``."""
    if field is POD:
        yield value
    elif isinstance(field, list):
        for each in value:
            yield from pods(each, field[0])
    elif isinstance(field, dict):
        for name, each in value.items():
            yield from pods(each, field.get(name))
