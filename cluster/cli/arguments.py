"""Options that several verbs share, and how their values become messages."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from homeward.v1 import records_pb2, search_pb2


class SexOption(StrEnum):
    """--sex"""

    FEMALE = "female"
    MALE = "male"


class ChoiceOption(StrEnum):
    """--choice: which face of a photo is the child's."""

    SOLE = "sole"
    CENTRAL = "central"
    COMPOSITE = "composite"


_CHOICES = {
    ChoiceOption.SOLE: records_pb2.FACE_CHOICE_UNSPECIFIED,
    ChoiceOption.CENTRAL: records_pb2.FACE_CHOICE_MOST_CENTRAL,
    ChoiceOption.COMPOSITE: records_pb2.FACE_CHOICE_COMPOSITE,
}

Case = Annotated[
    str, typer.Option("--case", envvar="HOMEWARD_CASE", help="Case reference. No search without a case.")
]
Purpose = Annotated[str, typer.Option(envvar="HOMEWARD_PURPOSE", help="Why the search is made.")]
Requester = Annotated[
    str, typer.Option("--as", envvar="HOMEWARD_REQUESTER", help="Who asks, as the log shall name them.")
]
DATE_HELP = "YYYY, YYYY-MM, YYYY-MM-DD, or two of them as FROM..TO"


def dates(text: str | None, *, verified: bool = False) -> records_pb2.DateRange | None:
    """'2011' or '2011-05..2011-07' as a message; the server checks the days."""
    if text is None:
        return None
    earliest, _, latest = text.partition("..")
    return records_pb2.DateRange(earliest=earliest, latest=latest or earliest, verified=verified)


def sex(option: SexOption | None) -> records_pb2.Sex.ValueType:
    """--sex as the enum."""
    if option is None:
        return records_pb2.SEX_UNSPECIFIED
    return records_pb2.SEX_FEMALE if option is SexOption.FEMALE else records_pb2.SEX_MALE


def choice(option: ChoiceOption) -> records_pb2.FaceChoice.ValueType:
    """--choice as the enum."""
    return _CHOICES[option]


def context(case: str, purpose: str, requester: str) -> search_pb2.SearchContext:
    """The three without which nothing is searched."""
    return search_pb2.SearchContext(case_reference=case, purpose=purpose, requester=requester)
