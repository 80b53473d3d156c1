"""Which worker runs which tests, and in what order: so that two workers end together.

A file's tests stay on one worker, as they share what their file starts; and so do the files that share the
Milvus server, which takes ten seconds to start. What takes long begins first: begun last it would keep one
worker busy while the other has nothing left. A file that is missing here, or is short by now, costs seconds.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

MILVUS = (
    "tests/cluster/test_ray_shards.py",
    "tests/index/test_gallery.py",
    "tests/index/test_gallery_server.py",
    "tests/cluster/backup/test_stores.py",
    "tests/benchmarks/test_filled.py",
)
LONG = (
    "tests/cluster/test_cli.py",
    "tests/benchmarks/test_search.py",
    "tests/workers/test_actor.py",
    "tests/workers/test_sandbox.py",
    "tests/workers/test_device_photo.py",
    "tests/index/test_torch_scan.py",
    "tests/cluster/test_shards.py",
    "tests/cluster/test_search.py",
    "tests/index/test_kernel.py",
)
_RANKS = {file: rank for rank, file in enumerate((*MILVUS, *LONG))}


def file_of(nodeid: str) -> str:
    """The path of a test's file, from the repository's root."""
    return nodeid.partition("::")[0]


def longest_first(items: list[pytest.Item]) -> None:
    """Order tests in place by the files above; all others follow as they were."""
    items.sort(key=lambda item: _RANKS.get(file_of(item.nodeid), len(_RANKS)))


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """`--dist loadfile` in the order of the tests, with the files that use Milvus as one."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False  # by how many tests a file has
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return "milvus" if file in MILVUS else file
