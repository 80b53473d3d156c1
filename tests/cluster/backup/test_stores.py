"""A backup is of no kind of stores: from the embedded ones into servers, and back."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.backup.whole import back_up, bring_back, check_same
from tests.cluster.backup.world import embedded, fill, on_servers
from tests.photos.test_s3 import new_bucket
from tests.servers.milvus import Milvus
from tests.servers.postgres import Postgres
from tests.servers.seaweed import Seaweed


def test_from_embedded_stores_into_servers_and_back(
    tmp_path: Path, postgres_server: Postgres, milvus_server: Milvus, seaweed_server: Seaweed
) -> None:
    _, before = back_up(embedded(tmp_path / "old"), str(tmp_path / "backup"), lambda stores: fill(stores, 9))
    servers = on_servers(tmp_path / "servers", postgres_server, milvus_server, seaweed_server)
    _, there = bring_back(servers, str(tmp_path / "backup"))
    check_same(before, there)
    place = f"s3://127.0.0.1:{seaweed_server.port}/{new_bucket()}/backups/monday"
    _, still = back_up(servers, place, lambda _: None)
    check_same(there, still)
    keys = {"s3_access_key": servers.photos.access_key, "s3_secret_key": servers.photos.secret_key}
    new = embedded(tmp_path / "new")
    new = new.model_copy(update={"backup": new.backup.model_copy(update=keys)})
    _, after = bring_back(new, place)
    check_same(before, after)
