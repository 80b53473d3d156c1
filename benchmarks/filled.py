"""Fills real stores with synthetic children, as if each had been enrolled: a million rows in minutes.

    .venv/bin/python -m benchmarks.filled --keep FOLDER --rows 1000000

starts PostgreSQL, Milvus and S3 in the folder, fills them and stops them; the other benchmarks start them
again with `--keep FOLDER`. Templates are drawn from real templates' mean and covariance; eight of ten
children have one face, one has three and one has five, from a poster. There are no photos.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.filled_catalogue import CatalogueFiller
from benchmarks.filled_children import (
    SEED,
    Batch,
    batches,
    check_rows,
    children_of,
    draw,
    kinds,
    model,
)
from benchmarks.reporting import say
from benchmarks.stores import Stores, running_stores
from catalogue.open import open_catalogue
from catalogue.types import RowColumns
from homeward.errors import Conflict
from index.columns import Columns, concatenate
from index.gallery import MilvusGallery
from index.open import open_gallery

_NOTE = "filled.json"
_SAY_S = 10.0


@dataclass(frozen=True, slots=True)
class Filled:
    """Stores with what they were filled with."""

    stores: Stores
    model_id: str
    dimension: int
    rows: int
    fill_s: float  # when they were filled
    was_there: bool  # filled by an earlier run

    def columns(self) -> Columns:
        """All rows, made again from the seed: what every index over these stores must hold."""
        coded = coded_kinds(self.stores)
        drawn = draw(self.rows, self.model_id)
        return concatenate([each.columns(coded) for each in batches(drawn, self.model_id)], self.dimension)


def fill(stores: Stores, rows: int, model_id: str, dimension: int) -> None:
    """Fill empty stores with so many rows. Raises `Conflict` when the catalogue is not empty."""
    check_rows(rows)
    coded = coded_kinds(stores)
    templates = draw(rows, model_id)
    gallery = open_gallery(stores.gallery, Path(), model_id, dimension)
    try:
        with stores.connect() as connection, ThreadPoolExecutor(2) as pool:
            found = connection.execute("SELECT rev FROM counter").fetchone()
            if found != (0,) or gallery.count():
                raise Conflict("the stores hold something already; fill new ones")
            filler = CatalogueFiller(connection, model_id)
            said = time.monotonic()
            done = 0
            for batch in batches(templates, model_id):
                # Milvus and PostgreSQL work side by side; both have a batch before the next one is made.
                written = pool.submit(_insert, gallery, batch, coded)
                filler.copy(batch)
                written.result()
                done += len(batch.faces)
                if time.monotonic() > said + _SAY_S:
                    said = time.monotonic()
                    say(f"filling the stores: {done:,} of {rows:,} rows")
            settled = pool.submit(filler.settle)
            gallery.flush()
            settled.result()
    finally:
        gallery.close()


@contextmanager
def servers_folder(keep: Path | None) -> Iterator[Path]:
    """Where Homeward's processes have their data folders: with the stores that are kept, so that a server is
    the same one in every run, or in a folder that goes."""
    if keep is not None:
        folder = keep / "homeward"
        folder.mkdir(exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="homeward-benchmark-") as name:
        yield Path(name)


@contextmanager
def filled_stores(rows: int, keep: Path | None) -> Iterator[Filled]:
    """Stores with so many rows, filled now, or before and kept in the folder.

    Raises `Conflict` when the kept ones were filled otherwise, or changed since."""
    model_id, dimension = model()
    wanted = {"rows": check_rows(rows), "seed": SEED, "model_id": model_id}
    note = None if keep is None else keep / _NOTE
    known = json.loads(note.read_text(encoding="utf-8")) if note is not None and note.is_file() else None
    if known is not None and {name: known[name] for name in wanted} != wanted:
        raise Conflict(f"{note} says that these stores hold {known}; choose another folder than {keep}")
    say("starting PostgreSQL, Milvus and S3")
    with running_stores(keep) as stores:
        if known is None:
            say(f"filling the stores with {rows:,} rows of {children_of(rows):,} children")
            started = time.monotonic()
            fill(stores, rows, model_id, dimension)
            known = wanted | {"fill_s": round(time.monotonic() - started, 1)}
            say(f"filled in {known['fill_s']} s")
            if note is not None:
                note.write_text(json.dumps(known) + "\n", encoding="utf-8")
            was_there = False
        else:
            was_there = True
            _check_unchanged(stores, rows)
        yield Filled(stores, model_id, dimension, rows, float(str(known["fill_s"])), was_there)


def coded_kinds(stores: Stores) -> list[RowColumns]:
    """The filter columns of each kind of child, as the catalogue codes them; makes the codes."""
    catalogue = open_catalogue(stores.catalogue, Path())
    try:
        return catalogue.columns([(kind.key(0), kind.attributes, kind.note, "") for kind in kinds()])
    finally:
        catalogue.close()


def _check_unchanged(stores: Stores, rows: int) -> None:
    with stores.connect() as connection:
        found = connection.execute("SELECT count(*) FROM faces").fetchone()
    if found != (rows,):
        raise Conflict(
            f"the kept stores hold {found} faces, not {rows}: a benchmark was cut off; fill new ones"
        )


def _insert(gallery: MilvusGallery, batch: Batch, coded: list[RowColumns]) -> None:
    gallery.insert_new(batch.columns(coded))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, required=True, help="the folder of the stores, new or filled so")
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with filled_stores(options.rows, options.keep) as filled:
        print(f"filled: {filled.rows:,} rows in {filled.fill_s:.0f} s, in {options.keep}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
