"""`up.env`: what a `sightline up` tells the other commands of its folder. Names and values alone, of any characters.

The form is that of python-dotenv, which reads it. Its own writer rewrites the file for every name and makes other
newlines of some; it has no form for file names that are no UTF-8.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from worker import private

NAME = "up.env"


def write(path: Path, values: Mapping[str, str]) -> None:
    """Replace the file by one that only its owner may read: the address of a database may have a password in it."""
    text = "".join(f"{name}={_quoted(value)}\n" for name, value in values.items())
    private.replace(path, os.fsencode(text))


def read(path: Path) -> dict[str, str]:
    """What was written; nothing where there is no such file. Raises OSError for one that cannot be read."""
    try:
        text = os.fsdecode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    # Not by its path: opened as text, a carriage return would come back as a newline. And a $ is a $.
    found = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in found.items() if value is not None}


def _quoted(value: str) -> str:
    """As a shell reads it, too, but where the value has both kinds of characters that quotes are about."""
    escaped = value.replace("\\", "\\\\")
    if escaped != value or "'" in value:
        if "$" not in value and "`" not in value:
            return '"{}"'.format(escaped.replace('"', '\\"'))
        escaped = escaped.replace("'", "\\'")
    return f"'{escaped}'"
