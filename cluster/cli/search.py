"""`homeward search` and `homeward compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli import arguments
from cluster.cli.exits import Exit, command
from cluster.cli.output import CAUTION, console, print_json, print_search
from cluster.cli.session import open_session
from cluster.cli.state import state
from homeward.errors import InvalidInput
from homeward.v1 import records_pb2, search_pb2


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"cannot read {path}: {error.strerror}", code="PATH_MISSING", field="photo"
        ) from error


def _template(path: Path) -> search_pb2.Template:
    """A template file: JSON {"model_id": ..., "values": [...]}."""
    try:
        data = json.loads(_read(path))
        return search_pb2.Template(model_id=data["model_id"], values=data["values"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f'{path} is no template: it must hold {{"model_id": ..., "values": [...]}}',
            code="TEMPLATE_INVALID",
            field="template",
        ) from error


@command
async def search(
    case: arguments.Case,
    purpose: arguments.Purpose,
    requester: arguments.Requester,
    photo: Annotated[Path | None, typer.Argument(help="The probe photo.")] = None,
    record: Annotated[str | None, typer.Option(help="Search with an enrolled record instead.")] = None,
    template: Annotated[Path | None, typer.Option(help="Search with a template file (JSON).")] = None,
    limit: Annotated[int, typer.Option("--limit", "-k", min=1, help="Candidates wanted.")] = 20,
    gallery: Annotated[list[str] | None, typer.Option(help="Only these galleries (repeatable).")] = None,
    agency: Annotated[list[str] | None, typer.Option(help="Only these agencies (repeatable).")] = None,
    only_sex: Annotated[
        arguments.SexOption | None, typer.Option(help="Only records of this sex, and unknown.")
    ] = None,
    only_born: Annotated[
        str | None, typer.Option(help=f"Only born then, and unknown: {arguments.DATE_HELP}")
    ] = None,
    only_event: Annotated[str | None, typer.Option(help="Only missing or found then, and unknown.")] = None,
    strict: Annotated[bool, typer.Option(help="Filters leave the unknown out, too.")] = False,
    sex: Annotated[arguments.SexOption | None, typer.Option(help="Sex of the probe's child.")] = None,
    born: Annotated[str | None, typer.Option(help="Birth date of the probe's child.")] = None,
    taken: Annotated[str | None, typer.Option(help="When the probe photo was taken.")] = None,
    verified: Annotated[
        bool, typer.Option(help="The facts about the probe are verified: they exclude candidates.")
    ] = False,
    implausible: Annotated[bool, typer.Option(help="Also show whom verified facts exclude.")] = False,
    min_score: Annotated[float | None, typer.Option(help="Comparison score at least.")] = None,
    min_ratio: Annotated[float | None, typer.Option(help="Log-likelihood ratio at least.")] = None,
    face: Annotated[int | None, typer.Option(min=0, help="Only this face of the probe, by ordinal.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with the faces (mode 0600).")] = None,
) -> Exit | None:
    """Search with a photo, an enrolled record or a template, and print ranked candidates.

        homeward search sighting.jpg --case 2014-17 --purpose identification --as j.doe

    A probe with several faces gives a list for each. Every search is logged with its case.
    """
    probes = sum(given is not None for given in (photo, record, template))
    if probes != 1:
        raise InvalidInput(
            f"give one probe, a photo, --record or --template, not {probes or 'none'}",
            code="PROBE_REQUIRED",
            field="probe",
        )
    if html is not None and not html.parent.is_dir():  # before a search is made and logged
        raise InvalidInput(f"there is no folder {html.parent} for --html", code="PATH_MISSING", field="html")
    request = search_pb2.SearchRequest(
        context=arguments.context(case, purpose, requester),
        limit=limit,
        filter=search_pb2.SearchFilter(
            galleries=gallery or [],
            agencies=agency or [],
            sexes=[arguments.sex(only_sex)] if only_sex else [],
            born=arguments.dates(only_born),
            event=arguments.dates(only_event),
            strict=strict,
        ),
        facts=search_pb2.ProbeFacts(
            sex=arguments.sex(sex),
            sex_verified=verified and sex is not None,
            born=arguments.dates(born, verified=verified),
            taken=arguments.dates(taken, verified=verified),
        ),
        include_implausible=implausible,
    )
    if min_score is not None:
        request.min_comparison_score = min_score
    if min_ratio is not None:
        request.min_log_likelihood_ratio = min_ratio
    if face is not None:
        request.face_ordinal = face
    probe: bytes | None = None
    if photo is not None:
        probe = _read(photo)
        request.photo = probe
    elif record is not None:
        request.record_id = record
    elif template is not None:
        request.template.CopyFrom(_template(template))
    async with open_session(state()) as session:
        answer = await session.search.Search(request, timeout=state().settings.server.deadline_s)
        if state().as_json:
            print_json(answer)
        else:
            print_search(answer, threshold=min_score is not None or min_ratio is not None)
        if html is not None:
            from cluster.report import Finding, write_report

            heading = f"Probe {photo.name}" if photo is not None else "Search"
            finding = Finding(heading, request, answer)
            await write_report(html, session.enrolment, [finding], state().settings)
            if not state().as_json:
                console().print(f"page: {html}")
    return None


@command
async def compare(
    first: Annotated[Path, typer.Argument(help="A photo.")],
    second: Annotated[Path, typer.Argument(help="Another photo.")],
    case: arguments.Case,
    purpose: arguments.Purpose,
    requester: arguments.Requester,
    first_face: Annotated[
        int | None, typer.Option(min=0, help="Ordinal, when the first shows several.")
    ] = None,
    second_face: Annotated[int | None, typer.Option(min=0, help="Likewise for the second.")] = None,
) -> Exit | None:
    """Compare the faces of two photos. Logged with its case, like a search."""
    request = search_pb2.CompareRequest(
        context=arguments.context(case, purpose, requester), first=_read(first), second=_read(second)
    )
    if first_face is not None:
        request.first_ordinal = first_face
    if second_face is not None:
        request.second_ordinal = second_face
    async with open_session(state()) as session:
        answer = await session.search.Compare(request, timeout=state().settings.server.deadline_s)
    if state().as_json:
        print_json(answer)
        return None
    out = console()
    out.print(f"comparison score {answer.comparison_score:.4f}  (model {answer.model_id})")
    if answer.HasField("log_likelihood_ratio"):
        fitted = answer.calibration
        out.print(
            f"log-likelihood ratio {answer.log_likelihood_ratio:+.1f}, natural logarithm, "
            f"fitted on {fitted.dataset} ({fitted.faces})"
        )
    for name, seen in (("first", answer.first), ("second", answer.second)):
        out.print(f"{name}: {_describe(seen)}")
    out.print(CAUTION, style="italic")
    return None


def _describe(face: records_pb2.Face) -> str:
    box = face.box
    text = (
        f"face {face.ordinal}, {box.width:.0f}x{box.height:.0f} px at ({box.x:.0f}, {box.y:.0f}), "
        f"quality {face.quality.score:.0f}/100"
    )
    return f"{text} ({', '.join(face.quality.reasons)})" if face.quality.reasons else text
