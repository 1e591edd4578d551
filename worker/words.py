"""What people read on the command line, by SIGHTLINE_LANG: the code has the English, `locale/` the other languages.

A text without a Russian one is shown in English; tests/unit/test_words.py finds it. Codes and JSON keys never change.
Sentences that workers and the client make, of errors above all, come in English, some of them over the queue: they are
known again by their constant parts.
"""

from __future__ import annotations

import re
import string
from functools import cache
from pathlib import Path
from typing import Any

from producer_client import language as of_client
from producer_client.contract import Code
from producer_client.language import Language, catalogue

PACKAGE = Path(__file__).parent
#: Under which gettext context a catalogue has sentences that are made elsewhere.
SENTENCE = "sentence"
#: What a .mo writes between a context and its text.
OF_CONTEXT = f"{SENTENCE}\x04"
#: A sentence may hold another one, or several, which may hold others.
DEEPEST = 9


def say(english: str, **fields: Any) -> str:
    """The text in the language that is set, its {fields} filled in."""
    text = catalogue(PACKAGE, Language.chosen()).gettext(english)
    return text.format(**fields) if fields else text


def told(code: Code, message: str) -> str:
    """What an error says, in the language that is set. Of a sentence that is not known at least what its code means."""
    said = in_language(message)
    if said != message or Language.chosen() is Language.EN:
        return said
    return f"{of_client.meaning(code)}: {message}"


def in_language(message: str, deep: int = 0) -> str:
    """A sentence that a worker or the client has made, in the language that is set; one that is not known as it is."""
    for pattern, text in _sentences(Language.chosen()) if deep < DEEPEST else ():
        if found := pattern.fullmatch(message):
            values = {name: in_language(value, deep + 1) for name, value in found.groupdict().items()}
            return text.format(**values)
    for between in ("; ", ": ") if deep < DEEPEST else ():
        if between in message:
            return between.join(in_language(part, deep + 1) for part in message.rsplit(between, 1))
    return message


def reason(exc: OSError) -> str:
    """What the operating system says is the matter, in the language that is set. Which path it is about, the sentence
    around it says."""
    return in_language(exc.strerror or str(exc))


@cache
def _sentences(language: Language) -> list[tuple[re.Pattern[str], str]]:
    """Patterns of the English ones, each with its text in the language. First those that end with another sentence, as
    `{path}, line {line}: {why}` does, which may be any of the rest; of these those with most words of their own."""
    known: dict[str, str] = {}
    for package in (of_client.PACKAGE, PACKAGE):
        # The only way to what a catalogue holds (gettext.GNUTranslations documents how it is filled alone).
        texts: dict[Any, str] = getattr(catalogue(package, language), "_catalog", {})
        known |= {
            name.removeprefix(OF_CONTEXT): text
            for name, text in texts.items()
            if isinstance(name, str) and name.startswith(OF_CONTEXT)
        }
    parsed = [(list(string.Formatter().parse(english)), text) for english, text in known.items()]
    parsed.sort(key=lambda item: (item[0][-1][:2] != (": ", "why"), -sum(len(words) for words, *_ in item[0])))
    return [(_pattern(parts), text) for parts, text in parsed]


def _pattern(parts: list[tuple[str, str | None, str | None, str | None]]) -> re.Pattern[str]:
    named = "".join(re.escape(words) + ("" if name is None else f"(?P<{name}>.*?)") for words, name, _, _ in parts)
    return re.compile(named, re.DOTALL)
