"""The three networks of MTCNN in torch, with the weights of the `mtcnn` wheel.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
2016. Inputs are RGB, normalised to (v - 127.5) / 128. Outputs per window: the probability of a face,
four box offsets in box sides, and for O-Net five landmarks in box sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from homeward.types import Float32
from workers.weights import wheel_file

_SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
PNET_WINDOW = 12
PNET_STRIDE = 2
RNET_SIZE = 24
ONET_SIZE = 48


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution or a dense layer with the PReLU that follows it, if one does."""

    weight: Tensor  # (out, in, kh, kw), or (out, in) of a dense layer
    bias: Tensor  # (out,)
    slope: Tensor | None  # (out,)

    def conv(self, x: Tensor) -> Tensor:
        return self._activate(F.conv2d(x, self.weight, self.bias))

    def dense(self, x: Tensor) -> Tensor:
        return self._activate(F.linear(x, self.weight, self.bias))

    def _activate(self, x: Tensor) -> Tensor:
        """PReLU. The CPU's kernel wants many slopes in a row to be fast: a line of pixels has them."""
        if self.slope is None:
            return x
        if x.ndim == 2 or not x.is_contiguous(memory_format=torch.channels_last):
            return F.prelu(x, self.slope)
        batch, channels, height, width = x.shape
        lines = x.permute(0, 2, 3, 1).view(batch * height, width * channels)
        lines = F.prelu(lines, self.slope.repeat(width))
        return lines.view(batch, height, width, channels).permute(0, 3, 1, 2)


class PNet:
    """Proposes faces of 12x12 px, one window every two pixels."""

    def __init__(self, layers: list[_Layer]) -> None:
        self._features = layers[:3]
        offsets, classes = layers[3:]
        # Both heads look at one pixel: (6, 32), face or not before the offsets.
        self._heads = torch.cat((classes.weight, offsets.weight)).flatten(1)
        self._heads_bias = torch.cat((classes.bias, offsets.bias))[:, None]

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, h, w) -> probability (b, h', w'), offsets (b, 4, h', w'); window i starts at 2i."""
        first, second, third = self._features
        x = third.conv(second.conv(_max_pool_2x2(first.conv(x))))
        batch, channels, height, width = x.shape
        # A product of matrices, since six outputs are too few for the convolution kernels.
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        heads = torch.addmm(self._heads_bias, self._heads, pixels.T)
        heads = heads.view(-1, batch, height, width).transpose(0, 1)
        return _face_probability(heads[:, :2]), heads[:, 2:].float()


class RNet:
    """Refines 24x24 px crops of proposals."""

    def __init__(self, layers: list[_Layer]) -> None:
        self._layers = layers

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, 24, 24) -> probability (n,), offsets (n, 4)."""
        first, second, third, dense, offsets, classes = self._layers
        x = _max_pool_3x3(first.conv(x), same=True)
        x = third.conv(_max_pool_3x3(second.conv(x), same=False))
        x = dense.dense(x.permute(0, 3, 2, 1).flatten(1))  # the weights expect width, height, channel
        return _face_probability(classes.dense(x)), offsets.dense(x).float()


class ONet:
    """Decides on 48x48 px crops and places the landmarks."""

    def __init__(self, layers: list[_Layer]) -> None:
        self._layers = layers

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 3, 48, 48) -> probability (n,), offsets (n, 4), landmarks (n, 5, 2) as x, y."""
        first, second, third, fourth, dense, offsets, points, classes = self._layers
        x = _max_pool_3x3(first.conv(x), same=True)
        x = _max_pool_3x3(second.conv(x), same=False)
        x = fourth.conv(_max_pool_2x2(third.conv(x)))
        x = dense.dense(x.permute(0, 3, 2, 1).flatten(1))
        landmarks = points.dense(x).float().view(-1, 2, 5).transpose(1, 2)
        return _face_probability(classes.dense(x)), offsets.dense(x).float(), landmarks


@dataclass(frozen=True, slots=True)
class MtcnnNets:
    """The cascade's networks on one device."""

    pnet: PNet
    rnet: RNet
    onet: ONet


def load_mtcnn(device: torch.device, dtype: torch.dtype = torch.float32) -> MtcnnNets:
    """Read the wheel's weights (checked by SHA-256; the package, which needs TensorFlow, is not imported)."""
    return MtcnnNets(
        pnet=PNet(_load("pnet", device, dtype)),
        rnet=RNet(_load("rnet", device, dtype)),
        onet=ONet(_load("onet", device, dtype)),
    )


def _load(net: str, device: torch.device, dtype: torch.dtype) -> list[_Layer]:
    """Layers in the order the file has them: weight, bias and, before the output heads, PReLU slopes."""
    path = wheel_file("mtcnn", f"assets/weights/{net}.lz4", _SHA256[net])
    arrays: list[Any] = joblib.load(path)  # a pickle: read only because its checksum is the known one
    layers: list[_Layer] = []
    position = 0
    while position < len(arrays):
        weight, bias = arrays[position], arrays[position + 1]
        position += 2
        slope = None
        if position < len(arrays) and arrays[position].ndim in (1, 3) and _is_slope(arrays, position):
            slope = _tensor(arrays[position].reshape(-1), device, dtype)
            position += 1
        order = (3, 2, 0, 1) if weight.ndim == 4 else (1, 0)  # HWIO -> OIHW, (in, out) -> (out, in)
        kernel = _tensor(weight.transpose(order), device, dtype)
        if weight.ndim == 4:
            kernel = kernel.contiguous(memory_format=torch.channels_last)
        layers.append(_Layer(kernel, _tensor(bias, device, dtype), slope))
    return layers


def _is_slope(arrays: list[Any], position: int) -> bool:
    """Slopes have one value per channel of the layer before them; a weight has two or four axes."""
    return int(arrays[position].size) == int(arrays[position - 1].size)


def _tensor(array: Float32, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=dtype)


def _face_probability(logits: Tensor) -> Tensor:
    """Softmax over the two classes on axis 1; class 1 is the face. Always float32."""
    logits = logits.float()
    return torch.sigmoid(logits[:, 1] - logits[:, 0])


def _max_pool_2x2(x: Tensor) -> Tensor:
    """2x2 maximum, stride 2; odd sides keep their last pixel. Slices are faster than the CPU's kernel."""
    rows = _pairs(x, 2)
    return _pairs(rows, 3)


def _pairs(x: Tensor, axis: int) -> Tensor:
    size = x.shape[axis]
    even = _every_second(x, axis, 0, size)
    odd = _every_second(x, axis, 1, size)
    if size % 2 == 0:
        return torch.maximum(even, odd)
    last = x.narrow(axis, size - 1, 1)
    return torch.cat((torch.maximum(even.narrow(axis, 0, size // 2), odd), last), dim=axis)


def _every_second(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return x[:, :, start:stop:2] if axis == 2 else x[:, :, :, start:stop:2]


def _max_pool_3x3(x: Tensor, *, same: bool) -> Tensor:
    """3x3 maximum, stride 2; `same` lets the last window reach past an even edge, as TensorFlow pads."""
    return F.max_pool2d(x, 3, stride=2, ceil_mode=same)
