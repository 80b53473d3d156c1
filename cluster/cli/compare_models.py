"""Searches the same probes with both models of an upgrade, over gRPC, and prints what differs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from rich.table import Table
from rich.text import Text

from catalogue.upgrade_types import Upgrade, UpgradeState
from cluster.cli.output import console
from cluster.cli.session import Session, open_session
from cluster.cli.state import state
from cluster.rpc.status import error_from_rpc
from cluster.upgrade.compare import Answer, Compared, Comparison, Listed
from homeward.errors import Conflict, InvalidInput, Unavailable
from homeward.v1 import enrolment_pb2, search_pb2

if TYPE_CHECKING:
    from workers.labelled import LabelledPhoto

_LOADED_S = 180.0  # a server loads model and index of the other model meanwhile
_WAIT_S = 1.0
_AT_A_TIME = 4
_SHOWN = 10
_RANKS = 5  # of each list whose moves are told
_NOT_ANSWERED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


@dataclass(frozen=True, slots=True)
class _Probe:
    name: str
    mate: str
    photo: Path | None = None
    record_id: str = ""


async def compare_models(
    upgrade: Upgrade,
    context: search_pb2.SearchContext,
    folder: Path | None,
    *,
    sample: int,
    limit: int,
) -> Comparison:
    """Ask with both models. Raises `Conflict` (UPGRADE_STATE) before the new model's rows are complete, and
    `Unavailable` (MODEL_NOT_LOADED) when the server does not load it in time."""
    if upgrade.standby is None or upgrade.state is UpgradeState.EMBEDDING:
        raise Conflict(
            f"the upgrade is {upgrade.state}: both models can be searched with once it is ready, and until "
            "it is finished",
            code="UPGRADE_STATE",
        )
    async with open_session(state()) as session:
        probes = _photos(folder, sample) if folder else [one async for one in _records(session, sample)]
        if not probes:
            raise InvalidInput("nobody is enrolled whom one could search with", code="PROBE_REQUIRED")
        asking = _Asking(session, context, limit)
        await asking.wait(probes[0], (upgrade.old.model_id, upgrade.new.model_id))
        turns = asyncio.Semaphore(_AT_A_TIME)

        async def one(probe: _Probe) -> Compared:
            async with turns:
                old = await asking.ask(probe, upgrade.old.model_id)
                new = await asking.ask(probe, upgrade.new.model_id)
            return Compared(probe.name, old, new, probe.mate)

        done = await asyncio.gather(*map(one, probes))
    return Comparison(upgrade.old.model_id, upgrade.new.model_id, done)


def print_comparison(made: Comparison, html: Path | None) -> None:
    """The sums, and the probes that a person should look at first."""
    out = console()
    sums = Table(header_style="dim")
    for name in ("", made.old, made.new):
        sums.add_column(name, overflow="fold")
    if made.with_mate:
        count = f" of {len(made.with_mate):,}"
        sums.add_row("right child first", *(f"{made.first(new=new):,}{count}" for new in (False, True)))
        sums.add_row("right child listed", *(f"{made.listed(new=new):,}{count}" for new in (False, True)))
    sums.add_row("probes without an answer", *(f"{made.errors(new=new):,}" for new in (False, True)))
    out.print(sums)
    out.print(
        f"{len(made.probes):,} probes: the same candidate first in {made.same_first:,}, "
        f"{100 * made.overlap:.0f} % of the candidates in both lists"
        + (
            f"; the right child ranks higher in {len(made.better):,} and lower in {len(made.worse):,}"
            if made.with_mate
            else ""
        )
    )
    table = Table(header_style="dim", title="what changed most", title_justify="left")
    for name in ("probe", "right child", "candidates of the first ranks that moved"):
        table.add_column(name, overflow="fold")
    for one in made.by_change()[:_SHOWN]:
        mate = f"{_rank(one.old_rank)} -> {_rank(one.new_rank)}" if one.mate else ""
        moves = ", ".join(
            f"{move.reference} {_rank(move.old)} -> {_rank(move.new)}" for move in one.moves(_RANKS)
        )
        table.add_row(Text(one.probe), mate, Text(one.old.error or one.new.error or moves or "none"))
    out.print(table)
    if html is not None:
        out.print(f"all of them: {html}", soft_wrap=True)
    out.print("Candidates are for a trained person to review; none is an identification.", style="italic")


class _Asking:
    def __init__(self, session: Session, context: search_pb2.SearchContext, limit: int) -> None:
        self._session = session
        self._context = context
        self._limit = limit

    async def wait(self, probe: _Probe, models: tuple[str, str]) -> None:
        """Until the server has both models loaded."""
        give_up = asyncio.get_running_loop().time() + _LOADED_S
        for model_id in models:
            while True:
                try:
                    await self.ask(probe, model_id)
                    break
                except Unavailable as error:
                    if error.code != "MODEL_NOT_LOADED" or asyncio.get_running_loop().time() > give_up:
                        raise
                    await asyncio.sleep(_WAIT_S)

    async def ask(self, probe: _Probe, model_id: str) -> Answer:
        """The list of one model, of a photo with several faces the first face's."""
        request = search_pb2.SearchRequest(
            context=self._context, limit=self._limit, evidence_limit=1, model_id=model_id
        )
        if probe.photo is not None:
            request.photo = await asyncio.to_thread(probe.photo.read_bytes)
        else:
            request.record_id = probe.record_id
        try:
            answer = await self._session.search.Search(request, timeout=state().settings.server.deadline_s)
        except grpc.aio.AioRpcError as error:
            failure = error_from_rpc(error)
            if error.code() in _NOT_ANSWERED:
                return Answer(error=str(failure.code))
            raise failure from error
        candidates = answer.lists[0].candidates if answer.lists else ()
        return Answer(
            tuple(
                Listed(one.record_id, one.key.external_reference, one.comparison_score) for one in candidates
            )
        )


def _photos(folder: Path, sample: int) -> list[_Probe]:
    from workers.labelled import list_labelled

    found: tuple[LabelledPhoto, ...] = list_labelled(folder)
    step = max(1, len(found) // sample)
    return [_Probe(f"{one.identity}/{one.path.name}", one.identity, photo=one.path) for one in found[::step]][
        :sample
    ]


async def _records(session: Session, sample: int) -> AsyncIterator[_Probe]:
    """The first records by id: ids are hashes, so it is a fair sample."""
    request = enrolment_pb2.ListRecordsRequest(searchable=True)
    settings = state().settings
    told = 0
    while told < sample:
        request.page_size = min(sample - told, settings.enrol.max_page)
        page = await session.enrolment.ListRecords(request, timeout=settings.server.deadline_s)
        for record in page.records:
            told += 1
            yield _Probe(record.key.external_reference, "", record_id=record.record_id)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


def _rank(rank: int | None) -> str:
    return "-" if rank is None else str(rank)
