"""What a load was asked for: kept in the ledger, so that whoever resumes it needs no word more."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from cluster.load.pace import plain
from homeward.errors import Corrupt, InvalidInput


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One load, as it was started."""

    agency: str
    gallery: str
    sources: tuple[str, ...]  # absolute paths, or s3:// URIs: every worker must reach them
    manifest: str = ""  # absolute path; empty: folders name the records
    part_photos: int = 256
    part_bytes: int = 64 << 20
    reinstate: bool = False  # bring back records that were deleted
    reinstate_until: int = 0  # the catalogue's rev when it was started: later deletions stay
    # Settled when it is planned.
    planned_by: int = 0  # fence of the driver that laid its parts ready
    states: tuple[str, ...] = ()  # of the sources, in order: a load is not resumed from others
    unknown_columns: tuple[str, ...] = ()  # of the manifest

    def __post_init__(self) -> None:
        """Raises `InvalidInput` (PATH_NOT_UTF8) for a path that the ledger cannot hold."""
        for path, field in (*((source, "source") for source in self.sources), (self.manifest, "manifest")):
            try:
                path.encode()
            except UnicodeEncodeError as error:
                shown = plain(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
                raise InvalidInput(
                    f"{field}: the path {shown} is not UTF-8, as every worker must be able to write it; "
                    "rename it, or name a link to it",
                    code="PATH_NOT_UTF8",
                    field=field,
                ) from error

    def asked(self) -> tuple[object, ...]:
        """What somebody asked for, without what was settled since. Where parts are cut is not asked for."""
        return self.agency, self.gallery, self.sources, self.manifest, self.reinstate


_SPEC = TypeAdapter(LoadSpec)


def write_spec(spec: LoadSpec) -> str:
    """The spec as JSON."""
    return _SPEC.dump_json(spec).decode()


def read_spec(text: str) -> LoadSpec:
    """The spec that `write_spec` wrote. Raises `Corrupt`."""
    try:
        return _SPEC.validate_json(text)
    except ValidationError as error:
        raise Corrupt("the ledger's entry of this load cannot be read", code="LOAD_SPEC_INVALID") from error
