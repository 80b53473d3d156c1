"""What each reason means for which a photo was not enrolled, and what the person who has it can do."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.load.members import Refusal
from cluster.load.outcome_types import RECORD_DELETED
from cluster.load.plan_types import Unplanned
from homeward.errors import PhotoReason

_AGAIN = "save it again from the original, as JPEG, and load it"
_ARCHIVE = "make the archive again from the original, or take another copy"

# By code: what is so, and what to do.
ADVICE: Mapping[str, tuple[str, str]] = {
    PhotoReason.EMPTY: ("the file has no bytes", "look for the original"),
    PhotoReason.TOO_MANY_BYTES: ("the file is larger than allowed", "save it smaller, as JPEG"),
    PhotoReason.TOO_MANY_PIXELS: ("the photo has more pixels than allowed", "save it smaller"),
    PhotoReason.TOO_SMALL: ("the photo is too small to show a face", "look for a larger copy"),
    PhotoReason.FORMAT_UNKNOWN: (
        "not a photo format that is known",
        "if it is a photo, save it as JPEG; other files may be left out",
    ),
    PhotoReason.FORMAT_REFUSED: ("a format that is not decoded", "save it as JPEG"),
    PhotoReason.TRUNCATED: ("the photo ends early", "copy the whole file from the original"),
    PhotoReason.CORRUPT: ("the photo is damaged", _AGAIN),
    PhotoReason.DECODE_TIMEOUT: ("decoding took longer than allowed", _AGAIN),
    PhotoReason.DECODE_MEMORY: ("decoding took more memory than allowed", _AGAIN),
    PhotoReason.DECODER_DIED: ("the decoder died on it", _AGAIN),
    PhotoReason.NO_FACE: (
        "no face was found",
        "look for a photo that shows the face larger or from the front",
    ),
    PhotoReason.FACE_CHOICE_REQUIRED: (
        "it shows several faces, and nothing says whose is meant",
        "say so in the manifest's column face (central, composite or a number), or cut the child out",
    ),
    PhotoReason.FACE_ORDINAL_UNKNOWN: (
        "it has no face of the number that the manifest names",
        "count the faces again, from the top left, from 0",
    ),
    Refusal.LINK: ("a link, which is not followed", "put the photo itself there"),
    Refusal.SPECIAL: ("no file: a device, a pipe or a socket", "nothing, unless a photo was meant"),
    Refusal.ENCRYPTED: ("the archive asks for a password", "decrypt the archive first"),
    Refusal.COMPRESSION: (
        "packed by a method that is not read",
        "pack the archive again, stored or deflated",
    ),
    Refusal.TRUNCATED: ("the archive ends before the photo does", _ARCHIVE),
    Refusal.DAMAGED: ("the archive's bytes of it are damaged", _ARCHIVE),
    Refusal.MISSING: ("no source has a photo of this name", "correct the manifest, or add the photo"),
    Refusal.CHANGED: (
        "it changed since the load was planned",
        "load again, and leave the source alone meanwhile",
    ),
    Refusal.WITHHELD: (
        "the store has it and does not give it",
        "bring it back from the store's archive, or copy it to another key",
    ),
    Refusal.NAME: (
        "its name in the archive is no path below it",
        "make the archive again from within the photos' folder, with shorter names if it says so",
    ),
    Refusal.REST_LOST: ("what follows in the archive is lost", _ARCHIVE),
    Unplanned.NO_RECORD: (
        "it lies in no folder that names a record",
        "put it in a folder named for its record",
    ),
    Unplanned.NOT_LISTED: ("no row of the manifest names it", "add a row, or leave the photo out"),
    Unplanned.ROW_INVALID: ("its row of the manifest makes no sense", "correct the row"),
    Unplanned.ROW_DIFFERS: ("two rows say different things of its record", "make both say the same"),
    Unplanned.SEVERAL: ("several sources have a photo of this name", "give each another name"),
    Unplanned.TWICE: ("the manifest has it twice", "nothing; one of the rows was used"),
    RECORD_DELETED: ("its record was deleted", "nothing; who deleted it may reinstate it"),
}
_UNKNOWN = ("", "see what is said of each photo")


def advice(code: str) -> tuple[str, str]:
    """What a code means, and what to do."""
    return ADVICE.get(code, _UNKNOWN)
