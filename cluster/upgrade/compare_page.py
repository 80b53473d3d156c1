"""The comparison of two models as a page for a person: no script, nothing fetched, every text escaped."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.upgrade.compare import Comparison
from homeward.files import write_private

_LINES = 1000
_RANKS = 10


def write_comparison(made: Comparison, path: Path) -> None:
    """Write the page (mode 0600, replaced atomically), what changed most first.

    Raises `StoreUnavailable` when it cannot be written."""
    environment = Environment(
        loader=PackageLoader("cluster"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("compare_models.html.j2").render(
        made=made, probes=made.by_change()[:_LINES], ranks=_RANKS
    )
    write_private(path, page.encode("utf-8", "backslashreplace"))
