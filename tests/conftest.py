"""Fixtures that tests of several packages share: real servers, each started once and only if asked for."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from xdist.remote import Producer

from tests.scheduling import Scheduling, longest_first
from tests.servers.milvus import Milvus, milvus
from tests.servers.postgres import Postgres, postgres
from tests.servers.seaweed import Seaweed, seaweed


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--prove=kills`, which `make prove kills` gives: `-k` would take the names of folders, too."""
    parser.addoption("--prove", metavar="WORD", help="only long runs with this word in their name or file's")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Instead of `--dist loadfile`."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `--prove` does not name; what takes long begins first."""
    word = config.getoption("--prove")
    if word is not None:
        wanted = [
            item
            for item in items
            if item.get_closest_marker("prove") and word in f"{item.path.stem} {item.name}"
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = wanted
    longest_first(items)


def pytest_collection_finish() -> None:
    """What was imported for the tests stays: collections pass over its million objects from here on."""
    gc.collect()
    gc.freeze()


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
