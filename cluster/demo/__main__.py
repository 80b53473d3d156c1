"""Start an embedded Homeward, enrol people among distractors, search for them, write a page.

python -m cluster.demo [--photos FOLDER] [--distractors N] [--page FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import grpc
from rich.text import Text

from cluster.cli.exits import Exit, exit_code, tell
from cluster.cli.output import console, print_search
from cluster.cli.session import Session, channel_to, session_of
from cluster.demo.distractors import load_distractors
from cluster.demo.people import Cast, Probe, own, shipped
from cluster.report import Finding, write_report
from cluster.rpc.status import error_from_rpc
from cluster.server import running_server
from homeward.config import ServerSettings, Settings
from homeward.errors import HomewardError
from homeward.memory import settled
from homeward.v1 import enrolment_pb2, records_pb2, search_pb2

AGENCY, GALLERY = "demo", "people"
CONTEXT = search_pb2.SearchContext(
    case_reference="DEMO-1", purpose="demonstration", requester="whoever ran make demo"
)
out = console()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="your own photos, <person>/<photo>")
    parser.add_argument("--distractors", type=int, default=100_000, help="synthetic templates beside them")
    parser.add_argument("--page", type=Path, default=Path("demo.html"), help="where to write the page")
    parser.add_argument("--data-dir", type=Path, default=Path("demo-data"), help="made anew at each run")
    return parser.parse_args()


def _fresh(folder: Path) -> None:
    """Empty the demo's own folder; refuse any other."""
    mark = folder / "made-by-homeward-demo"
    if folder.exists():
        if not mark.exists() and any(folder.iterdir()):
            raise SystemExit(f"{folder} is not a folder of this demo; name another with --data-dir")
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True)
    mark.touch()


async def _enrol(session: Session, cast: Cast) -> None:
    """Enrol everybody over gRPC, and say what became of each photo."""
    for name, photos in cast.enrolled.items():
        request = enrolment_pb2.EnrolRecordRequest(
            request_id=str(uuid4()),
            key=records_pb2.RecordKey(agency=AGENCY, gallery=GALLERY, external_reference=name),
        )
        for photo in photos:
            request.photos.add(content=photo, choice=records_pb2.FACE_CHOICE_MOST_CENTRAL)
        answer = await session.enrolment.EnrolRecord(request)
        for outcome in answer.outcomes:
            quality = max((face.quality.score for face in outcome.faces), default=0.0)
            good = outcome.code == "ENROLLED"
            note = f"quality {quality:.0f}/100" if good else f"{outcome.code}: {outcome.message}"
            out.print(f"  {name}: {note}", markup=False)


async def _search(session: Session, probe: Probe) -> tuple[Finding, bool]:
    """Search for one probe and print its list; whether the enrolled person leads it, if there is one."""
    request = search_pb2.SearchRequest(context=CONTEXT, photo=probe.photo, limit=5)
    started = time.perf_counter()
    answer = await session.search.Search(request)
    took = time.perf_counter() - started
    out.rule(Text(f"search: {probe.title}", "bold"), align="left")
    print_search(answer, threshold=False)
    out.print(f"answered over gRPC in {took * 1000:.0f} ms", style="dim")
    leaders = {found.candidates[0].key.external_reference for found in answer.lists if found.candidates}
    right = probe.mate is None or probe.mate in leaders
    if probe.mate is None:
        out.print("Nobody here is enrolled: these are only the nearest of all. Compare the scores.")
    elif right:
        out.print(f"The enrolled person leads the list: {probe.mate}.", style="green", markup=False)
    else:
        out.print(f"The enrolled person does not lead the list: {probe.mate}.", style="red", markup=False)
    return Finding(probe.title, request, answer), right


async def demo(arguments: argparse.Namespace) -> Exit:
    """The whole show. PARTIAL when an enrolled person of the shipped photos was not found first."""
    cast = own(arguments.photos) if arguments.photos else shipped(Path(sys.prefix) / "demo-photos")
    _fresh(arguments.data_dir)
    settings = Settings.load(
        data_dir=arguments.data_dir.resolve(), server=ServerSettings(address="127.0.0.1:0")
    )
    started = time.perf_counter()
    async with AsyncExitStack() as stack:
        with out.status("starting an embedded Homeward"):
            server = await stack.enter_async_context(running_server(settings))
        channel = await stack.enter_async_context(channel_to(settings, server.address))
        session = session_of(channel, server.address, embedded=True)
        out.print(
            f"Homeward serves {server.address} (model {server.parts.embedding.model_id}, "
            f"started in {time.perf_counter() - started:.1f} s)"
        )
        out.print(f"enrolling {len(cast.enrolled)} people:")
        await _enrol(session, cast)
        started = time.perf_counter()
        await load_distractors(server.parts, arguments.distractors, out)
        out.print(
            f"{arguments.distractors:,} distractor templates, drawn from the mean and covariance of real "
            f"ones, loaded in {time.perf_counter() - started:.1f} s"
        )
        stack.enter_context(settled())
        found = [await _search(session, probe) for probe in cast.probes]
        findings = [finding for finding, _ in found]
        await write_report(arguments.page, session.enrolment, findings, settings, "Homeward demonstration")
        out.rule(style="dim")
        out.print(f"page with the faces side by side: {arguments.page.resolve()}", soft_wrap=True)
    return Exit.OK if arguments.photos or all(right for _, right in found) else Exit.PARTIAL


def main() -> None:
    """Entry point of `python -m cluster.demo`."""
    logging.basicConfig(level=logging.WARNING)
    try:
        raise SystemExit(asyncio.run(demo(_arguments())))
    except HomewardError as error:
        tell(error, as_json=False)
        raise SystemExit(exit_code(error)) from error
    except grpc.aio.AioRpcError as failure:
        tell(error_from_rpc(failure), as_json=False)
        raise SystemExit(Exit.FAILED) from failure


if __name__ == "__main__":
    main()
