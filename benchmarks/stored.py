"""What a template costs in the stores: bytes in PostgreSQL, Milvus, S3 and the embedded ones, and memory.

    .venv/bin/python -m benchmarks.stored --json FILE

Fills real stores with synthetic children (as `benchmarks.filled`), then asks each how large it is; packs
snapshots of the same rows; and enrols real photos into an embedded Homeward. Sizes do not depend on what else
the machine does. `benchmarks.sizing` and docs/sizing.md reckon with the figures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pymilvus import MilvusClient

from benchmarks.common import machine, shared_photos, write_json
from benchmarks.filled import Filled, fill
from benchmarks.filled_children import check_rows, children_of, model
from benchmarks.reporting import say, surroundings
from benchmarks.stores import Stores, running_stores
from cluster.snapshot_format import GROUPS, Pack, encode, group_slots
from index.columns import Columns
from index.placement import SLOTS, slots_of

_CATALOGUE = ("records", "photos", "record_photos", "faces", "changes")
_MILVUS = ("insert_log", "delta_log", "stats_log", "index_files")  # what it keeps in its object store
_PEOPLE = 200
_SAMPLES, _SAMPLE_S = 9, 10.0


def measure_servers(rows: int) -> dict[str, Any]:
    """Fill PostgreSQL and Milvus and weigh them."""
    model_id, dimension = model()
    with tempfile.TemporaryDirectory(prefix="homeward-stored-") as name:
        keep = Path(name)
        keep.chmod(0o755)  # PostgreSQL runs as somebody else when this runs as root
        with running_stores(keep) as stores:
            before = _resident(stores.milvus.server.pid)
            say(f"filling the stores with {rows:,} rows")
            fill(stores, rows, model_id, dimension)
            say("weighing them")
            tables = _tables(stores)
            milvus = {part: _bytes_of(keep / "milvus" / "data" / part) for part in _MILVUS}
            columns = Filled(stores, model_id, dimension, rows, 0.0, was_there=False).columns()
            filled = _resident(stores.milvus.server.pid)
            say("having Milvus load them anew")
            loaded = _loaded_anew(stores)
    return {
        "rows": rows,
        "records": children_of(rows),
        "dimension": dimension,
        "postgres_bytes": tables,
        "postgres_bytes_per_row": sum(tables.values()) / rows,
        "postgres_faces_bytes_per_row": tables["faces"] / rows,
        "milvus_bytes": milvus,
        "milvus_bytes_per_row": sum(milvus.values()) / rows,
        "snapshot_bytes_per_row": _snapshot_bytes(columns, model_id) / rows,
        "milvus_resident_bytes": {"empty": before, "filled": filled, "loaded_anew": loaded},
        "milvus_resident_bytes_per_row": (loaded - before) / rows,
    }


def measure_embedded() -> dict[str, Any]:
    """Enrol real photos into embedded stores, search once, and weigh the data folder."""
    with tempfile.TemporaryDirectory(prefix="homeward-stored-") as name:
        people = Path(name) / "people"
        photos = _first_photos(people)
        data = Path(name) / "data"
        say(f"enrolling {len(photos)} photos into embedded stores")
        _homeward(data, "enrol", str(people), "--agency", "bench", "--gallery", "missing")
        why = ("--case", "sizing", "--purpose", "measuring", "--as", "benchmarks.stored")
        _homeward(data, "search", str(photos[0]), *why)
        resident = _server_resident(data)
        lines = sum(path.read_bytes().count(b"\n") for path in (data / "search-log").iterdir())
        return {
            "photos": len(photos),
            "server_resident_bytes": resident,
            "photo_bytes": sum(path.stat().st_size for path in photos) / len(photos),
            "search_log_bytes_per_line": _bytes_of(data / "search-log") / lines,
            "bytes": {path.name: _bytes_of(path) for path in sorted(data.iterdir())},
        }


def _tables(stores: Stores) -> dict[str, int]:
    with stores.connect() as connection:
        connection.execute("VACUUM ANALYZE")
        found = {}
        for table in _CATALOGUE:
            row = connection.execute("SELECT pg_total_relation_size(%s)", (table,)).fetchone()
            assert row is not None
            found[table] = int(row[0])
    return found


def _snapshot_bytes(columns: Columns, model_id: str) -> int:
    slots = slots_of(columns.record)
    total = 0
    for group in range(GROUPS):
        chosen = np.zeros(SLOTS, np.bool_)
        chosen[group_slots(group)] = True
        rows = columns.take(chosen[slots])
        total += len(encode(Pack(group, chosen, 0, rows, model_id, columns.dimension)))
    return total


def _resident(pid: int) -> int:
    """Resident memory of a process and all below it, what they share counted once."""
    process = psutil.Process(pid)
    return sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True)))


def _loaded_anew(stores: Stores) -> int:
    """Milvus's memory when it holds its collections as after a start, without what filling them left behind;
    the least within a minute and a half, as it gives memory back in its own time."""
    client = MilvusClient(uri=stores.gallery.uri)
    for name in client.list_collections():
        client.release_collection(name)
        client.load_collection(name)
    client.close()
    seen = []
    for _ in range(_SAMPLES):
        time.sleep(_SAMPLE_S)
        seen.append(_resident(stores.milvus.server.pid))
    return min(seen)


def _bytes_of(path: Path) -> int:
    """Of all files in it, whatever the disk's blocks."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def _first_photos(folder: Path) -> Sequence[Path]:
    """The first photos of some people, laid out as <person>/<photo>."""
    made: dict[str, Path] = {}
    with tarfile.open(shared_photos() / "lfw_dev.tar") as tar:
        for member in tar:
            person = Path(member.name).parent.name
            if not member.isfile() or not member.name.endswith(".jpg") or person in made:
                continue
            content = tar.extractfile(member)
            assert content is not None
            target = folder / person / Path(member.name).name
            target.parent.mkdir(parents=True)
            target.write_bytes(content.read())
            made[person] = target
            if len(made) == _PEOPLE:
                break
    return list(made.values())


def _homeward(data: Path, *words: str) -> None:
    program = str(Path(sys.executable).with_name("homeward"))
    environment = {**os.environ, "HOMEWARD_DATA_DIR": str(data), "HOMEWARD_SERVER__ADDRESS": "127.0.0.1:0"}
    command = [program, "--json", *words]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 6):
        raise RuntimeError(f"homeward {words[0]} ended with {done.returncode}: {done.stderr[-2000:]}")


def _server_resident(data: Path) -> int:
    """Memory of a server that has just begun to serve, with its decoders and Milvus Lite."""
    program = str(Path(sys.executable).with_name("homeward"))
    command = [program, "--data-dir", str(data), "--json", "serve"]
    environment = {**os.environ, "HOMEWARD_SERVER__ADDRESS": "127.0.0.1:0"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()  # it says where it serves
            return _resident(server.pid)
        finally:
            server.terminate()


def main() -> int:
    """Measure, print one line, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--rows", type=int, default=400_000)
    options = parser.parse_args()
    before = machine()
    figures = {"servers": measure_servers(check_rows(options.rows)), "embedded": measure_embedded()}
    write_json(options.json, {"benchmark": "stored"} | figures | surroundings(before))
    servers = figures["servers"]
    print(
        f"stored: a template takes {servers['postgres_bytes_per_row']:.0f} bytes in PostgreSQL, "
        f"{servers['milvus_bytes_per_row']:.0f} in Milvus's files, "
        f"{servers['milvus_resident_bytes_per_row']:.0f} in its memory"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
