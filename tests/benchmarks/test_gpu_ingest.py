"""The ingest benchmark without a GPU: every cell runs, and its own chain gives the product's templates."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.gpu_ingest import MISSING, main
from benchmarks.gpu_ingest_measure import Lane, Lanes, limit, measure
from benchmarks.gpu_ingest_photos import draw_photos
from benchmarks.gpu_ingest_work import Stages
from homeward.config import WorkerSettings
from workers.default_model import load_default_model
from workers.open import open_decoder
from workers.pipeline import Pipeline
from workers.sandbox import DecodePool

_CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def without_shared_photos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOMEWARD_SHARED", str(tmp_path))


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    with open_decoder(WorkerSettings(decode_processes=1)) as opened:
        yield opened


def test_a_tiny_run_gives_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ingest.json"
    options = ["--device", "cpu", "--sizes", "320x240", "--seconds", "0", "--batch", "1", "--in-flight", "1"]
    assert main(["--json", str(out), *options, "--processes", "1"]) == 0
    figures = json.loads(out.read_text())
    assert figures["left_out"] == []
    assert figures["machine"]["device"]
    assert figures["machine"]["checked_on_a_gpu"] is False
    (size,) = figures["sizes"].values()
    assert size["faces_per_photo"] >= 1
    cells = size["cells"]
    assert len(cells) == 11
    for cell in cells.values():
        assert min(cell["photos_per_s"], cell["photos"], cell["process_peak_mib"]) > 0
    for name in ("decode + detect", "whole", "whole, decode on the device", "whole, as the product"):
        assert cells[name]["share_of_limit"] > 0
        assert cells[name]["faces_per_s"] > 0
    assert cells["whole"]["limit_by"] == "decode in all processes + detect + align + embed"
    assert "320x240, whole: " in capsys.readouterr().out


def test_what_comes_after_the_deadline_is_named_and_left_out(tmp_path: Path) -> None:
    out = tmp_path / "ingest.json"
    assert main(["--json", str(out), "--device", "cpu", "--sizes", "64x64,99x99", "--minutes", "0"]) == 0
    assert json.loads(out.read_text())["left_out"] == ["64x64: out of time", "99x99: out of time"]


@pytest.mark.parametrize("wrong", [["--device", "tpu"], ["--sizes", "10x10"], ["--sizes", "big"]])
def test_what_cannot_be_measured_is_said(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--json", str(tmp_path / "ingest.json"), *wrong]) == MISSING
    assert capsys.readouterr().err.startswith("gpu_ingest: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", str(tmp_path / "ingest.json"), "--device", "cuda"]) == MISSING
    assert "0 CUDA devices" in capsys.readouterr().err


def test_photos_are_the_same_every_time_and_of_the_size_that_was_asked_for() -> None:
    one, again = draw_photos(320, 240, 3), draw_photos(320, 240, 3)
    assert one == again
    assert len(set(one.jpegs)) == 3
    assert {Image.open(io.BytesIO(jpeg)).size for jpeg in one.jpegs} == {(320, 240)}


def test_its_chain_gives_the_templates_of_the_product(pool: DecodePool) -> None:
    settings = WorkerSettings(min_face_px=24)
    model = load_default_model(_CPU, "float32")
    stages = Stages(model, settings)
    for width in (400, 2600):  # as it is, and shrunk at decode
        decoded = stages.decode(draw_photos(width, width * 3 // 4, 2).jpegs, pool)
        with torch.inference_mode():
            templates = stages.whole(Lane(_CPU).upload(decoded), width)
        expected = [
            face.template for faces in Pipeline(model, settings).embed(decoded) for face in faces.faces
        ]
        assert len(templates) == len(expected) >= 2
        order = [int(np.argmax([one @ other for other in expected])) for one in templates]
        assert sorted(order) == list(range(len(expected)))
        for template, match in zip(templates, order, strict=True):
            assert float(template @ expected[match]) > 0.9999


def test_every_lane_works_and_all_of_its_batches_count() -> None:
    with Lanes(_CPU, 3, cores=2) as lanes:
        seen: list[int] = []

        def step(_: Lane, number: int) -> tuple[int, int]:
            seen.append(number)
            return 2, 5

        found = measure(lanes, step, 0.05)
    assert {0, 1, 2} <= set(seen)
    assert found["photos"] == 2 * (len(seen) - 3)  # less the warm-up
    assert found["faces_per_s"] == pytest.approx(2.5 * found["photos_per_s"])
    assert found["gpu_torch_peak_mib"] is None


def test_a_limit_adds_up_what_shares_a_resource() -> None:
    stages = {
        "decode": {"resource": "processor", "photos_per_s": 100.0},
        "detect": {"resource": "GPU", "photos_per_s": 200.0},
        "embed": {"resource": "GPU", "photos_per_s": 100.0},
    }
    found = limit(50.0, stages)
    assert found["limit_photos_per_s"] == pytest.approx(200 / 3)
    assert found["limit_by"] == "detect + embed"
    assert found["share_of_limit"] == pytest.approx(0.75)
    assert limit(50.0, {}) == {}
