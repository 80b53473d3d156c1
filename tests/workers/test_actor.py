"""A real Ray: workers embed for a process that never joined it, and come back when killed."""

from __future__ import annotations

import io
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image
from skimage import data

from cluster.worker_placement import OpenedPlacements
from homeward.config import Settings
from homeward.errors import InvalidInput, WorkerUnavailable
from workers.actor import start_workers, stop_workers, worker_status
from workers.placement import PlacedWorker


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two cores, no dashboard, no statistics, its own token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_AUTH_MODE", raising=False)  # Ray then asks for a token by default
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            _start_ray()
        except Exception:  # noqa: BLE001 - Ray gives its raylet 30 s, which a busy machine may overrun
            _start_ray()
        yield
        ray.shutdown()


def _start_ray() -> None:
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 << 20,
    )


def _astronaut(folder: Path) -> Path:
    photo = folder / "astronaut.jpg"
    image = io.BytesIO()
    pixels = data.astronaut()  # type: ignore[no-untyped-call]
    Image.fromarray(pixels).save(image, "JPEG", quality=95)
    photo.write_bytes(image.getvalue())
    return photo


@pytest.mark.timeout(240)
def test_a_killed_worker_comes_back_for_a_process_that_never_joined_ray(
    cluster: None, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path)
    placements = OpenedPlacements.of(settings)
    addresses = start_workers(1, settings, placements)
    (before,) = placements.read()
    assert [before.address] == addresses
    assert start_workers(1, settings, placements) == addresses  # nothing to start

    with subprocess.Popen(
        [sys.executable, "-m", "tests.workers.embed_remote", tmp_path, _astronaut(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as outside:
        assert outside.stdin is not None
        assert outside.stdout is not None

        def embed() -> bytes:
            assert outside.stdin is not None
            assert outside.stdout is not None
            outside.stdin.write("\n")
            outside.stdin.flush()
            return bytes.fromhex(outside.stdout.readline())

        first = embed()
        template = np.frombuffer(first, np.float32)
        assert template.shape == (before.dimension,)
        assert np.linalg.norm(template.astype(np.float64)) == pytest.approx(1, abs=1e-6)

        (status,) = worker_status()
        assert status.address == addresses[0]
        os.kill(status.process, signal.SIGKILL)
        assert embed() == first  # waits for the restarted worker, at its new address
        (after,) = placements.read()
        assert after.address != before.address
        assert worker_status()[0].address == after.address
        outside.stdin.close()
        assert outside.wait(30) == 0

    placements.place(PlacedWorker("embedding-7", "127.0.0.1:1", "of a node that is gone", 8))
    assert stop_workers(placements) == 1
    assert placements.read() == []
    assert worker_status() == []


def test_more_workers_than_cores_are_refused(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        start_workers(3, Settings(data_dir=tmp_path), OpenedPlacements.of(Settings(data_dir=tmp_path)))
    assert refused.value.code == "TOO_MANY_WORKERS"


def test_without_a_cluster_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(WorkerUnavailable, match="ray start --head"):
        worker_status("127.0.0.1:1")
