"""The torch port of dlib's face ResNet beside dlib itself, on chips of real faces.

    .venv/bin/python -m benchmarks.embed --json FILE

Compared before normalisation, one embedding per face on both sides (no mirrored crop). dlib computes on
one core, so it gets one process per core; the port gets as many threads. Rounds of both alternate and
the best of each counts, because whatever else runs on the machine only slows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tarfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import machine, shared_photos, write_json
from homeward.errors import NotFound
from homeward.types import Float32, UInt8
from workers.align import align
from workers.default_model import load_default_model
from workers.device import pick_precision
from workers.dlib_resnet import CHIP_PX, SHA256, DlibResnet, read_weights
from workers.weights import wheel_file

_BATCH = 32
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_MATMUL_SIDE = 2048


def main() -> None:
    """Measure, print one line, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--faces", type=int, default=64, help="chips compared")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    chips, source = face_chips(options.faces)
    figures = {"machine": machine(), "chips": source, **measure(chips, options.rounds, cores)}
    figures["machine_after"] = machine()
    write_json(options.json, figures)
    print(
        f"embed: port equals dlib to {figures['max_abs_diff']:.1e} (float32); "
        f"{figures['speedup']:.1f}x dlib's faces/s on {cores} cores in {figures['speedup_precision']} "
        f"({figures['speedup_float32']:.1f}x float32, {figures['speedup_bfloat16']:.1f}x bfloat16)"
    )


def measure(chips: UInt8, rounds: int, cores: int) -> dict[str, Any]:
    """All figures over (n, 150, 150, 3) uint8 chips."""
    device = torch.device("cpu")
    weights = read_weights()
    nets = {name: DlibResnet(weights, device, dtype, model_id=name) for name, dtype in _PRECISIONS.items()}
    tensor = torch.from_numpy(chips).permute(0, 3, 1, 2).float()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        reference = np.concatenate(pool.map(_dlib, np.array_split(chips, cores)))
        seconds = _best_of_rounds(chips, tensor, nets, pool, cores, rounds)
    found = {name: _embed(net, tensor) for name, net in nets.items()}
    rates = {name: len(chips) / value for name, value in seconds.items()}
    flops = _flops_per_face(nets["float32"], tensor[:1])
    limits = {name: _matmul_flops(dtype) for name, dtype in _PRECISIONS.items()}
    auto = "bfloat16" if pick_precision(device) == torch.bfloat16 else "float32"
    return {
        "faces": len(chips),
        "batch": _BATCH,
        "max_abs_diff": float(np.abs(found["float32"] - reference).max()),
        "max_abs_diff_bfloat16": float(np.abs(found["bfloat16"] - reference).max()),
        "min_cosine_bfloat16": _min_cosine(found["bfloat16"], reference),
        "dlib_processes": cores,
        "faces_per_s": rates,
        "speedup": rates[auto] / rates["dlib"],
        "speedup_precision": auto,
        **{f"speedup_{name}": rates[name] / rates["dlib"] for name in nets},
        **{f"speedup_{name}_over_one_dlib_process": rates[name] / rates["dlib_one_process"] for name in nets},
        "gflop_per_face": flops / 1e9,
        "matmul_gflops": {name: value / 1e9 for name, value in limits.items()},
        "limit_faces_per_s": {name: value / flops for name, value in limits.items()},
        "share_of_limit": {name: rates[name] * flops / value for name, value in limits.items()},
    }


def face_chips(count: int) -> tuple[UInt8, str]:
    """(count, 150, 150, 3) uint8 aligned chips of real faces, and where the photos are from."""
    try:
        archive = shared_photos() / "lfw_dev.tar"
        photos = _first_photos(archive, count)
        source = "lfw_dev, one face of each photo"
    except (NotFound, OSError):
        photos = []
        source = "scikit-image's astronaut, jittered"
    model = load_default_model(torch.device("cpu"), "float32")
    if not photos:
        photos = _jittered_astronaut(count)
    tensors = [torch.from_numpy(photo).permute(2, 0, 1) for photo in photos]
    landmarks, owner = [], []
    for start in range(0, len(tensors), 16):
        for position, found in enumerate(model.detector.detect(tensors[start : start + 16], 40), start=start):
            if len(found.scores):
                owner.append(position)
                landmarks.append(found.landmarks[:1])
    crops = align(tensors, torch.tensor(owner), torch.cat(landmarks), model.embedder.crop)
    chips: UInt8 = crops.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    assert chips.shape[1] == CHIP_PX
    return chips, source


def _first_photos(archive: Path, count: int) -> list[UInt8]:
    photos: list[UInt8] = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith("_0001.jpg") and len(photos) < count:
                file = tar.extractfile(member)
                assert file is not None
                photos.append(np.array(Image.open(BytesIO(file.read())).convert("RGB")))
    return photos


def _jittered_astronaut(count: int) -> list[UInt8]:
    import skimage.data

    image = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    random = np.random.default_rng(1)
    return [
        np.array(
            image.rotate(float(random.uniform(-20, 20)), center=(225, 130), resample=Image.Resampling.BICUBIC)
        )
        for _ in range(count)
    ]


def _best_of_rounds(
    chips: UInt8, tensor: torch.Tensor, nets: dict[str, DlibResnet], pool: Pool, cores: int, rounds: int
) -> dict[str, float]:
    """Seconds for all chips, the best of `rounds`, by contestant."""
    few = chips[: max(4, len(chips) // 8)]
    contestants: dict[str, Callable[[], float]] = {
        "dlib": lambda: _seconds(lambda: pool.map(_dlib, np.array_split(chips, cores))),
        "dlib_one_process": lambda: _seconds(lambda: _dlib(few)) * len(chips) / len(few),
    }
    for name, net in nets.items():
        contestants[name] = lambda net=net: _seconds(lambda: _embed(net, tensor))  # type: ignore[misc]
    for warm_up in contestants.values():
        warm_up()
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, run in contestants.items():
            best[name] = min(best[name], run())
    return best


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _embed(net: DlibResnet, tensor: torch.Tensor) -> Float32:
    vectors: Float32 = torch.cat([net.embed(part) for part in torch.split(tensor, _BATCH)]).numpy()
    return vectors


@cache
def _dlib_model() -> Any:
    import dlib

    path = wheel_file("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat", SHA256)
    return dlib.face_recognition_model_v1(str(path))


def _dlib(chips: Sequence[UInt8] | UInt8) -> Float32:
    """dlib's descriptors (n, 128), without jitter, not normalised."""
    model = _dlib_model()
    return np.array([model.compute_face_descriptor(np.ascontiguousarray(chip)) for chip in chips], np.float32)


def _min_cosine(one: Float32, other: Float32) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def _flops_per_face(net: DlibResnet, chip: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        net.embed(chip)
    return int(counter.get_total_flops())


def _matmul_flops(dtype: torch.dtype) -> float:
    """What a large matrix product reaches here: the physical limit the nets are held against."""
    a = torch.ones((_MATMUL_SIDE, _MATMUL_SIDE), dtype=dtype)
    best = min(_seconds(lambda: a @ a) for _ in range(6))
    return 2 * _MATMUL_SIDE**3 / best


if __name__ == "__main__":
    main()
