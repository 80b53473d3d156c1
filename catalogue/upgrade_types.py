"""Model upgrades as the catalogue knows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from catalogue.types import FaceWrite


class UpgradeState(StrEnum):
    """How far an upgrade is."""

    EMBEDDING = "embedding"  # the new model's rows are being made; the old model serves
    READY = "ready"  # every photo is accounted for; servers load the new model beside the old one
    SWITCHED = "switched"  # the new model serves; the old one's rows are kept up, for a way back
    FINISHING = "finishing"  # the old model's rows are being erased
    FINISHED = "finished"
    ABANDONING = "abandoning"  # the new model's rows are being erased
    ABANDONED = "abandoned"


_NEW_SERVES = (UpgradeState.SWITCHED, UpgradeState.FINISHING, UpgradeState.FINISHED)
_BOTH = (UpgradeState.EMBEDDING, UpgradeState.READY, UpgradeState.SWITCHED)


@dataclass(frozen=True, slots=True)
class UpgradeModel:
    """One of the two models."""

    bundle: str
    model_id: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Upgrade:
    """One upgrade."""

    number: int
    old: UpgradeModel
    new: UpgradeModel
    state: UpgradeState
    fence: int
    holder: str  # who drives it, for people; empty: nobody
    heartbeat_at: datetime | None
    since_rev: int
    created_at: datetime
    ended_at: datetime | None
    message: str  # why its driver stopped, for people

    @property
    def driven(self) -> bool:
        """Whether somebody says to be at work on it."""
        return bool(self.holder)

    @property
    def serving(self) -> UpgradeModel:
        """The model that answers searches and embeds enrolments."""
        return self.new if self.state in _NEW_SERVES else self.old

    @property
    def standby(self) -> UpgradeModel | None:
        """The model whose rows are made and kept beside; None once it is being erased."""
        if self.state not in _BOTH:
            return None
        return self.old if self.serving is self.new else self.new

    @property
    def leaving(self) -> UpgradeModel | None:
        """The model whose rows are being erased."""
        if self.state is UpgradeState.FINISHING:
            return self.old
        return self.new if self.state is UpgradeState.ABANDONING else None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in (UpgradeState.FINISHED, UpgradeState.ABANDONED)


@dataclass(frozen=True, slots=True)
class Cover:
    """What a model made of one photo that was enrolled with another."""

    record_id: str
    sha256: str
    version: int  # the record's, when it was read: of one that has changed nothing is written
    outcome: str  # ENROLLED with any face, else a reason
    faces_seen: int
    faces: tuple[FaceWrite, ...]
    placed: int = 0  # of the faces: embedded where the other model had found them
    lost: int = 0  # faces of the other model that have no template of this one


@dataclass(frozen=True, slots=True)
class Loss:
    """A photo of which a model has fewer faces than the one that it was enrolled with."""

    record_id: str
    agency: str
    gallery: str
    external_reference: str
    sha256: str
    outcome: str  # why
    lost: int
    left: int  # faces that the model has of the whole record: with none it is found by no search


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what is enrolled a model has."""

    photos: int  # of all records
    covered: int  # of which it is known what the model makes
    faces: int  # of the model
    faces_of_other: int
    placed: int
    lost: int  # faces
    photos_with_losses: int
    records_lost: int  # that the other model finds, and this one does not
