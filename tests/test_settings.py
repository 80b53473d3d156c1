"""Settings that no type alone can check, and what "0: as many as there are" comes to."""

from __future__ import annotations

import subprocess
import sys

import pytest

from homeward.config import Settings
from homeward.errors import InvalidInput


@pytest.mark.parametrize("ports", ["", "20000-20099", "1024-65535", "20000-20000"])
def test_a_range_of_ports_is_taken(ports: str) -> None:
    assert Settings.load(index={"ports": ports}).index.ports == ports


@pytest.mark.parametrize("ports", ["20000", "20099-20000", "80-90", "20000-70000", "1-2-3", "a-b", " "])
def test_what_is_no_range_of_ports_is_refused_by_name(ports: str) -> None:
    for section in ("index", "workers"):
        with pytest.raises(InvalidInput, match=f"{section}.ports") as refused:
            Settings.load(None, **{section: {"ports": ports}})
        assert refused.value.code == "CONFIG_INVALID"


def test_cores_are_those_that_the_process_may_use() -> None:
    program = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]); "
        "from homeward.cores import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
