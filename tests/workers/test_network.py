"""ONNX graphs of bundles: the same numbers as ONNX's own evaluator, batched, and nothing executed."""

from __future__ import annotations

import builtins
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from homeward.errors import InvalidInput, NotSupported
from tests.workers import tiny_bundle
from workers.bundle_model import load_bundle
from workers.network import load_network

CPU = torch.device("cpu")


def _oracle(data: bytes, crops: np.ndarray) -> np.ndarray:
    """ONNX's own evaluator, one crop at a time."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(data))
    answers: list[Any] = [evaluator.run(None, {"x": crops[row : row + 1]}) for row in range(len(crops))]
    return np.concatenate([answer[0] for answer in answers])


def _noise(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, 3, tiny_bundle.SIZE, tiny_bundle.SIZE)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_graph_for_batch_one_gives_the_reference_evaluators_numbers_in_a_batch() -> None:
    data = tiny_bundle.embedder()
    network = load_network(data, "embedder.onnx")
    crops = _noise(5)
    got = network(torch.from_numpy(crops))[0].numpy()
    want = _oracle(data, crops)
    assert network.fixed_batch
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_batch_normalisation_is_folded_away() -> None:
    network = load_network(tiny_bundle.embedder(), "embedder.onnx")
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.module.modules())
    assert not network.module.training


def test_the_bundles_preprocessing_is_what_its_numbers_say(tmp_path: Path) -> None:
    model = load_bundle(tiny_bundle.write(tmp_path / "tiny"), CPU)
    crops = (
        np.random.default_rng(1)
        .uniform(0, 255, (3, 3, tiny_bundle.SIZE, tiny_bundle.SIZE))
        .astype(np.float32)
    )
    got = model.embedder.embed(torch.from_numpy(crops)).numpy()
    prepared = (crops[:, ::-1] * np.float32(2 / 255) - 1) / np.float32(0.5)
    want = _oracle(tiny_bundle.embedder(), prepared)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_crops_alone_and_in_a_batch_give_the_same_vectors(tmp_path: Path) -> None:
    model = load_bundle(tiny_bundle.write(tmp_path / "tiny"), CPU)
    crops = torch.rand((70, 3, tiny_bundle.SIZE, tiny_bundle.SIZE)) * 255
    together = model.embedder.embed(crops)
    alone = torch.cat([model.embedder.embed(crop[None]) for crop in crops])
    assert together.shape == (70, tiny_bundle.DIMENSION)
    assert torch.cosine_similarity(alone, together).min() >= 0.9999
    assert model.embedder.embed(crops[:0]).shape == (0, tiny_bundle.DIMENSION)


def test_a_graph_that_mixes_its_batch_is_run_one_by_one(tmp_path: Path) -> None:
    files = {"detector.onnx": tiny_bundle.detector(), "embedder.onnx": tiny_bundle.mixing_embedder()}
    model = load_bundle(tiny_bundle.write(tmp_path / "tiny", files=files), CPU)
    crops = torch.rand((4, 3, tiny_bundle.SIZE, tiny_bundle.SIZE)) * 255
    together = model.embedder.embed(crops)
    alone = torch.cat([model.embedder.embed(crop[None]) for crop in crops])
    torch.testing.assert_close(together, alone)


def test_an_embedder_of_another_dimension_is_refused(tmp_path: Path) -> None:
    folder = tiny_bundle.write(tmp_path / "tiny")
    text = (folder / "bundle.toml").read_text()
    (folder / "bundle.toml").write_text(text.replace("dimension = 16", "dimension = 32"))
    with pytest.raises(NotSupported, match="32 numbers"):
        load_bundle(folder, CPU)


@pytest.mark.parametrize(
    "name",
    [
        'x", setattr(__import__("builtins"), "homeward_executed", True), "',
        "a'b\"c\\",
        "import os",
        "0",
        "a.b",
    ],
)
def test_node_names_are_never_executed(name: str) -> None:
    data = tiny_bundle.embedder(name=name, node_names=name)
    answer = load_network(data, "embedder.onnx")(torch.from_numpy(_noise(2)))[0]
    want = load_network(tiny_bundle.embedder(), "embedder.onnx")(torch.from_numpy(_noise(2)))[0]
    torch.testing.assert_close(answer, want)
    assert not hasattr(builtins, "homeward_executed")


def test_tensors_in_other_files_are_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(tiny_bundle.embedder())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    with pytest.raises(InvalidInput):
        load_network(model.SerializeToString(), "embedder.onnx")


def test_operators_outside_the_standard_set_are_refused() -> None:
    model = onnx.load_from_string(tiny_bundle.embedder())
    model.graph.node[2].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(NotSupported, match="standard ONNX set"):
        load_network(model.SerializeToString(), "embedder.onnx")


def test_an_operator_that_torch_lacks_is_refused_by_name() -> None:
    model = onnx.load_from_string(tiny_bundle.embedder())
    model.graph.node[2].op_type = "Hardmax"
    with pytest.raises(NotSupported, match="Hardmax"):
        load_network(model.SerializeToString(), "embedder.onnx")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_graphs_are_answered_or_refused(data: st.DataObject) -> None:
    good = tiny_bundle.embedder()
    place = data.draw(st.integers(0, len(good) - 1))
    piece = data.draw(st.binary(max_size=8))
    with suppress(InvalidInput, NotSupported):
        load_network(good[:place] + piece + good[place + len(piece) :], "embedder.onnx")
