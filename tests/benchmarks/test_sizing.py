"""The tables of docs/sizing.md are what the script prints, and its figures are those of the kept results."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sizing import Site, needs, report, rewritten
from benchmarks.sizing_inputs import (
    LOAD_PEAK,
    MEASURED,
    MILVUS_MEMORY,
    POSTGRES_ROW,
    RESULTS,
    SCAN_MANY,
    SCAN_ONE,
    SERVER,
    SHARD_ROW,
    SNAPSHOT_START,
    original_bytes,
)
from index.columns import COLUMN_NAMES, empty

PAGE = Path(__file__).parents[2] / "docs" / "sizing.md"


def test_every_table_of_the_page_is_what_its_command_prints() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("| --- |") >= 3
    assert page == rewritten(page), "run python -m benchmarks.sizing --rewrite docs/sizing.md"
    assert rewritten(page.replace(" TB |", " kB |")) == page


def test_the_arithmetic_of_the_page_has_the_measured_figures() -> None:
    page = PAGE.read_text(encoding="utf-8")
    steps = page[page.index("So, for a billion") :]
    for one, shown in (
        (SHARD_ROW, "{:.1f} bytes"),
        (SCAN_ONE, "{:.1f} core ms"),
        (SCAN_MANY, "{:.2f} core ms"),
        (POSTGRES_ROW, "{:,.0f} bytes"),
        (SNAPSHOT_START, "{:.2f} s a million"),
        (LOAD_PEAK, "{:.1f} GB with two loaders"),
        (SERVER, "{:.1f} GB before"),
        (MILVUS_MEMORY, "{:,.0f} bytes a row"),
    ):
        assert shown.format(one.value) in steps, one.what


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


@pytest.mark.parametrize(
    "words",
    [
        ["--templates", "0"],
        ["--templates", "inf"],
        ["--searches", "nan"],
        ["--busy", "2"],
        ["--replicas", "0"],
    ],
)
def test_nonsense_is_refused_with_a_usage_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report(words)
    assert "every number is above 0" in capsys.readouterr().err
