"""What metrics say of GPUs. The driver is played: machines of tests have none."""

from __future__ import annotations

import pytest
import torch
from pynvml import NVML_ERROR_NOT_SUPPORTED, NVMLError

from homeward.telemetry import Level, Reading
from workers.gpu_use import gpu_readings

GIB = 1 << 30


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 15 * GIB)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: (100, 37)[device])
    return monkeypatch


def test_each_gpu_says_how_full_and_how_busy_it_is(two_gpus: pytest.MonkeyPatch) -> None:
    readings = list(gpu_readings())
    assert readings.count(Reading(Level.GPU_MEMORY, 20 * GIB, "used")) == 2
    assert [one for one in readings if one.level is Level.GPU_BUSY] == [
        Reading(Level.GPU_BUSY, 1.0, "0"),
        Reading(Level.GPU_BUSY, 0.37, "1"),
    ]


@pytest.mark.parametrize("refusal", [NVMLError(NVML_ERROR_NOT_SUPPORTED), RuntimeError("no driver")])
def test_a_gpu_that_does_not_say_how_busy_it_is_still_says_how_full(
    two_gpus: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def refuse(_: int) -> int:
        raise refusal

    two_gpus.setattr(torch.cuda, "utilization", refuse)
    assert {one.level for one in gpu_readings()} == {Level.GPU_MEMORY}


def test_a_process_that_uses_no_gpu_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert list(gpu_readings()) == []
