"""One convolution with what follows it.

On a CPU, oneDNN adds and clips while a result is still in its registers, with weights laid out for it
beforehand, by the operators that torch's own compiler emits; step by step, each would be a pass over
memory. Elsewhere the same is done by plain operators.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from homeward.types import Float32

_DILATION, _GROUPS = (1, 1), 1


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution placed on a device. Inputs and outputs are channels_last."""

    kernel: Tensor  # (out, in, kh, kw); laid out for oneDNN when `fused`
    bias: Tensor  # (out,)
    stride: int
    padding: int
    fused: bool

    @classmethod
    def place(
        cls,
        kernel: Float32,
        bias: Float32,
        *,
        stride: int,
        padding: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Conv:
        """Put kernel (out, in, kh, kw) and bias (out,) there in that precision."""
        weight = torch.from_numpy(kernel).to(device=device, dtype=dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)
        fused = device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        if fused:
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight, (padding, padding), (stride, stride), _DILATION, _GROUPS
            )
        return cls(weight, torch.from_numpy(bias).to(device=device, dtype=dtype), stride, padding, fused)

    def __call__(self, x: Tensor) -> Tensor:
        """The convolution alone."""
        return self._fused(x, "none") if self.fused else self._plain(x)

    def relu(self, x: Tensor) -> Tensor:
        """What is positive of the convolution."""
        return self._fused(x, "relu") if self.fused else self._plain(x).relu_()

    def add_relu(self, x: Tensor, other: Tensor) -> Tensor:
        """What is positive of convolution plus `other`, which is overwritten."""
        if not self.fused:
            return other.add_(self._plain(x)).relu_()
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, self.kernel, self.bias, *self._geometry(), "add", 1.0, "relu", [], ""
        )
        return result

    def _plain(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, self.bias, stride=self.stride, padding=self.padding)

    def _fused(self, x: Tensor, then: str) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.kernel, self.bias, *self._geometry(), then, [], ""
        )
        return result

    def _geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        return (self.padding, self.padding), (self.stride, self.stride), _DILATION, _GROUPS
