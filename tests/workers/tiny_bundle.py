"""A bundle small enough to build in a test: a two-cell-deep detector and a batch-1 embedder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 32  # of the embedder's crop
DIMENSION = 16


def _weights(seed: int, *shape: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)
    return np.asarray(values, dtype=np.float32)


def _model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, np.ndarray]
) -> bytes:
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def embedder(*, batch_in_shape: int = 1, name: str = "reshape", node_names: str = "n") -> bytes:
    """conv + batch normalisation + relu + pool, then a Reshape to (batch_in_shape, -1) and a Gemm."""
    constants = {
        "w": _weights(1, 8, 3, 3, 3),
        "scale": np.abs(_weights(2, 8)) + 0.5,
        "shift": _weights(3, 8),
        "mean": _weights(4, 8),
        "var": np.abs(_weights(5, 8)) + 0.5,
        "shape": np.array([batch_in_shape, -1], dtype=np.int64),
        "gemm": _weights(6, DIMENSION, 8 * 8 * 8),
        "bias": _weights(7, DIMENSION),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], name=f"{node_names}0"),
        helper.make_node(
            "BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"], name=f"{node_names}1"
        ),
        helper.make_node("Relu", ["b"], ["c"], name=f"{node_names}2"),
        helper.make_node(
            "AveragePool", ["c"], ["d"], kernel_shape=[4, 4], strides=[4, 4], name=f"{node_names}3"
        ),
        helper.make_node("Reshape", ["d", "shape"], ["e"], name=name),
        helper.make_node("Gemm", ["e", "gemm", "bias"], ["y"], transB=1, name=f"{node_names}4"),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, DIMENSION])],
        constants,
    )


def mixing_embedder() -> bytes:
    """A graph whose answer depends on the whole batch: it must never be run on more than one crop."""
    constants = {
        "w": _weights(1, DIMENSION, 3, SIZE, SIZE),
        "shape": np.array([1, DIMENSION], dtype=np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["s"]),
        helper.make_node("Add", ["s", "x"], ["t"]),
        helper.make_node("Conv", ["t", "w"], ["c"]),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, DIMENSION])],
        constants,
    )


def detector() -> bytes:
    """Sees a bright red cell: at stride 8, class and object score are high where the mean red is.

    Boxes are centred in their cell and three cells wide; landmark i lies at ((0.1 i, 0.2 i)) of the cell.
    """
    red = np.zeros((1, 3, 8, 8), dtype=np.float32)
    red[0, 0] = 1 / 64 / 255 * 40  # RGB input: sigmoid(40 * mean - 20)
    box = np.array([0.5, 0.5, np.log(3), np.log(3)], dtype=np.float32)
    points = np.array([[0.1 * i, 0.2 * i] for i in range(5)], dtype=np.float32).reshape(-1)
    constants: dict[str, np.ndarray] = {
        "red": red,
        "low": np.array([-20], dtype=np.float32),
        "zero4": np.zeros((4, 3, 8, 8), dtype=np.float32),
        "box": box,
        "zero10": np.zeros((10, 3, 8, 8), dtype=np.float32),
        "points": points,
        "one": np.array([1, -1, 1], dtype=np.int64),
        "four": np.array([1, -1, 4], dtype=np.int64),
        "ten": np.array([1, -1, 10], dtype=np.int64),
    }
    nodes = []
    for output, weight, bias, shape in (
        ("cls_8", "red", "low", "one"),
        ("obj_8", "red", "low", "one"),
        ("bbox_8", "zero4", "box", "four"),
        ("kps_8", "zero10", "points", "ten"),
    ):
        nodes.append(helper.make_node("Conv", ["x", weight, bias], [f"{output}a"], strides=[8, 8]))
        last = f"{output}a"
        if weight == "red":
            nodes.append(helper.make_node("Sigmoid", [last], [f"{output}b"]))
            last = f"{output}b"
        nodes.append(helper.make_node("Transpose", [last], [f"{output}c"], perm=[0, 2, 3, 1]))
        nodes.append(helper.make_node("Reshape", [f"{output}c", shape], [output]))
    return _model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "cells", width])
            for name, width in (("cls_8", 1), ("obj_8", 1), ("bbox_8", 4), ("kps_8", 10))
        ],
        constants,
    )


def toml(files: dict[str, bytes], name: str = "tiny") -> str:
    """A bundle.toml for `files` (detector.onnx and embedder.onnx)."""
    entries = "".join(
        f'[[files]]\nname = "{file}"\nsha256 = "{hashlib.sha256(data).hexdigest()}"\nbytes = {len(data)}\n'
        f'upstream = "https://models.example/{file}"\n'
        for file, data in files.items()
    )
    return f"""
format = 1
name = "{name}"
version = "1"
licence = "Apache-2.0"
{entries}
[detector]
kind = "yunet"
file = "detector.onnx"
channels = "RGB"
layout = "NCHW"
scale = 1.0
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
multiple = 8
strides = [8]
outputs = ["cls_{{stride}}", "obj_{{stride}}", "bbox_{{stride}}", "kps_{{stride}}"]
score_threshold = 0.5
nms_iou = 0.4
smallest_face_px = 16.0
largest_face_px = 128.0
[embedder]
kind = "onnx"
file = "embedder.onnx"
dimension = {DIMENSION}
size = {SIZE}
channels = "BGR"
scale = 0.00784313725490196
mean = [1.0, 1.0, 1.0]
std = [0.5, 0.5, 0.5]
points = [[10.0, 12.0], [22.0, 12.0], [16.0, 18.0], [12.0, 24.0], [20.0, 24.0]]
mirror = true
"""


def write(folder: Path, *, name: str = "tiny", files: dict[str, bytes] | None = None) -> Path:
    """Write a whole bundle into `folder`."""
    files = files or {"detector.onnx": detector(), "embedder.onnx": embedder()}
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    (folder / "bundle.toml").write_text(toml(files, name), encoding="utf-8")
    return folder
