"""Whether the Kubernetes files in this folder fit the resources that a cluster has.

``python -m infra.manifests --crds FOLDER`` holds the KubeRay files against the
CustomResourceDefinitions of a KubeRay version, more strictly than an API server: it drops fields
that it does not know, and here they are an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

KUBERAY = Path(__file__).parent / "kuberay"


def documents(path: Path) -> list[dict[str, Any]]:
    """The objects that a YAML file holds."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema of a CustomResourceDefinition as JSON Schema; unknown fields are refused.

    An object whose schema names no fields holds any, as ``metadata`` does.
    """
    found = {
        key: value
        for key, value in schema.items()
        if key in ("type", "enum", "required", "minimum", "maximum", "pattern", "minItems")
    }
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    if schema.get("nullable") and "type" in found:
        found["type"] = [found["type"], "null"]
    if "items" in schema:
        found["items"] = strict(schema["items"])
    if "properties" in schema:
        found["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), Mapping):
        found["additionalProperties"] = strict(schema["additionalProperties"])
    return found


def misfits(document: Mapping[str, Any], crds: list[dict[str, Any]]) -> Iterator[str]:
    """What of a custom resource does not fit its definition, a line each."""
    group, _, version = document["apiVersion"].rpartition("/")
    for crd in crds:
        spec = crd["spec"]
        if (spec["group"], spec["names"]["kind"]) != (group, document["kind"]):
            continue
        for each in spec["versions"]:
            if each["name"] == version:
                schema = strict(each["schema"]["openAPIV3Schema"])
                for error in Draft202012Validator(schema).iter_errors(document):
                    yield f"{error.json_path}: {error.message}"
                return
    yield f"there is no definition of {document['apiVersion']} {document['kind']}"


def main() -> int:
    """The command; its status is 1 where something does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m infra.manifests")
    parser.add_argument(
        "--crds", type=Path, required=True, help="folder with KubeRay's ray.io_*.yaml"
    )
    folder = parser.parse_args().crds
    crds = [crd for path in sorted(folder.glob("*.yaml")) for crd in documents(path)]
    crds = [crd for crd in crds if crd.get("kind") == "CustomResourceDefinition"]
    if not crds:
        parser.error(f"{folder} holds no CustomResourceDefinition")
    failed = False
    for path in (KUBERAY / "rayservice.yaml", KUBERAY / "rayjob.yaml"):
        for document in documents(path):
            lines = list(misfits(document, crds))
            failed = failed or bool(lines)
            print(f"{path.name}: {'fits' if not lines else ''}", *lines, sep="\n  ")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
