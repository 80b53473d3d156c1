"""The GPU benchmark where there is none: it says so, and on request shows on the CPU that it runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import NO_GPU, main
from benchmarks.gpu_rows import draw_gallery
from benchmarks.gpu_scan import contestants
from index.score import score


def test_a_tiny_run_gives_every_figure_and_no_difference(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert main(["--json", str(out), "--device", "cpu", "--rows", "3000"]) == 0
    figures = json.loads(out.read_text())
    (size,) = figures["sizes"].values()
    assert size["bandwidth"]["read_gb_per_s"] > 0
    for contestant in ("int8", "float16", "peer"):
        assert size[contestant]["memory_bytes"] > 0
        for cell in size[contestant]["batches"].values():
            assert min(cell["p50_ms"], cell["probes_per_s"], cell["share_of_read_bandwidth"]) > 0
    for contestant in ("int8", "float16"):
        assert size["differences"][contestant]["8"]["lists_that_differ"] == 0
        assert size["differences"][contestant]["8"]["largest_score_difference"] == 0.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert main(["--json", str(out)]) == NO_GPU
    assert "sees no CUDA device" in capsys.readouterr().err
    assert main(["--json", str(out), "--device", "cpu"]) == NO_GPU
    assert "--rows" in capsys.readouterr().err
    assert not out.exists()


def test_the_truth_of_a_prefix_is_the_score_functions_own() -> None:
    gallery = draw_gallery((640, 1280), 128, 16, 4, torch.device("cpu"))
    rows = gallery.originals.numpy()
    for size in (640, 1280):
        found, scores = gallery.truth[size]
        for probe in range(4):
            true = score(rows[:size], gallery.probes[probe])
            order = np.argsort(-true, kind="stable")[:10]
            assert found[probe].tolist() == order.tolist()
            assert scores[probe].tolist() == true[order].tolist()


def test_the_bounds_of_both_codes_hold_the_true_scores() -> None:
    """Every row kept has its score between its bounds, and every row of the true list is kept."""
    gallery = draw_gallery((6400,), 128, 32, 32, torch.device("cpu"))
    rows = gallery.originals.numpy()
    makers = contestants(gallery, kernels=False, memory=1 << 20)
    for name in ("int8", "float16"):
        kept = makers[name]().scan(gallery.probes)
        assert kept is not None
        numbers, probes = kept.rows.numpy(), kept.queries.numpy()
        true = score(rows[numbers], gallery.probes[probes])
        assert (kept.lower.numpy() <= true).all()
        assert (true <= kept.upper.numpy()).all()
        held = set(zip(probes.tolist(), numbers.tolist(), strict=True))
        best, _ = gallery.truth[6400]
        assert {(probe, row) for probe in range(32) for row in best[probe].tolist()} <= held
