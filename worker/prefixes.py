"""Where files are that a table or a pickle names as another machine had them: `old=new` pairs of beginnings.

A name is never changed where it is kept; it is read anew each time a file is wanted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from producer_client.errors import quoted
from worker import listed
from worker.spelling import composed

#: How a path of Windows begins: a drive or a share.
WINDOWS = re.compile(r"[A-Za-z]:|\\\\|//")


def read(value: object) -> object:
    """Pairs of a setting, the folders of this machine as absolute ones. Raises ValueError."""
    found = listed.pairs(value)
    return checked(found) if isinstance(found, Mapping) else found


def pair(text: str) -> dict[str, str]:
    """One as it is written on the command line. Raises ValueError."""
    old, separator, new = text.partition("=")
    if not (old and separator and new):
        raise ValueError(f"{quoted(text)} is not OLD=NEW, a folder of another machine and the one that it is here")
    return checked({old: new})


def checked(found: Mapping[str, str]) -> dict[str, str]:
    """As `read`."""
    for old, new in found.items():
        if not old or not new or "://" in f"{old} {new}":
            raise ValueError(f"{old}={new} is not OLD=NEW, a folder of another machine and the one that it is here")
    return {old: os.path.abspath(os.path.expanduser(new)) for old, new in found.items()}  # noqa: PTH100, PTH111


def is_windows(path: str) -> bool:
    """Whether a path can only be one of Windows."""
    return re.match(r"[A-Za-z]:[\\/]|\\\\", path) is not None


class _Prefix(NamedTuple):
    old: str | None  #: as it is written; None of a folder of this machine, whose files stay where they are
    parts: tuple[str, ...]
    kind: type[PurePath]
    new: str


class Prefixes:
    def __init__(self, pairs: Mapping[str, str]) -> None:
        """pairs: as `read` gives them."""
        found = [_Prefix(None, _compared(PurePosixPath, new), PurePosixPath, new) for new in pairs.values()]
        for old, new in pairs.items():
            kind = PureWindowsPath if WINDOWS.match(old) or "\\" in old else PurePosixPath
            whole = f"{old}\\" if re.fullmatch(r"[A-Za-z]:", old) else old
            found.append(_Prefix(old, _compared(kind, whole), kind, new))
        #: The longest that a path begins with decides. Sorting is stable, so a file that is here stays.
        self._prefixes = sorted(found, key=lambda prefix: -len(prefix.parts))

    def here(self, path: str) -> str:
        """The path on this machine; as it is where no prefix holds for it."""
        prefix = self._of(path)
        if prefix is None or prefix.old is None:
            return path
        return str(PurePosixPath(prefix.new, *prefix.kind(path).parts[len(prefix.parts) :]))

    def of(self, path: str) -> str | None:
        """The old prefix that holds for a path, as it is written."""
        prefix = self._of(path)
        return None if prefix is None else prefix.old

    def elsewhere(self, path: str) -> Iterator[str]:
        """What other machines may call a file of this one."""
        for old, _, kind, new in self._prefixes:
            if old is not None and PurePosixPath(path).is_relative_to(new):
                named = kind(f"{old}\\" if kind is PureWindowsPath else old, PurePosixPath(path).relative_to(new))
                yield from (name for name in dict.fromkeys([str(named), named.as_posix()]) if self.here(name) == path)

    def _of(self, path: str) -> _Prefix | None:
        for prefix in self._prefixes:
            if _compared(prefix.kind, path)[: len(prefix.parts)] == prefix.parts:
                return prefix
        return None


def _compared(kind: type[PurePath], path: str) -> tuple[str, ...]:
    """Folders as they are compared: either form of Unicode, and those of Windows whatever their case."""
    parts = kind(composed(path)).parts
    return tuple(part.casefold() for part in parts) if kind is PureWindowsPath else parts
