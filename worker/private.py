"""Files that only their owner reads: passwords, addresses with one in them, logs. Knows nothing of what is in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

#: For whatever a server or a process of `sightline up` makes: nothing for group and others.
UMASK = 0o077


def opened_to_append(log: Path) -> IO[bytes]:
    """A log that a process of ours writes to, made so that others do not read it."""
    return os.fdopen(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab")


def replace(path: Path, content: bytes) -> None:
    """The file with this content, whole or as it was. What a killed one left half written is not gone on with."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)
