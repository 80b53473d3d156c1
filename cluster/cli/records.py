"""`homeward records` and `homeward delete`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.text import Text

from cluster.cli import arguments
from cluster.cli.exits import Exit, command
from cluster.cli.output import console, print_json, record_table, show_dates, show_sex
from cluster.cli.session import open_session
from cluster.cli.state import state
from homeward.errors import InvalidInput
from homeward.files import write_private
from homeward.v1 import enrolment_pb2, records_pb2

records_app = typer.Typer(help="List and show records, and fetch their photos.", no_args_is_help=True)


@records_app.command("list")
@command
async def list_records(
    agency: Annotated[str, typer.Option(help="Only this agency's.")] = "",
    gallery: Annotated[str, typer.Option(help="Only this gallery's.")] = "",
    unsearchable: Annotated[bool, typer.Option(help="Only those that no search can return.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
) -> Exit | None:
    """List records, with the reason where one cannot be found by any search."""
    found: list[records_pb2.Record] = []
    request = enrolment_pb2.ListRecordsRequest(agency=agency, gallery=gallery)
    if unsearchable:
        request.searchable = False
    async with open_session(state()) as session:
        while len(found) < limit:
            request.page_size = min(limit - len(found), state().settings.enrol.max_page)
            page = await session.enrolment.ListRecords(request, timeout=state().settings.server.deadline_s)
            found += page.records
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
    if state().as_json:
        for record in found:
            print_json(record)
    else:
        console().print(record_table(found))
        console().print(f"{len(found)} records" + (", more exist" if request.page_token else ""))
    return None


@records_app.command("get")
@command
async def get_record(
    record: Annotated[str, typer.Argument(help="The record id.")],
    photos_to: Annotated[Path | None, typer.Option(help="Write the photos into this folder.")] = None,
) -> Exit | None:
    """Show one record with its photos and faces."""
    deadline = state().settings.server.deadline_s
    async with open_session(state()) as session:
        answer = await session.enrolment.GetRecord(
            enrolment_pb2.GetRecordRequest(record_id=record), timeout=deadline
        )
        if photos_to is not None:
            photos_to.mkdir(parents=True, exist_ok=True, mode=0o700)
            for photo in answer.record.photos:
                got = await session.enrolment.GetPhoto(
                    enrolment_pb2.GetPhotoRequest(record_id=record, sha256=photo.sha256), timeout=deadline
                )
                suffix = got.media_type.partition("/")[2] or "bin"
                write_private(photos_to / f"{photo.sha256}.{suffix}", got.content)
    if state().as_json:
        print_json(answer.record)
        return None
    out = console()
    out.print(record_table([answer.record]))
    attributes = answer.record.attributes
    for name, value in (
        ("born", show_dates(attributes.born)),
        ("sex", show_sex(attributes.sex, verified=attributes.sex_verified)),
        ("event", " ".join(filter(None, [show_dates(attributes.event), attributes.event_place]))),
        ("provenance", attributes.provenance),
        ("legal basis", attributes.legal_basis),
        ("etag", answer.record.etag),
    ):
        if value:
            out.print(Text(f"{name:12}{value}"))
    for photo in answer.record.photos:
        taken = show_dates(photo.taken)
        size = f"{photo.width}x{photo.height}"
        out.print(Text(f"photo {photo.sha256[:16]}  {size}  {photo.outcome}  {taken}"))
        for face in photo.faces:
            reasons = ", ".join(face.quality.reasons)
            out.print(Text(f"  face {face.face_id} quality {face.quality.score:.0f} {reasons}"))
    return None


@command
async def delete(
    record: Annotated[str, typer.Argument(help="The record id.")],
    requester: arguments.Requester,
    reason: Annotated[str, typer.Option(help="Why; stays with the tombstone. Name no child in it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Exit | None:
    """Delete a child: out of every search at once, and says what is erased in which store."""
    if not yes and not typer.confirm(f"Delete record {record} for good?"):
        raise InvalidInput("nothing was deleted", code="NOT_CONFIRMED")
    async with open_session(state()) as session:
        answer = await session.enrolment.DeleteRecord(
            enrolment_pb2.DeleteRecordRequest(
                request_id=str(uuid4()), record_id=record, requester=requester, reason=reason
            ),
            timeout=state().settings.server.deadline_s,
        )
    if state().as_json:
        print_json(answer)
        return None
    out = console()
    out.print(f"deleted at rev {answer.rev}; no search returns it")
    pending = False
    for store in answer.erasures:
        if store.erased:
            out.print(f"  {store.store}: erased")
        else:
            pending = True
            until = store.erasure_pending_until.ToDatetime().isoformat(timespec="minutes")
            out.print(f"  {store.store}: bytes stay in its files until {until} UTC", style="yellow")
    if pending:
        out.print("`homeward erase` rewrites those files now.")
    return None
