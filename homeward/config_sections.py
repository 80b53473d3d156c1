"""The sections of the settings: every limit that Homeward keeps is a field here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

MIB = 1024 * 1024


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    """The public gRPC server."""

    address: str = Field("127.0.0.1:7443", description="host:port to listen on, and for the CLI to call")
    tls_certificate: Path | None = Field(None, description="PEM chain; required off loopback")
    tls_key: Path | None = Field(None, description="PEM private key")
    tls_client_ca: Path | None = Field(None, description="PEM; when set, clients must show a certificate")
    tls_root: Path | None = Field(None, description="PEM the CLI trusts when it calls a TLS server")
    max_message_bytes: int = Field(32 * MIB, ge=MIB)
    deadline_s: float = Field(60.0, gt=0, description="for calls that come without a deadline")
    max_concurrent_calls: int = Field(256, ge=1)
    drain_s: float = Field(10.0, ge=0, description="how long running calls may end after SIGTERM")
    reflection: bool = True
    keepalive_s: float = Field(30.0, ge=1, description="idle seconds after which connections are probed")
    max_connection_age_s: float = Field(
        0.0,
        ge=0,
        description="older connections are asked to be made anew, so that new servers get some; 0: none",
    )
    health_address: str = Field(
        "", description="host:port of gRPC health alone, in plain text, for probes without TLS; empty: none"
    )
    metrics_address: str = Field("", description="host:port of Prometheus' page; empty: none")


class TelemetrySettings(_Section):
    """What processes say of themselves."""

    log_format: str = Field("text", pattern="^(text|json)$", description="lines for people, or JSON")
    log_level: str = Field(
        "info",
        pattern="^(debug|info|warning|error)$",
        description="info: a line for each call; warning: what is wrong; debug: every stage",
    )
    case_key: SecretStr | None = Field(
        None, description="of the hash that names cases; empty: the catalogue's"
    )
    metrics_address: str = Field(
        "", description="host:port of the page that shards, workers and loads of a machine share; empty: none"
    )
    store_check_s: float = Field(15.0, ge=0, description="how often a server asks its stores; 0: never")


class CatalogueSettings(_Section):
    """SQL: empty means SQLite in the data folder; else a PostgreSQL URI without password."""

    uri: str = ""
    password: SecretStr | None = None
    pool_size: int = Field(8, ge=1)
    rewrite_table_bytes: int = Field(
        256 << 20,
        ge=0,
        description="a server that rewrites PostgreSQL's tables after a deletion locks none that is larger; "
        "homeward erase does",
    )


class PhotoStoreSettings(_Section):
    """Empty means a folder in the data folder; else file:///path or s3://host:port/bucket/prefix."""

    uri: str = ""
    region: str = "us-east-1"
    secure: bool = Field(True, description="https; false only for a test server on loopback")
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None


class GallerySettings(_Section):
    """Empty means Milvus Lite in the data folder; else http(s)://host:port of a Milvus server."""

    uri: str = ""
    token: SecretStr | None = None
    collection: str = Field("homeward", pattern=r"^[a-z][a-z0-9_]{0,40}$")
    timeout_s: float = Field(30.0, gt=0)


def _in_order(ports: str) -> str:
    first, _, last = ports.partition("-")
    if ports and not 1024 <= int(first) <= int(last) <= 65535:
        raise ValueError("ports go from 1024 to 65535, the first one first")
    return ports


Ports = Annotated[str, Field(pattern=r"^([0-9]{4,5}-[0-9]{4,5})?$"), AfterValidator(_in_order)]


class WorkerSettings(_Section):
    """Photo to templates."""

    where: str = Field(
        "server",
        pattern="^(server|workers)$",
        description="server: each gRPC server embeds photos itself; workers: embedding workers do, which "
        "`homeward workers start` lists in the catalogue",
    )
    addresses: tuple[str, ...] = Field((), description="internal gRPC addresses of workers that never move")
    token: SecretStr | None = Field(None, description="shared secret of the internal gRPC port")
    ports: Ports = Field("", description="first-last: where workers listen; empty: any free port")
    bundle: str = Field("default", description="name of the model bundle that embeds")
    bundles_dir: Path | None = Field(None, description="where bundles are installed; empty: data_dir/models")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: str = Field("auto", pattern="^(auto|float32|bfloat16)$")
    threads: int = Field(0, ge=0, description="torch threads; 0: one per core that this process may use")
    min_face_px: int = Field(40, ge=20, description="smallest face, pixels of the photo")
    working_px: int = Field(1024, ge=128, description="longest side of the image the detector sees")
    max_faces: int = Field(256, ge=1, description="faces kept per photo, largest first")
    max_photo_bytes: int = Field(30 * MIB, ge=1024)
    max_photo_pixels: int = Field(100_000_000, ge=10_000)
    decode_processes: int = Field(
        0, ge=0, description="decoder children; 0: one per core that this process may use"
    )
    decode_timeout_s: float = Field(8.0, gt=0)
    decode_memory_bytes: int = Field(1536 * MIB, ge=256 * MIB, description="address space a decoder may add")
    batch_max: int = Field(16, ge=1, description="photos of one micro-batch")
    queue_max: int = Field(512, ge=1, description="photos waiting before new ones are refused")


