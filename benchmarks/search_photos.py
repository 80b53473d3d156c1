"""Real templates for comparing answers: every face of lfw_dev, embedded once and kept in a cache."""

from __future__ import annotations

import hashlib
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from benchmarks.common import shared_photos
from benchmarks.search_differences import expected
from homeward.types import DAY_MAX, DAY_MIN, Query
from index.columns import INTEGER_COLUMNS, Columns
from index.shard import Shard

_K = 20
_BATCH = 64


def real_templates() -> Path:
    """An .npz with `templates` (n, 128) and `people` (n,) of lfw_dev. Embedding takes minutes, once; raises
    `NotFound` without the shared photos."""
    archive = shared_photos() / "lfw_dev.tar"
    stat = archive.stat()
    kept = user_cache_path("homeward") / f"lfw_dev-{stat.st_size}-{stat.st_mtime_ns}.npz"
    if kept.is_file():
        return kept
    from homeward.config import Settings
    from workers.labelled import embed_labelled, list_labelled
    from workers.open import open_decoder, open_pipeline

    settings = Settings.load()
    pipeline = open_pipeline(settings)
    with tempfile.TemporaryDirectory(prefix="homeward-lfw-") as scratch:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        roots = {path.parent.parent for path in Path(scratch).rglob("*.jpg")}
        photos = [photo for root in sorted(roots) for photo in list_labelled(root)]
        with open_decoder(settings.workers) as decoder:
            found = embed_labelled(photos, decoder, pipeline, progress=_progress)
    usable = [one for one in found if one.template is not None]
    kept.parent.mkdir(parents=True, exist_ok=True)
    people = np.array([one.photo.identity for one in usable])
    partial = kept.with_suffix(".partial.npz")
    np.savez(partial, templates=np.stack([one.template for one in usable]), people=people)  # type: ignore[misc]
    partial.rename(kept)
    return kept


def compare_templates(file: Path) -> tuple[int, int]:
    """How many templates the file has, and for how many of them the answer, found among all, differs."""
    with np.load(file, allow_pickle=False) as held:
        templates, people = held["templates"], held["people"]
    columns = _rows(templates, people)
    shard = Shard(templates.shape[1])
    shard.apply(upserts=columns)
    different = 0
    for start in range(0, len(templates), _BATCH):
        stop = min(start + _BATCH, len(templates))
        queries = [Query(templates[at : at + 1], _K) for at in range(start, stop)]
        answers = shard.search_many(queries)
        for query, answer in zip(queries, answers, strict=True):
            different += answer != expected(query, columns)
        _progress(stop, len(templates))
    shard.close()
    return len(templates), different


def _rows(templates: np.ndarray, people: np.ndarray) -> Columns:
    """A record for each person, a face for each photo."""

    def ids(names: list[str], words: int) -> np.ndarray:
        digests = b"".join(hashlib.sha256(name.encode()).digest()[: 8 * words] for name in names)
        return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(len(names), words)

    names = [f"{person}/{number}" for number, person in enumerate(people.tolist())]
    unknown = {"from": DAY_MIN, "to": DAY_MAX}  # by the end of a column's name; codes are 0
    numbers = {
        name: np.full(len(names), unknown.get(name.rpartition("_")[2], 0), np.int32)
        for name in INTEGER_COLUMNS
    }
    return Columns(
        face=ids(names, 2),
        record=ids(people.tolist(), 2),
        photo=ids([f"photo {name}" for name in names], 4),
        template=np.ascontiguousarray(templates, np.float32),
        **numbers,
    )


def _progress(done: int, total: int) -> None:
    if done % 512 == 0 or done == total:
        print(f"search: {done:,} of {total:,} real photos", file=sys.stderr)
