"""Installing over https from a server on loopback, and from a folder: right, or nothing left behind."""

from __future__ import annotations

import ipaddress
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import workers.install
from homeward.errors import Conflict, Corrupt, HomewardError, InvalidInput, NotFound, Unavailable
from tests.workers import tiny_bundle
from workers.bundle import parse_bundle
from workers.install import add_bundle, bundle_folder, install, list_bundles
from workers.registry import Installable

FILES = {"detector.onnx": b"d" * 200_000, "embedder.onnx": b"e" * 300_000}


class _Handler(BaseHTTPRequestHandler):
    """Answers by path: /good, /wrong, /truncated, /oversized, /endless, /redirect, /downgrade, /loop."""

    port = 0

    def do_GET(self) -> None:
        _, kind, name = self.path.split("/", 2)
        data = FILES.get(name, b"")
        if kind == "redirect":
            self._redirect(f"/good/{name}")
        elif kind == "downgrade":
            self._redirect(f"http://127.0.0.1:{self.port}/good/{name}")
        elif kind == "loop":
            self._redirect(self.path)
        elif kind == "wrong":
            self._send(data[:-1] + b"?", len(data))
        elif kind == "truncated":
            self._send(data[:1000], len(data))
        elif kind == "short":
            self._send(data[:1000], 1000)
        elif kind == "oversized":
            self._send(data + b"x", len(data) + 1)
        elif kind == "endless":
            self._send(data, None)
            while True:
                try:
                    self.wfile.write(bytes(65536))
                except OSError:
                    return
        elif kind == "good" and data:
            self._send(data, len(data))
        else:
            self.send_error(404)

    def _send(self, data: bytes, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)

    def _redirect(self, address: str) -> None:
        self.send_response(302)
        self.send_header("Location", address)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextmanager
def _https(folder: Path) -> Iterator[tuple[str, ssl.SSLContext]]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    _Handler.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    trusted = ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
    try:
        yield f"https://127.0.0.1:{_Handler.port}", trusted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ssl.SSLContext]]:
    with _https(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(autouse=True)
def _tiny_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    text = tiny_bundle.toml(FILES)
    entry = Installable(bundle=parse_bundle(text, "tiny.toml"), text=text)
    monkeypatch.setattr(workers.install, "installable", lambda _name: entry)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def _client(server: tuple[str, ssl.SSLContext]) -> httpx.Client:
    return httpx.Client(verify=server[1], timeout=5.0, trust_env=False)


def _addresses(server: tuple[str, ssl.SSLContext], kind: str) -> dict[str, str]:
    good = {name: f"{server[0]}/good/{name}" for name in FILES}
    return good | {"embedder.onnx": f"{server[0]}/{kind}/embedder.onnx"}


@pytest.mark.parametrize("kind", ["good", "redirect"])
def test_a_bundle_is_fetched_checked_and_whole(
    server: tuple[str, ssl.SSLContext], tmp_path: Path, kind: str
) -> None:
    seen: list[tuple[str, int, int]] = []
    installed = install(
        "tiny",
        tmp_path / "models",
        client=_client(server),
        addresses=_addresses(server, kind),
        progress=lambda *step: seen.append(step),
    )
    assert not installed.problem
    for name, data in FILES.items():
        assert (tmp_path / "models" / "tiny" / name).read_bytes() == data
    assert ("embedder.onnx", 300_000, 300_000) in seen
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]
    assert [item.name for item in list_bundles(tmp_path / "models")] == ["tiny"]


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("wrong", Corrupt, "expected"),
        ("oversized", Corrupt, "more than the 300000 bytes"),
        ("endless", Corrupt, "more than the 300000 bytes"),
        ("short", Corrupt, "1000 of 300000"),
        ("truncated", Unavailable, "--from FOLDER"),
        ("missing", Unavailable, "404"),
        ("loop", Unavailable, "redirecting"),
        ("downgrade", InvalidInput, "not https"),
    ],
)
def test_anything_else_is_refused_and_leaves_nothing(
    server: tuple[str, ssl.SSLContext], tmp_path: Path, kind: str, error: type[HomewardError], words: str
) -> None:
    with pytest.raises(error) as refused:
        install("tiny", tmp_path / "models", client=_client(server), addresses=_addresses(server, kind))
    assert words in refused.value.message
    assert list((tmp_path / "models").iterdir()) == []


