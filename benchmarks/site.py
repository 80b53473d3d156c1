"""Values of a site whose stores run on this machine, and its release of the chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.release import Release
from benchmarks.stores import Stores
from tests.cluster.certificates import Authority
from tests.helm.chart import NAMESPACE, RELEASE, merged, render

_HOST = f"{RELEASE}.{NAMESPACE}.svc"
ARCHIVES = "archives"  # claim of what is loaded
AUTHORITY = "ca.crt"  # in the servers' TLS Secret


def released(
    stores: Stores,
    folder: Path,
    *files: str,
    values: Mapping[str, Any],
    secrets: Mapping[str, Mapping[str, bytes]] | None = None,
) -> Release:
    """The chart rendered with these values files and values, over the stores, with TLS of an authority of
    its own. `secrets` are those that the values name beside the stores' and the servers'."""
    password, access_key, secret_key = (
        "" if secret is None else secret.get_secret_value()
        for secret in (stores.catalogue.password, stores.photos.access_key, stores.photos.secret_key)
    )
    pair = Authority(folder).issue("server", [_HOST])
    own = {
        "postgres": {"password": password.encode()},
        "s3": {"access-key": access_key.encode(), "secret-key": secret_key.encode()},
        "server-tls": {
            "tls.crt": pair.certificate.read_bytes(),
            "tls.key": pair.key.read_bytes(),
            AUTHORITY: (folder / "authority.pem").read_bytes(),
        },
    }
    site: dict[str, Any] = {
        "catalogue": {"uri": stores.catalogue.uri, "passwordSecret": {"name": "postgres"}},
        "gallery": {"uri": stores.gallery.uri},
        "photos": {"uri": stores.photos.uri, "secure": False, "keysSecret": {"name": "s3"}},
        "server": {"tls": {"secretName": "server-tls"}, "searchLog": {"existingClaim": "search-log"}},
        "ray": {"sources": {"existingClaim": ARCHIVES}},
        "settings": {"gallery": {"collection": stores.gallery.collection}},
    }
    claims = {name: folder / "claims" / name for name in ("search-log", ARCHIVES)}
    for claim in claims.values():
        claim.mkdir(parents=True, exist_ok=True)
    whole = merged(site, values)
    return Release(whole, render(*files, values=whole), {**own, **(secrets or {})}, claims, folder)
