"""How a path is written: Unicode has two forms of most letters with accents, and to a Linux disk they are two names.

macOS and what it packs write decomposed ones (NFD), nearly all else composed ones (NFC). See docs/decisions/0026.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

#: Links that lead to one another, as many as Linux follows.
MOST_LINKS = 40


def forms(text: str) -> tuple[str, ...]:
    """As it is, then composed, then decomposed, where these differ."""
    if text.isascii():
        return (text,)
    return tuple(dict.fromkeys([text, composed(text), unicodedata.normalize("NFD", text)]))


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def on_disk(path: str) -> str:
    """The path as the disk has it, folder by folder; as it is where that is there, and where nothing is."""
    if path.isascii() or os.path.lexists(path):
        return path
    found = ["/"] if path.startswith("/") else [""]
    for name in filter(None, path.split("/")):
        # Both forms of a folder may be there, and the file in the second of them.
        tried = [os.path.join(folder, form) for folder in found for form in forms(name)]  # noqa: PTH118  # as it is
        found = [there for there in tried if os.path.lexists(there)]
    return found[0] if found else path


def led_to(path: Path, roots: Iterable[Path]) -> str:
    """The absolute path of a file, over whatever links, which another host may not have. As it is named where the links
    lead to no file, or out of these roots: who opens it says where they lead."""
    named = os.path.abspath(path)  # noqa: PTH100  # Path.resolve raises where links lead in a circle
    try:
        real = os.path.realpath(named)
    except ValueError:  # a NUL
        return named
    if real == named:
        return named
    leads_out = _is_below(named, roots) and not _is_below(real, map(os.path.realpath, roots))
    return real if os.path.isfile(real) and not leads_out else named  # noqa: PTH113  # as above


def last_link(path: Path, roots: Collection[Path]) -> tuple[Path, Path] | None:
    """The last of the links below these roots that a path leads over, and what it names. What lies elsewhere is not
    looked at: an answer must not map the rest of the disk."""
    last = None
    beginnings = [f"{str(root).rstrip('/')}/" for root in roots]
    name = os.path.normpath(path)
    for _ in range(MOST_LINKS):
        # As texts: a path may have two thousand folders, of which each Path would hold all above it.
        ends = [*(found.start() for found in re.finditer("/", name)), len(name)]
        least = min((len(root) for root in beginnings if name.startswith(root)), default=len(name))
        link = next((name[:end] for end in ends if end > least and os.path.islink(name[:end])), None)  # noqa: PTH114
        if link is None:
            break
        last = Path(link), Path(link).readlink()
        name = os.path.normpath(f"{Path(link).parent / last[1]}{name[len(link) :]}")
    return last


def _is_below(path: str, folders: Iterable[Path | str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)
