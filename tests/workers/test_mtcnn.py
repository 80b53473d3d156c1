"""MTCNN's networks against torch's own layers, and their weights against a wrong file."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from homeward.errors import Corrupt, NotFound
from workers import mtcnn
from workers.mtcnn import load_mtcnn
from workers.weights import wheel_file

sides = st.integers(3, 40)


@given(sides, sides)
def test_pooling_by_slices_equals_the_pooling_kernel(height: int, width: int) -> None:
    x = torch.randn((2, 5, height, width), generator=torch.Generator().manual_seed(height * 100 + width))
    assert torch.equal(mtcnn._max_pool_2x2(x), F.max_pool2d(x, 2, 2, ceil_mode=True))


def test_networks_give_one_answer_per_window() -> None:
    nets = load_mtcnn(torch.device("cpu"))
    probability, offsets = nets.pnet(torch.zeros((2, 3, 12, 30)))
    assert probability.shape == (2, 1, 10)
    assert offsets.shape == (2, 4, 1, 10)
    assert [part.shape for part in nets.rnet(torch.zeros((3, 3, 24, 24)))] == [(3,), (3, 4)]
    assert [part.shape for part in nets.onet(torch.zeros((3, 3, 48, 48)))] == [(3,), (3, 4), (3, 5, 2)]


def test_a_changed_weight_file_is_refused() -> None:
    with pytest.raises(Corrupt, match="SHA-256"):
        wheel_file("mtcnn", "assets/weights/pnet.lz4", "0" * 64)


def test_missing_weights_say_what_to_do() -> None:
    with pytest.raises(NotFound, match="reinstall"):
        wheel_file("mtcnn", "assets/weights/qnet.lz4", "0" * 64)
    with pytest.raises(NotFound):
        wheel_file("no_such_package_here", "x", "0" * 64)


def test_loading_imports_neither_mtcnn_nor_tensorflow() -> None:
    program = (
        "import sys, torch; from workers.mtcnn import load_mtcnn; load_mtcnn(torch.device('cpu'));"
        "sys.exit(any(name in sys.modules for name in ('mtcnn', 'tensorflow', 'face_recognition_models')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
