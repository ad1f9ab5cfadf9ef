"""The alerts and the dashboard of the chart: they ask for metrics that exist, and each alert has its runbook."""

import json
import re
from pathlib import Path

import pytest

from callmood.worker import metrics

ROOT = Path(__file__).parents[2]
KNOWN = {
    name: kind
    for value in vars(metrics).values()
    if hasattr(value, "_name")
    for name, kind in [(value._name, value._type)]
}
ASKED = re.compile(r"\bcallmood_[a-z_]+")


def exists(name):
    """Whether Prometheus would hold a metric of this name from the worker's."""
    if name.endswith("_total"):
        return KNOWN.get(name.removesuffix("_total")) == "counter"
    if name.endswith("_bucket"):
        return KNOWN.get(name.removesuffix("_bucket")) == "histogram"
    return KNOWN.get(name) == "gauge"


@pytest.fixture(scope="module")
def rules(render):
    """All alerts."""
    (rule,) = [one for one in render("gpu-keda-values.yaml") if one["kind"] == "PrometheusRule"]
    return [one for group in rule["spec"]["groups"] for one in group["rules"]]


def test_alerts_ask_for_metrics_that_exist(rules):
    """Every metric of every expression is one of the worker's, under the name and kind that Prometheus has of it."""
    assert len(rules) >= 14
    for rule in rules:
        asked = set(ASKED.findall(rule["expr"]))
        assert asked or rule["expr"].startswith("count(up"), rule["alert"]
        assert all(map(exists, asked)), (rule["alert"], asked)
        assert 'namespace="calls"' in rule["expr"]


def test_the_dashboard_asks_for_metrics_that_exist():
    """So does every panel; and no metric of the worker is shown nowhere but bytes and paddings' kin."""
    dashboard = json.loads((ROOT / "helm/callmood/files/dashboard.json").read_text())
    asked = {
        name for panel in dashboard["panels"] for target in panel["targets"] for name in ASKED.findall(target["expr"])
    }
    assert all(map(exists, asked)), asked
    shown = {re.sub("_(total|bucket)$", "", name) for name in asked}
    assert set(KNOWN) - shown <= {"callmood_record_bytes"}


def test_every_alert_has_a_runbook(rules):
    """The link of each alert ends in the heading of its section, which says what to check and what to do."""
    text = (ROOT / "docs" / "operations.md").read_text()
    for rule in rules:
        anchor = rule["annotations"]["runbook_url"].partition("#")[2]
        assert anchor == rule["alert"].lower()
        section = re.search(rf"^### {rule['alert']}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
        assert section, rule["alert"]
        assert "**Check.**" in section[1], rule["alert"]
        assert "**Act.**" in section[1], rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_every_metric_says_what_it_is():
    """Each metric has a name of ours, a sentence, and labels that cannot grow without end."""
    for value in vars(metrics).values():
        if hasattr(value, "_name"):
            assert value._name.startswith("callmood_")
            assert value._documentation.endswith(".")
            assert set(value._labelnames) <= {"topic", "reason", "role", "label", "rule", "looks_like"}


def test_the_dashboard_of_history_is_there_on_request(render):
    """It needs another data source, so that only `dashboards.history` adds it to the one of metrics."""

    def dashboards(**more):
        objects = render({"dashboards.enabled": True, **more})
        return [set(one["data"]) for one in objects if one["metadata"]["name"].endswith("-dashboard")]

    assert dashboards() == [{"callmood.json"}]
    assert dashboards(**{"dashboards.history": True}) == [{"callmood.json", "callmood-history.json"}]
