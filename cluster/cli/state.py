"""What the options before the verb say: settings, output, which server."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from homeward.config import Settings
from homeward.errors import InvalidInput


@dataclass
class State:
    """Options shared by all verbs. Settings are read on first use, so that --help needs none."""

    config: Path | None = None
    data_dir: Path | None = None
    server: str | None = None
    as_json: bool = False

    @cached_property
    def settings(self) -> Settings:
        """Defaults, TOML file, environment, then the flags given here."""
        flags: dict[str, Any] = {} if self.data_dir is None else {"data_dir": self.data_dir}
        return Settings.load(self.config, **flags)


_current = State()


def configure(new: State) -> None:
    """Called once per command line, before its verb runs."""
    global _current  # noqa: PLW0603 - a command line is one per process
    _current = new


def state() -> State:
    """The state of this process's command line."""
    return _current


def check_here() -> None:
    """Loads, backups, upgrades and shards are seen to here, over the stores: no server is asked, so naming
    one is a mistake. Raises `InvalidInput` (SERVER_NOT_ASKED)."""
    if state().server is not None:
        raise InvalidInput(
            "this command uses the stores, not a server: leave --server away, and name the stores by "
            "--config, HOMEWARD_* variables or --data-dir",
            code="SERVER_NOT_ASKED",
            field="server",
        )
