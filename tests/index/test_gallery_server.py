"""The gallery on a real Milvus server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from index.gallery import MilvusGallery
from index.open import open_gallery
from tests.index.contract import DIMENSION, GalleryContract
from tests.servers.milvus import Milvus


@pytest.fixture(scope="module")
def gallery(milvus_server: Milvus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusGallery]:
    settings = milvus_server.settings(f"t{secrets.token_hex(4)}")
    opened = open_gallery(settings, tmp_path_factory.mktemp("none"), "model", DIMENSION)
    yield opened
    opened.close()


class TestServer(GalleryContract):
    """A Milvus server keeps the contract."""
