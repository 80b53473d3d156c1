"""Fixtures that tests of several packages share: real servers, each started once and only if asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.milvus import Milvus, milvus
from tests.servers.postgres import Postgres, postgres
from tests.servers.seaweed import Seaweed, seaweed


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--prove=kills`, which `make prove kills` gives: `-k` would take the names of folders, too."""
    parser.addoption("--prove", metavar="WORD", help="only long runs with this word in their name or file's")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `--prove` does not name."""
    word = config.getoption("--prove")
    if word is None:
        return
    wanted = [
        item for item in items if item.get_closest_marker("prove") and word in f"{item.path.stem} {item.name}"
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted


@pytest.fixture(scope="session")
def seaweed_server() -> Iterator[Seaweed]:
    """An S3 server with access keys."""
    with seaweed() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server with a password."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[Milvus]:
    """A Milvus server."""
    with milvus() as server:
        yield server
