"""``infra/compose.yaml`` against the Compose specification, and against what it refers to.

Guards against a file that Docker refuses, or that starts something else than is said.
"""

from __future__ import annotations

import json
import os
import re
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from ray._private import ray_constants, utils

from longreel import cli

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
LONGREEL = ("longreel", "longreel-gpu")
#: Share of a container's memory that Ray makes its object store of.
OBJECT_STORE = 0.3
#: Ray's name for the most bytes that it makes the store of; ``RAY_`` before it in the environment.
STORE_CAP = "DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"


@cache
def specification() -> dict[str, Any]:
    """The JSON schema that the Compose specification publishes, as check-jsonschema brings it."""
    brought = find_spec("check_jsonschema")
    if brought is None or not brought.submodule_search_locations:
        reason = "check-jsonschema, which brings the schema, is not installed"
        if os.environ.get("LONGREEL_TEST_PROGRAMS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(brought.submodule_search_locations[0]) / "builtin_schemas" / "vendor"
    found: dict[str, Any] = json.loads((folder / "compose-spec.json").read_text())
    return found


def misfits(document: dict[str, Any]) -> list[str]:
    """What does not fit, a line each."""
    return [
        error.json_path for error in Draft202012Validator(specification()).iter_errors(document)
    ]


def test_it_fits_the_specification() -> None:
    assert misfits(COMPOSE) == []


@pytest.mark.parametrize(
    ("mistake", "where"),
    [
        (lambda s: s["longreel"].update(stop_grace="1m"), "$.services.longreel"),
        (lambda s: s["longreel"].update(read_only=[]), "$.services.longreel.read_only"),
        (
            lambda s: s["grafana"]["healthcheck"].update(retries={}),
            "$.services.grafana.healthcheck.retries",
        ),
    ],
)
def test_a_mistake_is_found(mistake: Any, where: str) -> None:
    document = deepcopy(COMPOSE)
    mistake(document["services"])
    assert where in misfits(document)


def test_volumes_and_services_that_it_names_are_there() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", ())]
    # Where a variable names one, its default.
    named = {re.sub(r"\$\{\w+:-(\w+)\}", r"\1", mount).split(":")[0] for mount in mounts}
    assert {each for each in named if not each.startswith(".")} == set(COMPOSE["volumes"])
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)


def test_all_that_it_opens_is_open_to_this_machine_alone() -> None:
    """Guards against a service without keys on every address of the host."""
    for service in SERVICES.values():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", LONGREEL)
def test_the_service_is_run_with_options_that_it_has(name: str) -> None:
    command, *options = SERVICES[name]["command"]
    assert command == "serve"
    known = {f"--{each.replace('_', '-')}" for each in signature(cli.serve).parameters}
    assert {option.partition("=")[0] for option in options} <= known


@pytest.mark.parametrize("name", LONGREEL)
def test_what_is_built_at_home_can_be_run(name: str) -> None:
    """Guards against Docker's ``noexec``: Triton builds its libraries at home and loads them."""
    (mount,) = SERVICES[name]["tmpfs"]
    where, _, options = mount.partition(":")
    assert where == "/home/longreel"
    assert "exec" in options.split(",")


def test_prometheus_finds_the_gateway_and_rays_agents() -> None:
    """Guards against a dashboard without data: in a container 127.0.0.1 is the container itself."""
    prometheus = SERVICES["prometheus"]
    (option,) = (o for o in prometheus["command"] if o.startswith("--config.file="))
    name = option.partition("=")[2].removeprefix("/etc/prometheus/")
    folder = ROOT / "infra" / "prometheus"
    config = yaml.safe_load((folder / name).read_text())
    longreel, ray = config["scrape_configs"]
    (target,) = longreel["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    ((discovery,),) = (each["files"] for each in ray["file_sd_configs"])
    for service in (SERVICES[each] for each in LONGREEL):
        assert host in service["networks"]["default"]["aliases"]
        assert service["ports"][0].rpartition(":")[2] == port
        assert "tmp:/tmp" in service["volumes"]
    assert discovery.startswith("/tmp/ray/")
    assert "tmp:/tmp:ro" in prometheus["volumes"]
    # And nothing else is different.
    longreel["static_configs"][0]["targets"] = ["127.0.0.1:8000"]
    assert config == yaml.safe_load((folder / "prometheus.yml").read_text())


def test_the_page_names_what_is_taken_from_the_environment() -> None:
    """Guards against a setting that nobody finds, and one that does nothing."""
    taken = set(re.findall(r"\$\{(\w+)", (ROOT / "infra" / "compose.yaml").read_text()))
    page = (ROOT / "docs" / "cluster.md").read_text()
    section = page.partition("## One machine")[2].partition("\n## ")[0]
    assert taken == set(re.findall(r"\b(?:LONGREEL|GRAFANA)_[A-Z]+\b", section))


def test_grafana_is_told_where_prometheus_is() -> None:
    """Guards against a data source whose address is empty, and variables that nobody sets."""
    grafana = SERVICES["grafana"]
    files = (ROOT / "infra" / "grafana" / "provisioning").rglob("*.yml")
    asked = {name for file in files for name in re.findall(r"\$\{(\w+)\}", file.read_text())}
    assert asked <= set(grafana["environment"])
    address = urlsplit(grafana["environment"]["PROMETHEUS_URL"])
    assert address.hostname in SERVICES
    assert SERVICES["prometheus"]["ports"][0].endswith(f":{address.port}")


@pytest.mark.parametrize("name", LONGREEL)
def test_rays_object_store_fits_into_shared_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a store that Ray then puts on a disk, or into ``/tmp``, also where the
    container is given more memory than by default."""
    limit = SERVICES[name]["deploy"]["resources"]["limits"]["memory"]
    memory = int(limit.partition(":-")[2].removesuffix("g}"))
    shm = int(SERVICES[name]["shm_size"].removesuffix("gb"))
    assert shm >= OBJECT_STORE * memory
    monkeypatch.setattr(utils, "get_shared_memory_bytes", lambda: shm * 2**30)
    if (most := SERVICES[name].get("environment", {}).get(f"RAY_{STORE_CAP}")) is not None:
        assert f'"RAY_{STORE_CAP}"' in Path(ray_constants.__file__).read_text()
        monkeypatch.setattr(ray_constants, STORE_CAP, int(most))
    for given in (memory, *range(memory, 2048, 7)):
        store = utils.resolve_object_store_memory(given * 2**30)
        # As Ray leaves it: something else may lie there, too.
        assert store <= 0.95 * shm * 2**30, given


@pytest.mark.parametrize("name", LONGREEL)
def test_the_image_is_built_from_a_stage_that_is_there(name: str) -> None:
    build = SERVICES[name]["build"]
    dockerfile = (ROOT / "infra" / build["context"] / build["dockerfile"]).read_text()
    assert f" AS {build['target']}\n" in dockerfile


def test_every_service_is_bounded_and_watched() -> None:
    for name, service in SERVICES.items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory"} <= set(limits)
        # Longreel's own is in its image.
        assert name in LONGREEL or service["healthcheck"]["test"]
