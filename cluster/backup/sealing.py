"""Seals the files of a backup: AES-256-GCM, each file one message, bound to its backup and its name.

Files are small enough to be sealed whole, so nothing has to be framed: what belongs together, and in which
number, the manifest says, which is sealed itself. Each backup has a key of its own, derived from the
operator's, so that random nonces cannot meet. A public key would let a machine make backups that it cannot
read, but anybody who has it could make one; here only who has the key can, and who reads it knows that.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster.backup.key import BackupKey
from homeward.errors import Corrupt

_NONCE_BYTES = 12


class Sealer:
    """Seals and opens the files of one backup."""

    def __init__(self, key: BackupKey, backup: str) -> None:
        self._cipher = AESGCM(key.derive(bytes.fromhex(backup), b"homeward backup: files"))

    def seal(self, name: str, data: bytes) -> bytes:
        """The file's bytes: nonce, ciphertext, tag."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """What was sealed under this name. Raises `Corrupt` (BACKUP_DAMAGED) for anything else."""
        try:
            view = memoryview(sealed)
            return self._cipher.decrypt(bytes(view[:_NONCE_BYTES]), view[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as error:
            raise damaged(name, "it was changed, or is of another backup") from error


def damaged(name: str, why: str) -> Corrupt:
    """The error for a file that is not what it should be."""
    return Corrupt(
        f"{name} of this backup cannot be used: {why}; use another backup", code="BACKUP_DAMAGED", file=name
    )
