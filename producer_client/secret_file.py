"""Secrets out of files, as containers mount them: only who may know one can read its file. Of client and workers."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: Bytes of the largest that is read. A secret is a line or two.
LARGEST = 64 << 10


def read_secret(path: str | os.PathLike[str]) -> str:
    """What the file holds, without blanks and newlines around it. Raises ValueError with a sentence, which repeats
    nothing of it.

    Its group may read it where the file is another user's, as Kubernetes mounts it (`fsGroup`); others never.
    """
    path = Path(path)
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} is no file")
    try:
        with path.open("rb") as file:
            told = os.fstat(file.fileno())
            if not stat.S_ISREG(told.st_mode):
                raise ValueError(f"{str(path)!r} is no file")
            closed = 0o077 if told.st_uid == os.geteuid() else 0o027
            if told.st_mode & closed:
                raise ValueError(f"{path} is a secret that others can read: `chmod 600` it")
            written = file.read(LARGEST + 1)
    except OSError as exc:
        raise ValueError(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        found = written.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8") from None
    if len(written) > LARGEST or not found:
        raise ValueError(f"{path} holds no secret: it is empty, or larger than {LARGEST // 1024} kB")
    return found
