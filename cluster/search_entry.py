"""The lines of the search log: who searched for whom, why, in what, and which records were shown."""

from __future__ import annotations

from typing import Any

from cluster.search_types import Comparison, SearchAnswer, SearchContext, SearchRequest
from homeward.types import DateRange


def search_entry(request: SearchRequest, probe: dict[str, Any], answer: SearchAnswer) -> dict[str, Any]:
    """The line of one search. Candidates are pairs of record id and comparison score, by rank."""
    return {
        "kind": "search",
        "search_id": answer.search_id,
        **_context(request.context),
        "probe": probe,
        "filter": _set(
            galleries=list(request.wanted.galleries),
            agencies=list(request.wanted.agencies),
            sexes=[sex.name for sex in request.wanted.sexes],
            born=_span(request.wanted.born),
            event=_span(request.wanted.event),
            places=list(request.wanted.places),
            strict=request.wanted.strict,
        ),
        "facts": _set(
            sex=request.known.sex.name if request.known.sex else None,
            sex_verified=request.known.sex_verified,
            born=_span(request.known.born),
            taken=_span(request.known.taken),
            age=[age.youngest, age.oldest, age.verified] if (age := request.known.age) else None,
        ),
        **_set(
            limit=request.limit,
            min_score=request.min_score,
            min_log_likelihood_ratio=request.min_log_likelihood_ratio,
            include_implausible=request.include_implausible,
            min_rev=request.min_rev,
        ),
        "lists": [
            {
                **({} if one.face is None else {"face": one.face.ordinal}),
                "candidates": [[each.record.record_id, each.score] for each in one.candidates],
                "excluded": {str(reason): count for reason, count in one.excluded.items()},
            }
            for one in answer.lists
        ],
        "rows": answer.rows,
        "records": answer.records,
        "rev": answer.rev,
        "method": answer.method,
        "model": answer.model_id,
    }


def compare_entry(context: SearchContext, sha256: tuple[str, str], made: Comparison) -> dict[str, Any]:
    """The line of one comparison of two photos."""
    return {
        "kind": "compare",
        "search_id": made.search_id,
        **_context(context),
        "probes": [
            {"sha256": sha256[0], "face": made.first.ordinal},
            {"sha256": sha256[1], "face": made.second.ordinal},
        ],
        "score": made.score,
        "model": made.model_id,
    }


def _context(context: SearchContext) -> dict[str, Any]:
    return {
        "case": context.case_reference,
        "purpose": context.purpose,
        "requester": context.requester,
        **_set(client=context.client, peer=context.peer),
    }


def _set(**values: Any) -> dict[str, Any]:
    """Those values that say something; a number always does."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and value is not False and value not in ("", [], {})
    }


def _span(span: DateRange | None) -> list[str] | None:
    if span is None:
        return None
    return [span.earliest.isoformat(), span.latest.isoformat(), *(["verified"] if span.verified else [])]
