"""Which photos of a load are the same picture: equal bytes, or hashes of their pixels that are close.

Works on the tables of `cluster.load.report`. What it keeps in memory is the hashes, about 200 bytes for each
different picture.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np

from cluster.load.picture import HASH_BYTES, SAME_PICTURE_BITS
from cluster.load.report_types import MANY_RECORDS
from cluster.load.same_pictures import Int64, links

LOOK_ALIKES = 256  # a picture that is close to more others is taken for one that many records have
_FETCHED = 4096

# A picture's key is the hash of its pixels (a blob), or its photos' SHA-256 (text) where it has no such hash:
# a blank page is the same only as its own bytes. Bytes that never were decoded are no picture at all. A
# duplicate need not have been decoded again, so bytes take their hash from whichever photo has it. Columns
# that joins look up have types: without one SQLite does not use their index.
_PICTURES = """
create table decoded as
    select sha256, max(picture) as picture from photos
    where sha256 <> '' group by sha256 having max(width) > 0 or max(length(picture)) > 0;
create unique index decoded_by_sha256 on decoded (sha256);
create table keyed as
    select number, reference,
        coalesce(nullif(decoded.picture, x''), nullif(photos.picture, x''), sha256) as key
    from photos left join decoded using (sha256)
    where reference <> '' and (decoded.sha256 is not null or length(photos.picture) > 0);
create table pictures (id integer primary key, key);
insert into pictures
    select row_number() over (order by min(number), key) as id, key from keyed group by key;
create unique index pictures_by_key on pictures (key);
create table shown (picture integer, reference text, number integer);
insert into shown
    select pictures.id as picture, reference, number from keyed join pictures using (key);
create index shown_by_picture on shown (picture, reference, number);
create table held (picture integer, reference text, number integer, photos integer);
insert into held
    select picture, reference, min(number) as number, count(*) as photos
    from shown group by picture, reference;
create index held_by_picture on held (picture, reference);
create table near (one integer, other integer, bits integer);
create table common (picture integer primary key, leader integer);
"""
# A cross join is done in the order in which it is written: without statistics SQLite would choose one that
# compares all records with all.
_PAIRS = f"""
create index near_by_one on near (one, other);
insert or ignore into common
    select picture, picture from held group by picture having count(*) > {MANY_RECORDS};
insert or ignore into common
    select one, min(other) from near cross join common on picture = other group by one;
insert or ignore into common
    select one, min(other) from near cross join held on picture = other
    where one not in (select picture from common)
    group by one having count(distinct reference) > {MANY_RECORDS};
create table pairs as
    select a.reference as reference, b.reference as other, one, near.other as picture, bits,
        a.number as number, b.number as other_number
    from near cross join held a on a.picture = one cross join held b on b.picture = near.other
    where a.reference < b.reference and one not in (select picture from common)
        and near.other not in (select picture from common);
create index pairs_by_record on pairs (reference, other, number, bits, other_number);
create table doubles as
    select reference, other, min(count(distinct one), count(distinct picture)) as shared
    from pairs group by reference, other;
create table alike (one integer, reference text, number integer);
"""  # noqa: S608
_WITHIN = """
select a.reference, one, near.other from near
    cross join held a on a.picture = one
    cross join held b on b.picture = near.other and b.reference = a.reference
    where one < near.other or (one = near.other and a.photos > 1)
    order by a.reference, one, near.other
"""


def find_same_pictures(db: sqlite3.Connection) -> None:
    """Fill the tables `pairs`, `doubles`, `common` and `alike` from `photos`. Once."""
    db.executescript(_PICTURES)
    ids, hashes = _hashes(db)
    seen = np.zeros(len(ids), np.int64)  # others that are close
    first = np.arange(len(ids))  # the first of them
    for found in links(hashes, SAME_PICTURE_BITS):
        one, other, bits = found.T
        np.add.at(seen, one, 1)
        np.add.at(seen, other, 1)
        np.minimum.at(first, other, one)
        # Those of too many are dropped below whenever they came, so what is kept depends on no order.
        few = (seen[one] <= LOOK_ALIKES) & (seen[other] <= LOOK_ALIKES)
        rows = np.column_stack([ids[one[few]], ids[other[few]], bits[few]]).tolist()
        db.executemany("insert into near values (?, ?, ?)", rows)
    many = np.flatnonzero(seen > LOOK_ALIKES)
    db.executemany(
        "insert into common values (?, ?)", zip(ids[many].tolist(), ids[first[many]].tolist(), strict=True)
    )
    db.execute(
        "delete from near where one in (select picture from common) or other in (select picture from common)"
    )
    db.execute("insert into near select other, one, bits from near")
    db.execute("insert into near select id, id, 0 from pictures")
    db.executescript(_PAIRS)
    for reference, group in _groups(db):
        db.executemany(
            "insert into alike select ?, reference, number from shown where reference = ? and picture = ?",
            [(group[0], reference, picture) for picture in group],
        )


def _hashes(db: sqlite3.Connection) -> tuple[Int64, np.ndarray[tuple[int, int], np.dtype[np.uint8]]]:
    """Pictures that have a hash, (n,) int64, and these, (n, 32) uint8."""
    ids: list[int] = []
    raw = bytearray()
    found = db.execute(
        "select id, key from pictures where typeof(key) = 'blob' and length(key) = ? order by id",
        (HASH_BYTES,),
    )
    while rows := found.fetchmany(_FETCHED):
        ids += [one for one, _ in rows]
        for _, key in rows:
            raw += key
    return np.array(ids, np.int64), np.frombuffer(raw, np.uint8).reshape(-1, HASH_BYTES)


def _groups(db: sqlite3.Connection) -> Iterator[tuple[str, list[int]]]:
    """Within each record the pictures that are one, directly or by way of another."""
    for reference, rows in groupby(db.cursor().execute(_WITHIN), itemgetter(0)):
        lead: dict[int, int] = {}

        def leader(picture: int, lead: dict[int, int] = lead) -> int:
            while lead.setdefault(picture, picture) != picture:
                picture = lead[picture]
            return picture

        for _, one, other in rows:
            low, high = sorted((leader(one), leader(other)))
            lead[high] = low
        groups: dict[int, list[int]] = {}
        for picture in sorted(lead):
            groups.setdefault(leader(picture), []).append(picture)
        for group in groups.values():
            yield reference, group
