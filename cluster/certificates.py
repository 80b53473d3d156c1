"""The server's certificate, read again when its files change: whoever renews it restarts nothing."""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from homeward.errors import InvalidInput

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Pem:
    """What the files hold."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """For gRPC."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


class Certificates:
    """PEM files of a chain, its key and, with `client_ca`, the authority of clients' certificates."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._lock = threading.Lock()
        self._used: _Pem
        self._refused: str | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """For a listener. The files are looked at for each new connection; what is not whole is told and the
        certificate before it stays. Raises `InvalidInput` (TLS_INVALID) when there is none yet."""
        self._used = self._read()
        return grpc.dynamic_ssl_server_credentials(
            self._used.configuration(),
            self._renewed,  # type: ignore[arg-type]  # the stub knows no None
            require_client_authentication=self._client_ca is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks, on threads of its own; None: nothing new."""
        with self._lock:
            try:
                read = self._read(self._used)
            except InvalidInput as error:
                if error.message != self._refused:
                    _logger.warning("the certificate used so far stays in use: %s", error.message)
                self._refused = error.message
                return None
            self._refused = None
            if read == self._used:
                return None
            self._used = read
            _logger.info("%s was renewed: new connections use it", self._certificate)
            return read.configuration()

    def _read(self, known: _Pem | None = None) -> _Pem:
        """The files. Certificate and key are renewed one after the other: read once more, they must be the
        same and fit each other. What is `known` does."""
        read = self._files()
        if read == known:
            return read
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise InvalidInput(
                f"{self._certificate} and {self._key} are no certificate with its unencrypted private key, "
                "both as PEM",
                code="TLS_INVALID",
            ) from error
        if read.client_ca is not None:
            try:
                context.load_verify_locations(cadata=read.client_ca.decode("ascii", "replace"))
            except (OSError, ValueError) as error:
                raise InvalidInput(f"{self._client_ca} holds no certificates", code="TLS_INVALID") from error
        if self._files() != read:
            raise InvalidInput(f"{self._certificate} is just being written", code="TLS_INVALID")
        return read

    def _files(self) -> _Pem:
        client_ca = None if self._client_ca is None else _pem(self._client_ca)
        return _Pem(_pem(self._certificate), _pem(self._key), client_ca)


def _pem(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", code="TLS_INVALID") from error
    if b"-----BEGIN " not in data:
        raise InvalidInput(f"{path} is no PEM file", code="TLS_INVALID")
    return data
