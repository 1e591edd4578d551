"""What people read on the command line, by SIGHTLINE_LANG: the code has the English, `locale/` the other languages.

A text without a Russian one is shown in English; tests/unit/test_words.py finds it. Codes and JSON keys never change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from producer_client.contract import Code
from producer_client.language import Language, catalogue

PACKAGE = Path(__file__).parent
#: Under which gettext context a catalogue has what the codes mean.
CODE = "code"


def say(english: str, **fields: Any) -> str:
    """The text in the language that is set, its {fields} filled in."""
    text = catalogue(PACKAGE, Language.chosen()).gettext(english)
    return text.format(**fields) if fields else text


def why(code: Code) -> str:
    """What a code means, to be put before the details, which are in English."""
    language = Language.chosen()
    return "" if language is Language.EN else f"{catalogue(PACKAGE, language).pgettext(CODE, code)}: "
