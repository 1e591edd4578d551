"""Settings of what only some may know: keys that sign, addresses with passwords. A part of worker.settings, which says
how settings are read."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from producer_client.secret_file import read_secret
from producer_client.signing import Keys, read_keys

#: Settings that may have a password in them: each may lie in a file instead, whose name ends so.
IN_FILES, FILE = ("broker_url", "result_backend", "database_url"), "_file"


class SecretSettings(BaseSettings):
    model_config = SettingsConfigDict(defer_build=True)

    broker_url_file: Path | None = None
    """A file that holds what `SIGHTLINE_BROKER_URL` would, as containers mount secrets: readable by its owner alone, or
    its group where it is another user's. The variable itself goes before it, unless it is empty."""
    result_backend_file: Path | None = None
    """The same for `SIGHTLINE_RESULT_BACKEND`."""
    database_url_file: Path | None = None
    """The same for `SIGHTLINE_DATABASE_URL`."""
    signing_keys_file: Path | None = None
    """A file with the keys by which messages and replies are signed, one a line: an id, a blank, and a secret of 32
    characters or more (`openssl rand -hex 32`). The first signs, all are accepted. The same for all workers, the beat,
    and clients (`signing_keys_file=`). Unset: nothing is signed."""
    signing_required: bool = False
    """Whether messages without a signature are refused (`unsigned`). Set it when every client and every process has
    the keys; until then signatures protect from nobody who leaves them out."""

    @model_validator(mode="before")
    @classmethod
    def _out_of_files(cls, given: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name in IN_FILES:
            # Compose files can empty a variable of another one, and not take it away.
            if not given.get(name) and (path := given.get(name + FILE)) is not None:
                # What cannot be read is said below, of the variable that names the file.
                with suppress(ValueError):
                    found[name] = read_secret(path)
        return given | found

    @field_validator(*(name + FILE for name in IN_FILES))
    @classmethod
    def _holds_a_secret(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_secret(value)
        return value

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
