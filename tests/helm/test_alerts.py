"""The alert rules do what their unit tests say, and each tells where the run-book says what to do."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.get_promtool import PACKAGE, program
from tests.helm.chart import NAMESPACE
from tests.helm.sites import site
from tests.promql import CHART, queries, rules, selectors

CASES = Path(__file__).with_name("alerts")
RUN_BOOK = CHART.parents[1] / "docs" / "operations.md"
PROMTOOL = program("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason=f"no promtool: make setup fetches it out of Debian's package {PACKAGE}"
)


def promtool(*words: str) -> str:
    """What it says; fails with that when it is not content."""
    done = subprocess.run(
        [str(PROMTOOL), *words], capture_output=True, text=True, check=False, timeout=60, cwd=CASES
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", *(str(file) for file in sorted((CHART / "rules").glob("*.yaml"))))


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", *(file.name for file in sorted(CASES.glob("*.yaml"))))


@needs_promtool
def test_servers_of_another_release_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    groups = site("national, watched").one("PrometheusRule", "-server")["spec"]
    [rule] = [one for one in groups["groups"][0]["rules"] if one["alert"] == "HomewardNoServerReady"]
    assert rule["expr"] == f'absent(homeward_ready{{namespace="{NAMESPACE}", process="server"}} == 1)'
    fires = {"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]}
    tests = [
        {
            "interval": "1m",
            "input_series": [
                {"series": f'homeward_ready{{namespace="{where}", process="server"}}', "values": "1x10"}
            ],
            "alert_rule_test": [
                {"eval_time": "5m", "alertname": "HomewardNoServerReady", "exp_alerts": expected}
            ],
        }
        for where, expected in ((NAMESPACE, []), ("another", [fires]))
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups))
    cases = tmp_path / "cases.yaml"
    cases.write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )
    promtool("test", "rules", str(cases))


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: set[str] = set()
    rests: set[str] = set()
    for file in CASES.glob("*.yaml"):
        for case in yaml.safe_load(file.read_text())["tests"]:
            for asked in case["alert_rule_test"]:
                (fires if asked["exp_alerts"] else rests).add(asked["alertname"])
    every = {rule.name for rule in rules()}
    assert fires == every
    assert rests == every


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_every_alert_says_what_is_wrong_and_where_the_run_book_says_what_to_do(rule: object) -> None:
    (found,) = [one for one in rules() if one == rule]
    assert found.labels["severity"] in {"critical", "warning"}
    assert found.annotations["summary"].endswith(".")
    page, _, heading = found.annotations["runbook_url"].partition("#")
    assert (CHART.parents[1] / page) == RUN_BOOK
    headings = re.findall(r"^#+ (.+)$", RUN_BOOK.read_text(), re.MULTILINE)
    assert heading == found.name.lower()
    assert found.name in headings


def test_names_of_alerts_and_files_are_told_apart() -> None:
    names = [rule.name for rule in rules()]
    assert len(names) == len(set(names))
    dashboards = [json.loads(file.read_text()) for file in (CHART / "dashboards").glob("*.json")]
    assert len({one["uid"] for one in dashboards}) == len(dashboards)
    for one in dashboards:
        ids = [panel["id"] for panel in one["panels"]]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("place", queries())
def test_every_query_can_be_parsed_and_asks_for_something(place: str) -> None:
    assert selectors(queries()[place])
