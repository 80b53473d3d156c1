"""Settings: defaults, then a TOML file, then HOMEWARD_* environment variables, then flags.

Every limit Homeward keeps is a field of a section (`homeward.config_sections`). Nested fields are
set from the environment with two underscores: `HOMEWARD_SERVER__ADDRESS=127.0.0.1:7443`. Unknown
names are refused. Secrets (S3 keys, the database password, tokens) come from the environment or a
mounted file, and are `SecretStr`: they print as asterisks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from homeward.config_sections import (
    MIB,
    BackupSettings,
    CatalogueSettings,
    EnrolSettings,
    GallerySettings,
    IndexSettings,
    LoadSettings,
    PhotoStoreSettings,
    SearchSettings,
    ServerSettings,
    TelemetrySettings,
    WorkerSettings,
)
from homeward.errors import InvalidInput

__all__ = [
    "MIB",
    "BackupSettings",
    "CatalogueSettings",
    "EnrolSettings",
    "GallerySettings",
    "IndexSettings",
    "LoadSettings",
    "PhotoStoreSettings",
    "SearchSettings",
    "ServerSettings",
    "Settings",
    "TelemetrySettings",
    "WorkerSettings",
]


class Settings(BaseSettings):
    """All of it. `Settings.load` is the one way to get it."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="HOMEWARD_", env_nested_delimiter="__"
    )

    data_dir: Path = Field(
        default_factory=lambda: user_data_path("homeward"),
        description="the embedded stores, the search log, models",
    )
    server: ServerSettings = ServerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    photos: PhotoStoreSettings = PhotoStoreSettings()
    gallery: GallerySettings = GallerySettings()
    workers: WorkerSettings = WorkerSettings()
    index: IndexSettings = IndexSettings()
    search: SearchSettings = SearchSettings()
    enrol: EnrolSettings = EnrolSettings()
    loads: LoadSettings = LoadSettings()
    backup: BackupSettings = BackupSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the TOML file `load` was given."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _toml_path)

    @classmethod
    def load(cls, toml: Path | None = None, **flags: Any) -> Settings:
        """Read all sources; raises `InvalidInput` (CONFIG_INVALID) naming the wrong field."""
        global _toml_path  # noqa: PLW0603 - the library takes the file at class level only
        if toml is not None and not toml.is_file():
            raise InvalidInput(f"no configuration file at {toml}", code="CONFIG_INVALID")
        _toml_path = toml
        try:
            return cls(**flags)
        except ValidationError as error:
            lines = [
                f"{'.'.join(str(part) for part in item['loc'])}: {_said(item)}" for item in error.errors()
            ]
            raise InvalidInput("; ".join(lines), code="CONFIG_INVALID") from error
        except ValueError as error:  # TOML syntax
            raise InvalidInput(f"{toml}: {error}", code="CONFIG_INVALID") from error
        finally:
            _toml_path = None

    @property
    def bundles_dir(self) -> Path:
        """Folder of installed model bundles."""
        return self.workers.bundles_dir or self.data_dir / "models"


def _said(item: Any) -> str:
    """What is wrong with a setting, in words for who sets it."""
    if item["type"] == "extra_forbidden":
        return "there is no such setting"
    if item["type"] == "string_pattern_mismatch" and (words := _CHOICE.fullmatch(item["ctx"]["pattern"])):
        return f"must be one of {words[1].replace('|', ', ')}"
    return str(item["msg"])


_CHOICE = re.compile(r"\^\(([a-z0-9|]+)\)\$")
_toml_path: Path | None = None
