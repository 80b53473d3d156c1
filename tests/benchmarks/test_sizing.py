"""The tables of docs/sizing.md are what the script prints, and its figures are those of the kept results."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sizing import Site, needs, report
from benchmarks.sizing_inputs import MEASURED, RESULTS, original_bytes
from index.columns import COLUMN_NAMES, empty

PAGE = Path(__file__).parents[2] / "docs" / "sizing.md"
SHOWN = re.compile(
    r"^    \.venv/bin/python -m benchmarks\.sizing(?P<words>.*)\n\n(?P<table>(?:\|.*\n)+)", re.MULTILINE
)


def test_every_table_of_the_page_is_what_its_command_prints() -> None:
    shown = list(SHOWN.finditer(PAGE.read_text(encoding="utf-8")))
    assert len(shown) >= 2
    for each in shown:
        assert each["table"] == report(shlex.split(each["words"])) + "\n", each["words"]


def test_every_figure_is_in_its_file_and_above_nothing() -> None:
    for one in MEASURED:
        assert one.value > 0, one.what
        assert (RESULTS / f"{one.benchmark}.json").is_file()


def test_originals_are_as_large_as_the_columns_of_a_row() -> None:
    rows = empty(128, 1000)
    assert sum(getattr(rows, name).nbytes for name in COLUMN_NAMES) == 1000 * original_bytes()


@given(st.floats(1e3, 1e9), st.floats(1.0, 10.0), st.integers(1, 3))
def test_more_templates_never_need_less(templates: float, factor: float, replicas: int) -> None:
    small = needs(Site(templates=templates, replicas=replicas))
    large = needs(Site(templates=templates * factor, replicas=replicas))
    for name in ("index_bytes", "original_bytes", "shards", "scan_cores", "postgres_bytes", "milvus_memory"):
        assert getattr(large, name) >= getattr(small, name), name
    assert small.shards >= replicas


@pytest.mark.parametrize("words", [["--templates", "0"], ["--busy", "2"], ["--replicas", "0"]])
def test_nonsense_is_refused_with_a_usage_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report(words)
    assert "every number is above 0" in capsys.readouterr().err
