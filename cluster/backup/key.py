"""The operator's key: 32 random bytes, in a file or the environment as one line of base64."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from homeward.config import BackupSettings
from homeward.errors import Conflict, InvalidInput, StoreUnavailable

_BYTES = 32
_FILE_MOST = 4096


@dataclass(frozen=True, slots=True)
class BackupKey:
    """Everything is derived from it: what it is called, and a key for each backup."""

    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """16 hex digits by which a backup says which key it needs. They tell nothing of the key."""
        return self.derive(b"", b"homeward backup: name of the key", 8).hex()

    def derive(self, salt: bytes, purpose: bytes, length: int = _BYTES) -> bytes:
        """HKDF-SHA256 (RFC 5869)."""
        return HKDF(algorithm=SHA256(), length=length, salt=salt, info=purpose).derive(self.secret)


def read_key(settings: BackupSettings) -> BackupKey:
    """The key that the settings give. Raises `InvalidInput` (BACKUP_KEY_MISSING, BACKUP_KEY_INVALID)."""
    if settings.key is not None:
        return _parse(settings.key.get_secret_value(), "HOMEWARD_BACKUP__KEY")
    if settings.key_file is None:
        raise InvalidInput(
            "a backup needs the operator's key: make one with homeward backup key FILE, and name it with "
            "--key-file or HOMEWARD_BACKUP__KEY_FILE",
            code="BACKUP_KEY_MISSING",
            field="backup.key_file",
        )
    try:
        with settings.key_file.open("rb") as file:
            text = file.read(_FILE_MOST).decode("ascii", "replace")
    except OSError as error:
        raise InvalidInput(
            f"the backup key {settings.key_file} cannot be read: {error.strerror}",
            code="BACKUP_KEY_MISSING",
            field="backup.key_file",
        ) from error
    return _parse(text, str(settings.key_file))


def make_key(path: Path) -> BackupKey:
    """Write a new key to a file that only its owner may read. Raises `Conflict` (BACKUP_KEY_EXISTS): a key
    that is overwritten takes its backups with it."""
    secret = os.urandom(_BYTES)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already and is kept", code="BACKUP_KEY_EXISTS") from error
    except OSError as error:
        raise StoreUnavailable(f"cannot write {path}: {error.strerror}", store=str(path)) from error
    with os.fdopen(handle, "wb") as file:
        file.write(base64.b64encode(secret) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return BackupKey(secret)


def _parse(text: str, where: str) -> BackupKey:
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != _BYTES:
        raise InvalidInput(
            f"{where} holds no backup key: one line of base64, as homeward backup key writes it",
            code="BACKUP_KEY_INVALID",
            field="backup.key",
        )
    return BackupKey(secret)
