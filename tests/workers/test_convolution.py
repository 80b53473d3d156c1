"""Fused convolutions against torch's plain operators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from workers.convolution import Conv

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(3)
KERNEL = (RANDOM.standard_normal((24, 5, 3, 3)) / 7).astype(np.float32)
BIAS = RANDOM.standard_normal(24).astype(np.float32)


def placed(dtype: torch.dtype, stride: int) -> tuple[Conv, Conv]:
    """The same convolution fused, where this machine can, and plain."""
    conv = Conv.place(KERNEL, BIAS, stride=stride, padding=1, device=CPU, dtype=dtype)
    plain = replace(conv, kernel=torch.from_numpy(KERNEL).to(dtype), fused=False)
    return conv, plain


def image(channels: int, side: int, dtype: torch.dtype) -> torch.Tensor:
    values = RANDOM.standard_normal((2, channels, side, side)).astype(np.float32)
    return torch.from_numpy(values).to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_equals_plain(dtype: torch.dtype, stride: int) -> None:
    conv, plain = placed(dtype, stride)
    x = image(5, 9, dtype)
    exact = F.conv2d(x.float(), torch.from_numpy(KERNEL), torch.from_numpy(BIAS), stride=stride, padding=1)
    other = image(24, exact.shape[2], dtype)
    atol = 1e-5 if dtype == torch.float32 else 0.05
    for each in (conv, plain):
        torch.testing.assert_close(each(x).float(), exact, atol=atol, rtol=0)
        torch.testing.assert_close(each.relu(x).float(), exact.relu(), atol=atol, rtol=0)
        total = each.add_relu(x, other.clone(memory_format=torch.preserve_format))
        torch.testing.assert_close(total.float(), (exact + other.float()).relu(), atol=atol, rtol=0)
