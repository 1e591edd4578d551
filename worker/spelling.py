"""How a path is written: Unicode has two forms of most letters with accents, and to a Linux disk they are two names.

macOS and what it packs write decomposed ones (NFD), nearly all else composed ones (NFC). See docs/decisions/0026.
"""

from __future__ import annotations

import os
import unicodedata


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
