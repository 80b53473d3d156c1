"""What the benchmarks of whole servers found, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

_WHERE = {"local": "index in the server", "ray": "index on shards"}


def draw_serve(figures: Mapping[str, Any], path: Path) -> None:
    """From the figures of `benchmarks.serve`. Left: latency by clients; right: searches a second, Milvus's
    too. Both logarithmic."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    series = {f"by template, {_WHERE[name]}": each for name, each in figures["template"].items()}
    series["by photo"] = figures["photo"]["by_clients"]
    for name, each in series.items():
        clients = [int(one) for one in each]
        (line,) = left.plot(clients, [one["p50_ms"] for one in each.values()], "o-", label=f"{name}, p50")
        left.plot(clients, [one["p99_ms"] for one in each.values()], ":", color=line.get_color(), label="p99")
        right.plot(clients, [one["per_s"] for one in each.values()], "o-", color=line.get_color(), label=name)
    for name, each in figures["milvus_flat"].items():
        right.plot([32], [each["per_s"]], "s", label=f"Milvus FLAT by template, {name}")
    for each in figures.get("hnsw", {}).get("sizes", [])[-1:]:
        points = each["by_clients"]
        rates = [one["per_s"] for one in points.values()]
        label = f"Milvus HNSW by template, recall {each['recall']:.3f}"
        right.plot([int(one) for one in points], rates, "^:", label=label)
    right.axhline(
        figures["photo"]["embedder_photos_per_s"],
        color="gray",
        linestyle="--",
        label="embedder alone, photos",
    )
    left.set(ylabel="ms", title=f"one scan in the process: {figures['scan_ms']['local']:.1f} ms")
    right.set(ylabel="searches per second", title="all clients together")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="clients")
        axes.set_xticks(clients, [str(one) for one in clients], minor=False)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    figure.suptitle(f"Searches over gRPC, {figures['rows']:,} rows, k = {figures['k']}; {_machine(figures)}")
    _save(figure, path)


def draw_fresh(figures: Mapping[str, Any], path: Path) -> None:
    """From the figures of `benchmarks.fresh`: how many enrolments another server showed, by time."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in ("shown_s", "asked_s"):
        seconds = np.sort(figures["times"][name])
        shares = np.arange(1, len(seconds) + 1) / max(1, len(seconds))
        label = {"shown_s": "until the answer that shows it", "asked_s": "until the search that shows it"}[
            name
        ]
        axes.step(seconds * 1e3, shares, where="post", label=label)
    axes.axvline(1000, color="gray", linestyle="--", label="promised at the latest")
    axes.set(
        xlabel="ms after the enrolment's reply, at another server",
        ylabel="share of the enrolments",
        xscale="log",
        title=f"{figures['pairs']} enrolments beside {figures['searching_clients']} searching clients, "
        f"{figures['missed']} missed",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right")
    figure.suptitle(f"{_WHERE['ray' if figures['where'] == 'shards' else 'local']}; {_machine(figures)}")
    _save(figure, path)


def draw_restart(figures: Mapping[str, Any], path: Path) -> None:
    """From the figures of `benchmarks.restart`: what each start spent its time on."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    starts = {name: each for name, each in figures["starts"].items() if each is not None}
    names = list(starts)
    left = np.zeros(len(names))
    for stage in ("listening_s", "loading_s", "first_answer_s"):
        widths = np.array([starts[name]["stages"][stage] for name in names])
        axes.barh(names, widths, left=left, label=stage.removesuffix("_s").replace("_", " "))
        left += widths
    axes.set(xlabel="seconds from exec", title=f"{figures['rows']:,} rows, to the first certified answer")
    axes.grid(alpha=0.3, axis="x")
    axes.legend()
    figure.suptitle(_machine(figures))
    _save(figure, path)


def draw_scale(figures: Mapping[str, Any], path: Path) -> None:
    """From the figures of `benchmarks.scale`: what cutting an index over shards costs on one machine."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for number, (rows, found) in enumerate(figures["rows"].items()):
        counts = [int(count) for count in found["shards"]]
        for name, style in (("shards", "-o"), ("in_process", "--")):
            label = f"{int(rows):,} rows, " + ("on shards" if name == "shards" else "in one process")
            for axis, key in zip(axes, ("one_ms", "b64_probes_per_s"), strict=True):
                values = [each[key][name] for each in found["shards"].values()]
                axis.plot(counts, values, style, color=f"C{number}", label=label)
    axes[0].set(xlabel="shards", ylabel="ms", title="one probe, median")
    axes[1].set(xlabel="shards", ylabel="probes/s", title=f"{figures['batch']} probes at once")
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.set_xticks(counts)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(f"all shards on the same {_machine(figures)}")
    _save(figure, path)


def _machine(figures: Mapping[str, Any]) -> str:
    return f"{figures['machine']['cores']} cores, {figures['machine']['cpu']}"


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
