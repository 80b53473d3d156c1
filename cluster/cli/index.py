"""`homeward index`: the shards that hold the exact index on a Ray cluster. Searching needs no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cluster.cli.exits import Exit, command
from cluster.cli.output import console, print_json
from cluster.cli.state import check_here, state
from homeward.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from cluster.shard_maps import ShardMaps
    from cluster.shard_process import IndexModel
    from index.columns import Bool
    from index.merge import Partial
    from index.router_types import RouterStatus

index_app = typer.Typer(
    help="Start, scale and watch the shards that hold the exact index (index.where = shards). Servers find "
    "them through the catalogue; a slot without a shard is answered by Milvus, slowly.",
    no_args_is_help=True,
)

_NO_SHARDS = "there are no shards, Milvus answers slowly: homeward index scale COUNT --ray ADDRESS"

_Ray = Annotated[
    str,
    typer.Option(
        "--ray", envvar="RAY_ADDRESS", help="Address of the cluster; auto: the one of this machine."
    ),
]


@index_app.command("scale")
@command
async def scale(
    count: Annotated[int, typer.Argument(min=0, help="Shards in all; 0 ends them and the controller.")],
    ray: _Ray = "auto",
) -> Exit | None:
    """Have so many shards, while serving: new ones take slots over, the last ones leave once others have
    theirs. Every slot is on `index.replicas` shards of different nodes, as far as there are nodes."""
    from cluster.shard_actor import scale_shards, stop_shards

    check_here()
    settings = state().settings
    if settings.index.where != "shards":
        raise InvalidInput(
            "index.where is server: each server holds the index itself, and would not ask shards. Set "
            "HOMEWARD_INDEX__WHERE=shards and HOMEWARD_INDEX__TOKEN, the same for the servers and here",
            code="INDEX_NOT_ON_SHARDS",
            field="index.where",
        )
    model = await _model()
    if count == 0:
        stopped = await asyncio.to_thread(stop_shards, settings, model, ray)
        console().print(f"{stopped} shards stopped")
        return None
    names = await asyncio.to_thread(scale_shards, count, settings, model, ray)
    if state().as_json:
        print_json({"shards": names})
    else:
        console().print(f"{len(names)} shards; they load their slots now: homeward index status")
    return None


@index_app.command("status")
@command
async def status() -> Exit | None:
    """Say of every shard where it is, what it holds and how far it follows; exit code 6 when a slot has no
    shard, a replica is missing or a shard does not answer. Read from the catalogue of the settings here."""
    check_here()
    if state().settings.index.where != "shards":
        if state().as_json:
            print_json({"where": "server", "shards": 0})
        else:
            console().print(
                "no shards: index.where is server, each server holds the index in its memory; "
                "`homeward doctor` checks it"
            )
        return None
    found = await _status()
    if state().as_json:
        for shard in found.shards:
            print_json(_shard(shard))
        print_json(
            {
                "where": "shards",
                "shards": len(found.shards),
                "epoch": found.epoch,
                "uncovered": found.uncovered,
                "under_replicated": found.under_replicated,
            }
        )
    else:
        table = Table(header_style="dim")
        for name in ("shard", "node", "address", "slots", "rows", "rev", "behind"):
            table.add_column(name, overflow="fold")
        for shard in found.shards:
            own = shard.status
            address = Text(shard.address) if own else Text(f"does not answer ({shard.error})", "bold red")
            table.add_row(
                Text(shard.name),
                Text(shard.node[:12]),
                address,
                f"{shard.ready_slots:,}",
                f"{own.rows:,}" if own else "",
                f"{own.rev:,}" if own else "",
                f"{own.lag_seconds:.2f} s" if own else "",
            )
        out = console()
        out.print(table)
        out.print(
            f"epoch {found.epoch}; {found.uncovered} slots without a shard, "
            f"{found.under_replicated} replicas missing"
        )
        if not found.shards:
            out.print(_NO_SHARDS)
    whole = not found.uncovered and not found.under_replicated and all(one.status for one in found.shards)
    return None if whole and found.shards else Exit.PARTIAL


@index_app.command("rebalance")
@command
async def rebalance() -> Exit | None:
    """Give the slots of shards that do not answer to the others at once, without waiting for them to come
    back; a shard that comes back later takes its slots over again."""
    check_here()
    found = await _status()
    if not found.shards:
        if state().as_json:
            print_json({"removed": []})
        else:
            console().print(_NO_SHARDS)
        return Exit.PARTIAL
    silent = [shard.name for shard in found.shards if shard.status is None]
    await _with_maps(lambda maps: [maps.forget(name) for name in silent])
    said = f"{len(silent)} shards taken off the map: {', '.join(silent)}" if silent else "every shard answers"
    if state().as_json:
        print_json({"removed": silent})
    else:
        console().print(f"{said}; {found.under_replicated} replicas were missing")
    return None


def _shard(shard: Any) -> dict[str, Any]:
    said = asdict(shard)
    own = said.pop("status")
    if own is not None:
        said |= {name: own[name] for name in ("incarnation", "rows", "records", "rev", "lag_seconds")}
        said["held_slots"] = int(own["held"].sum())
    return said


async def _model() -> IndexModel:
    """The model that serves."""
    from catalogue.open import open_catalogue
    from cluster.shard_process import IndexModel
    from cluster.upgrade.models import serving_model

    settings = state().settings
    catalogue = await asyncio.to_thread(open_catalogue, settings.catalogue, settings.data_dir)
    try:
        model = await serving_model(settings, catalogue)
    finally:
        catalogue.close()
    return IndexModel(model.model_id, model.dimension)


async def _with_maps(work: Any) -> Any:
    from catalogue.open import open_catalogue
    from cluster.shard_maps import ShardMaps

    settings = state().settings
    model = await _model()

    def run() -> Any:
        catalogue = open_catalogue(settings.catalogue, settings.data_dir)
        try:
            maps: ShardMaps = ShardMaps(catalogue, model.model_id)
            return work(maps)
        finally:
            catalogue.close()

    return await asyncio.to_thread(run)


async def _status() -> RouterStatus:
    from catalogue.open import open_catalogue
    from cluster.shard_maps import ShardMaps
    from homeward.types import Query
    from index.router import Router

    settings = state().settings
    model = await _model()

    def refuse(_queries: Sequence[Query], _slots: Bool) -> list[tuple[Partial, int]]:
        raise NotFound("only the shards are asked here")

    with ThreadPoolExecutor(2) as executor:
        catalogue = await asyncio.to_thread(open_catalogue, settings.catalogue, settings.data_dir)
        try:
            router = Router(
                ShardMaps(catalogue, model.model_id).read,
                refuse,
                model_id=model.model_id,
                dimension=model.dimension,
                token=settings.index.token,
                executor=executor,
            )
            await router.open()
            try:
                return await router.status()
            finally:
                await router.close()
        finally:
            catalogue.close()
