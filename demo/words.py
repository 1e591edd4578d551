"""What the demo says to people, by SIGHTLINE_LANG: the code has the English, `locale/` the other languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from producer_client.language import Language, catalogue

PACKAGE = Path(__file__).parent


def say(english: str, **fields: Any) -> str:
    """The demo's text in the language that is set, its {fields} filled in."""
    return catalogue(PACKAGE, Language.chosen()).gettext(english).format(**fields)
