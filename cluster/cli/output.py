"""What a person reads: tables of candidates, records and checks; and --json for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from homeward.v1 import operations_pb2, records_pb2, search_pb2

CAUTION = "Candidates for a trained person to review. A candidate is not an identification."

_STATES = {
    operations_pb2.CHECK_STATE_OK: ("ok", "green"),
    operations_pb2.CHECK_STATE_MENDED: ("mended", "cyan"),
    operations_pb2.CHECK_STATE_WARNING: ("warning", "yellow"),
    operations_pb2.CHECK_STATE_FAILED: ("failed", "bold red"),
}


PIPE_COLUMNS = 120  # width of tables that go into a file or a pipe
IDS_COLUMNS = 110  # from this width on record ids fit beside the rest


def console() -> Console:
    """The terminal on stdout."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def print_json(message: Message | dict[str, object]) -> None:
    """One JSON object on one line, field names as in the .proto files."""
    data = (
        MessageToDict(message, preserving_proto_field_name=True) if isinstance(message, Message) else message
    )
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")


def show_dates(span: records_pb2.DateRange) -> str:
    """'2011-05-30', '2011-05-30 to 2011-06-02', with '?' when nobody verified it; '' when unknown."""
    if not span.earliest and not span.latest:
        return ""
    same = span.earliest == span.latest or not span.latest
    text = span.earliest if same else f"{span.earliest} to {span.latest}"
    return text if span.verified else f"{text} ?"


def show_sex(sex: records_pb2.Sex.ValueType, *, verified: bool) -> str:
    """'female', 'male ?' when unverified, '' when unknown."""
    if sex == records_pb2.SEX_UNSPECIFIED:
        return ""
    name = records_pb2.Sex.Name(sex).removeprefix("SEX_").lower()
    return name if verified else f"{name} ?"


def candidate_table(
    found: search_pb2.CandidateList, *, title: str, ratio: bool, ids: bool, nobody: str
) -> Table:
    """The candidate list of one probe face; `nobody` is what an empty one says."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    if ratio:
        table.add_column("log LR", justify="right")
    facts = [_facts(candidate) for candidate in found.candidates]
    shown = [name for name in _FACTS if any(fact[name] for fact in facts)]
    for name in ("agency / gallery", "reference", *shown, "evidence"):
        table.add_column(name, overflow="fold")
    if ids:
        table.add_column("record", no_wrap=True)
    for candidate, fact in zip(found.candidates, facts, strict=True):
        cells = [str(candidate.rank), f"{candidate.comparison_score:.4f}"]
        if ratio:
            known = candidate.HasField("log_likelihood_ratio")
            cells.append(f"{candidate.log_likelihood_ratio:+.1f}" if known else "")
        cells += [
            f"{candidate.key.agency} / {candidate.key.gallery}",
            candidate.key.external_reference,
            *(fact[name] for name in shown),
            "; ".join([_evidence(candidate), *candidate.implausible, *candidate.notes]),
            *([candidate.record_id] if ids else []),
        ]
        table.add_row(*(Text(cell) for cell in cells), style="dim" if candidate.implausible else "")
    if not found.candidates:
        table.add_row(*[""] * (len(table.columns) - 1), Text(nobody))
    return table


_FACTS = ("born", "sex", "event")


def _facts(candidate: search_pb2.Candidate) -> dict[str, str]:
    return {
        "born": show_dates(candidate.born),
        "sex": show_sex(candidate.sex, verified=candidate.sex_verified),
        "event": " ".join(filter(None, [show_dates(candidate.event), candidate.event_place])),
    }


def _evidence(candidate: search_pb2.Candidate) -> str:
    text = f"{len(candidate.evidence)} face{'s' if len(candidate.evidence) != 1 else ''}"
    if candidate.evidence and candidate.evidence[0].HasField("years_to_probe"):
        text += f", {candidate.evidence[0].years_to_probe:.1f} y apart"
    return text


def print_search(answer: search_pb2.SearchResponse, *, threshold: bool) -> None:
    """Every list of an answer, then how it was found."""
    out = console()
    nobody = "no candidate above the threshold" if threshold else "no candidate"
    ratio = answer.HasField("calibration")
    for found in answer.lists:
        title = f"face {found.face.ordinal} of the probe" if found.HasField("face") else "candidates"
        if found.HasField("face"):
            title += f", quality {found.face.quality.score:.0f}/100"
            if found.face.quality.reasons:
                title += f" ({', '.join(found.face.quality.reasons)})"
        wide = out.width >= IDS_COLUMNS
        out.print(candidate_table(found, title=title, ratio=ratio, ids=wide, nobody=nobody))
        for gone in found.excluded:
            out.print(f"left out by verified facts: {gone.records} ({gone.reason})", style="yellow")
    account = answer.account
    if not account.records:
        out.print(
            "nobody was searched: no record passes these filters, none is enrolled, or all were enrolled "
            "with another model (homeward doctor). Galleries and agencies are written exactly as they were "
            "enrolled: homeward records list",
            style="bold yellow",
        )
    if account.method != "exact":
        out.print("Milvus answered for slots without a shard: homeward index status", style="yellow")
    times = ", ".join(f"{time.stage} {time.seconds * 1000:.1f} ms" for time in answer.times)
    out.print(
        f"{account.rows:,} templates of {account.records:,} records searched, {account.method}, "
        f"rev {account.rev}; {times}",
        style="dim",
    )
    if ratio:
        fitted = answer.calibration
        out.print(
            f"log LR: natural logarithm, fitted on {fitted.dataset} ({fitted.faces}), {fitted.fitted_on}",
            style="dim",
        )
    else:
        out.print("no log-likelihood ratio: this model has no calibration", style="dim")
    out.print(CAUTION, style="italic")


def record_table(records: Iterable[records_pb2.Record]) -> Table:
    """One line per record."""
    table = Table(header_style="dim")
    table.add_column("record", no_wrap=True)  # to be copied
    for name in ("agency / gallery", "reference", "born", "sex", "photos", "searchable"):
        table.add_column(name, overflow="fold")
    for record in records:
        searchable = Text("yes") if record.searchable else Text(record.unsearchable_reason, "yellow")
        table.add_row(
            Text(record.record_id),
            Text(f"{record.key.agency} / {record.key.gallery}"),
            Text(record.key.external_reference),
            show_dates(record.attributes.born),
            show_sex(record.attributes.sex, verified=record.attributes.sex_verified),
            str(len(record.photos)),
            searchable,
        )
    return table


def check_table(checks: Iterable[operations_pb2.Check]) -> Table:
    """The findings of `doctor`, with what to do."""
    table = Table(header_style="dim")
    for name in ("part", "state", "finding", "what to do"):
        table.add_column(name, overflow="fold")
    for check in checks:
        word, style = _STATES.get(check.state, ("?", ""))
        table.add_row(check.name, Text(word, style), Text(check.finding), Text(check.remedy))
    return table