def test_without_a_network_the_error_says_which_files_to_bring(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        install(
            "tiny",
            tmp_path,
            client=httpx.Client(trust_env=False, timeout=2.0),
            addresses={name: f"https://127.0.0.1:1/{name}" for name in FILES},
        )
    for words in ("--from FOLDER", "embedder.onnx (SHA-256 ", "https://models.example/embedder.onnx"):
        assert words in refused.value.message


def test_an_untrusted_server_is_refused(server: tuple[str, ssl.SSLContext], tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="certificate"):
        install("tiny", tmp_path, client=httpx.Client(trust_env=False), addresses=_addresses(server, "good"))


def test_a_folder_serves_air_gapped_sites_after_the_same_check(tmp_path: Path) -> None:
    source = tmp_path / "stick"
    source.mkdir()
    for name, data in FILES.items():
        (source / name).write_bytes(data)
    (source / "embedder.onnx").write_bytes(b"E" * 300_000)
    with pytest.raises(Corrupt, match="expected"):
        install("tiny", tmp_path / "models", source=source)
    assert list((tmp_path / "models").iterdir()) == []
    (source / "embedder.onnx").unlink()
    with pytest.raises(NotFound, match=r"embedder\.onnx"):
        install("tiny", tmp_path / "models", source=source)
    (source / "embedder.onnx").write_bytes(FILES["embedder.onnx"])
    assert not install("tiny", tmp_path / "models", source=source).problem


def test_installing_again_mends_damage_and_keeps_the_calibration(tmp_path: Path) -> None:
    source = tiny_bundle.write(tmp_path / "stick", files=FILES)
    folder = install("tiny", tmp_path / "models", source=source).folder
    (folder / "calibration.toml").write_text("a = 1.0\n")
    (folder / "embedder.onnx").write_bytes(b"")
    assert list_bundles(tmp_path / "models")[0].problem
    assert not install("tiny", tmp_path / "models", source=source).problem
    assert (folder / "calibration.toml").read_text() == "a = 1.0\n"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]


def test_a_bundle_is_never_replaced_by_another_of_its_name(tmp_path: Path) -> None:
    add_bundle(tiny_bundle.write(tmp_path / "one", files=FILES), tmp_path / "models")
    assert not add_bundle(tmp_path / "one", tmp_path / "models").problem
    other = {**FILES, "embedder.onnx": b"other"}
    with pytest.raises(Conflict) as refused:
        add_bundle(tiny_bundle.write(tmp_path / "two", files=other), tmp_path / "models")
    assert refused.value.code == "BUNDLE_EXISTS"


def test_adding_a_folder_copies_the_named_files_alone(tmp_path: Path) -> None:
    source = tiny_bundle.write(tmp_path / "one", files=FILES)
    (source / "setup.py").write_text("raise SystemExit")
    added = add_bundle(source, tmp_path / "models")
    assert sorted(path.name for path in added.folder.iterdir()) == ["bundle.toml", *sorted(FILES)]


@pytest.mark.parametrize("name", ["absent", "..", ".", "../models/tiny", "/etc", ".incoming-x"])
def test_only_installed_names_have_a_folder(tmp_path: Path, name: str) -> None:
    add_bundle(tiny_bundle.write(tmp_path / "one", files=FILES), tmp_path / "models")
    assert bundle_folder("tiny", tmp_path / "models") == tmp_path / "models" / "tiny"
    with pytest.raises(NotFound):
        bundle_folder(name, tmp_path / "models")


def test_what_a_dead_process_left_is_swept_and_never_listed(tmp_path: Path) -> None:
    left = tmp_path / "models" / ".incoming-dead"
    tiny_bundle.write(left, files=FILES)
    assert list_bundles(tmp_path / "models") == ()
    old = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    os.utime(left, (old, old))
    add_bundle(tiny_bundle.write(tmp_path / "one", files=FILES), tmp_path / "models")
    assert not left.exists()
