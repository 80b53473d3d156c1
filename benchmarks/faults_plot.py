"""Latencies over time with the kills, as a PNG file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.faults_truth import EXACT
from index.placement import SLOTS

if TYPE_CHECKING:
    from benchmarks.faults_runs import Run

_SLOW_MS = 1e3


def draw_faults(runs: Mapping[str, Run], path: Path) -> None:
    """A column for each run. Above each search, by when it was due; below shards, and replicas that lack."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    widths = [run.answers[-1].due - run.answers[0].due for run in runs.values()]
    axes = figure.subplots(
        2, len(runs), sharex="col", sharey="row", squeeze=False, height_ratios=[3, 1], width_ratios=widths
    )
    for column, run in enumerate(runs.values()):
        above, below = axes[:, column]
        begun = run.answers[0].due
        _searches(above, run, begun)
        times = [look.at - begun for look in run.looks]
        below.plot(times, [look.shards for look in run.looks], "C2", label="shards that live")
        lacking = [look.missing / SLOTS for look in run.looks]
        below.fill_between(times, lacking, color="C3", alpha=0.4, label="replicas that lack, of 2")
        below.set(xlabel="seconds", ylim=(0, None))
        for at, text in run.marks:
            for each in (above, below):
                each.axvline(at - begun, color="k", linewidth=1)
            above.annotate(
                text, (at - begun, 1), xycoords=("data", "axes fraction"),
                xytext=(3, -3), textcoords="offset points", va="top", fontsize=8,
            )  # fmt: skip
    axes[0, 0].set(ylabel="ms")
    axes[0, -1].legend(loc="center right")
    axes[1, -1].legend(loc="center right")
    figure.suptitle("Searches while a shard, a node and the node with Ray's head are killed")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _searches(axes: Axes, run: Run, begun: float) -> None:
    by_method: dict[str, tuple[list[float], list[float]]] = {}
    for answer in run.answers:
        label = "failed"
        if answer.response is not None:
            is_exact = answer.response.account.method == EXACT
            label = "by the shards" if is_exact else "by Milvus, wholly or partly"
        times, spent = by_method.setdefault(label, ([], []))
        times.append(answer.due - begun)
        spent.append(answer.seconds * 1e3)
    styles = {"by the shards": "C0.", "by Milvus, wholly or partly": "C1.", "failed": "rx"}
    for label, style in styles.items():
        times, spent = by_method.get(label, ([], []))
        axes.plot(times, spent, style, markersize=3, label=label)
    axes.axhline(_SLOW_MS, color="grey", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
