"""A server of S3 that says what it is told to."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from minio import Minio
from minio.credentials.providers import StaticProvider

from homeward.config import PhotoStoreSettings
from photos.s3_bucket import S3Bucket
from photos.s3_put import SmallPuts


@contextmanager
def answering(*, small: bool = False) -> Iterator[tuple[S3Bucket, list[bytes]]]:
    """A bucket at a server that answers each request with these bytes and ends the connection."""
    answers: list[bytes] = [b""]

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while line := self.rfile.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            self.rfile.read(length)
            self.wfile.write(answers[0])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"127.0.0.1:{server.server_address[1]}"
        client = Minio(endpoint, "key", "secret", secure=False, region="r", http_client=urllib3.PoolManager())
        settings = PhotoStoreSettings(secure=False)
        puts = SmallPuts(settings, endpoint, "bucket", StaticProvider("key", "secret")) if small else None
        yield S3Bucket(client, "bucket", puts=puts), answers
        server.shutdown()
