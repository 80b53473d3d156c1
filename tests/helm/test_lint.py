"""helm's own lint, hadolint, and what the chart must say the same as the rest of the project."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from scripts.generate_values_schema import SCHEMA, schema_text
from tests.helm.chart import CHART, NAMESPACE, RELEASE, run
from tests.helm.sites import SITES, site

ROOT = CHART.parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", ["defaults", "evaluation", "one GPU server", "national"])
def test_lint_says_no_warning(name: str, tmp_path: Path) -> None:
    files, values = SITES[name]
    site_file = tmp_path / "site.yaml"
    site_file.write_text(json.dumps(values))
    words = [word for file in files for word in ("-f", str(CHART / f"values-{file}.yaml"))]
    done = run("lint", "--strict", str(CHART), *words, "-f", str(site_file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("name", ["defaults", "national", "everything else"])
def test_notes_tell_the_next_step_by_the_names_of_this_release(name: str, tmp_path: Path) -> None:
    files, values = SITES[name]
    site_file = tmp_path / "site.yaml"
    site_file.write_text(json.dumps(values))
    words = [word for file in files for word in ("-f", str(CHART / f"values-{file}.yaml"))]
    done = run(
        "install", RELEASE, str(CHART), "-n", NAMESPACE, "--dry-run=client", *words, "-f", str(site_file)
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    made = {one["metadata"]["name"] for one in site(name).documents}
    assert set(re.findall(r"deployment/([a-z-]+)|raycluster ([a-z-]+)", notes)) <= {
        pair for one in made for pair in ((one, ""), ("", one))
    }
    assert f"kubectl -n {NAMESPACE} rollout status deployment/" in notes
    assert ("helm -n agency test" in notes) == site(name).has("Pod")
    assert ("log of searches ends with each pod" in notes) == (name == "everything else")


def test_every_values_file_is_part_of_the_matrix() -> None:
    shipped = {file.stem.removeprefix("values-") for file in CHART.glob("values-*.yaml")}
    assert shipped == {name for files, _ in SITES.values() for name in files}
    for file in CHART.glob("values*.yaml"):
        assert yaml.safe_load(file.read_text())


def test_the_schema_of_settings_is_what_the_settings_say() -> None:
    assert SCHEMA.read_text() == schema_text(SCHEMA.read_text()), "make values-schema"


def test_the_chart_installs_the_projects_version_and_its_ray() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == PROJECT["project"]["version"]
    ray = next(one for one in PROJECT["project"]["dependencies"] if one.startswith("ray["))
    assert site("national").one("RayCluster")["spec"]["rayVersion"] == ray.partition("==")[2]


def test_the_images_pass_hadolint() -> None:
    linter = Path(sys.prefix) / "bin" / "hadolint"
    done = subprocess.run(
        [str(linter), "--no-color", str(ROOT / "docker" / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_images_run_as_the_user_that_the_chart_names_and_hold_the_pinned_uv() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    last_user = [line for line in text.splitlines() if line.startswith("USER ")][-1]
    pod = site("defaults").one("Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert last_user == f"USER {pod['runAsUser']}:{pod['runAsGroup']}"
    pinned = next(
        line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("UV_VERSION")
    )
    assert f"uv=={pinned.split()[-1]}" in text
    assert "latest" not in text
