"""A real Prometheus, on the configuration that the repository ships."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.ports import free_ports
from tests.programs import program

FOLDER = Path(__file__).parents[2] / "infra"
CONFIG = FOLDER / "prometheus" / "prometheus.yml"
ALERTS = FOLDER / "prometheus" / "alerts.yml"
DASHBOARD = FOLDER / "grafana" / "longreel.json"
_NAME = re.compile(r"\b(?:ray_)?longreel_[a-z_]+|\bup\b")


def alert_rules() -> list[dict[str, Any]]:
    """The alerts, as they stand in the file."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def panel_queries() -> dict[str, list[str]]:
    """The dashboard's queries by the panel's title, over 20 s where Grafana fills in a range."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        f"{panel['title']} ({panel['id']})": [
            target["expr"].replace("$__rate_interval", "20s") for target in panel["targets"]
        ]
        for panel in panels
        if panel["type"] != "row"
    }


def names_in(query: str) -> set[str]:
    """Metrics that a query names."""
    return set(_NAME.findall(query))


def selectors_in(query: str) -> set[str]:
    """The parts of a query that pick series, with their labels and without their ranges."""
    return set(re.findall(rf"(?:{_NAME.pattern})(?:\{{[^}}]*\}})?", query))


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def over_time(self, query: str, start: float) -> list[dict[str, Any]]:
        """Series that ``query`` gives at any second since ``start``, in seconds since 1970.

        Raises:
            AssertionError: it cannot be evaluated.
        """
        asked: dict[str, str | float] = {
            "query": query,
            "start": start,
            "end": time.time(),
            "step": 1,
        }
        reply = httpx.get(f"{self.url}/api/v1/query_range", params=asked).json()
        assert reply["status"] == "success", (query, reply)
        return list(reply["data"]["result"])

    def get(self, path: str) -> Any:
        """Data of another call of its API."""
        reply = httpx.get(f"{self.url}/api/v1/{path}").json()
        assert reply["status"] == "success", reply
        return reply["data"]


@contextmanager
def prometheus(folder: Path, gateway: str, discovery: str) -> Iterator[Prometheus]:
    """One that scrapes every second until the end.

    Args:
        folder: for its configuration, log and data.
        gateway: host and port.
        discovery: Ray's file of its nodes.
    """
    command = program("prometheus")
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    service, ray = config["scrape_configs"]
    service["static_configs"] = [{"targets": [gateway]}]
    ray["file_sd_configs"] = [{"files": [discovery], "refresh_interval": "1s"}]
    config["rule_files"] = [str(ALERTS)]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    arguments = [
        command,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline, "Prometheus did not start"
            try:
                if httpx.get(f"{url}/-/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(10)
