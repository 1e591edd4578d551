"""What people read: the code says it in English, `locale/` in other languages, as gettext keeps them (`make words`).

SIGHTLINE_LANG is `en` (unless set) or `ru`, and is asked whenever something is said. Codes never change.
"""

from __future__ import annotations

import gettext
import os
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from producer_client.contract import Answer, Code, ConfidenceKind, Reason

PACKAGE = Path(__file__).parent
#: Under which gettext context a catalogue has what the codes mean.
CODE = "code"


class Language(StrEnum):
    EN = "en"
    RU = "ru"

    @classmethod
    def chosen(cls) -> Language:
        """By SIGHTLINE_LANG, also in the forms `ru_RU.UTF-8` and `ru-RU`; English for everything else."""
        return cls.RU if os.environ.get("SIGHTLINE_LANG", "").lower().startswith("ru") else cls.EN


@cache
def catalogue(package: Path, language: Language) -> gettext.NullTranslations:
    """What the package in this folder says in a language; a text that is not in it stays English."""
    return gettext.translation("sightline", package / "locale", languages=[language], fallback=True)


def to_say(english: str) -> str:
    """The text as it is. Marks for `make words` what is not the first argument of a `say` itself."""
    return english


def say(english: str, language: Language | None = None, **fields: Any) -> str:
    """The client's text in the language, the chosen one unless given, its {fields} filled in."""
    return catalogue(PACKAGE, language or Language.chosen()).gettext(english).format(**fields)


def meaning(code: Code, language: Language | None = None) -> str:
    """What a code means, in a few words; in English, whose sentences say it, the code itself."""
    return catalogue(PACKAGE, language or Language.chosen()).pgettext(CODE, code)


REASONS: Mapping[Reason, str] = {
    Reason.EMPTY_INDEX: to_say("no photo is in the index yet"),
    Reason.NOTHING_SIMILAR: to_say("nothing known looks like it"),
    Reason.NO_TRUSTED_EVIDENCE: to_say("similar photos are known, but none with coordinates to trust"),
    Reason.TOO_FEW_WITNESSES: to_say("too few photos speak for this place"),
    Reason.NEIGHBOURS_DISAGREE: to_say("similar photos lie in different places"),
    Reason.LOOK_ALIKE_PLACES: to_say("several places look like it: a photo from another side may tell them apart"),
    Reason.UNVERIFIED: to_say("similar photos are known, but it is not sure that they show the same place"),
    Reason.ONLY_OWN_COPIES: to_say("nothing is known but the photo itself and copies of it"),
    Reason.OUTSIDE_COVERAGE: to_say("no photo is known where it was looked for"),
    Reason.NO_PLACE_IN_PICTURE: to_say("the picture shows no place: it is blank, a document or a screenshot"),
    Reason.WITHHELD: to_say("its place lies in an area of which nothing is told"),
}


#: By the kind of its confidence, what an answer rests on.
_LOCATED: Mapping[ConfidenceKind, str] = {
    ConfidenceKind.PROBABILITY: to_say("trusted photos that speak for it: {count}, within {radius_m:.0f} m"),
    ConfidenceKind.UNCALIBRATED: to_say("trusted photos that show the same: {count}, within {radius_m:.0f} m"),
    ConfidenceKind.COSINE: to_say("the position of the most similar photo"),
}


def explained(answer: Answer, language: Language | None = None) -> str:
    """Why there is no answer, or what it rests on, in a sentence for people."""
    if answer.reason is not None:
        # One of a later release is explained by its worker.
        known = REASONS.get(answer.reason)
        return answer.message if known is None else say(known, language)
    said = _LOCATED.get(answer.confidence_kind, to_say("{count} trusted photos agree within {radius_m:.0f} m"))
    return say(said, language, count=len(answer.evidence), radius_m=answer.radius_m or 0.0)
