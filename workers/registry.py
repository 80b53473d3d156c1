"""The built-in table of bundles that `homeward models install NAME` knows.

Each entry is a `bundle.toml` in `workers/bundles/`: addresses, checksums and licence, never weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from homeward.errors import NotFound
from workers.bundle import Bundle, parse_bundle

NAMES: tuple[str, ...] = ("yunet-mobilefacenet",)


@dataclass(frozen=True, slots=True)
class Installable:
    """One entry: the parsed bundle and the text that is installed as its `bundle.toml`."""

    bundle: Bundle
    text: str


def installable(name: str) -> Installable:
    """The table's entry; raises `NotFound` naming those there are."""
    if name not in NAMES:
        raise NotFound(f"no bundle {name!r} to install; known are: {', '.join(NAMES)}", code="BUNDLE_UNKNOWN")
    text = (resources.files("workers") / "bundles" / f"{name}.toml").read_text(encoding="utf-8")
    return Installable(bundle=parse_bundle(text, f"{name}.toml"), text=text)
