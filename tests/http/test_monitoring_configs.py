"""The dashboard and the alert rules speak of metrics and labels that /metrics has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from serac_gateway.config.model import AudienceSource, GatewayConfig, RoutingConfig
from serac_gateway.domain.edits import DecidedState
from serac_gateway.domain.feedback import FeedbackVerdict
from serac_gateway.observability.engine_gauges import EngineServerGauges
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, OTHER_QUESTION, chat, running_gateway
from tests.http.wire import fetch

CONFIGS = Path(__file__).parents[2] / "configs"
DASHBOARD = json.loads((CONFIGS / "grafana" / "serac.json").read_text("utf-8"))
RULES = yaml.safe_load((CONFIGS / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]

NAME = re.compile(r"\b(?:serac|process)_[a-z_]+")
SELECTED = re.compile(r'[{,](\w+)(?:=|!=|=~|!~)"')
GROUPED = re.compile(r"\bby \(([^)]*)\)")
OF_PROMETHEUS = {"instance", "le"}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (rule["expr"] for rule in RULES)
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


async def exposed() -> str:
    """/metrics of a gateway in which everything that is counted has happened."""
    region = AudienceSource(header="x-region")
    config = GatewayConfig(routing=RoutingConfig(speculate=True, audience_from={"region": region}))
    async with running_gateway(config=config) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER, state=DecidedState.SHADOW)
        await gateway.post(chat(EDITED_QUESTION))
        await gateway.post(chat(OTHER_QUESTION))
        gateway.instruments.add_store_error("control plane")
        gateway.instruments.add_feedback("default", FeedbackVerdict.RIGHT)
        gateway.encoder.failure = RuntimeError("broken")
        await gateway.post(chat(OTHER_QUESTION))
        text = (await fetch(gateway.url, "/metrics", method="GET")).body.decode()
    async with running_gateway(through_engine=True) as gateway:
        text += (await fetch(gateway.url, "/metrics", method="GET")).body.decode()
    registry = CollectorRegistry()
    registry.register(EngineServerGauges(lambda: 2))
    return text + generate_latest(registry).decode()


async def test_every_metric_and_label_that_they_name_is_exposed() -> None:
    text = await exposed()
    names = {
        name + suffix
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE)
        for suffix in SUFFIXES.get(kind, ("",))
    }
    labels = set(re.findall(r'[{,](\w+)="', text)) | OF_PROMETHEUS | {"kind"}
    assert len(names) > 30
    for expression in expressions():
        assert set(NAME.findall(expression)) <= names, expression
        named = {label.strip() for group in GROUPED.findall(expression) for label in group.split(",")}
        assert named | set(SELECTED.findall(expression)) <= labels, expression


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    on_dashboard = {name for expression in expressions() for name in NAME.findall(expression)}
    families = {re.sub(r"_(total|bucket)$", "", name) for name in on_dashboard}
    source = "".join(
        (Path(__file__).parents[2] / "serac_gateway" / "observability" / name).read_text("utf-8")
        for name in ("metrics.py", "gauges.py", "engine_gauges.py")
    )
    assert set(re.findall(r'"(serac_[a-z_]+)"', source)) - families == {"serac_build_info"}


def test_panels_have_ids_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}
    for opening, closing in ("()", "{}", "[]"):
        assert rule["expr"].count(opening) == rule["expr"].count(closing)


def test_the_alerts_cover_what_an_operator_must_know() -> None:
    assert {rule["alert"] for rule in RULES} >= {
        "SeracFalseFires",
        "SeracFailsOpen",
        "SeracIndexLags",
        "SeracStoreDown",
        "SeracAnswerQueueFull",
        "SeracUpstreamErrors",
        "SeracReloadRefused",
    }
