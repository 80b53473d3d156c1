"""What a loader says of a part when it is through with it."""

from __future__ import annotations

from dataclasses import dataclass

from homeward import errors
from homeward.errors import HomewardError

PARTS_AT_A_TIME = 3  # while some are read or written, others keep the model busy


@dataclass(frozen=True, slots=True)
class PartDone:
    """What a loader says of a part: it is committed, or why it is not."""

    part: int
    photos: int = 0  # accounted for
    kind: str = ""  # of the error: its class in `homeward.errors`; empty: committed
    code: str = ""
    message: str = ""

    def failure(self) -> HomewardError | None:
        """The error, as it was raised where the part was loaded."""
        if not self.kind:
            return None
        kind: type[HomewardError] = getattr(errors, self.kind, HomewardError)
        return kind(self.message, code=self.code)


def failed(part: int, error: HomewardError) -> PartDone:
    """What to say of a part that was not committed."""
    kind = next(
        base.__name__
        for base in type(error).__mro__
        # One that is made of more than its message and code is told as what it is a kind of.
        if base.__module__ == errors.__name__ and base.__init__ is HomewardError.__init__  # type: ignore[misc]
    )
    return PartDone(part, 0, kind, error.code, error.message)
