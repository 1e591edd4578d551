"""Settings of what only some may know: keys that sign. A part of worker.settings, which says how settings are read."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from producer_client.signing import Keys, read_keys


class SecretSettings(BaseSettings):
    model_config = SettingsConfigDict(use_attribute_docstrings=True)

    signing_keys_file: Path | None = None
    """A file with the keys by which messages and replies are signed, one a line: an id, a blank, and a secret of 32
    characters or more (`openssl rand -hex 32`). The first signs, all are accepted. The same for all workers, the beat,
    and clients (`signing_keys_file=`). Unset: nothing is signed."""
    signing_required: bool = False
    """Whether messages without a signature are refused (`unsigned`). Set it when every client and every process has
    the keys; until then signatures protect from nobody who leaves them out."""

    @field_validator("signing_keys_file")
    @classmethod
    def _has_keys(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_keys(value)
        return value

    @field_validator("signing_required")
    @classmethod
    def _has_keys_where_required(cls, value: bool, info: ValidationInfo) -> bool:
        # Where the file itself is refused it is missing here.
        if value and info.data.get("signing_keys_file", ...) is None:
            raise ValueError("it needs SIGHTLINE_SIGNING_KEYS_FILE")
        return value

    @cached_property
    def signing_keys(self) -> Keys | None:
        """As they are in the file now."""
        return None if self.signing_keys_file is None else read_keys(self.signing_keys_file)
