"""The page for operators: what it tells them to set is what the chart takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.helm.chart import CHART, merged, render

PAGE = (CHART.parents[1] / "docs" / "kubernetes.md").read_text()
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def blocks() -> list[dict[str, Any]]:
    """The values that the page shows, in its order: site, national, loads."""
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def test_the_values_of_the_page_install_both_sizes() -> None:
    site, national, loads = blocks()
    image = {"image": {"repository": "example/homeward"}}
    assert render("one-gpu-server", values=merged(site, image)).has("RayCluster")
    volume = {"ray": {"sources": {"existingClaim": "archives"}}}
    found = render("national", values=merged(site, national, loads, volume, image))
    assert len(found.kind("RayJob")) == 2
    assert found.one("ConfigMap", "-clients")


def test_every_value_that_the_page_names_is_there() -> None:
    for name in set(re.findall(r"`((?:[a-z]+[A-Za-z]*\.)+[A-Za-z]+)(?::[^`]*|=[^`]*)?`", PAGE)):
        if name.split(".")[0] not in VALUES:
            continue
        place: Any = VALUES
        for part in name.split("."):
            assert part in place, f"no value {name}"
            place = place[part]


def test_the_page_names_the_files_that_are_there() -> None:
    for name in set(re.findall(r"(?:helm|docker)/[\w./-]+\w", PAGE)):
        assert (Path(CHART.parents[1]) / name).exists(), name
