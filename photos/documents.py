"""Things beside the photos that the photo store's place keeps: small in number, named, written whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from homeward.errors import InvalidInput

AREA = ".documents"  # no agency's name: `encode_agency` makes no dot
NAME_MAX = 512  # characters; an S3 key has 1024 bytes, of which a prefix takes some
PART_MAX = 200  # a file's name has 255 bytes

_PART = re.compile(r"[a-z0-9._-]+")
_BEGINNING = re.compile(r"[a-z0-9._-]*")
# No part of a name holds this, so that a document "a" can lie beside another "a/b".
_END = "="


class DocumentStore(Protocol):
    """Documents by name. Calls block; every method is thread-safe.

    The contract, which `tests/photos/document_contract.py` runs on every implementation:

    * a name is one or more parts of [a-z0-9._-]+ with / between them, none of dots alone, else
      `InvalidInput` (DOCUMENT_NAME). It can name nothing outside of the documents, and a photo store
      in the same place neither lists a document nor sweeps it;
    * a document is written whole or not at all: no reader ever sees a part of one, whatever dies;
    * when `put_document` returns, the document survives a crash of this process and of its machine,
      and what it replaced is nowhere any more; when `delete_document` returns, it does not come back;
    * a store that does not answer, is full or refuses us raises `StoreUnavailable` with what to do.

    Of calls at the same time for the same name one after the other takes effect, in either order.
    """

    def put_document(self, name: str, data: bytes) -> None:
        """Store a document, in place of the one with this name."""
        ...

    def get_document(self, name: str, limit: int | None = None) -> bytes:
        """The document's bytes, or the first `limit` of them; `NotFound` without one."""
        ...

    def list_documents(self, prefix: str = "") -> Sequence[str]:
        """Names of all documents that begin with `prefix` (which may end inside a part), sorted."""
        ...

    def delete_document(self, name: str) -> bool:
        """Remove the document; whether there was one. Again: False, and no error."""
        ...

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """Remove what crashed writers left behind, if it is older than that; how much there was."""
        ...


def check_document(name: str) -> str:
    """Return `name` if it can name a document, else raise `InvalidInput`."""
    parts = name.split("/")
    if len(name) > NAME_MAX or not all(_is_part(part) for part in parts):
        raise InvalidInput(
            f"a document is named by parts of a-z, 0-9, '.', '_' and '-' with '/' between them, not {name!r}",
            code="DOCUMENT_NAME",
            field="name",
        )
    return name


def check_beginning(prefix: str) -> str:
    """Return `prefix` if a document's name can begin so, else raise `InvalidInput`."""
    *folders, last = prefix.split("/")
    if folders:
        check_document("/".join(folders))
    if not _BEGINNING.fullmatch(last) or len(prefix) > NAME_MAX:
        raise InvalidInput(f"no document's name begins with {prefix!r}", code="DOCUMENT_NAME", field="prefix")
    return prefix


def document_path(name: str) -> str:
    """Where a document lies below its store's area, with / between folders. Raises `InvalidInput`."""
    return check_document(name) + _END


def document_name(path: str) -> str | None:
    """The inverse; None for a path that `document_path` never gave."""
    if not path.endswith(_END):
        return None
    name = path.removesuffix(_END)
    return name if all(_is_part(part) for part in name.split("/")) else None


def check_first(limit: int | None) -> int | None:
    """Return `limit` if so many bytes can be asked for, else raise `InvalidInput`."""
    if limit is not None and limit < 1:
        raise InvalidInput("at least one byte of a document is read", field="limit")
    return limit


def _is_part(part: str) -> bool:
    return bool(_PART.fullmatch(part)) and bool(part.strip(".")) and len(part) <= PART_MAX
