"""What the chart's dashboards and alert rules ask Prometheus for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

CHART = Path(__file__).resolve().parents[1] / "helm" / "homeward"


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert."""

    name: str
    expression: str
    labels: dict[str, str]
    annotations: dict[str, str]
    file: Path


def rules() -> list[Rule]:
    """Every alert rule of the chart."""
    return [
        Rule(rule["alert"], rule["expr"], rule["labels"], rule["annotations"], file)
        for file in sorted((CHART / "rules").glob("*.yaml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


def queries() -> dict[str, str]:
    """Every expression by where it stands: of alerts and of dashboards' panels."""
    found = {f"alert {rule.name}": rule.expression for rule in rules()}
    for file in sorted((CHART / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                found[f"{file.name}: {panel['title']} {target['refId']}"] = target["expr"]
    return found


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric that is asked for, with the labels that its series must have."""

    metric: str
    labels: tuple[str, ...]


def selectors(expression: str) -> set[Selector]:
    """The metrics of an expression. Raises `ValueError` for one that is none."""
    found: set[Selector] = set()

    def visit(node: Any) -> None:
        selector = getattr(node, "vector_selector", node)
        if isinstance(selector, promql_parser.VectorSelector):
            labels = tuple(sorted(one.name for one in selector.matchers.matchers))
            found.add(Selector(str(selector.name), labels))

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found
