"""Between search.proto and the types of `cluster.search_types`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.plan import check_context
from cluster.rpc.convert import read_date_range, read_sex
from cluster.rpc.fields import invalid, number, text
from cluster.search_types import (
    Age,
    AnswerList,
    Comparison,
    Known,
    ListedCandidate,
    PhotoProbe,
    RecordProbe,
    SearchAnswer,
    SearchContext,
    SearchRequest,
    TemplateProbe,
    Wanted,
)
from homeward.face_message import write_face
from homeward.types import Calibration
from homeward.v1 import search_pb2

NAMES_MAX = 100  # of one filter
_TEMPLATE_VALUES_MAX = 1 << 16
AGE_MAX = 130.0


def read_context(message: search_pb2.SearchContext, client: str = "", peer: str = "") -> SearchContext:
    """Texts in NFC without control characters. Raises `CaseRequired` before anything else is looked at."""
    context = SearchContext(
        case_reference=text(message.case_reference, "context.case_reference"),
        purpose=text(message.purpose, "context.purpose"),
        requester=text(message.requester, "context.requester"),
        client=client,
        peer=peer,
    )
    check_context(context)
    return context


def read_search(message: search_pb2.SearchRequest, client: str = "", peer: str = "") -> SearchRequest:
    """Raises `InvalidInput` naming the wrong field."""
    context = read_context(message.context, client, peer)
    if message.min_rev < 0:
        raise invalid("min_rev", "must not be negative")
    return SearchRequest(
        context=context,
        probe=_probe(message),
        limit=message.limit,
        wanted=_wanted(message.filter),
        known=_known(message.facts),
        include_implausible=message.include_implausible,
        min_score=message.min_comparison_score if message.HasField("min_comparison_score") else None,
        min_log_likelihood_ratio=(
            message.min_log_likelihood_ratio if message.HasField("min_log_likelihood_ratio") else None
        ),
        evidence=message.evidence_limit,
        min_rev=message.min_rev,
        model_id=text(message.model_id, "model_id"),
    )


def write_answer(answer: SearchAnswer) -> search_pb2.SearchResponse:
    """The whole answer but for its times.

    Every search waits for this. Parts are made where they belong: one that is made by itself is copied when
    it is put into a larger one."""
    message = search_pb2.SearchResponse(
        account=search_pb2.SearchAccount(
            rows=answer.rows,
            records=answer.records,
            rev=answer.rev,
            method=answer.method,
            model_id=answer.model_id,
        ),
        calibration=write_calibration(answer.calibration),
        search_id=answer.search_id,
    )
    for one in answer.lists:
        _write_list(one, message.lists.add())
    return message


def write_times(answer: SearchAnswer, message: search_pb2.SearchResponse) -> None:
    """How long its stages took."""
    for stage, seconds in answer.seconds.items():
        message.times.add(stage=stage, seconds=seconds)


def write_comparison(made: Comparison) -> search_pb2.CompareResponse:
    """The comparison of two photos."""
    return search_pb2.CompareResponse(
        comparison_score=made.score,
        log_likelihood_ratio=made.log_likelihood_ratio,
        first=write_face(made.first),
        second=write_face(made.second),
        model_id=made.model_id,
        calibration=write_calibration(made.calibration),
        search_id=made.search_id,
    )


def write_calibration(value: Calibration | None) -> search_pb2.Calibration | None:
    """What the ratio was fitted on; None stays None."""
    if value is None:
        return None
    return search_pb2.Calibration(
        model_id=value.model_id,
        dataset=value.dataset,
        faces=value.faces,
        fitted_on=value.fitted_on.isoformat(),
        mated_pairs=value.mated,
        non_mated_pairs=value.non_mated,
    )


def _probe(message: search_pb2.SearchRequest) -> PhotoProbe | TemplateProbe | RecordProbe:
    which = message.WhichOneof("probe")
    if which != "photo" and message.HasField("face_ordinal"):
        raise invalid("face_ordinal", "goes with a photo only")
    match which:
        case "photo":
            ordinal = message.face_ordinal if message.HasField("face_ordinal") else None
            return PhotoProbe(message.photo, ordinal)
        case "template":
            count = len(message.template.values)
            if count > _TEMPLATE_VALUES_MAX:
                raise invalid("template.values", f"holds {count} numbers; no model makes so many")
            values = np.fromiter(message.template.values, dtype=np.float32, count=count)
            return TemplateProbe(values, message.template.model_id)
        case "record_id":
            return RecordProbe(message.record_id)
        case _:
            raise invalid("probe", "is required: a photo, a template or a record_id")


def _wanted(message: search_pb2.SearchFilter) -> Wanted:
    if len(message.sexes) > NAMES_MAX:
        raise invalid("filter.sexes", f"holds {len(message.sexes)} values; at most {NAMES_MAX}")
    return Wanted(
        galleries=_names(message.galleries, "filter.galleries"),
        agencies=_names(message.agencies, "filter.agencies"),
        sexes=tuple(read_sex(sex, "filter.sexes") for sex in sorted(set(message.sexes))),
        born=read_date_range(message.born, "filter.born"),
        event=read_date_range(message.event, "filter.event"),
        places=_names(message.places, "filter.places"),
        strict=message.strict,
    )


def _names(values: Sequence[str], field: str) -> tuple[str, ...]:
    if len(values) > NAMES_MAX:
        raise invalid(field, f"holds {len(values)} names; at most {NAMES_MAX}")
    return tuple(text(value, field, required=True) for value in values)


def _known(message: search_pb2.ProbeFacts) -> Known:
    sex = read_sex(message.sex, "facts.sex")
    if message.sex_verified and not sex:
        raise invalid("facts.sex_verified", "is set, but no sex is given")
    return Known(
        sex=sex,
        sex_verified=message.sex_verified,
        born=read_date_range(message.born, "facts.born"),
        taken=read_date_range(message.taken, "facts.taken"),
        age=_age(message.age) if message.HasField("age") else None,
    )


def _age(message: search_pb2.AgeRange) -> Age:
    youngest = number(message.min_years, "facts.age.min_years", low=0.0, high=AGE_MAX)
    oldest = number(message.max_years, "facts.age.max_years", low=0.0, high=AGE_MAX)
    if youngest > oldest:
        raise invalid("facts.age", f"begins at {youngest:g} years and ends before that, at {oldest:g}")
    return Age(youngest, oldest, message.verified)


def _write_list(value: AnswerList, message: search_pb2.CandidateList) -> None:
    if value.face is not None:
        message.face.MergeFrom(write_face(value.face))
    for one in value.candidates:
        _write_candidate(one, message)
    for reason, count in sorted(value.excluded.items()):
        message.excluded.add(reason=str(reason), records=count)


def _write_candidate(value: ListedCandidate, to: search_pb2.CandidateList) -> None:
    record, age = value.record, value.age_at_probe
    message = to.candidates.add(
        rank=value.rank,
        record_id=record.record_id,
        comparison_score=value.score,
        log_likelihood_ratio=value.log_likelihood_ratio,
    )
    message.MergeFromString(record.message)
    if value.implausible:
        message.implausible.extend(str(reason) for reason in value.implausible)
    if value.notes:
        message.notes.extend(value.notes)
    if age is not None:
        message.age_at_probe.min_years = age.youngest
        message.age_at_probe.max_years = age.oldest
        message.age_at_probe.verified = age.verified
    for one in value.evidence:
        shown = message.evidence.add(
            sha256=one.sha256, comparison_score=one.score, years_to_probe=one.years_to_probe
        )
        shown.MergeFromString(one.message)
        shown.face.face_id = one.face_id
