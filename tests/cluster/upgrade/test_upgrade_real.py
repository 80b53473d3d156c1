"""`make prove upgrade`: the real models there and back over real servers, under searches, killed twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.common import write_json
from benchmarks.upgrade import RECORDS, run
from benchmarks.upgrade_world import MEANWHILE
from tests.shared import SHARED, needs_shared

pytestmark = [needs_shared, pytest.mark.prove, pytest.mark.timeout(1800)]

GAIN = 0.03  # of rank 1: benchmarks.accuracy finds 0.063 on all of lfw_dev


async def test_an_upgrade_there_and_back_loses_nobody_and_fails_no_search(tmp_path: Path) -> None:
    assert SHARED is not None
    found = await run(SHARED / "photos" / "lfw_dev.tar", SHARED / "models" / "yunet-mobilefacenet", RECORDS)
    write_json(tmp_path / "upgrade.json", found)
    print(json.dumps({name: found[name] for name in ("rank1", "searches")}, indent=2))  # noqa: T201
    assert found["searches"]["failed"] == 0, found["searches"]["errors"]
    assert set(found["searches"]["models"]) == set(found["models"].values())
    there, back = found["to yunet-mobilefacenet"], found["to default"]
    assert there["killed"] == 2
    for turn, moved in enumerate((there, back), 1):
        assert moved["accounted_before_cut_over"]["unaccounted"] == 0
        assert moved["accounted_at_last"]["unaccounted"] == 0
        assert moved["accounted_at_last"]["records"] == RECORDS + turn * MEANWHILE
        assert moved["left_of_old"] == {"faces": 0, "collections": 0}
    before, after = (found["rank1"][name]["rank1"] for name in ("default", "yunet-mobilefacenet"))
    assert after >= before + GAIN
    assert abs(found["rank1"]["default again"]["rank1"] - before) <= 0.01
