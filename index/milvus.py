"""The connection to Milvus, and its errors as ours.

Milvus Lite (a file) and a server answer the same client. No caller's string reaches an expression:
ids are fixed hex, everything else is an integer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from homeward.config import GallerySettings
from homeward.errors import Corrupt, StoreUnavailable
from index.columns import INTEGER_COLUMNS

LITE_FILE = "gallery.db"

# pymilvus logs a traceback for every failed call; our errors say it once.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise `StoreUnavailable` (store "gallery") for whatever the client raises."""
    try:
        yield
    except (MilvusException, grpc.RpcError, OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "message", "") or str(error) or type(error).__name__
        raise StoreUnavailable(
            f"Milvus failed while {doing}: {reason.splitlines()[0][:300]}; check that it runs and has room",
            store="gallery",
        ) from error


def connect(settings: GallerySettings, data_dir: Path) -> MilvusClient:
    """A client of the server at `settings.uri`, or of Milvus Lite in the data folder (mode 0700)."""
    token = settings.token.get_secret_value() if settings.token else ""
    if settings.uri:
        with translated(f"connecting to {settings.uri}"):
            return MilvusClient(uri=settings.uri, token=token, timeout=settings.timeout_s)
    path = data_dir / LITE_FILE
    with translated(f"opening {path}"):
        before = os.umask(0o077)
        try:
            return MilvusClient(uri=str(path), timeout=settings.timeout_s)
        finally:
            os.umask(before)


def create_collection(client: MilvusClient, name: str, dimension: int, description: str) -> None:
    """Make an empty collection of face rows: exact (FLAT), inner product."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=description)
    schema.add_field("face_id", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("record_id", DataType.VARCHAR, max_length=32)
    schema.add_field("photo_sha256", DataType.VARCHAR, max_length=64)
    for column in INTEGER_COLUMNS:
        schema.add_field(column, DataType.INT64)
    schema.add_field("template", DataType.FLOAT_VECTOR, dim=dimension)
    index = MilvusClient.prepare_index_params()
    index.add_index("template", index_type="FLAT", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


def check_collection(client: MilvusClient, name: str, dimension: int) -> None:
    """Raise `Corrupt` when the collection is not one of face rows with this dimension."""
    fields: dict[str, dict[str, Any]] = {
        field["name"]: field for field in client.describe_collection(name)["fields"]
    }
    wanted = {"face_id", "record_id", "photo_sha256", "template", *INTEGER_COLUMNS}
    if set(fields) != wanted:
        raise Corrupt(f"collection {name} has other fields than Homeward's; name another collection")
    found = int(fields["template"].get("params", {}).get("dim", dimension))
    if found != dimension:
        raise Corrupt(f"collection {name} holds {found}-d templates, the model makes {dimension}-d ones")
