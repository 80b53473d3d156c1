"""The connection to Milvus, its errors as ours, and what a collection of face rows looks like.

Milvus Lite (a folder) and a server answer the same client. No caller's string reaches an expression:
ids are fixed hex, everything else is an integer.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.client.prepare import Prepare
from pymilvus.client.types import Status
from pymilvus.client.utils import check_status
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen.common_pb2 import ConsistencyLevel

from homeward.config import GallerySettings
from homeward.errors import Corrupt, StoreUnavailable
from homeward.telemetry import store_failed
from index.columns import COLUMN_NAMES, INTEGER_COLUMNS, Columns, empty, hex_ids, id_words
from index.lite import LiteFolder, open_folder

LITE_FOLDER = "gallery.db"
FIELDS = ("face_id", "record_id", "photo_sha256", "template", *INTEGER_COLUMNS)

# pymilvus logs a traceback for every failed call; our errors say it once.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
# The client asks for a method that Milvus Lite lacks and goes on without; its server logs a traceback.
logging.getLogger("grpc._server").addFilter(lambda line: "Method not implemented" not in line.getMessage())


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, and the folder behind it when that is Milvus Lite."""

    client: MilvusClient
    lite: LiteFolder | None
    timeout_s: float

    def guard(self) -> AbstractContextManager[None]:
        """To be held around each call: Lite takes one at a time, a server any number."""
        return nullcontext() if self.lite is None else self.lite.guard()

    def close(self) -> None:
        """Let the connection, or the folder, go."""
        if self.lite is None:
            self.client.close()
        else:
            self.lite.close()


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise `StoreUnavailable` (store "gallery") for whatever the client raises."""
    try:
        yield
    except (MilvusException, grpc.RpcError, OSError, RuntimeError, ValueError, TypeError) as error:
        reason = getattr(error, "message", "") or str(error) or type(error).__name__
        store_failed("gallery", type(error).__name__)
        raise StoreUnavailable(
            f"Milvus failed while {doing}: {str(reason).splitlines()[0][:300]}; check that it runs and "
            "has room",
            store="gallery",
        ) from error


def connect(settings: GallerySettings, data_dir: Path) -> Connection:
    """A connection to the server at `settings.uri`, or to Milvus Lite in the data folder (mode 0700)."""
    if settings.uri:
        token = settings.token.get_secret_value() if settings.token else ""
        with translated(f"connecting to {settings.uri}"):
            client = MilvusClient(uri=settings.uri, token=token, timeout=settings.timeout_s)
            return Connection(client, None, settings.timeout_s)
    path = data_dir / LITE_FOLDER
    with translated(f"opening {path}"):
        folder = open_folder(path, settings.timeout_s)
        return Connection(folder.client, folder, settings.timeout_s)


def create_collection(connection: Connection, name: str, dimension: int, description: str) -> None:
    """Make the collection ready: create it unless it is there, index it unless it is indexed, load it.

    The index is FLAT (exact) by inner product. A creation that a crash cut short is finished.
    """
    client, limit = connection.client, connection.timeout_s
    if not client.has_collection(name, timeout=limit):
        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=description
        )
        schema.add_field("face_id", DataType.VARCHAR, is_primary=True, max_length=32)
        schema.add_field("record_id", DataType.VARCHAR, max_length=32)
        schema.add_field("photo_sha256", DataType.VARCHAR, max_length=64)
        for column in INTEGER_COLUMNS:
            schema.add_field(column, DataType.INT64)
        schema.add_field("template", DataType.FLOAT_VECTOR, dim=dimension)
        client.create_collection(name, schema=schema, consistency_level="Strong", timeout=limit)
    if not client.list_indexes(name, timeout=limit):
        index = MilvusClient.prepare_index_params()
        index.add_index("template", index_type="FLAT", metric_type="IP")
        # Lite has indexed when its call returns; the client would sleep half a second before it asks.
        client.create_index(name, index, timeout=limit, sync=connection.lite is None)
    client.load_collection(name, timeout=limit)


def check_collection(connection: Connection, name: str, dimension: int) -> dict[str, Any]:
    """The collection's description; `Corrupt` when it is not one of face rows with this dimension."""
    described: dict[str, Any] = connection.client.describe_collection(name, timeout=connection.timeout_s)
    fields: dict[str, dict[str, Any]] = {field["name"]: field for field in described["fields"]}
    if set(fields) != set(FIELDS):
        raise Corrupt(f"collection {name} has other fields than Homeward's; name another collection")
    found = int(fields["template"].get("params", {}).get("dim", dimension))
    if found != dimension:
        raise Corrupt(f"collection {name} holds {found}-d templates, the model makes {dimension}-d ones")
    return described


