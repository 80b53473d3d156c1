"""`doctor` looks at the search itself: enrolled faces are searched, the answers recomputed from Milvus."""

from __future__ import annotations

import heapq
import random
from functools import partial

from cluster.checks import MEND, Check, failed, ok, run, warning
from cluster.compose import Parts
from cluster.self_check import NAMED_IDS, check_search
from homeward.types import Query

PROBES = 3
_K = 20
_SLICE_ROWS = 4_096


async def check_searching(parts: Parts, _: bool) -> Check:
    """That the index which serves here gives what Milvus has. Raises `Unavailable` while it is loaded."""
    parts.live.check_loaded()
    queries, faces = await run(parts, _probes, parts)
    if not queries:
        if not faces:
            return ok("nobody is enrolled, so there is nothing to search")
        return warning(f"none of {faces} enrolled faces has a template to search with", "see gallery above")
    lists = await run(parts, parts.live.search_batch, queries)
    checked = await run(
        parts,
        partial(
            check_search,
            parts.catalogue,
            parts.gallery,
            parts.embedding.model_id,
            queries,
            lists,
            clock=parts.clock,
            slice_rows=_SLICE_ROWS,
        ),
    )
    said = (
        f"{checked.lists} searches recomputed from Milvus, recall {checked.recall:.3f}, "
        f"largest score difference {checked.score_error:.3g}"
    )
    if checked.left_out:
        said += f"; {checked.left_out} records that changed meanwhile left out"
    if checked.agrees:
        return ok(said)
    more = len(checked.differing) - NAMED_IDS
    named = ", ".join(checked.differing[:NAMED_IDS]) + (f" and {more} more" if more > 0 else "")
    return failed(f"{said}; these records and faces differ: {named}", MEND)


def _probes(parts: Parts) -> tuple[list[Query], int]:
    """Searches with the templates of a few enrolled faces drawn by chance; how many were drawn."""
    model = parts.embedding.model_id
    enrolled = (face.face_id for face in parts.catalogue.all_faces() if face.model_id == model)
    drawn = heapq.nsmallest(PROBES, enrolled, key=lambda _: random.random())  # noqa: S311 - no secret
    rows = parts.gallery.get(drawn)
    return [Query(template[None], _K) for template in rows.template], len(drawn)
