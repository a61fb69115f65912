"""The files that operators load: alerts, dashboard, and the page that explains them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from longreel.metrics import METRICS, Metric
from tests.infra.prometheus import ALERTS, CONFIG, FOLDER, alert_rules, names_in, panel_queries
from tests.programs import program

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
_KNOWN = {name for metric in METRICS for name in metric.samples} | {"up"}


def _row(metric: Metric) -> str:
    labels = ", ".join(
        f"`{name}`" + (f" ({', '.join(values)})" if values else "")
        for name, values in metric.labels.items()
    )
    return f"| `{metric.exported}` | {metric.kind} | {labels} | {metric.help} |"


def test_the_page_lists_every_metric_as_it_is() -> None:
    """Guards operators against a list that says other than what is exported."""
    expected = [_row(metric) for metric in METRICS]
    found = [line for line in PAGE.splitlines() if re.match(r"\| `(ray_)?longreel_", line)]
    assert found == expected


def test_names_follow_prometheus_rules() -> None:
    """Guards against names that no convention's reader would guess."""
    for metric in METRICS:
        assert re.fullmatch(r"longreel_[a-z_]+[a-z]", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert not re.search(r"_(ms|minutes|mb|kb)(_|$)", metric.name)
        assert not {"session", "id", "path", "url", "client", "le"} & set(metric.labels)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_queries_ask_for_metrics_that_exist() -> None:
    """Guards against a metric that is renamed and not in dashboards and alerts."""
    queries = [query for panel in panel_queries().values() for query in panel]
    rules = [rule["expr"] for rule in alert_rules()]
    assert {name for query in queries + rules for name in names_in(query)} <= _KNOWN
    # And the other way round: what nobody would ever look at need not be told.
    assert [m.name for m in METRICS if not any(m.exported in q for q in queries + rules)] == []


def test_every_alert_says_what_to_do() -> None:
    """Guards whoever is woken: what it means and what to do stands where the alert says."""
    headings = {line[4:].lower() for line in PAGE.splitlines() if line.startswith("### ")}
    for rule in alert_rules():
        told = rule["annotations"]
        page, _, anchor = told["runbook_url"].partition("#")
        assert page == "docs/operations.md"
        assert anchor in headings, anchor
        assert anchor == rule["alert"].lower()
        assert told["summary"]
        assert told["description"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_prometheus_takes_configuration_and_rules() -> None:
    """Guards against files that Prometheus refuses to start with."""
    promtool = program("promtool")
    compose = CONFIG.with_name("compose.yml")
    for what, path in (("config", CONFIG), ("config", compose), ("rules", ALERTS)):
        done = subprocess.run(
            [promtool, "check", what, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _unit_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    file = str(folder / "alerts_test.yml")
    command = [program("promtool"), "test", "rules", file]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_alerts_fire_when_they_should_and_only_then() -> None:
    """Guards against alerts that sleep through their case, and that wake people for nothing."""
    done = _unit_tests(ALERTS.parent)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("expr", ["vector(0) > 1", "vector(1)"])
def test_each_alert_has_a_case_and_a_healthy_one(tmp_path: Path, expr: str) -> None:
    """Guards the tests above: an alert that never, or always, fires must not pass them."""
    rules = yaml.safe_load(ALERTS.read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = expr
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "alerts_test.yml").write_text((ALERTS.parent / "alerts_test.yml").read_text())
    said = _unit_tests(tmp_path)
    wrong = set(re.findall(r"alertname: (\w+)", said.stdout + said.stderr))
    assert wrong == {rule["alert"] for rule in alert_rules()}


def test_grafana_finds_the_dashboard_where_it_is_told_to_look() -> None:
    """Guards against provisioning that names another data source than the dashboard takes."""
    folder = FOLDER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((folder / "dashboards" / "longreel.yml").read_text())["providers"]
    assert source["type"] == "prometheus"
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/var/lib/grafana")
