"""The dashboard: every query names a metric that there is, and Grafana knows every key."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from amiss_serving.metrics import Metrics

from .conftest import DEPLOY, Venv, run
from .queries import queries, series

DASHBOARD = DEPLOY / "grafana/dashboards/amiss.json"
QUERIES = queries(DASHBOARD)
GRAFANA = "grafana-foundation-sdk==1769699998!10.1.0"
SCRIPT = """
import json, sys
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
plugins.register_default_plugins()
dashboard = Dashboard.from_json(json.load(sys.stdin))
print(encoder.JSONEncoder().encode(dashboard))
"""
# Of the Prometheus data source, which the models of dashboards leave to it.
ITS_OWN = {"annotations.list.0.titleFormat", "annotations.list.0.textFormat"}


def existing() -> set[str]:
    """Every series of a service with one detector, and what the rules record of them."""
    metrics = Metrics(CollectorRegistry())
    metrics.announce("m", 1, alarm_rate=0.01, load_s=1)
    metrics.observe_request("m", "1", protocol="http", method="score", code="200", duration_s=1)
    for shadow in (metrics.shadow_rows, metrics.shadow_disagreements, metrics.shadow_errors):
        shadow.labels("m", "1")
    for shadow in (metrics.shadow_differences, metrics.shadow_duration):
        shadow.labels("m", "1")
    page = generate_latest(metrics.registry).decode()
    families = text_string_to_metric_families(page)
    scraped = {sample.name for family in families for sample in family.samples}
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    return scraped | recorded | {"up", "ALERTS"}  # the last two are Prometheus' own


EXISTING = existing()


def paths(value: Any, at: str = "") -> set[str]:
    """Where each leaf of a JSON document lies, and what it is."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {path for key, item in items for path in paths(item, f"{at}.{key}".strip("."))}
    return {at}


@pytest.mark.parametrize("place", QUERIES)
def test_a_query_names_metrics_that_there_are(place: str) -> None:
    """Each name is on the metrics page or recorded by our rules."""
    assert series(QUERIES[place])
    assert series(QUERIES[place]) <= EXISTING


def test_every_rule_names_metrics_that_there_are() -> None:
    """So do the recording rules and the alerts."""
    groups = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [r for r in rules if not series(r["expr"]) or series(r["expr"]) - EXISTING] == []


def test_an_unknown_name_is_noticed() -> None:
    """Labels, functions, numbers and units are no names; what is left is."""
    expression = (
        'histogram_quantile(0.99, sum by (le, model) (rate(amiss_made_up_bucket{code=~"a|b"}[5m])))'
        " / on (job) group_left (version) job:other:rate5m unless up > 2 and 1e9 < bool up"
    )
    assert series(expression) == {"amiss_made_up_bucket", "job:other:rate5m", "up"}


def test_grafana_knows_every_key(venv: Venv) -> None:
    """Grafana's own models of a dashboard give back all that went in."""
    python = venv("grafana", (GRAFANA,)) / "python"
    text = DASHBOARD.read_text()
    known = json.loads(run(python, "-c", SCRIPT, input=text))
    assert paths(json.loads(text)) - paths(known) == ITS_OWN


def test_panels_do_not_overlap() -> None:
    """Each cell of the 24 columns belongs to one panel at most, and ids are unique."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] for panel in panels if panel["type"] != "row")


def test_the_file_is_as_it_should_be_provisioned() -> None:
    """It has the uid of its links, and no id of some other Grafana's database."""
    board = json.loads(DASHBOARD.read_text())
    assert board["uid"] == Path(DASHBOARD).stem
    assert "id" not in board
