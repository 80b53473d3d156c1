"""Between the messages of shard.proto about rows, pushes and status and the types, without loss."""

from __future__ import annotations

import numpy as np

from homeward.ids import check_id
from homeward.v1 import shard_pb2
from index.columns import INTEGER_COLUMNS, Columns, id_words
from index.placement import SLOTS
from index.shard_rpc import read_slots, write_slots
from index.shard_types import Pushed, ShardStatus
from index.wire import answered, bytes_of, read_count, read_id, read_templates, read_words, wrong


def write_rows(columns: Columns) -> shard_pb2.ShardRows:
    """Rows as columns."""
    return shard_pb2.ShardRows(
        dimension=columns.dimension,
        face_ids=bytes_of(columns.face),
        record_ids=bytes_of(columns.record),
        photos=bytes_of(columns.photo),
        templates=columns.template.astype("<f4").tobytes(),
        **{name: getattr(columns, name).tolist() for name in INTEGER_COLUMNS},
    )


def read_rows(message: shard_pb2.ShardRows) -> Columns:
    """The inverse of `write_rows`; norms are not looked at here. Raises `InvalidInput`."""
    face = read_words(message.face_ids, 2, "face_ids")
    columns = Columns(
        face=face,
        record=read_words(message.record_ids, 2, "record_ids"),
        photo=read_words(message.photos, 4, "photos"),
        template=read_templates(message.templates, len(face), message.dimension),
        **{name: np.array(getattr(message, name), np.int32) for name in INTEGER_COLUMNS},
    )
    for name in ("record", "photo", *INTEGER_COLUMNS):
        if len(getattr(columns, name)) != len(face):
            raise wrong(name, f"{len(face)} values, as there are faces")
    return columns


def read_rows_answer(message: shard_pb2.GetRowsResponse, record_id: str, dimension: int) -> Columns:
    """The rows of a record. Raises `Corrupt` when they are another's or of another model."""
    with answered():
        columns = read_rows(message.rows)
        if not len(columns):
            return columns
        if columns.dimension != dimension:
            raise wrong("rows", f"templates of {dimension} components, not {columns.dimension}")
        if np.any(columns.record != id_words([record_id])):
            raise wrong("rows", f"rows of the record {record_id} alone")
        return columns


def write_pushed(pushed: Pushed) -> shard_pb2.PushedRecord:
    """What was committed of one record. Raises `InvalidInput` for ids that are none."""
    return shard_pb2.PushedRecord(
        record_id=bytes.fromhex(check_id(pushed.record_id, "record_id")),
        rev=pushed.rev,
        rows=write_rows(pushed.rows),
        removed_faces=[bytes.fromhex(check_id(one, "removed_faces")) for one in pushed.removed_faces],
    )


def read_pushed(message: shard_pb2.PushedRecord, dimension: int) -> Pushed:
    """The inverse of `write_pushed`. Raises `InvalidInput`, also for rows of another record."""
    record_id = read_id(message.record_id, "record_id")
    rows = read_rows(message.rows)
    if rows.dimension != dimension:
        raise wrong("rows", f"templates of {dimension} components, not {rows.dimension}")
    if len(rows) and np.any(rows.record != id_words([record_id])):
        raise wrong("rows", f"rows of the record {record_id} alone")
    removed = tuple(read_id(one, "removed_faces") for one in message.removed_faces)
    return Pushed(record_id, read_count(message.rev, "rev"), rows, removed)


def write_status(status: ShardStatus) -> shard_pb2.GetShardStatusResponse:
    """How a shard is."""
    return shard_pb2.GetShardStatusResponse(
        name=status.name,
        incarnation=status.incarnation,
        epoch=status.epoch,
        held=write_slots(status.held),
        rows=status.rows,
        records=status.records,
        rev=status.rev,
        lag_seconds=status.lag_seconds,
        model_id=status.model_id,
        dimension=status.dimension,
    )


def read_status(message: shard_pb2.GetShardStatusResponse) -> ShardStatus:
    """The inverse of `write_status`. Raises `Corrupt`."""
    with answered():
        if not message.held:
            raise wrong("held", f"a bitmap of {SLOTS // 8} bytes")
        return ShardStatus(
            name=message.name,
            incarnation=message.incarnation,
            epoch=message.epoch,
            held=read_slots(message.held),
            rows=message.rows,
            records=message.records,
            rev=message.rev,
            lag_seconds=message.lag_seconds,
            model_id=message.model_id,
            dimension=message.dimension,
        )
