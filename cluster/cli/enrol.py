"""`homeward enrol`: photos of one child, or a folder of `<reference>/<photo>`."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import grpc
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from cluster.cli import arguments
from cluster.cli.exits import Exit, command
from cluster.cli.output import console, print_json
from cluster.cli.session import Session, open_session
from cluster.cli.state import state
from cluster.rpc.status import error_from_rpc
from homeward.config import Settings
from homeward.errors import InvalidInput, Overloaded, Unavailable
from homeward.v1 import enrolment_pb2, records_pb2

IN_FLIGHT = 32  # enrolments under way at once: the server batches what arrives together


@dataclass(frozen=True, slots=True)
class Child:
    """One record to enrol."""

    reference: str
    photos: tuple[Path, ...]


def _photos_of(folder: Path) -> tuple[Path, ...]:
    return tuple(
        sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    )


def plan(paths: list[Path], reference: str | None) -> list[Child]:
    """What to enrol: with a reference all photos are one child's, else each subfolder is one child.

    A folder without subfolders is one child named after the folder. Raises `InvalidInput` when a path
    is missing, no photo is found, or loose photos come without --reference.
    """
    for path in paths:
        if not path.exists():
            raise InvalidInput(f"there is no {path}", code="PATH_MISSING", field="paths")
    if reference is not None:
        photos = [photo for path in paths for photo in ([path] if path.is_file() else _photos_of(path))]
        children = [Child(reference, tuple(photos))]
    else:
        loose = [path for path in paths if path.is_file()]
        if loose:
            raise InvalidInput(
                f"{loose[0]} needs --reference: the agency's own name for this child",
                code="REFERENCE_REQUIRED",
                field="reference",
            )
        folders: list[Path] = []
        for path in paths:
            below = sorted(entry for entry in path.iterdir() if entry.is_dir())
            folders += below or [path]
        children = [Child(folder.name, _photos_of(folder)) for folder in folders]
    children = [child for child in children if child.photos]
    if not children:
        raise InvalidInput("no photo found there", code="PATH_EMPTY", field="paths")
    return children


def requests(child: Child, settings: Settings) -> Iterator[tuple[Path, ...]]:
    """The child's photos in groups that one message and one enrolment can carry."""
    room = settings.server.max_message_bytes - 64 * 1024  # attributes and framing
    group: list[Path] = []
    size = 0
    for photo in child.photos:
        more = photo.stat().st_size
        if group and (size + more > room or len(group) == settings.enrol.max_photos):
            yield tuple(group)
            group, size = [], 0
        group.append(photo)
        size += more
    if group:
        yield tuple(group)


async def _send(
    session: Session, request: enrolment_pb2.EnrolRecordRequest, deadline_s: float
) -> enrolment_pb2.EnrolRecordResponse:
    """Enrol, and try again a few times when the server says that it is full."""
    for pause_s in (0.5, 1.0, 2.0, 4.0):
        try:
            return await session.enrolment.EnrolRecord(request, timeout=deadline_s)
        except grpc.aio.AioRpcError as failure:
            if not isinstance(error_from_rpc(failure), Overloaded):
                raise
        await asyncio.sleep(pause_s)
    return await session.enrolment.EnrolRecord(request, timeout=deadline_s)


@command
async def enrol(
    paths: Annotated[list[Path], typer.Argument(help="Photos of one child, or folders <reference>/<photo>.")],
    agency: Annotated[str, typer.Option(envvar="HOMEWARD_AGENCY", help="The agency that owns the record.")],
    gallery: Annotated[str, typer.Option(help="missing, found, or the agency's own.")] = "missing",
    reference: Annotated[str | None, typer.Option(help="The agency's reference for this child.")] = None,
    born: Annotated[str | None, typer.Option(help=f"Date of birth: {arguments.DATE_HELP}")] = None,
    sex: Annotated[arguments.SexOption | None, typer.Option(help="As recorded.")] = None,
    event: Annotated[str | None, typer.Option(help="When the child went missing or was found.")] = None,
    place: Annotated[str, typer.Option(help="Where.")] = "",
    taken: Annotated[str | None, typer.Option(help="When the photos were taken.")] = None,
    provenance: Annotated[str, typer.Option(help="Where the photos come from.")] = "",
    legal_basis: Annotated[str, typer.Option(help="Why the agency may hold them.")] = "",
    verified: Annotated[
        bool, typer.Option(help="The facts given here are verified; only such facts exclude a candidate.")
    ] = False,
    choice: Annotated[
        arguments.ChoiceOption,
        typer.Option(help="Which face is the child's: the sole one, the most central one, or all of them."),
    ] = arguments.ChoiceOption.SOLE,
    reinstate: Annotated[bool, typer.Option(help="Bring a deleted child back, on purpose.")] = False,
) -> Exit | None:
    """Enrol photos: one child with --reference, or a folder with one subfolder per child.

    A photo that gives no usable face is reported with a reason code and costs nothing else.

        homeward enrol boy-at-three.jpg --agency XX --reference 2011-0042 --born 2008
        homeward enrol archive/ --agency XX --gallery found
    """
    children = plan(paths, reference)
    attributes = records_pb2.Attributes(
        born=arguments.dates(born, verified=verified),
        sex=arguments.sex(sex),
        sex_verified=verified and sex is not None,
        event=arguments.dates(event, verified=verified),
        event_place=place,
        provenance=provenance,
        legal_basis=legal_basis,
    )
    settings = state().settings
    outcomes: Counter[str] = Counter()
    enrolled: set[str] = set()  # record ids
    refused: list[tuple[str, str, str]] = []  # what, code, message
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(session: Session, child: Child, progress: Progress, task: TaskID) -> None:
        key = records_pb2.RecordKey(agency=agency, gallery=gallery, external_reference=child.reference)
        for photos in requests(child, settings):
            async with slots:
                request = enrolment_pb2.EnrolRecordRequest(
                    request_id=str(uuid4()), key=key, attributes=attributes, reinstate=reinstate
                )
                for photo in photos:
                    request.photos.add(
                        content=photo.read_bytes(),
                        taken=arguments.dates(taken, verified=verified),
                        choice=arguments.choice(choice),
                        provenance=provenance,
                    )
                try:
                    answer = await _send(session, request, settings.server.deadline_s)
                except grpc.aio.AioRpcError as failure:
                    error = error_from_rpc(failure)
                    if isinstance(error, Unavailable):
                        raise error from failure
                    outcomes[error.code] += len(photos)
                    refused.append((child.reference, error.code, error.message))
                    continue
                finally:
                    progress.advance(task, len(photos))
            for photo, outcome in zip(photos, answer.outcomes, strict=True):
                outcomes[outcome.code] += 1
                if outcome.code == "ENROLLED":
                    enrolled.add(answer.record.record_id)
                else:
                    refused.append((str(photo), outcome.code, outcome.message))
            if state().as_json:
                print_json(answer)

    bars = Progress(
        TextColumn("enrolling"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    async with open_session(state()) as session:
        with bars:
            task = bars.add_task("photos", total=sum(len(child.photos) for child in children))
            await asyncio.gather(*(one(session, child, bars, task) for child in children))
    if not state().as_json:
        out = console()
        for what, code, message in refused:
            out.print(Text.assemble(f"{what}: ", (code, "yellow"), f" {message}"))
        total = sum(outcomes.values())
        out.print(f"{outcomes['ENROLLED']} of {total} photos enrolled for {len(enrolled)} records")
        if len(enrolled) == 1:
            out.print(f"record {next(iter(enrolled))}")
    return Exit.PARTIAL if refused else None
