"""CMC and DET curves, and times of searches, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.metrics import Trial, cmc, det

_RANKS = 20


def draw_cmc(trials: Mapping[str, Trial], path: Path, title: str) -> None:
    """Identification rate by rank, one line per model."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    ranks = np.arange(1, _RANKS + 1)
    for name, trial in trials.items():
        rates = cmc(trial, _RANKS)
        axes.plot(ranks, rates, marker="o", markersize=3.5, label=f"{name} (rank-1 {rates[0]:.3f})")
    axes.set(xlabel="rank", ylabel="probes with their mate at this rank or better", title=title)
    axes.set_xticks([1, *range(5, _RANKS + 1, 5)])
    axes.set_ylim(top=1.005)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    _save(figure, path)


def draw_det(trials: Mapping[str, Trial], path: Path, title: str) -> None:
    """Left: verification, FNMR by FMR. Right: search, FNIR by FPIR. Logarithmic, lower is better.

    No miss at all is drawn on the floor, at half of what one miss would be.
    """
    floor = min(0.5 / max(len(trial.mated_pairs), 1) for trial in trials.values())
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, trial in trials.items():
        pairs = det(trial.mated_pairs, trial.non_mated)
        left.plot(pairs[0], np.maximum(pairs[1], floor), clip_on=False, label=name)
        searches = det(trial.mated[trial.has_mate], trial.best_other)
        right.plot(searches[0], np.maximum(searches[1], floor), clip_on=False, label=name)
    left.set(xlabel="false match rate (FMR)", ylabel="missed (FNMR, FNIR), failures to enrol included")
    right.set(xlabel="false positive identification rate (FPIR)")
    left.set_title("one to one")
    right.set_title("one to many")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(floor, 1)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.suptitle(title)
    _save(figure, path)


def draw_search(figures: Mapping[str, Any], path: Path) -> None:
    """From the figures of `benchmarks.search`. Left: latency by rows beside the time to read them once.
    Right: probes per second by how many share a pass. Both logarithmic."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_rows = figures["sweeps"]["rows"]
    rows = [point["rows"] for point in by_rows]
    for key, name, style in (
        ("flat_ms", "faiss IndexFlatIP", "s-"),
        ("ours_ms", "Homeward, exact", "o-"),
        ("limit_ms", f"reading once at {figures['read_bandwidth_gb_s']:.0f} GB/s", "k--"),
    ):
        left.plot(rows, [point[key] for point in by_rows], style, label=name)
    left.set(xlabel="rows", ylabel="ms, median", title=f"one probe, k = {figures['k']}")
    batches = {int(batch): each["probes_per_s"] for batch, each in figures["batches"].items()}
    for key, name, style in (("flat", "faiss IndexFlatIP", "s-"), ("ours", "Homeward, exact", "o-")):
        right.plot(list(batches), [each[key] for each in batches.values()], style, label=name)
    for name, peer in figures.get("peers", {}).items():
        if peer["rows"] == figures["rows"]:
            speeds = {int(batch): each["probes_per_s"] for batch, each in peer["batches"].items()}
            label = f"{peer['name']}, recall {peer['recall']:.3f}"
            right.plot(list(speeds), list(speeds.values()), "^:", label=label, gid=name)
    right.set(xlabel="probes at once", ylabel="probes per second", title=f"{figures['rows']:,} rows")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    right.set_xticks(list(batches), [str(batch) for batch in batches], minor=False)
    right.set_xticks([], minor=True)
    threads = f"{figures['threads']} threads, {figures['machine']['cpu']}"
    figure.suptitle(f"Search of {figures['dimension']}-d templates, {threads}")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