class IndexSettings(_Section):
    """The exact index: in every gRPC server's own memory, or on shards that a Ray cluster places."""

    where: str = Field(
        "server",
        pattern="^(server|shards)$",
        description="server: each gRPC server holds the gallery; shards: shard actors do",
    )
    folder: Path | None = Field(None, description="float32 originals, on a fast disk; empty: data_dir/index")
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="where codes are scanned; cuda is checked on the CPU only and was never measured",
    )
    threads: int = Field(
        0, ge=0, description="threads of a scan on the CPU; 0: one per core that this process may use"
    )
    token: SecretStr | None = Field(None, description="shared secret of the shards' internal gRPC port")
    ports: Ports = Field("", description="first-last: where shards listen; empty: any free port")
    replicas: int = Field(2, ge=1, description="shards that hold each slot, on different nodes")
    shard_cpus: float = Field(1.0, ge=0, description="what Ray reserves for a shard")
    shard_gpus: float = Field(0.0, ge=0)
    shard_weight: float = Field(1.0, gt=0, description="a shard's share of the slots, against the others'")
    poll_s: float = Field(0.25, gt=0, le=0.5, description="how often shards look for changes and their slots")
    stale_s: float = Field(
        1.0, gt=0, description="a shard that has been cut off for longer refuses to answer"
    )
    lost_s: float = Field(10.0, gt=0, description="a lost shard's slots wait so long for it, then move")
    hedge_s: float = Field(0.25, gt=0, description="a shard slower than this is asked for by a replica too")
    shard_timeout_s: float = Field(5.0, gt=0)
    self_check_share: float = Field(
        0.01, ge=0, le=1, description="of the searches: so many are recomputed from Milvus afterwards"
    )
    self_check_interval_s: float = Field(
        10.0, ge=0, description="and one so often, of however few; 0: none beyond the share"
    )
    self_check_queue: int = Field(16, ge=1, description="searches that wait for it in memory at most")
    self_check_keep_s: float = Field(600.0, gt=0, description="after so long a waiting search is forgotten")
    self_check_slice_rows: int = Field(500, ge=1, le=10_000, description="rows it reads at a time")
    self_check_load: float = Field(0.1, gt=0, le=1, description="share of the time in which it reads")
    snapshot_interval_s: float = Field(30.0, ge=0, description="how often snapshots are seen to; 0: none")
    snapshot_changes: int = Field(
        1000, ge=1, description="changes after which a snapshot is due, 1/64 of the gallery each"
    )
    snapshot_age_s: float = Field(300.0, ge=0, description="with any change, one this old is due")


class SearchSettings(_Section):
    """Limits of a search."""

    default_k: int = Field(20, ge=1)
    max_k: int = Field(1000, ge=1)
    max_evidence: int = Field(10, ge=1)
    max_probe_faces: int = Field(32, ge=1)
    queue_max: int = Field(1024, ge=1)
    batch_max: int = Field(64, ge=1, description="probe templates that share one pass over the index")
    stream_in_flight: int = Field(16, ge=1, description="probes of one SearchStream worked on at a time")
    follow_interval_s: float = Field(0.25, gt=0, description="how often the change log is polled")


class EnrolSettings(_Section):
    """Limits of an enrolment."""

    max_photos: int = Field(64, ge=1, description="photos of one EnrolRecord")
    max_page: int = Field(500, ge=1, description="records of one ListRecords page")
    batch_max: int = Field(64, ge=1, description="records written by one commit")
    queue_max: int = Field(1024, ge=1)


class LoadSettings(_Section):
    """Bulk loads: `homeward load`."""

    where: str = Field(
        "auto",
        pattern="^(auto|here|ray)$",
        description="here: in the command's own process; ray: actors on a Ray cluster; auto: on Ray where "
        "catalogue, photos and gallery are servers",
    )
    ray: str = Field("", description="address of the Ray cluster; empty: one of the command's own")
    actors: int = Field(0, ge=0, description="loaders on the cluster; 0: one per GPU, or per core")
    object_store_bytes: int = Field(
        128 * MIB,
        ge=80 * MIB,
        description="shared memory of a Ray of the command's own; photos do not pass it",
    )
    part_photos: int = Field(256, ge=1, le=256, description="photos that are committed as one")
    part_bytes: int = Field(64 * MIB, ge=MIB, le=256 * MIB, description="and their bytes")
    patience_s: float = Field(
        300.0, ge=0, description="how long stores that do not answer are waited for before a load stops"
    )
    lapse_s: float = Field(
        20.0, ge=2, description="a driver that has said nothing for so long may be taken for dead"
    )
    decode_on_gpu: bool = Field(
        False,
        description="JPEGs are decoded on the GPU that has the model, outside of the sandbox: for archives "
        "whose origin you trust",
    )
    thumbnails: int = Field(500, ge=0, description="photos shown in a report; all are in its tables")
    s3_access_key: SecretStr | None = Field(
        None, description="for sources in S3; empty: as for the photo store"
    )
    s3_secret_key: SecretStr | None = None
    s3_region: str = "us-east-1"
    s3_secure: bool = Field(True, description="https; false only for a test server on loopback")


class BackupSettings(_Section):
    """Backups: `homeward backup`. Without s3_ keys those of the photo store are used."""

    key: SecretStr | None = Field(None, description="the key that `homeward backup key` made; or its file:")
    key_file: Path | None = Field(None, description="file with the key; kept apart from the backups")
    piece_bytes: int = Field(
        32 * MIB, ge=64 * 1024, le=256 * MIB, description="size of a backup's files; some of them in memory"
    )
    s3_access_key: SecretStr | None = Field(None, description="for backups in S3")
    s3_secret_key: SecretStr | None = None
    s3_region: str = "us-east-1"
    s3_secure: bool = Field(True, description="https; false only for a test server on loopback")
