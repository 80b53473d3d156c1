"""Names of devices and precisions."""

from __future__ import annotations

import pytest
import torch

from homeward.errors import InvalidInput
from workers.device import pick_device, pick_precision, set_threads


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "", "cuda:x"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        pick_device(name)
    assert refused.value.code == "DEVICE_UNKNOWN"


def test_auto_is_a_device_that_works() -> None:
    device = pick_device("auto")
    assert float(torch.ones(2, device=device).sum()) == 2
    assert pick_device("cpu") == torch.device("cpu")


def test_a_stated_precision_is_kept() -> None:
    cpu = torch.device("cpu")
    assert pick_precision(cpu, "float32") == torch.float32
    assert pick_precision(cpu, "bfloat16") == torch.bfloat16
    assert pick_precision(cpu, "auto") in {torch.float32, torch.bfloat16}
    with pytest.raises(InvalidInput):
        pick_precision(cpu, "float16")


def test_threads_are_set_and_zero_changes_nothing() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == 1
        assert set_threads(0) == 1
    finally:
        set_threads(before)
