"""What a load can be asked for, and that it is kept as it was asked for."""

from __future__ import annotations

import os

import pytest

from cluster.load.spec import LoadSpec, read_spec, write_spec
from homeward.errors import InvalidInput


@pytest.mark.parametrize("field", ["source", "manifest"])
def test_a_path_that_is_not_utf_8_is_refused_with_its_bytes_spelt_out(field: str) -> None:
    odd = os.fsdecode(b"/archive\xff\x1b")
    with pytest.raises(InvalidInput) as refused:
        LoadSpec(
            "agency", "missing", (odd,) if field == "source" else ("/a",), odd if field == "manifest" else ""
        )
    assert (refused.value.code, refused.value.details["field"]) == ("PATH_NOT_UTF8", field)
    assert "/archive\\xff\\x1b" in refused.value.message
    spec = LoadSpec("agency", "missing", ("/größe",), "/m")
    assert read_spec(write_spec(spec)) == spec
