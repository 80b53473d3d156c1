"""What every benchmark reports: on which machine, and its figures as one JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from homeward.errors import NotFound

_PACKAGES = ("homeward", "torch", "numpy", "pymilvus", "dlib-bin")


def machine() -> dict[str, object]:
    """What the figures were measured on; load average first, because a busy machine measures badly."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg()[0],
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def write_json(path: Path, figures: Mapping[str, object]) -> None:
    """Write `figures` as indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def shared_photos() -> Path:
    """The folder of test photos beside the repository, or in `HOMEWARD_SHARED`; raises `NotFound`."""
    folder = Path(os.environ.get("HOMEWARD_SHARED") or Path(__file__).parents[2] / "shared") / "photos"
    if not folder.is_dir():
        raise NotFound(f"no test photos at {folder}; set HOMEWARD_SHARED to the folder that has photos/")
    return folder


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
