"""The pages for operators name settings, values, reason codes and files that there are."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from homeward.config import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / name for name in ("sizing.md", "security.md", "air-gapped.md")]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@cache
def settings() -> frozenset[str]:
    """section.name of every setting."""
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    return frozenset(
        f"{section}.{name}"
        for section, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name in kind.model_fields
    )


def is_value(dotted: str) -> bool:
    """Whether the chart has the value."""
    place: Any = yaml.safe_load((ROOT / "helm" / "homeward" / "values.yaml").read_text(encoding="utf-8"))
    for part in dotted.split("."):
        if not isinstance(place, dict) or part not in place:
            return False
        place = place[part]
    return True


@cache
def code() -> str:
    """All of Homeward's own source."""
    folders = ("homeward", "catalogue", "photos", "workers", "index", "cluster")
    return "\n".join(
        path.read_text(encoding="utf-8") for one in folders for path in (ROOT / one).rglob("*.py")
    )


@pages
def test_settings_and_values_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sections = {name.split(".")[0] for name in settings()} | {"networkPolicy", "monitoring", "ray", "image"}
    for name in set(re.findall(r"`([a-z]+[A-Za-z]*(?:\.[A-Za-z_]+)+)(?:[:=][^`]*)?`", text)):
        if name.split(".")[0] in sections and not name.endswith((".toml", ".md", ".py")):
            assert name in settings() or is_value(name), name
    for section, name in set(re.findall(r"HOMEWARD_([A-Z0-9]+)__([A-Z0-9_]+)", text)):
        assert f"{section}.{name}".lower() in settings(), name


@pages
def test_reason_codes_and_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"`([A-Z]{3,}_[A-Z_]+)`", text)):
        assert f'"{name}"' in code(), name
    for name in set(
        re.findall(r"`((?:helm|docker|docs|tests|workers|homeward|requirements)/[\w./-]+\w)`", text)
    ):
        assert (ROOT / name).exists(), name
    for target in set(re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)):
        assert (page.parent / target).exists(), target
