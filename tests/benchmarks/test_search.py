"""The search benchmark, tiny: every figure is there, no answer differs, and a wrong answer is seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import main
from benchmarks.search_cases import History
from benchmarks.search_differences import expected
from benchmarks.search_rows import ONE_PERCENT, gallery, probes, real_like
from benchmarks.search_timing import alternate
from homeward.types import Query
from index import reference
from index.merge import Partial
from index.placement import slots_of
from index.shard import Shard


def test_a_tiny_run_gives_every_figure_and_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "search.json"
    few = ["--rows", "2000", "--cases", "40", "--backend", "selected", "--seconds", "0.1"]
    assert main(["--json", str(out), "--folder", str(tmp_path), *few]) == 0
    figures = json.loads(out.read_text())
    assert figures["differences"] == 0
    assert figures["cases"] >= 40
    assert figures["real_templates"] == 0
    assert figures["compared"] > 100
    for part in (figures, figures["random"]):
        assert set(part["one"]["latency_ms"]) >= {"ours", "flat"}
        assert min(part["one"][key] for key in ("speedup_flat", "speedup_flat_best", "bandwidth_ratio")) > 0
        assert part["b64"]["speedup_flat"] > 0
        assert part["sampled"]["recall"] == 1.0
    assert set(figures["batches"]) == {"1", "8", "64", "256"}
    assert set(figures["batches"]["64"]["probes_per_s"]) == {"ours", "flat"}
    assert figures["filter_1pct_ratio"] > 0
    assert figures["hot_bytes_per_row"] > 0
    assert [point["rows"] for point in figures["sweeps"]["rows"]] == [20, 200, 2000]
    assert [point["dimension"] for point in figures["sweeps"]["dimensions"]] == [128, 512]
    assert [point["k"] for point in figures["sweeps"]["k"]] == [10, 20, 100, 1000]
    assert figures["versions"]["faiss-cpu"]
    assert figures["machine"]["cores"] >= 1
    assert "0 of" in capsys.readouterr().out

    plot = out.with_suffix(".png")
    assert plot.read_bytes().startswith(b"\x89PNG")
    plot.unlink()
    assert main(["--json", str(out), "--draw"]) == 0
    assert plot.is_file()


def test_an_index_that_loses_a_candidate_is_noticed_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Shard.parts

    def short(self: Shard, *arguments: object) -> tuple[list[Partial], int]:
        parts, rev = whole(self, *arguments)  # type: ignore[arg-type]
        return [replace(part, plausible=part.plausible[1:]) for part in parts], rev

    monkeypatch.setattr(Shard, "parts", short)
    outcomes = [History(seed).run() for seed in range(1, 12)]
    wrong = [one for outcome in outcomes for one in outcome.differences]
    assert len(wrong) > 3
    assert any("smallest: a new shard of 1 rows" in str(one) for one in wrong)
    assert all(f"seed {one.seed}" in str(one) for one in wrong)


def test_the_short_cut_to_the_reference_is_the_reference() -> None:
    templates = real_like(3_000, 1)
    templates[100:200] = templates[:100]
    columns = gallery(templates, 1)
    for probe in probes(templates, real_like, 6, 2):
        for query in (
            Query(probe[np.newaxis], 20),
            Query(probe[np.newaxis], 5_000),
            Query(probe[np.newaxis], 5, filter=ONE_PERCENT),
        ):
            assert expected(query, columns) == replace(reference.search(query, columns), method="exact")


def test_a_gallery_has_records_that_lie_together_in_many_slots() -> None:
    columns = gallery(real_like(5_000, 3), 3)
    changes = int((columns.record[1:] != columns.record[:-1]).any(axis=1).sum())
    assert changes + 1 == len(np.unique(columns.record, axis=0))
    assert len(np.unique(slots_of(columns.record))) > 1_000
    assert 0.005 < float((columns.agency == 7).mean()) < 0.02


def test_sides_take_turns() -> None:
    called: list[tuple[str, int]] = []
    sides = {name: lambda number, name=name: called.append((name, number)) for name in "ab"}
    times = alternate(sides, calls=2, least=3, most=3)
    assert [name for name, _ in called[2:]] == ["a", "a", "b", "b", "b", "b", "a", "a", "a", "a", "b", "b"]
    assert [number for name, number in called[2:] if name == "a"] == list(range(6))
    assert times["a"].rounds == 3
