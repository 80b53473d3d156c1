"""The gallery on Milvus Lite: the contract, and what only a folder of ours can promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from homeward.config import GallerySettings
from index.gallery import MilvusGallery
from index.open import open_gallery
from tests.index.contract import DIMENSION, GalleryContract


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusGallery]:
    opened = open_gallery(GallerySettings(), tmp_path_factory.mktemp("lite"), "model", DIMENSION)
    yield opened
    opened.close()


class TestLite(GalleryContract):
    """Milvus Lite keeps the contract."""