def dimension_of(connection: Connection, name: str) -> int | None:
    """Components of a collection's templates; None if there is no such collection."""
    with translated("looking for the collection"), connection.guard():
        if not connection.client.has_collection(name, timeout=connection.timeout_s):
            return None
        described = connection.client.describe_collection(name, timeout=connection.timeout_s)
    sizes = [field["params"]["dim"] for field in described["fields"] if field["name"] == "template"]
    return int(sizes[0]) if sizes else None


def entities(columns: Columns) -> list[dict[str, Any]]:
    """The rows column by column, as the client's `upsert` takes them: many times faster than row by row."""
    text = DataType.VARCHAR
    return [
        {"name": "face_id", "type": text, "values": hex_ids(columns.face)},
        {"name": "record_id", "type": text, "values": hex_ids(columns.record)},
        {"name": "photo_sha256", "type": text, "values": hex_ids(columns.photo)},
        *(
            {"name": name, "type": DataType.INT64, "values": getattr(columns, name).tolist()}
            for name in INTEGER_COLUMNS
        ),
        {"name": "template", "type": DataType.FLOAT_VECTOR, "values": columns.template},
    ]


def read_columns(
    connection: Connection, collection: str, where: str, dimension: int, limit: int | None = None
) -> Columns:
    """The rows that `where` lets through, as they are now (strong consistency).

    The answer's columns are taken as they come: the client's own way, a dictionary per row, takes many
    times as long. Raises `Corrupt` when the answer is not one of whole rows.
    """
    request = Prepare.query_request(
        collection,
        where,
        list(FIELDS),
        None,
        use_default_consistency=False,
        consistency_level=ConsistencyLevel.Strong,
        guarantee_timestamp=0,  # the server puts the newest in its place
        **({} if limit is None else {"limit": limit}),
    )
    handler = connection.client._get_connection()
    with connection.guard():
        answer = handler._stub.Query(request, timeout=connection.timeout_s)
    if Status.EMPTY_COLLECTION in {answer.status.code, answer.status.error_code}:
        return empty(dimension)
    check_status(answer.status)
    found = {field.field_name: field for field in answer.fields_data}
    try:
        faces = list(found["face_id"].scalars.string_data.data)
        vectors = np.array(found["template"].vectors.float_vector.data, dtype=np.float32)
        columns = Columns(
            face=id_words(faces),
            record=id_words(list(found["record_id"].scalars.string_data.data)),
            photo=id_words(list(found["photo_sha256"].scalars.string_data.data), 4),
            template=vectors.reshape(len(faces), dimension),
            **{name: np.array(found[name].scalars.long_data.data, np.int32) for name in INTEGER_COLUMNS},
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise Corrupt(f"Milvus answered rows of {collection} that are not whole: {error}") from error
    if any(len(getattr(columns, name)) != len(faces) for name in COLUMN_NAMES):
        raise Corrupt(f"Milvus answered columns of {collection} of different lengths")
    return columns


def collection_name(prefix: str, model_id: str) -> str:
    """The collection of one model."""
    return f"{prefix}_{hashlib.sha256(model_id.encode('utf-8')).hexdigest()[:16]}"
