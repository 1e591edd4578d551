"""`make words`: the texts of the code into the catalogues that gettext reads, by Babel.

The code says everything in English. Each package has its other languages below `locale/`: a .po to write in, and
the .mo that Babel compiles of it, which lies in git and in the wheels. New texts come with an empty msgstr, and what
the code no longer says goes. Sorted, without dates and places: a catalogue changes when its texts do.
"""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from producer_client.contract import Code, StatsReply
from producer_client.language import Language
from worker.cli import cli
from worker.words import CODE

ROOT = Path(__file__).parent
PACKAGES = ("producer_client", "worker")
LANGUAGES = tuple(language for language in Language if language is not Language.EN)
#: Calls whose first argument is a text.
CALLS = {"say": None, "to_say": None}
#: Where they are looked for; `pip wheel` leaves copies of the code in build/.
METHODS = [("build/**", "ignore"), ("**.py", "python")]
NOTE = "# After a change: `make words`. It takes in new texts of the code and compiles this page."
#: What of Babel's header is kept; the rest is dates and names.
HEADER = {"Language", "Plural-Forms", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"}


class Undated(Catalog):
    def _get_mime_headers(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in super()._get_mime_headers() if name in HEADER]


def main() -> None:
    lacking: list[str] = []
    for package in PACKAGES:
        for language in LANGUAGES:
            path, words = po_file(package, language), catalogue(package, language)
            path.write_bytes(as_po(words))
            path.with_suffix(".mo").write_bytes(as_mo(words))
            lacking += [f"{path.relative_to(ROOT)} lacks: {text}" for text in unfinished(words)]
    sys.exit("\n".join(lacking) or 0)


def po_file(package: str, language: Language) -> Path:
    return ROOT / package / "locale" / language / "LC_MESSAGES" / "sightline.po"


def texts(package: str) -> Catalog:
    """What the code of a package says."""
    found = Catalog()
    for _, _, text, _, context in extract_from_dir(ROOT / package, METHODS, keywords=CALLS):
        found.add(text, context=context)
    if package == "worker":
        for text, context in _named_elsewhere():
            found.add(text, context=context)
    return found


def _named_elsewhere() -> Iterator[tuple[str, str | None]]:
    """What the command line says by another name: commands by their docstrings, figures by their fields, codes."""
    for command in cli.registered_commands:
        yield inspect.cleandoc(getattr(command.callback, "__doc__", None) or ""), None
    for field in inspect.signature(StatsReply).parameters:
        yield field.replace("_", " "), None
    for code in Code:
        yield code.value, CODE


def catalogue(package: str, language: Language) -> Catalog:
    """What the code says, with as much of it in the language as its .po has."""
    words = Undated(language, header_comment=NOTE, fuzzy=False)
    path = po_file(package, language)
    if path.exists():
        with path.open("rb") as written:
            for message in read_po(written, language):
                if message.id:
                    words[message.id] = message
    words.update(texts(package), no_fuzzy_matching=True)
    return words


def unfinished(words: Catalog) -> list[str]:
    """Texts that nobody has put into the language yet, or that a tool has guessed."""
    return [str(message.id) for message in words if message.id and (message.fuzzy or not message.string)]


def as_po(words: Catalog) -> bytes:
    page = io.BytesIO()
    write_po(page, words, width=120, no_location=True, sort_output=True, ignore_obsolete=True)
    return page.getvalue()


def as_mo(words: Catalog) -> bytes:
    page = io.BytesIO()
    write_mo(page, words)
    return page.getvalue()


if __name__ == "__main__":
    main()
