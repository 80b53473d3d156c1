"""An ONNX graph from a bundle as a torch module: checked, made batchable, folded, in eval mode.

The bytes come from strangers. Only operators of the standard ONNX domain are taken, tensors kept in
other files are refused, and every node is renamed before conversion: torch.fx writes node names
into the Python code it generates, where a crafted name would be executed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError
from onnx2torch import convert
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_eval

from homeward.errors import InvalidInput, NotSupported
from workers.bundle import DetectorSpec, EmbedderSpec

_DOMAINS = {"", "ai.onnx"}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, slots=True)
class Network:
    """A torch module of one input, with the names of its outputs in order."""

    module: nn.Module
    outputs: tuple[str, ...]
    fixed_batch: bool  # the graph was exported for batch 1, and was rewritten for any

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the graph; always a tuple, in the order of `outputs`."""
        answer = self.module(batch)
        return tuple(answer) if isinstance(answer, (tuple, list)) else (answer,)

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the weights to a device, in the memory layout convolutions are fastest in."""
        self.module.to(device=device, dtype=dtype)
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it


class Preprocess:
    """(pixel * scale - mean) / std in one multiplication and one subtraction, channels as wanted."""

    def __init__(self, spec: DetectorSpec | EmbedderSpec, device: torch.device, dtype: torch.dtype) -> None:
        deviation = torch.tensor(spec.std)
        self._gain = (spec.scale / deviation).view(1, 3, 1, 1).to(device)
        self._offset = (torch.tensor(spec.mean) / deviation).view(1, 3, 1, 1).to(device)
        self._swap = spec.channels == "BGR"
        self._dtype = dtype

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W) float32 RGB 0..255 -> what the network takes, channels_last."""
        planes = pixels.flip(1) if self._swap else pixels
        values = planes * self._gain - self._offset
        return values.to(dtype=self._dtype, memory_format=torch.channels_last)


def load_network(data: bytes, where: str, *, rewrite_batch: bool = True) -> Network:
    """Turn ONNX bytes into a module on the CPU in float32.

    With `rewrite_batch`, a graph exported for batch 1 takes any batch: the input's batch dimension
    becomes free, and each Reshape to a constant (1, ...) of a tensor that carries the batch keeps its
    first dimension instead. Whether the result is right for that graph is for the caller to check
    (`workers.bundle_model` compares it with single runs).

    Raises `InvalidInput` (BUNDLE_INVALID) for bytes that are no sound graph of one input, and
    `NotSupported` for operators outside the standard set or that onnx2torch does not know.
    """
    model = _parse(data, where)
    fixed = _batch_of(model) == 1
    if fixed and rewrite_batch:
        _free_batch(model, where)
    outputs = tuple(value.name for value in model.graph.output)
    producers = [_producer(model, name) for name in outputs]
    if None in producers or len(set(producers)) != len(producers):
        raise NotSupported(f"{where}: each output must come from an operator of its own")
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}"
    try:
        module = convert(model)
    except (NotImplementedError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise NotSupported(f"{where}: onnx2torch cannot convert it: {error}") from error
    _fold(module.eval())
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return Network(module=module, outputs=outputs, fixed_batch=fixed)


def _fold(module: GraphModule) -> None:
    """Fold each batch normalisation into the convolution whose only reader it is, in place."""
    for node in list(module.graph.nodes):
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        conv = module.get_submodule(str(source.target))
        norm = module.get_submodule(str(node.target))
        if isinstance(conv, _CONVOLUTIONS) and isinstance(norm, _NORMS):
            module.add_module(str(source.target), fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(source)
            module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()


def _parse(data: bytes, where: str) -> ModelProto:
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    except (DecodeError, ValidationError, ValueError, TypeError) as error:
        raise InvalidInput(f"{where} is no valid ONNX model: {error}", code="BUNDLE_INVALID") from error
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
            raise InvalidInput(
                f"{where} keeps tensors in other files; export it as one", code="BUNDLE_INVALID"
            )
    domains = {node.domain for node in model.graph.node} | {item.domain for item in model.opset_import}
    if domains - _DOMAINS or model.functions:
        raise NotSupported(f"{where} uses operators outside the standard ONNX set")
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise InvalidInput(f"{where} must have one input of four dimensions", code="BUNDLE_INVALID")
    return model


def _tensors(model: ModelProto) -> list[TensorProto]:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    if any(attribute.HasField("g") or attribute.graphs for attribute in attributes):
        raise NotSupported("graphs with branches or loops cannot be run")
    inner = [attribute.t for attribute in attributes if attribute.HasField("t")]
    return [*model.graph.initializer, *inner]


def _input(model: ModelProto) -> onnx.ValueInfoProto:
    initializers = {tensor.name for tensor in model.graph.initializer}
    return next(value for value in model.graph.input if value.name not in initializers)


def _batch_of(model: ModelProto) -> int:
    """The batch the graph was exported for; 0 when it is free."""
    return int(_input(model).type.tensor_type.shape.dim[0].dim_value)


def _producer(model: ModelProto, value: str) -> int | None:
    found = [number for number, node in enumerate(model.graph.node) if value in node.output]
    return found[0] if found else None


def _free_batch(model: ModelProto, where: str) -> None:
    """Rewrite the graph in place so that its first dimension is free."""
    graph = model.graph
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except (InferenceError, RuntimeError) as error:
        raise InvalidInput(
            f"{where}: shapes contradict each other: {error}", code="BUNDLE_INVALID"
        ) from error
    leading = {
        value.name: value.type.tensor_type.shape.dim[0].dim_value
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.shape.dim
    }
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] in constants or leading.get(node.input[0]) != 1:
            continue
        shape = constants.get(node.input[1])
        if shape is not None:
            _keep_first(model, node, numpy_helper.to_array(shape), f"homeward_shape_{number}")
    del graph.value_info[:]
    for value in (_input(model), *graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].Clear()
            value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _keep_first(model: ModelProto, node: NodeProto, shape: np.ndarray, name: str) -> None:
    """Let a Reshape to (1, ...) copy its first dimension from its input (a 0 means that)."""
    if (
        shape.ndim != 1
        or shape.size < 2
        or shape[0] != 1
        or any(a.name == "allowzero" and a.i for a in node.attribute)
    ):
        return
    kept = np.array([0, *shape[1:]], dtype=np.int64)
    model.graph.initializer.append(numpy_helper.from_array(kept, name))
    node.input[1] = name
